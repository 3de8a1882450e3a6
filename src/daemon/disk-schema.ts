/** The form of disks in the configuration file: `disks`, and `disk` of a guest. */
import { z } from 'zod';
import { DEFAULT_BURST_S } from '../block/limits.ts';
import { parseNbdUri } from '../block/nbd/uri.ts';
import { IMAGE_FORMATS } from '../block/open/image-tools.ts';
import { DEFAULT_RECONNECT_MS, MAX_CONNECTIONS } from '../block/open/nbd.ts';
import { DEFAULT_SEG_MAX } from '../device/virtio-blk/features.ts';
import { AHCI_MAX_PORTS } from '../spec/ahci.ts';
import { BLK_ID_BYTES } from '../spec/virtio-blk.ts';
import {
  choice,
  integer,
  isOn,
  name,
  onOff,
  path,
  problemOf,
  size,
  text,
} from './config-values.ts';
import { faults } from './fault-schema.ts';

/** One vhost-user device has at most 256 rings. */
const MAX_QUEUES = 256;
/** A queue has at most 1024 descriptors; two of a chain are the request's head and status. */
const MAX_SEGMENTS = 1022;
const MAX_RECONNECT_S = 86_400;
const MAX_IOPS = 100_000_000;
const MAX_BURST_S = 3600;

/** What a disk can be, each with the keys that not all kinds have. */
const DISK_KINDS = {
  file: ['direct', 'block_size'],
  memory: ['block_size'],
  nbd: ['connections', 'reconnect', 'after_loss'],
  image: ['format', 'overlay', 'direct', 'connections', 'reconnect'],
} as const;

export type DiskKind = keyof typeof DISK_KINDS;

const KIND_NAMES = Object.keys(DISK_KINDS) as DiskKind[];

const requests = integer(1, MAX_IOPS, 'requests a second');

const diskObject = z.strictObject(
  {
    file: path.optional().describe('A raw file or a block device of the host.'),
    memory: size.optional().describe('A disk of this size in memory, empty at each start.'),
    nbd: text(/^nbd(\+unix)?:\/\/\S+$/, 'a URI, such as "nbd://127.0.0.1:10809/export"')
      .optional()
      .describe(
        'An export of an NBD server: `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`.',
      ),
    image: path.optional().describe('A file of another format, which qemu-nbd is started for.'),
    direct: onOff
      .optional()
      .describe('`file`, `image`: past the page cache of the host (O_DIRECT). Default: off.'),
    connections: integer(1, MAX_CONNECTIONS, 'a number of connections')
      .optional()
      .describe('`nbd`, `image`: connections, if the server allows several. Default: 1.'),
    reconnect: integer(0, MAX_RECONNECT_S, 'seconds')
      .optional()
      .describe(
        `\`nbd\`, \`image\`: seconds that requests wait for a server that is gone, before they fail. Default: ${DEFAULT_RECONNECT_MS / 1000}.`,
      ),
    after_loss: choice(['trust', 'fail'])
      .optional()
      .describe(
        '`nbd`: after a connection was lost with completed writes that no flush had made durable, `trust` the server to have them, or `fail` one flush. Default: trust.',
      ),
    format: choice(IMAGE_FORMATS)
      .optional()
      .describe('`image`: the format of the file; never guessed, because a guest could forge it.'),
    overlay: path
      .optional()
      .describe(
        '`image`: a qcow2 file that takes what is written, while the image stays as it is; made if it is not there.',
      ),
    readonly: onOff
      .default(false)
      .describe('The disk cannot be written; several guests may then have it.'),
    serial: text(
      new RegExp(`^[\\x21-\\x7e]{1,${BLK_ID_BYTES}}$`),
      `up to ${BLK_ID_BYTES} ASCII characters without blanks`,
    )
      .optional()
      .describe(
        `The serial number that the guest sees. Default: the first ${BLK_ID_BYTES} characters of the disk's name.`,
      ),
    block_size: z
      .union([z.literal(512), z.literal(4096)], { error: 'expected 512 or 4096' })
      .optional()
      .describe('`file`, `memory`: the logical block that the guest sees, in bytes. Default: 512.'),
    cache: choice(['writeback', 'writethrough'])
      .default('writeback')
      .describe('`writethrough`: a write is durable when it completes, not only after a flush.'),
    discard: onOff
      .default(true)
      .describe('Whether blocks that the guest gives up (fstrim) are given back.'),
    iops: requests.optional().describe('Most requests a second.'),
    iops_read: requests.optional().describe('Most reads a second.'),
    iops_write: requests.optional().describe('Most writes a second.'),
    bps: size.optional().describe('Most bytes a second, such as 100M.'),
    bps_read: size.optional().describe('Most bytes a second that are read.'),
    bps_write: size.optional().describe('Most bytes a second that are written.'),
    burst: integer(1, MAX_BURST_S, 'seconds')
      .optional()
      .describe(
        `What may pass at once after a pause: the limits of so many seconds. Default: ${DEFAULT_BURST_S}.`,
      ),
    faults: faults.optional().describe('What is to go wrong, to test drivers with.'),
  },
  {
    error:
      'expected a mapping with one of { file: PATH }, { memory: SIZE }, { nbd: URI }, { image: PATH }',
  },
);

/** Limits of a disk: without one of them there is nothing to burst. */
const LIMITS = ['iops', 'iops_read', 'iops_write', 'bps', 'bps_read', 'bps_write'] as const;

type DiskObject = z.output<typeof diskObject>;

/** Which kind a disk is, if it is exactly one. */
export function kindOf(disk: Partial<Record<DiskKind, unknown>>): DiskKind | undefined {
  const given = KIND_NAMES.filter((kind) => disk[kind] !== undefined);
  return given.length === 1 ? given[0] : undefined;
}

/** What contradicts itself in a disk: key ('' for the disk as a whole) and message. */
function contradictionsOf(disk: DiskObject): (readonly [key: string, message: string])[] {
  const kind = kindOf(disk);
  if (kind === undefined) return [['', `expected exactly one of ${KIND_NAMES.join(', ')}`]];
  const found: (readonly [string, string])[] = [];
  const own: readonly string[] = DISK_KINDS[kind];
  for (const key of new Set(Object.values(DISK_KINDS).flat())) {
    if (disk[key] === undefined || own.includes(key)) continue;
    const kinds = KIND_NAMES.filter((other) => DISK_KINDS[other].some((name) => name === key));
    found.push([key, `only for ${kinds.join(' and ')}, and this disk is of kind ${kind}`]);
  }
  if (kind === 'image' && disk.format === undefined)
    found.push(['format', `missing: expected one of ${IMAGE_FORMATS.join(', ')}`]);
  if (disk.nbd !== undefined) {
    const uri = disk.nbd;
    const problem = problemOf(() => parseNbdUri(uri));
    if (problem !== undefined) found.push(['nbd', problem]);
  }
  if (disk.burst !== undefined && LIMITS.every((limit) => disk[limit] === undefined))
    found.push(['burst', `without a limit; expected one of ${LIMITS.join(', ')}`]);
  if (isOn(disk.readonly) && disk.faults?.volatile !== undefined)
    found.push(['faults', 'volatile: nothing is written to a disk that is readonly']);
  return found;
}

export const diskSchema = diskObject.superRefine((disk, context) => {
  for (const [key, message] of contradictionsOf(disk))
    context.addIssue({ code: 'custom', path: key === '' ? [] : [key], message });
});

export type DiskDocument = z.output<typeof diskSchema>;

const METHODS = ['paravirtual', 'emulated'] as const;
const METHOD = 'How the guest gets the disk.';
const expected = `expected a mapping with method: ${METHODS.join(' or ')}`;
const ofName = name.describe('The disk, by its name.');

const paravirtual = z.strictObject(
  {
    method: choice(['paravirtual']).describe(METHOD),
    disk: ofName,
    queues: integer(1, MAX_QUEUES, 'a number of queues')
      .default(1)
      .describe('Queues, best one for each processor of the guest.'),
    seg_max: integer(1, MAX_SEGMENTS, 'a number of segments')
      .default(DEFAULT_SEG_MAX)
      .describe("Segments of one request: at most two less than the guest's queues are long."),
    packed: onOff
      .default(false)
      .describe('Packed rings (VIRTIO 1.3 §2.8) if the driver knows them.'),
    server: choice(['listen', 'connect'])
      .default('listen')
      .describe('Whether Sluice listens on the socket, or connects to where the VMM listens.'),
  },
  { error: expected },
);

const emulated = z.strictObject(
  {
    method: choice(['emulated']).describe(METHOD),
    model: choice(['ahci']).describe(
      'The controller: all such disks of a guest are drives of one AHCI controller.',
    ),
    disk: ofName,
    cdrom: onOff
      .default(false)
      .describe('The drive is a cdrom, and the disk, which must be readonly, is its ISO image.'),
    port: integer(0, AHCI_MAX_PORTS - 1, 'a port of the controller')
      .optional()
      .describe('The port that the drive is plugged into. Default: the first that is free.'),
  },
  { error: expected },
);

/** A disk of a guest. */
export const guestDiskSchema = z.discriminatedUnion('method', [paravirtual, emulated], {
  error: ({ code }) =>
    code === 'invalid_union' ? `expected one of ${METHODS.join(', ')}` : expected,
});

export type GuestDiskDocument = z.output<typeof guestDiskSchema>;
