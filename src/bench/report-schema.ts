/**
 * The form of the bench's JSON, which others rely on: keys are added, never renamed.
 *
 * Gb/s are 10^9 bits of Ethernet frame (no preamble, no frame check sequence) a second, Mpps 10^6
 * frames a second; a processor is 100 %.
 */
import { z } from 'zod';
import { E1000_MODELS } from '../device/e1000/function.ts';
import { READ_WRITE } from '../guest/embedded/disk-options.ts';
import { machineSchema } from './machine.ts';

export const METHODS = ['paravirtual', 'emulated', 'direct', 'sriov'] as const;
export const DISK_METHODS = ['paravirtual', 'emulated'] as const;
/** Cards: those that are emulated, and the one of which guests get ports or virtual functions. */
export const CARD_MODELS = [...E1000_MODELS, '82599'] as const;
/** What the wire of a port carries: 10 Gb/s each way, or as much as it can. */
export const LINKS = ['10G', 'none'] as const;
export const GUEST_KINDS = ['embedded', 'qemu', 'uml'] as const;
/** Who works disks. */
export const DISK_GUEST_KINDS = ['embedded'] as const;
export const DIRECTIONS = ['rx', 'tx', 'both'] as const;

export type Method = (typeof METHODS)[number];
export type DiskMethod = (typeof DISK_METHODS)[number];
export type CardModel = (typeof CARD_MODELS)[number];
export type GuestKind = (typeof GUEST_KINDS)[number];
export type Direction = (typeof DIRECTIONS)[number];

const amount = z.number().nonnegative();
const count = z.int().nonnegative();
const share = z.number().min(0).max(100);

const latencySchema = z.strictObject({ p50: amount, p99: amount });

const idleSchema = z
  .strictObject({
    lane_cpu_pct: amount.describe('100 is one processor.'),
    wakeups_per_s: amount,
    wakeup_us: latencySchema
      .optional()
      .describe('From a kick that finds the lane asleep to when it has taken the frame.'),
    round_trip_us: latencySchema.describe(
      'Round trip of a single frame between guests, when it finds the guests and the lane asleep.',
    ),
  })
  .describe('The lane while its guests do nothing.');

export const netResultsSchema = z.strictObject({
  gbps: amount.describe('Delivered to guests, all together: the median of the runs.'),
  gbps_min: amount,
  gbps_max: amount,
  mpps: amount,
  ns_per_frame: amount.describe("The lane's processor time for each delivered frame."),
  loss_pct: share.describe('Sent by guests and not delivered.'),
  fairness: z.number().min(0).max(1).describe("Jain's index over per_guest_gbps."),
  per_guest_gbps: z
    .array(amount)
    .describe(
      'rx: each receiver; tx: each sender, what arrived of it; both: each as a receiver, and with outside then each as a sender.',
    ),
  latency_us: latencySchema.describe(
    'Round trip of single frames on an otherwise idle path, guest to guest and back.',
  ),
  delivery_us: latencySchema
    .optional()
    .describe(
      'direct and sriov: from the doorbell to when the receiving guest found the frame, single frames on an otherwise idle path.',
    ),
  cpu_pct: z.strictObject({
    driver_domain: amount.describe('The lane: rings, switching, copying, calls.'),
    device_model: amount.describe(
      'What silicon would do: for direct and sriov all of the lane. 0 for paravirtual, which has no such device, and for emulated, where it is part of driver_domain.',
    ),
    guests: amount.describe("The guests' processes."),
  }),
  waited_pct: z
    .strictObject({ driver_domain: amount, guests: amount.nullable() })
    .describe(
      'Share of the time in which they were ready to run and the machine had no processor for them; guests: null for real ones.',
    ),
  frames_per_turn: amount.describe(
    'Frames that the lane moved in a turn of its loop that found work: small where guests limit the rate, up to 64 for each sender where the lane does.',
  ),
  traps_per_s: amount.describe('Accesses to registers, reads and writes, each of them a message.'),
  traps_per_frame: amount.describe('The same for each delivered frame.'),
  kicks_per_s: amount.describe('Guest tells device.'),
  interrupts_per_s: amount.describe('Device calls guest.'),
  itr: amount.describe(
    'Interrupts a second that a guest is throttled to; 0: no throttle, or one that adapts.',
  ),
  heap_bytes_per_frame: amount
    .nullable()
    .describe("What the lane's JavaScript allocated, for each delivered frame."),
});

export const netErrorsSchema = z
  .strictObject({
    reordered: count,
    duplicated: count,
    corrupt: count,
  })
  .describe('Frames over all runs that the receivers found wrong.');

export const netReportSchema = z.strictObject({
  bench: z.literal('net'),
  method: z.enum(METHODS),
  model: z.enum(CARD_MODELS).optional().describe('The card that guests see.'),
  ports: z.int().positive().optional().describe('direct, sriov: ports of each card that are used.'),
  link: z.enum(LINKS).optional().describe('direct, sriov: what the wires of ports carry.'),
  outside: z
    .literal(true)
    .optional()
    .describe('direct, sriov: guests exchange frames with machines beyond the wires of ports.'),
  itr: z
    .union([z.int().nonnegative(), z.literal('adaptive')])
    .optional()
    .describe(
      'direct, sriov: guests look for frames after interrupts only, which are throttled so. Absent: they look while they are awake.',
    ),
  rate: z
    .number()
    .positive()
    .optional()
    .describe('Frames a second of each sender. Absent: all that it could.'),
  doorbell_poll_us: count
    .optional()
    .describe(
      'direct, sriov: how long an idle lane may leave a doorbell unseen, where it was chosen.',
    ),
  guest: z.enum(GUEST_KINDS),
  guests: z.int().positive(),
  frame: z.int().positive(),
  direction: z.enum(DIRECTIONS),
  seconds: z.number().positive().describe('Length of one run.'),
  runs: z.int().positive(),
  packed: z.boolean(),
  queues: z.int().positive(),
  verified: z.boolean().describe('Every frame was checked to the last byte, not only some.'),
  rings: z
    .strictObject({
      receive_buffers: z.int().positive().describe('Buffers that wait for frames.'),
      send_frames: z.int().positive().describe('Buffers that frames are sent from.'),
    })
    .optional()
    .describe('Embedded guests: of each pair of queues.'),
  results: netResultsSchema,
  errors: netErrorsSchema.optional().describe('Embedded guests only.'),
  tcp: z
    .strictObject({ streams: z.int().positive(), retransmits: count })
    .optional()
    .describe('Real guests only: their workload is TCP.'),
  idle: idleSchema.optional(),
  limit: z.strictObject({
    memcpy_gbps: amount.describe('One thread that only copies such frames.'),
    footprint_bytes: z.int().positive().describe('Memory that the frames go through.'),
  }),
  machine: machineSchema,
});

export type NetResults = z.output<typeof netResultsSchema>;
export type IdleReport = z.output<typeof idleSchema>;
export type NetErrors = z.output<typeof netErrorsSchema>;
export type NetReport = z.output<typeof netReportSchema>;

export const diskResultsSchema = z.strictObject({
  iops: amount.describe('Reads and writes a second, all guests together: the median of the runs.'),
  iops_min: amount,
  iops_max: amount,
  read_iops: amount,
  write_iops: amount,
  gbps: amount.describe('10^9 bits read and written a second.'),
  ns_per_request: amount.describe("The lane's processor time for each read and write."),
  fairness: z.number().min(0).max(1).describe("Jain's index over per_guest_iops."),
  per_guest_iops: z.array(amount),
  latency_us: latencySchema.describe(
    'From when a request was made available to when the guest found it done, under this load.',
  ),
  cpu_pct: z.strictObject({
    driver_domain: amount.describe('The lane: rings, requests, the kernel on its behalf, calls.'),
    device_model: amount.describe('As in a network bench.'),
    guests: amount.describe("The guests' processes."),
  }),
  waited_pct: z
    .strictObject({ driver_domain: amount, guests: amount })
    .describe(
      'Share of the time in which they were ready to run and the machine had no processor for them.',
    ),
  requests_per_turn: amount.describe(
    'Reads and writes in a turn of the loop of the lane that found work.',
  ),
  flushes_per_s: amount,
  traps_per_s: amount.describe('Accesses to registers, reads and writes, each of them a message.'),
  traps_per_request: amount.describe('The same for each read and write.'),
  kicks_per_s: amount.describe('Guest tells device.'),
  interrupts_per_s: amount.describe('Device calls guest.'),
  heap_bytes_per_request: amount.describe(
    "What the lane's JavaScript allocated, for each read and write.",
  ),
  guest_heap_bytes_per_request: amount.describe('The same of the guests.'),
});

const diskErrorsSchema = z.strictObject({
  failed: count.describe('Requests that were answered with an error.'),
  stale: count.describe('Blocks that held an older write than the last.'),
  corrupt: count.describe('Blocks with a wrong checksum, or of another place.'),
});

export const diskReportSchema = z.strictObject({
  bench: z.literal('disk'),
  method: z.enum(DISK_METHODS),
  guest: z.enum(DISK_GUEST_KINDS),
  guests: z.int().positive(),
  rw: z.enum(READ_WRITE),
  bs: z.int().positive().describe('Bytes of a request.'),
  iodepth: z.int().positive().describe('Requests on their way at once, of each job.'),
  numjobs: z.int().positive().describe('Queues of each guest, each with a job of its own.'),
  rwmixread: share.describe('Percentage of reads, where rw does both.'),
  fsync: count.describe('A flush after so many writes; 0: none.'),
  disk: z.string().describe('memory, tmpfs, or file:PATH.'),
  disk_bytes: z.int().positive().describe('Bytes of each disk that were worked on.'),
  direct: z.boolean().describe('Past the page cache of the host.'),
  runtime: z.number().positive().describe('Seconds of one run.'),
  runs: z.int().positive(),
  packed: z.boolean(),
  verified: z
    .boolean()
    .describe('Every block was checked when it was read, and once more at the end.'),
  results: diskResultsSchema,
  errors: diskErrorsSchema.extend({
    first: z.string().optional().describe('The first request that failed.'),
  }),
  idle: idleSchema
    .extend({
      round_trip_us: latencySchema.describe('A single read, when it finds guest and lane asleep.'),
    })
    .optional(),
  limit: z.strictObject({
    memcpy_gbps: amount.describe('One thread that only copies such blocks.'),
    footprint_bytes: z.int().positive().describe('Memory that the blocks go through.'),
  }),
  machine: machineSchema,
});

export type DiskResults = z.output<typeof diskResultsSchema>;
export type DiskErrors = z.output<typeof diskErrorsSchema>;
export type DiskReport = z.output<typeof diskReportSchema>;

export const matrixReportSchema = z.strictObject({
  bench: z.literal('all'),
  version: z.string().min(1),
  date: z.iso.datetime(),
  rows: z.array(netReportSchema),
  disks: z.array(diskReportSchema),
  idle: idleSchema.extend({ guests: z.int().positive() }),
  machine: machineSchema,
});

export type MatrixReport = z.output<typeof matrixReportSchema>;

export const talkReportSchema = z.strictObject({
  bench: z.literal('talk'),
  version: z.string().min(1),
  date: z.iso.datetime(),
  rows: z.array(netReportSchema),
  machine: machineSchema,
});

export type TalkReport = z.output<typeof talkReportSchema>;

const trend = z.strictObject({
  first_bytes: count,
  last_bytes: count,
  bytes_per_minute: z
    .number()
    .describe('Slope of the least-squares line, without the warm-up at the beginning.'),
});

const watchedShape = {
  driver_domain: z
    .strictObject({
      rss: trend.describe('Resident memory of the process, guest memory not counted.'),
      heap: trend.describe('Heap of the lane in use.'),
    })
    .describe('The process of the lane.'),
  verdict: z.enum(['steady', 'growing']),
};

export const soakReportSchema = z.strictObject({
  bench: z.literal('soak'),
  method: z.enum(METHODS),
  model: z.enum(CARD_MODELS).optional(),
  guests: z.int().positive(),
  frame: z.int().positive(),
  direction: z.enum(DIRECTIONS),
  seconds: z.number().positive(),
  frames: count,
  gbps: amount,
  loss_pct: share,
  errors: netErrorsSchema,
  ...watchedShape,
  heap_bytes_per_frame: amount,
  machine: machineSchema,
});

export type SoakReport = z.output<typeof soakReportSchema>;

export const diskSoakReportSchema = z.strictObject({
  bench: z.literal('disk-soak'),
  method: z.enum(DISK_METHODS),
  guests: z.int().positive(),
  rw: z.enum(READ_WRITE),
  bs: z.int().positive(),
  iodepth: z.int().positive(),
  numjobs: z.int().positive(),
  disk: z.string(),
  seconds: z.number().positive(),
  requests: count,
  iops: amount,
  errors: diskErrorsSchema,
  ...watchedShape,
  heap_bytes_per_request: amount,
  machine: machineSchema,
});

export type DiskSoakReport = z.output<typeof diskSoakReportSchema>;
