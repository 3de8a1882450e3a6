/**
 * The form of `npm run peers -- … --json`, which others rely on: keys are added, never renamed.
 */
import Table from 'cli-table3';
import { z } from 'zod';
import { machineSchema } from '../../src/bench/machine.ts';
import { DISK_TARGETS } from './disk-work.ts';
import { trapSchema, trapText } from './traps.ts';

const amount = z.number().nonnegative();
const latency = z.strictObject({ p50: amount, p99: amount });

export const peerRowSchema = z.strictObject({
  work: z.string().describe('What is done, such as `64 B split`.'),
  unit: z.string().describe('Unit of ours and theirs.'),
  ours: amount.describe('Sluice: the median of the samples.'),
  theirs: amount.describe('The peer: the median of the samples.'),
  ratio: amount.describe('ours/theirs: the median of the pairs.'),
  ratio_min: amount,
  ratio_max: amount,
  better: z.enum(['higher', 'lower']).describe('Which way is better, of the values and the ratio.'),
  samples: z.int().positive().describe('Pairs that count.'),
  discarded: z.int().nonnegative().describe('Disturbed samples that were taken again.'),
  ours_samples: z.array(amount).describe('In the order in which they were taken.'),
  theirs_samples: z.array(amount),
  circulating: z
    .strictObject({ ours: z.int(), theirs: z.int() })
    .optional()
    .describe('Network: the fewest frames that were left of those the client began with.'),
  latency_us: z
    .strictObject({ ours: latency, theirs: latency })
    .optional()
    .describe("Disks: medians of the samples' percentiles, in microseconds."),
  server_cpu_pct: z
    .strictObject({ ours: amount, theirs: amount })
    .optional()
    .describe('Disks: processor time of all threads of the server; 100 is one processor.'),
});

export const netClientSchema = z
  .strictObject({
    program: z.string(),
    mode: z.literal('io'),
    ring_size: z.int(),
    mrg_rxbuf: z.boolean(),
    in_order: z.boolean(),
    burst: z.int().describe('Frames that the client takes and sends at a time.'),
    frames: z.int().describe('Frames that circulate.'),
    cpu: z.int().describe('The processor of the client.'),
    switch_cpu: z.int().describe('The processor of the switch, ours or theirs.'),
    warmup_seconds: z.number().describe('Before the first sample of a start.'),
    starts: z.int().positive().describe('How often both sides were started anew for a row.'),
    seconds: z.number().describe('Length of a sample.'),
  })
  .describe('The client: the same for both sides.');

export const diskClientSchema = z
  .strictObject({
    program: z.string(),
    driver: z.string().describe("libblkio's."),
    queues: z.int(),
    file_bytes: z.int().describe("Size of each side's file."),
    direct: z
      .partialRecord(z.enum(DISK_TARGETS), z.boolean())
      .describe('By target: whether both sides open the file with O_DIRECT.'),
    server_poll_us: z.int().describe('How long a server looks for work where both poll.'),
    verify: z.boolean().describe('True where all data was checked, at the cost of the figures.'),
    cpu: z.int().describe('The processor of the client.'),
    server_cpu: z.int().describe('The processor of the server, ours or theirs.'),
    warmup_seconds: z.number().describe('Before the first sample of a start.'),
    starts: z.int().positive().describe('How often both sides were started anew for a row.'),
    seconds: z.number().describe('Length of a sample.'),
  })
  .describe('The client: the same for both sides.');

export const peerReportSchema = z.strictObject({
  peer: z.string().describe('Program and version, such as `dpdk 24.11.4`.'),
  rows: z.array(peerRowSchema),
  client: netClientSchema,
  counts_disturbed: z
    .boolean()
    .describe('True where disturbed samples were counted: the figures mean nothing then.'),
  machine: machineSchema,
});

/** The same for disks. */
export const diskReportSchema = peerReportSchema.extend({ client: diskClientSchema });

/** The same for emulated devices. */
export const emulatedReportSchema = peerReportSchema.extend({
  rows: z.array(
    peerRowSchema.extend({
      traps_per_unit: z
        .strictObject({ reads: amount, writes: amount })
        .describe('Ours: register accesses for each frame (both ways) or request.'),
      guest_cpu_pct: z
        .strictObject({ ours: amount, theirs: amount })
        .describe('What the guest was not idle: near 100 its processor was the limit.'),
      guest_thread_pct: z
        .strictObject({ ours: amount, theirs: amount })
        .describe("What that processor's thread of QEMU ran; else it waited for a device."),
    }),
  ),
  traps: z.array(trapSchema).describe('How long a trap of ours takes.'),
  client: z.strictObject({
    program: z.string(),
    seconds: z.number().describe('Length of a sample.'),
    file_bytes: z.int().describe("Size of each side's disk."),
    lane_cpu: z.int().describe('The processor of the lane where traps are measured.'),
    other_cpu: z.int(),
  }),
});

export type PeerRow = z.output<typeof peerRowSchema>;
export type NetClient = z.output<typeof netClientSchema>;
export type DiskClient = z.output<typeof diskClientSchema>;
export type PeerReport = z.output<typeof peerReportSchema>;
export type DiskReport = z.output<typeof diskReportSchema>;
export type EmulatedReport = z.output<typeof emulatedReportSchema>;

/** The report of a network comparison as lines for a terminal or a log. */
export function peerReportText(report: PeerReport): string {
  const { client } = report;
  return reportText(
    report,
    'higher is better',
    `Client: ${client.program}, two ports, ${client.mode}, ${client.frames} frames circulating, rings of ${client.ring_size}, on processor ${client.cpu}; the switch on processor ${client.switch_cpu}; samples of ${client.seconds} s, ${client.starts} starts of both sides, each warmed up for ${client.warmup_seconds} s.`,
  );
}

/** The report of a disk comparison as lines for a terminal or a log. */
export function diskReportText(report: DiskReport): string {
  const { client } = report;
  const direct = Object.entries(client.direct)
    .filter(([, yes]) => yes)
    .map(([target]) => target);
  return reportText(
    report,
    'higher is better, of latencies lower is',
    `Client: ${client.program} (libblkio, ${client.driver}), one queue, on processor ${client.cpu}; the server on processor ${client.server_cpu}, io_uring on files of ${client.file_bytes / 2 ** 20} MiB, ${direct.length === 0 ? 'none with O_DIRECT' : `O_DIRECT on ${direct.join(', ')}`}; "polling": nobody sleeps within ${client.server_poll_us} us; samples of ${client.seconds} s, ${client.starts} starts of both sides, each warmed up for ${client.warmup_seconds} s.`,
    ...(client.verify ? ['All data was checked: the figures are those of the checks.'] : []),
  );
}

/** The report of a comparison of emulated devices as lines for a terminal or a log. */
export function emulatedReportText(report: EmulatedReport): string {
  const { client } = report;
  return reportText(
    report,
    'higher is better',
    `Client: ${client.program}, which has each device twice; TCP with one stream and the host, drives of ${client.file_bytes / 2 ** 20} MiB; samples of ${client.seconds} s.`,
    ...report.rows.map(
      ({
        work,
        traps_per_unit: { reads, writes },
        guest_cpu_pct: guest,
        guest_thread_pct: thread,
      }) =>
        `${work}: ${reads} reads and ${writes} writes of registers for each ${work.includes('TCP') ? 'frame' : 'request'}; the guest ${guest.ours} % busy and ${thread.ours} % running, with QEMU's ${guest.theirs} and ${thread.theirs} %.`,
    ),
    ...report.traps.map(trapText),
  );
}

type AnyReport = Pick<PeerReport, 'peer' | 'rows' | 'counts_disturbed' | 'machine'>;

function reportText(report: AnyReport, better: string, ...setting: readonly string[]): string {
  const { peer, rows, machine } = report;
  const table = new Table({
    head: ['work', 'unit', 'Sluice', peer, 'ratio', 'of pairs', 'samples', 'discarded'],
    colAligns: ['left', 'left', 'right', 'right', 'right', 'left', 'right', 'right'],
    style: { head: [], border: [] },
  });
  for (const row of rows) {
    table.push([
      row.work,
      row.unit,
      String(row.ours),
      String(row.theirs),
      row.ratio.toFixed(2),
      `${row.ratio_min.toFixed(2)} to ${row.ratio_max.toFixed(2)}`,
      String(row.samples),
      String(row.discarded),
    ]);
  }
  const lines = [
    table.toString(),
    `Medians; ratio is Sluice/${peer}, taken within each pair of samples; ${better}.`,
    ...setting,
    `Machine: ${machine.cpu}, ${machine.cores} cores, Node.js ${machine.node}, Linux ${machine.kernel}.`,
    ...(report.counts_disturbed
      ? ['Disturbed samples were counted: these figures mean nothing.']
      : []),
  ];
  return `${lines.join('\n')}\n`;
}
