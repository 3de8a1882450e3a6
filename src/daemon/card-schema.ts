/** The form of network cards in the configuration file: `net` of a guest. */
import { z } from 'zod';
import { E1000_MODELS } from '../device/e1000/function.ts';
import { choice, integer, name, onOff } from './config-values.ts';
import { mac, qos, rate, trunk, vlan } from './net-values.ts';
import { MAX_NIC_PORTS } from './nic-schema.ts';
import { vfNumber, vfShape } from './vf-schema.ts';

/** Queue pairs a device may have: one vhost-user device has at most 256 rings. */
const MAX_QUEUE_PAIRS = 128;
/** Frames up to this MTU fit into the buffers of every driver. */
export const MAX_MTU = 65521;
const MIN_MTU = 68;

/** Interrupts a second: a throttle of an 82599 reaches to a millisecond (EITR, datasheet §8.2.3.5.12). */
const MIN_ITR = 1000;
const MAX_ITR = 1_000_000;

export const OFFLOAD_NAMES = ['csum', 'tso4', 'tso6', 'ecn', 'uso'] as const;

type Offload = (typeof OFFLOAD_NAMES)[number];

/** What a list of offloads lacks (VIRTIO 1.3 §5.1.3.1); the device would leave out what rests on it. */
function lackOf(names: readonly Offload[]): string | undefined {
  const all = new Set(names);
  const has = (name: Offload): boolean => all.has(name);
  const first = names.find((name) => name !== 'csum');
  if (first !== undefined && !has('csum')) return `${first} rests on csum: add csum`;
  if (has('ecn') && !has('tso4') && !has('tso6'))
    return 'ecn rests on tso4 or tso6: add one of them, or leave ecn out';
  return undefined;
}

/** What all methods take that plug a guest into a switch in software. */
const plugged = {
  switch: name.describe('The switch that the card is plugged into.'),
  mac: mac
    .optional()
    .describe(
      "The card's MAC address. Default: one made of the guest's name and the card's number.",
    ),
  vlan: vlan.optional().describe('Access VLAN; with `trunk`: the one that is carried untagged.'),
  trunk: trunk.optional().describe('VLANs that the guest sends and gets with 802.1Q tags.'),
  qos: qos
    .optional()
    .describe('802.1Q priority of the frames that the guest sends without tag; with `vlan`.'),
  max_tx_rate: rate.default(0).describe('Most that the guest may send, in Mb/s; 0: no limit.'),
  max_rx_rate: rate.default(0).describe('Most that the guest is sent, in Mb/s; 0: no limit.'),
  spoofchk: onOff
    .default(false)
    .describe('Drop frames whose source MAC address is not that of the card.'),
};

/** Frames of no VLAN leave without a tag, and nobody would see their priority. */
function checkPriority(
  card: { readonly qos?: number | undefined; readonly vlan?: number | undefined },
  context: z.RefinementCtx,
): void {
  if ((card.qos ?? 0) === 0 || card.vlan !== undefined) return;
  context.addIssue({
    code: 'custom',
    path: ['qos'],
    message: 'without a vlan, whose tag carries the priority: give a vlan, or leave qos out',
  });
}

const METHODS = ['paravirtual', 'emulated', 'direct', 'sriov'] as const;
const METHOD = 'How the guest gets its network card.';
const expected = `expected a mapping with method: ${METHODS.join(', ')}`;

const paravirtual = z
  .strictObject(
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
        .superRefine((value, context) => {
          const lack = Array.isArray(value) ? lackOf(value) : undefined;
          if (lack !== undefined) context.addIssue({ code: 'custom', message: lack });
        })
        .default(true)
        .describe('Checksum and segmentation offloads that are offered to the guest.'),
      server: choice(['listen', 'connect'])
        .default('listen')
        .describe('Whether Sluice listens on the socket, or connects to where the VMM listens.'),
    },
    { error: expected },
  )
  .superRefine(checkPriority);

/** In YAML the numbers of the chips are numbers. */
const models = E1000_MODELS.map((model) => z.literal(Number(model)));

const emulated = z
  .strictObject(
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
  )
  .superRefine(checkPriority);

/** What both methods take that give a guest a function of a NIC. */
const ofNic = {
  nic: name.describe('The NIC.'),
  port: integer(0, MAX_NIC_PORTS - 1, 'the number of a port').describe('Which port of the NIC.'),
  itr: integer(MIN_ITR, MAX_ITR, 'interrupts a second')
    .optional()
    .describe(
      'Most interrupts of each vector in a second, if the driver asks for more. Default: as the driver asks.',
    ),
};

const direct = z.strictObject(
  { method: choice(['direct']).describe(METHOD), ...ofNic },
  { error: expected },
);

const sriov = z.strictObject(
  {
    method: choice(['sriov']).describe(METHOD),
    ...ofNic,
    vf: vfNumber.describe('Which virtual function of the port.'),
    ...vfShape,
  },
  { error: expected },
);

export const netSchema = z.discriminatedUnion('method', [paravirtual, emulated, direct, sriov], {
  error: ({ code }) =>
    code === 'invalid_union' ? `expected one of ${METHODS.join(', ')}` : expected,
});

export type NetDocument = z.output<typeof netSchema>;
