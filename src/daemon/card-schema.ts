/** The form of network cards in the configuration file: `net` of a guest. */
import { z } from 'zod';
import { E1000_MODELS } from '../device/e1000/function.ts';
import { choice, integer, name, onOff, text } from './config-values.ts';

/** Queue pairs a device may have: one vhost-user device has at most 256 rings. */
const MAX_QUEUE_PAIRS = 128;
const MAX_VLAN = 4094;
/** Frames up to this MTU fit into the buffers of every driver. */
export const MAX_MTU = 65521;
const MIN_MTU = 68;
const MAX_RATE_MBPS = 4_000_000;

export const vlan = integer(1, MAX_VLAN, 'a VLAN id');
export const trunk = z
  .array(integer(0, MAX_VLAN, 'a VLAN id (0: frames without tag)'), {
    error: 'expected a list of VLAN ids, such as [10, 20]',
  })
  .min(1, { error: 'expected at least one VLAN id' });
const rate = integer(0, MAX_RATE_MBPS, 'a rate in Mb/s (0: no limit)');

export const OFFLOAD_NAMES = ['csum', 'tso4', 'tso6', 'ecn', 'uso'] as const;

/** What all methods take that plug a guest into a switch in software. */
const plugged = {
  switch: name.describe('The switch that the card is plugged into.'),
  mac: text(
    /^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$/,
    'a unicast MAC address, such as "52:54:00:00:00:01" (in quotes)',
  )
    .refine((mac) => mac !== '00:00:00:00:00:00', {
      error: 'expected a MAC address that is not all zeros',
    })
    .optional()
    .describe(
      "The card's MAC address. Default: one made of the guest's name and the card's number.",
    ),
  vlan: vlan.optional().describe('Access VLAN; with `trunk`: the one that is carried untagged.'),
  trunk: trunk.optional().describe('VLANs that the guest sends and gets with 802.1Q tags.'),
  qos: integer(0, 7, 'a priority')
    .optional()
    .describe('802.1Q priority of the frames that the guest sends without tag; with `vlan`.'),
  max_rx_rate: rate.default(0).describe('Most that the guest is sent, in Mb/s; 0: no limit.'),
  spoofchk: onOff
    .default(false)
    .describe('Drop frames whose source MAC address is not that of the card.'),
};

const METHODS = ['paravirtual', 'emulated'] as const;
const METHOD = 'How the guest gets its network card.';
const expected = `expected a mapping with method: ${METHODS.join(' or ')}`;

const paravirtual = z.strictObject(
  {
    method: choice(['paravirtual']).describe(METHOD),
    ...plugged,
    queues: integer(1, MAX_QUEUE_PAIRS, 'a number of queue pairs')
      .default(1)
      .describe('Queue pairs (multiqueue), best one for each processor of the guest.'),
    mtu: integer(MIN_MTU, MAX_MTU, 'an MTU in bytes')
      .optional()
      .describe(
        "The MTU that the guest's driver is told. Default: none is told, which means 1500.",
      ),
    packed: onOff
      .default(false)
      .describe('Packed rings (VIRTIO 1.3 §2.8) if the driver knows them.'),
    offloads: z
      .union([onOff, z.array(choice(OFFLOAD_NAMES))], {
        error: `expected on, off, or a list of ${OFFLOAD_NAMES.join(', ')}`,
      })
      .default(true)
      .describe('Checksum and segmentation offloads that are offered to the guest.'),
    max_tx_rate: rate.default(0).describe('Most that the guest may send, in Mb/s; 0: no limit.'),
    server: choice(['listen', 'connect'])
      .default('listen')
      .describe('Whether Sluice listens on the socket, or connects to where the VMM listens.'),
  },
  { error: expected },
);

/** In YAML the numbers of the chips are numbers. */
const models = E1000_MODELS.map((model) => z.literal(Number(model)));

const emulated = z.strictObject(
  {
    method: choice(['emulated']).describe(METHOD),
    model: z
      .union([...models, z.enum(E1000_MODELS)], {
        error: `expected one of ${E1000_MODELS.join(', ')}`,
      })
      .describe('The chip: 82540 (82540EM, PCI) or 82574 (82574L, PCI Express).'),
    ...plugged,
  },
  { error: expected },
);

export const netSchema = z.discriminatedUnion('method', [paravirtual, emulated], {
  error: ({ code }) =>
    code === 'invalid_union' ? `expected one of ${METHODS.join(', ')}` : expected,
});

export type NetDocument = z.output<typeof netSchema>;
