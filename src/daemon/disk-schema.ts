/** The form of disks in the configuration file: `disks`, and `disk` of a guest. */
import { z } from 'zod';
import { describeError } from '../base/errors.ts';
import { parseNbdUri } from '../block/nbd/uri.ts';
import { DEFAULT_SEG_MAX } from '../device/virtio-blk/features.ts';
import { BLK_ID_BYTES } from '../spec/virtio-blk.ts';
import { choice, integer, name, onOff, path, size, text } from './config-values.ts';

/** One vhost-user device has at most 256 rings. */
const MAX_QUEUES = 256;
/** A queue has at most 1024 descriptors; two of a chain are the request's head and status. */
const MAX_SEGMENTS = 1022;
const MAX_CONNECTIONS = 16;
const MAX_IOPS = 100_000_000;
const MAX_BURST_S = 3600;

/** What a disk can be, each with the keys that only it has. */
const DISK_KINDS = {
  file: ['direct'],
  memory: [],
  nbd: ['connections'],
  image: ['format', 'overlay'],
} as const;

export type DiskKind = keyof typeof DISK_KINDS;

const KIND_NAMES = Object.keys(DISK_KINDS) as DiskKind[];

/** Formats that qemu-nbd serves. */
export const IMAGE_FORMATS = ['qcow2', 'qcow', 'qed', 'raw', 'vdi', 'vhdx', 'vmdk', 'vpc'] as const;

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
      .describe('`file`: past the page cache of the host (O_DIRECT). Default: off.'),
    connections: integer(1, MAX_CONNECTIONS, 'a number of connections')
      .optional()
      .describe('`nbd`: connections, if the server allows several. Default: 1.'),
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
      .describe("The serial number that the guest sees. Default: the disk's name."),
    block_size: z
      .union([z.literal(512), z.literal(4096)], { error: 'expected 512 or 4096' })
      .default(512)
      .describe('The logical block that the guest sees, in bytes.'),
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
      .describe('What may pass at once after a pause: the limits of so many seconds. Default: 1.'),
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

function problemOf(uri: string): string | undefined {
  try {
    parseNbdUri(uri);
    return undefined;
  } catch (error) {
    return describeError(error);
  }
}

/** What contradicts itself in a disk: key ('' for the disk as a whole) and message. */
function contradictionsOf(disk: DiskObject): (readonly [key: string, message: string])[] {
  const kind = kindOf(disk);
  if (kind === undefined) return [['', `expected exactly one of ${KIND_NAMES.join(', ')}`]];
  const found: (readonly [string, string])[] = [];
  for (const other of KIND_NAMES) {
    for (const key of DISK_KINDS[other]) {
      if (other !== kind && disk[key] !== undefined)
        found.push([key, `only for ${other}, and this disk is of kind ${kind}`]);
    }
  }
  if (kind === 'image' && disk.format === undefined)
    found.push(['format', `missing: expected one of ${IMAGE_FORMATS.join(', ')}`]);
  if (disk.nbd !== undefined) {
    const problem = problemOf(disk.nbd);
    if (problem !== undefined) found.push(['nbd', problem]);
  }
  if (disk.burst !== undefined && LIMITS.every((limit) => disk[limit] === undefined))
    found.push(['burst', `without a limit; expected one of ${LIMITS.join(', ')}`]);
  return found;
}

export const diskSchema = diskObject.superRefine((disk, context) => {
  for (const [key, message] of contradictionsOf(disk))
    context.addIssue({ code: 'custom', path: key === '' ? [] : [key], message });
});

export type DiskDocument = z.output<typeof diskSchema>;

/** A disk of a guest. */
export const guestDiskSchema = z.strictObject(
  {
    method: choice(['paravirtual']).describe('How the guest gets the disk.'),
    disk: name.describe('The disk, by its name.'),
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
  { error: 'expected a mapping with method: paravirtual' },
);

export type GuestDiskDocument = z.output<typeof guestDiskSchema>;
