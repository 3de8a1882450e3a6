/** Reports as tables for a terminal or a log. */
import Table from 'cli-table3';
import { shortNumber } from './chart.ts';
import type { MatrixReport, NetReport, SoakReport } from './report-schema.ts';

/** Lines without the frame and colours of cli-table3: what is piped stays readable and greppable. */
const PLAIN = {
  style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
  chars: {
    top: '',
    'top-mid': '',
    'top-left': '',
    'top-right': '',
    bottom: '',
    'bottom-mid': '',
    'bottom-left': '',
    'bottom-right': '',
    left: '',
    'left-mid': '',
    mid: '',
    'mid-mid': '',
    right: '',
    'right-mid': '',
    middle: '',
  },
};

/** A lane that waits for its processor this share of the time measures the machine's other work. */
const BUSY_PCT = 5;

/** One network bench, one figure a line. */
export function netReportText(report: NetReport): string {
  const { results, limit, errors, tcp, machine } = report;
  const rows: [string, string][] = [
    [
      'throughput',
      `${shortNumber(results.gbps)} Gb/s (${shortNumber(results.gbps_min)} to ${shortNumber(results.gbps_max)} in ${report.runs} runs of ${report.seconds} s)`,
    ],
    [
      'frames',
      `${shortNumber(results.mpps)} Mpps, ${shortNumber(results.ns_per_frame)} ns of the lane each`,
    ],
    ['loss', `${shortNumber(results.loss_pct)} %`],
    [
      'fairness',
      `${shortNumber(results.fairness)} (Jain), by guest ${perGuestText(results.per_guest_gbps)} Gb/s`,
    ],
    [
      'round trip',
      `${shortNumber(results.latency_us.p50)} us median, ${shortNumber(results.latency_us.p99)} us 99th percentile`,
    ],
    [
      'processors',
      `driver domain ${shortNumber(results.cpu_pct.driver_domain)} %, device model ${shortNumber(results.cpu_pct.device_model)} %, guests ${shortNumber(results.cpu_pct.guests)} %`,
    ],
    [
      'events',
      `${shortNumber(results.traps_per_s)} traps/s, ${shortNumber(results.kicks_per_s)} kicks/s, ${shortNumber(results.interrupts_per_s)} interrupts/s`,
    ],
    [
      'allocated',
      results.heap_bytes_per_frame === null
        ? 'not measured'
        : `${shortNumber(results.heap_bytes_per_frame)} bytes of heap a frame`,
    ],
    [
      'memcpy limit',
      `${shortNumber(limit.memcpy_gbps)} Gb/s over ${shortNumber(limit.footprint_bytes / 2 ** 20)} MiB (throughput is ${shortNumber(results.gbps / limit.memcpy_gbps)} of it)`,
    ],
  ];
  if (errors !== undefined) {
    const { reordered, duplicated, corrupt } = errors;
    const how = report.verified ? 'every frame checked' : 'some frames checked';
    rows.push([
      'wrong frames',
      `${reordered} reordered, ${duplicated} duplicated, ${corrupt} corrupt (${how})`,
    ]);
  }
  if (tcp !== undefined) {
    rows.push(['TCP', `${tcp.streams} streams, ${tcp.retransmits} segments sent again`]);
  }
  if (report.idle !== undefined) {
    const { lane_cpu_pct, round_trip_us } = report.idle;
    rows.push([
      'idle',
      `the lane takes ${shortNumber(lane_cpu_pct)} % of a processor; round trip from sleep ${shortNumber(round_trip_us.p50)} us median, ${shortNumber(round_trip_us.p99)} us 99th percentile`,
    ]);
  }
  rows.push([
    'machine',
    `${machine.cpu}, ${machine.cores} cores, Node.js ${machine.node}, Linux ${machine.kernel}`,
  ]);
  const table = new Table(PLAIN);
  for (const row of rows) table.push(row);
  const title = `${report.method}, ${report.guests} ${report.guest} guests, frames of ${report.frame} bytes, ${report.direction}${report.packed ? ', packed rings' : ''}${report.queues > 1 ? `, ${report.queues} queue pairs` : ''}`;
  const note = busyNote([report]);
  return `${title}\n\n${trimLines(table.toString())}\n${note === undefined ? '' : `\n${note}\n`}`;
}

export const MATRIX_COLUMNS = [
  'method',
  'guests',
  'frame B',
  'Gb/s',
  'of memcpy',
  'Mpps',
  'ns/frame',
  'lane %',
  'guests %',
  'calls/s',
  'trip us',
  'loss %',
  'fair',
] as const;

/** The cells of one row of the matrix. */
export function matrixCells({ method, guests, frame, results, limit }: NetReport): string[] {
  return [
    method,
    String(guests),
    String(frame),
    shortNumber(results.gbps),
    shortNumber(results.gbps / limit.memcpy_gbps),
    shortNumber(results.mpps),
    shortNumber(results.ns_per_frame),
    shortNumber(results.cpu_pct.driver_domain),
    shortNumber(results.cpu_pct.guests),
    shortNumber(results.interrupts_per_s),
    shortNumber(results.latency_us.p50),
    shortNumber(results.loss_pct),
    shortNumber(results.fairness),
  ];
}

/** All rows of the matrix. `decorated` for a terminal: framed. */
export function matrixReportText(report: MatrixReport, decorated: boolean): string {
  const table = new Table({
    ...(decorated ? { style: { head: [], border: [] } } : PLAIN),
    head: [...MATRIX_COLUMNS],
    colAligns: MATRIX_COLUMNS.map((_, index) => (index === 0 ? 'left' : 'right')),
  });
  for (const row of report.rows) table.push(matrixCells(row));
  const { idle, machine } = report;
  const lines = [
    trimLines(table.toString()),
    '',
    `Idle, ${idle.guests} guests attached: the lane takes ${shortNumber(idle.lane_cpu_pct)} % of a processor; a round trip that wakes everybody takes ${shortNumber(idle.round_trip_us.p50)} us.`,
    `Machine: ${machine.cpu}, ${machine.cores} cores, Node.js ${machine.node}, Linux ${machine.kernel}.`,
  ];
  const note = busyNote(report.rows);
  if (note !== undefined) lines.push(note);
  return `${lines.join('\n')}\n`;
}

/** What is said of figures that other programs had a part in; undefined if none had. */
export function busyNote(rows: readonly NetReport[]): string | undefined {
  const worst = Math.max(0, ...rows.map(({ results }) => results.lane_waited_pct));
  if (worst < BUSY_PCT) return undefined;
  return `The machine was busy with other work: for up to ${shortNumber(worst)} % of the time the lane waited for a processor. Repeat on a quiet machine.`;
}

/** The verdict of a soak and what it rests on. */
export function soakReportText(report: SoakReport): string {
  const { driver_domain: memory, errors } = report;
  const table = new Table(PLAIN);
  const mib = (bytes: number): string => `${shortNumber(bytes / 2 ** 20)} MiB`;
  for (const [name, trend] of [
    ['resident', memory.rss],
    ['heap in use', memory.heap],
  ] as const) {
    table.push([
      name,
      `${mib(trend.first_bytes)} -> ${mib(trend.last_bytes)}, ${(trend.bytes_per_minute / 1024).toFixed(1)} KiB a minute`,
    ]);
  }
  table.push([
    'frames',
    `${report.frames} in ${shortNumber(report.seconds)} s, ${shortNumber(report.gbps)} Gb/s, ${shortNumber(report.loss_pct)} % lost`,
  ]);
  table.push([
    'wrong frames',
    `${errors.reordered} reordered, ${errors.duplicated} duplicated, ${errors.corrupt} corrupt`,
  ]);
  table.push(['allocated', `${shortNumber(report.heap_bytes_per_frame)} bytes of heap a frame`]);
  table.push(['verdict', report.verdict]);
  const title = `${report.method}, ${report.guests} guests, frames of ${report.frame} bytes, ${report.direction}: memory of the driver domain`;
  return `${title}\n\n${trimLines(table.toString())}\n`;
}

function perGuestText(rates: readonly number[]): string {
  if (rates.length <= 8) return rates.map(shortNumber).join(' ');
  return `${shortNumber(Math.min(...rates))} to ${shortNumber(Math.max(...rates))}`;
}

function trimLines(text: string): string {
  return text
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '')
    .join('\n');
}
