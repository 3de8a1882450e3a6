/** What is asked of a network bench, with its defaults and limits. */
import { z } from 'zod';
import { SluiceError } from '../base/errors.ts';
import { MAX_MTU } from '../daemon/config-schema.ts';
import type { E1000Model } from '../device/e1000/function.ts';
import { IXGBE_MOST_PAIRS } from '../driver/ixgbe/ixgbe-driver.ts';
import { MAX_TEST_FRAME } from '../guest/embedded/test-frame.ts';
import { ETHERNET_HEADER_BYTES } from '../spec/ethernet.ts';
import { flowsOf } from './flows.ts';
import { parseOptions } from './parse-options.ts';
import {
  CARD_MODELS,
  DIRECTIONS,
  GUEST_KINDS,
  LINKS,
  METHODS,
  type Method,
} from './report-schema.ts';

/** Smaller is no Ethernet frame (IEEE 802.3 §3.2.8: 64 bytes with the check sequence). */
export const MIN_FRAME = 60;
/** Below this, IPv6 is switched off by Linux (RFC 8200 §5), and IPv4 hardly works. */
const MIN_MTU = 1280;
export const MAX_GUESTS = 256;
export const MAX_QUEUE_PAIRS = 16;
/** Ports of an 82599, and pairs that a virtual function has at most. */
const MAX_PORTS = 2;
const MAX_VF_PAIRS = 4;
/** EITR holds 1 to 511 units of 2 us. */
const MIN_ITR = 956;
const MAX_ITR = 488_281;
/** Buffers of a ring: few more than one frame on its way takes, and as many as ixgbevf can have. */
const MIN_RING = 8;
const MAX_RING = 4096;

const netOptionsSchema = z.strictObject({
  method: z.enum(METHODS).default('paravirtual'),
  /** Which card guests see. */
  model: z.enum(CARD_MODELS).optional(),
  /** `direct`, `sriov`: ports of each card that are used, in turn. */
  ports: z.int().min(1).max(MAX_PORTS).optional(),
  link: z.enum(LINKS).optional(),
  /** `direct`, `sriov`: guests exchange frames with machines beyond the wires, not with each other. */
  outside: z.boolean().default(false),
  /** Receive buffers of each pair of queues; chosen by the number of guests unless given. */
  ring: z.int().min(MIN_RING).max(MAX_RING).optional(),
  /** Microseconds that an idle lane may leave a doorbell unseen; the NIC's default unless given. */
  doorbellPoll: z.int().min(0).max(1_000_000).optional(),
  /** Guests look for frames after interrupts only, of which there are so many a second; 0: no bound. */
  itr: z.union([z.literal('adaptive'), z.literal(0), z.int().min(MIN_ITR).max(MAX_ITR)]).optional(),
  guest: z.enum(GUEST_KINDS).default('embedded'),
  guests: z.int().min(1).max(MAX_GUESTS).default(2),
  frame: z.int().min(MIN_FRAME).max(MAX_TEST_FRAME).default(1514),
  direction: z.enum(DIRECTIONS).default('rx'),
  seconds: z.number().min(0.1).max(3600).default(3),
  runs: z.int().min(1).max(100).default(3),
  packed: z.boolean().default(false),
  queues: z.int().min(1).max(MAX_QUEUE_PAIRS).default(1),
  verify: z.boolean().default(false),
  /** Frames a second that each sender sends; undefined: as many as possible. */
  rate: z.number().positive().optional(),
});

export type NetOptions = z.output<typeof netOptionsSchema>;

/** Fills in defaults. @throws SluiceError `usage` naming the option and what it may be. */
export function parseNetOptions(input: z.input<typeof netOptionsSchema>): NetOptions {
  const options = withModel(parseOptions(netOptionsSchema, input, 'see sluice bench net --help'));
  if (!options.outside) flowsOf(options.direction, options.guests);
  if (options.guest !== 'embedded') {
    if (options.verify || options.rate !== undefined || options.ring !== undefined) {
      throw new SluiceError('usage', '--verify, --rate and --ring are for embedded guests', {
        remedy: 'leave them out, or use --guest embedded',
      });
    }
    const mtu = options.frame - ETHERNET_HEADER_BYTES;
    if (mtu < MIN_MTU || mtu > MAX_MTU) {
      throw new SluiceError(
        'usage',
        `--frame ${options.frame}: real guests would need an MTU of ${mtu}`,
        {
          remedy: `choose ${MIN_MTU + ETHERNET_HEADER_BYTES} to ${MAX_MTU + ETHERNET_HEADER_BYTES} bytes`,
        },
      );
    }
    if (options.guest === 'uml' && (options.packed || options.queues > 1)) {
      throw new SluiceError(
        'usage',
        'User-Mode Linux has neither packed rings nor several queues',
        {
          remedy: 'leave --packed and --queues out, or use --guest qemu',
        },
      );
    }
  }
  return options;
}

const DEFAULT_MODEL: E1000Model = '82574';
const NIC_MODEL = '82599';

/** Methods in which guests get functions of an 82599. */
export function hasNic(method: Method): method is 'direct' | 'sriov' {
  return method === 'direct' || method === 'sriov';
}

/** The card that a bench of the method has. @throws SluiceError `usage` for what the method has not. */
function withModel(options: NetOptions): NetOptions {
  const { method, model, guest, packed, queues, ports, link, itr, doorbellPoll } = options;
  const { outside } = options;
  const isEmulated = method === 'emulated';
  const wrongModel = hasNic(method) ? model !== NIC_MODEL : !isEmulated || model === NIC_MODEL;
  if (model !== undefined && wrongModel) {
    const owner = model === NIC_MODEL ? 'direct or sriov' : 'emulated';
    throw new SluiceError('usage', `--model ${model} is a card of --method ${owner}`, {
      remedy: 'give both, or none of them',
    });
  }
  if (!hasNic(method) && (outside || (ports ?? link ?? itr ?? doorbellPoll) !== undefined)) {
    throw new SluiceError(
      'usage',
      '--ports, --link, --outside, --itr and --doorbell-poll are for --method direct and sriov',
      { remedy: 'leave them out' },
    );
  }
  if (method === 'paravirtual') return options;
  if (guest !== 'embedded') {
    throw new SluiceError('usage', `--method ${method} is measured with embedded guests`, {
      remedy: 'leave --guest out; npm run peers -- emulated has guests of QEMU',
    });
  }
  if (isEmulated) {
    if (packed || queues > 1) {
      throw new SluiceError('usage', '--packed and --queues are for virtqueues', {
        remedy: 'leave them out: an emulated card has one pair of rings',
      });
    }
    return { ...options, model: model ?? DEFAULT_MODEL };
  }
  if (packed)
    throw new SluiceError('usage', '--packed is for virtqueues', { remedy: 'leave it out' });
  if (method === 'direct' && ports !== undefined) {
    throw new SluiceError('usage', '--ports is for --method sriov', {
      remedy: 'leave it out: each guest has a port of its own',
    });
  }
  const pairs = method === 'sriov' ? MAX_VF_PAIRS : IXGBE_MOST_PAIRS;
  if (queues > pairs) {
    throw new SluiceError('usage', `--queues ${queues}: --method ${method} has up to ${pairs}`, {
      remedy: 'choose fewer',
    });
  }
  return { ...options, model: NIC_MODEL, ports: ports ?? MAX_PORTS, link: link ?? LINKS[0] };
}
