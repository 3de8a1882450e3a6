/**
 * The form of the configuration file. Every key has a description, which ends up in the published
 * JSON schema and in docs/configuration.md, and every value says what it expects.
 */
import { z } from 'zod';
import { MiB } from '../base/bits.ts';
import { netSchema } from './card-schema.ts';
import {
  bytesOf,
  choice,
  DEFAULT_RUN_PATH,
  integer,
  name,
  path,
  size,
  text,
} from './config-values.ts';
import { diskSchema, guestDiskSchema } from './disk-schema.ts';
import { tapName, trunk, vlan } from './net-values.ts';
import { nicSchema } from './nic-schema.ts';

export const MAX_LANES = 64;
/** ITU-T and IEEE 802.1D allow this range for the ageing time. */
const MIN_AGEING = 10;
const MAX_AGEING = 1_000_000;

/** What is in the design and not yet in this version: told apart from a slip of the pen. */
export const LATER_METHODS: Readonly<Record<string, readonly string[]>> = {
  net: ['vmdq'],
  disk: ['vmdq', 'direct', 'sriov'],
};
export const LATER_KEYS: readonly string[] = ['controllers'];

const WIRE_KINDS = ['tap', 'switch', 'capture'] as const;

const wireObject = z
  .strictObject(
    {
      tap: tapName.optional().describe('A tap interface of the host; made if it is not there.'),
      switch: name.optional().describe('Another switch of this configuration.'),
      capture: path
        .optional()
        .describe('A pcapng file that all frames to the wire are written to.'),
      vlan: vlan.optional().describe('Access VLAN of the wire; with `trunk`: the untagged one.'),
      trunk: trunk.optional().describe('VLANs that the wire carries with tags.'),
    },
    { error: 'expected none, or one of { tap: NAME }, { switch: NAME }, { capture: FILE }' },
  )
  .refine((wire) => WIRE_KINDS.filter((kind) => wire[kind] !== undefined).length === 1, {
    error: `expected exactly one of ${WIRE_KINDS.join(', ')}`,
  });

const switchSchema = z.strictObject(
  {
    wire: z
      .union([z.literal('none'), wireObject], {
        error: 'expected none, or one of { tap: NAME }, { switch: NAME }, { capture: FILE }',
      })
      .default('none')
      .describe('What the switch is plugged into outside. Default: none, guests only.'),
    ageing: integer(MIN_AGEING, MAX_AGEING, 'seconds')
      .default(300)
      .describe('Seconds after which a MAC address that was not heard again is forgotten.'),
    lane: integer(0, MAX_LANES - 1, 'the number of a lane')
      .optional()
      .describe('The lane that runs the switch and its ports. Default: the one with the fewest.'),
  },
  { error: 'expected a mapping, such as { wire: none }' },
);

const guest = z.strictObject(
  {
    memory: size
      .refine((value) => bytesOf(value) % MiB === 0, { error: 'expected whole megabytes' })
      .default('512M')
      .describe("The guest's memory, for the command lines that Sluice prints."),
    net: z
      .array(netSchema, { error: 'expected a list of network cards' })
      .default([])
      .describe('The network cards, in the order of their numbers: net0, net1 …'),
    disk: z
      .array(guestDiskSchema, { error: 'expected a list of disks' })
      .default([])
      .describe(
        'The disks, in the order of their numbers: disk0, disk1 …; it boots from the first.',
      ),
  },
  { error: 'expected a mapping, such as { memory: 512M, net: [ … ], disk: [ … ] }' },
);

/** The number behind it, -1, tells the kernel to leave the owner as it is (chown(2)). */
const MAX_OWNER = 0xffff_fffe;
const OWNER = 'a name, or a number';
const OWNERS = `${OWNER}, 0 to ${MAX_OWNER}`;

const owner = z.union(
  [
    integer(0, MAX_OWNER, OWNER),
    text(/^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$/, OWNERS).refine(
      (value) => !/^\d+$/.test(value) || Number(value) <= MAX_OWNER,
      { error: `expected ${OWNERS}` },
    ),
  ],
  { error: `expected ${OWNERS}` },
);

const run = z.strictObject(
  {
    path: path.default(DEFAULT_RUN_PATH).describe('The directory, relative to that of this file.'),
    mode: text(/^0?[0-7]{3}$/, 'permission bits in quotes, such as "0700"')
      .default('0700')
      .describe('Permission bits of the directory.'),
    owner: owner.optional().describe("Who the directory and the guests' sockets belong to."),
    group: owner
      .optional()
      .describe("The group that the directory and the guests' sockets belong to."),
  },
  { error: 'expected a path, or a mapping of path, mode, owner, group' },
);

const cpu = integer(0, 1023, 'the number of a processor');
const lane = z.strictObject(
  {
    cpus: z
      .array(cpu, { error: 'expected a list of processor numbers' })
      .min(1, { error: 'expected at least one processor number' })
      .optional()
      .describe('Processors that the lane runs on. Default: any.'),
    idle_poll_us: integer(0, 1_000_000, 'microseconds')
      .optional()
      .describe('How long the lane polls without work before it sleeps.'),
  },
  { error: 'expected a mapping, such as { cpus: [1] }' },
);

const lanesError = `expected a number of lanes, 1 to ${MAX_LANES}, or a list of so many { cpus: [N] }`;

/** The whole file. */
export const configSchema = z
  .strictObject(
    {
      run: z
        .union([path, run], { error: 'expected a path, or a mapping of path, mode, owner, group' })
        .default(DEFAULT_RUN_PATH)
        .describe('Where the sockets, the lock and the journals are.'),
      isolation: choice(['normal', 'strict'])
        .default('normal')
        .describe('`strict` refuses guest memory that its owner could shrink (not sealed).'),
      lanes: z
        .union(
          [
            integer(1, MAX_LANES, 'a number of lanes'),
            z.array(lane).min(1, { error: lanesError }).max(MAX_LANES, { error: lanesError }),
          ],
          {
            error: lanesError,
          },
        )
        .default(1)
        .describe(
          'Threads that move frames and blocks; a number, or a list with the processors of each.',
        ),
      switches: z
        .record(name, switchSchema, { error: 'expected a mapping of switches by name' })
        .default({})
        .describe('The switches by name.'),
      nics: z
        .record(name, nicSchema, { error: 'expected a mapping of NICs by name' })
        .default({})
        .describe('Network cards that guests have by their functions, by name.'),
      disks: z
        .record(name, diskSchema, { error: 'expected a mapping of disks by name' })
        .default({})
        .describe('The disks by name.'),
      guests: z
        .record(name, guest, { error: 'expected a mapping of guests by name' })
        .default({})
        .describe('The guests by name.'),
    },
    { error: 'expected a mapping of run, isolation, lanes, switches, nics, disks, guests' },
  )
  .describe('Configuration of Sluice');

export { MAX_MTU } from './card-schema.ts';

export type ConfigDocument = z.output<typeof configSchema>;

/** The JSON schema of the configuration file (draft 2020-12), for editors. */
export function configJsonSchema(): object {
  const schema = z.toJSONSchema(configSchema, { io: 'input' });
  return { title: 'Sluice configuration', ...schema };
}
