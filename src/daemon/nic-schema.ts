/** The form of NICs with physical and virtual functions in the configuration file: `nics`. */
import { z } from 'zod';
import { DEFAULT_DOORBELL_POLL_US } from '../device/ixgbe/nic-function.ts';
import { VEB_MIRRORS } from '../device/ixgbe/veb.ts';
import { choice, integer, isOn, name, onOff } from './config-values.ts';
import { anyVlan, mac, tapName, trunk, vlan } from './net-values.ts';
import { MAX_VFS, vfNumber } from './vf-schema.ts';

export const NIC_MODELS = ['82599'] as const;
/** The 82599 has two. */
export const MAX_NIC_PORTS = 2;
export const LINKS = ['10G', 'none'] as const;

/** What a link carries, in Mb/s; undefined: as much as it can. */
export function linkMbps(link: unknown): number | undefined {
  return link === 'none' ? undefined : 10_000;
}

export const PCIE_LIMITS = ['none', 'gen2x8'] as const;

export const DOORBELLS = ['mapped', 'trapped'] as const;
const MAX_DOORBELL_POLL_US = 1_000_000;

const WIRE_KINDS = ['switch', 'tap'] as const;
const wireError = 'expected none, or one of { switch: NAME }, { tap: NAME }';

const wireObject = z
  .strictObject(
    {
      switch: name.optional().describe('A switch of this configuration.'),
      tap: tapName.optional().describe('A tap interface of the host; made if it is not there.'),
      vlan: vlan.optional().describe('Access VLAN of the port; with `trunk`: the untagged one.'),
      trunk: trunk.optional().describe('VLANs that the port carries with tags.'),
    },
    { error: wireError },
  )
  .refine((wire) => WIRE_KINDS.filter((kind) => wire[kind] !== undefined).length === 1, {
    error: `expected exactly one of ${WIRE_KINDS.join(', ')}`,
  });

const mirroredVf = vfNumber.describe('The number of a virtual function of the port.');

const mirror = z
  .strictObject(
    {
      vfs: z
        .array(mirroredVf, { error: 'expected a list of virtual functions' })
        .optional()
        .describe('What these functions receive.'),
      uplink: onOff.default('off').describe('What comes from the wire.'),
      downlink: onOff.default('off').describe('What goes to the wire.'),
      vlans: z
        .array(anyVlan, { error: 'expected a list of VLANs' })
        .optional()
        .describe('What is of these VLANs; 0: of none.'),
      to: mirroredVf.describe('The virtual function that gets a copy.'),
    },
    { error: 'expected a mapping, such as { vfs: [1, 2], to: 3 }' },
  )
  .refine(
    ({ vfs = [], vlans = [], uplink, downlink }) =>
      vfs.length > 0 || vlans.length > 0 || isOn(uplink) || isOn(downlink),
    { error: 'copies nothing: give some of vfs, uplink, downlink, vlans' },
  );

const port = z
  .strictObject(
    {
      wire: z
        .union([z.literal('none'), wireObject], { error: wireError })
        .default('none')
        .describe('What the port is plugged into. Default: none, its functions only.'),
      link: choice(LINKS)
        .default('10G')
        .describe('`10G`: the wire carries 10 Gb/s each way; `none`: as much as it can.'),
      mac: mac
        .optional()
        .describe(
          "The port's MAC address. Default: one made of the NIC's name and the port's number.",
        ),
      vfs: integer(1, MAX_VFS, 'a number of virtual functions')
        .default(MAX_VFS)
        .describe(
          'Virtual functions that there may be: each has 2 queue pairs, with up to 31 of them 4.',
        ),
      mirrors: z
        .array(mirror, { error: 'expected a list of mirroring rules' })
        .max(VEB_MIRRORS, { error: `expected at most ${VEB_MIRRORS} mirroring rules` })
        .default([])
        .describe('Method sriov: rules that copy traffic of the port to a virtual function.'),
    },
    { error: 'expected a mapping, such as { wire: { switch: lan }, link: 10G }' },
  )
  .superRefine(({ mirrors, vfs }, context) => {
    for (const [index, { to, vfs: mirrored = [] }] of mirrors.entries()) {
      const absent = [to, ...mirrored].find((vf) => vf >= vfs);
      if (absent === undefined) continue;
      const message = `the port has no virtual function ${absent}: its vfs: ${vfs} makes 0 to ${vfs - 1}`;
      context.addIssue({ code: 'custom', message, path: ['mirrors', index] });
    }
  });

const models = NIC_MODELS.map((model) => z.literal(Number(model)));

export const nicSchema = z.strictObject(
  {
    model: z
      .union([...models, z.enum(NIC_MODELS)], { error: `expected one of ${NIC_MODELS.join(', ')}` })
      .describe('The chip: 82599, a dual-port 10 GbE controller with 63 virtual functions a port.'),
    ports: z
      .array(port, { error: 'expected a list of ports' })
      .min(1, { error: 'expected at least one port' })
      .max(MAX_NIC_PORTS, { error: `expected at most ${MAX_NIC_PORTS} ports` })
      .describe('Its ports: NAME/0, NAME/1.'),
    doorbell_poll_us: integer(0, MAX_DOORBELL_POLL_US, 'microseconds')
      .default(DEFAULT_DOORBELL_POLL_US)
      .describe(
        'How long an idle lane may leave a doorbell of its functions unseen: a store to it wakes nobody. 0: the lane never sleeps.',
      ),
    doorbells: choice(DOORBELLS)
      .default('mapped')
      .describe(
        "`mapped`: guests' doorbells are memory, and no traps; `trapped`: each is a message, and registers are as strict as the chip's.",
      ),
    pcie: choice(PCIE_LIMITS)
      .default('none')
      .describe(
        '`gen2x8`: as much as PCI Express 2.0 with 8 lanes carries; `none`: as much as it can.',
      ),
  },
  { error: 'expected a mapping, such as { model: 82599, ports: [{ wire: { switch: lan } }] }' },
);

export type NicDocument = z.output<typeof nicSchema>;
