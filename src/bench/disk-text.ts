/** Reports of disks in words, for a terminal or a log. */
import { shortNumber } from './chart.ts';
import type { DiskReport, DiskSoakReport } from './report-schema.ts';
import { busyNote, labelled, perGuestText, trendRows } from './text-report.ts';

/** One disk bench, one figure a line. */
export function diskReportText(report: DiskReport): string {
  const { results, limit, errors, machine } = report;
  const rows: [string, string][] = [
    [
      'requests',
      `${shortNumber(results.iops)} a second (${shortNumber(results.iops_min)} to ${shortNumber(results.iops_max)} in ${report.runs} runs of ${report.runtime} s): ${shortNumber(results.read_iops)} reads, ${shortNumber(results.write_iops)} writes`,
    ],
    ['throughput', `${shortNumber(results.gbps)} Gb/s`],
    [
      'latency',
      `${shortNumber(results.latency_us.p50)} us median, ${shortNumber(results.latency_us.p99)} us 99th percentile`,
    ],
    [
      'cost',
      `${shortNumber(results.ns_per_request)} ns of the lane each, ${shortNumber(results.requests_per_turn)} in a turn`,
    ],
    [
      'fairness',
      `${shortNumber(results.fairness)} (Jain), by guest ${perGuestText(results.per_guest_iops)} a second`,
    ],
    [
      'processors',
      `driver domain ${shortNumber(results.cpu_pct.driver_domain)} %, device model ${shortNumber(results.cpu_pct.device_model)} %, guests ${shortNumber(results.cpu_pct.guests)} %`,
    ],
    [
      'events',
      `${shortNumber(results.flushes_per_s)} flushes/s, ${shortNumber(results.traps_per_s)} traps/s (${shortNumber(results.traps_per_request)} a request), ${shortNumber(results.kicks_per_s)} kicks/s, ${shortNumber(results.interrupts_per_s)} interrupts/s`,
    ],
    [
      'allocated',
      `${shortNumber(results.heap_bytes_per_request)} bytes of heap a request, ${shortNumber(results.guest_heap_bytes_per_request)} by guests`,
    ],
    [
      'memcpy limit',
      `${shortNumber(limit.memcpy_gbps)} Gb/s over ${shortNumber(limit.footprint_bytes / 2 ** 20)} MiB (throughput is ${shortNumber(results.gbps / limit.memcpy_gbps)} of it)`,
    ],
    [
      'wrong',
      `${errors.failed} requests failed${errors.first === undefined ? '' : ` (${errors.first})`}${report.verified ? `, ${errors.stale} blocks stale, ${errors.corrupt} corrupt (every block checked)` : ''}`,
    ],
  ];
  if (report.idle !== undefined) {
    const { lane_cpu_pct, round_trip_us } = report.idle;
    rows.push([
      'idle',
      `the lane takes ${shortNumber(lane_cpu_pct)} % of a processor; a read from sleep ${shortNumber(round_trip_us.p50)} us median, ${shortNumber(round_trip_us.p99)} us 99th percentile`,
    ]);
  }
  rows.push([
    'machine',
    `${machine.cpu}, ${machine.cores} cores, Node.js ${machine.node}, Linux ${machine.kernel}`,
  ]);
  const note = busyNote([report]);
  return `${titleOf(report)}\n\n${labelled(rows)}${note === undefined ? '' : `\n${note}\n`}`;
}

/** The verdict of a soak and what it rests on. */
export function diskSoakReportText(report: DiskSoakReport): string {
  const { method, guests, rw, bs, iodepth, numjobs, disk, errors } = report;
  const rows: [string, string][] = [
    ...trendRows(report.driver_domain),
    [
      'requests',
      `${report.requests} in ${shortNumber(report.seconds)} s, ${shortNumber(report.iops)} a second`,
    ],
    ['wrong', `${errors.failed} failed, ${errors.stale} blocks stale, ${errors.corrupt} corrupt`],
    ['allocated', `${shortNumber(report.heap_bytes_per_request)} bytes of heap a request`],
    ['verdict', report.verdict],
  ];
  return `${method}, ${guests} guests, ${rw}, ${bs} bytes, iodepth ${iodepth}, numjobs ${numjobs}, ${disk}: memory of the driver domain\n\n${labelled(rows)}`;
}

/** What was asked for. */
function titleOf(report: DiskReport): string {
  const { method, guests, guest, rw, bs, iodepth, numjobs, disk, disk_bytes } = report;
  return [
    method,
    `${guests} ${guest} guest${guests === 1 ? '' : 's'}`,
    rw,
    `${bs} bytes`,
    `iodepth ${iodepth}`,
    ...(numjobs === 1 ? [] : [`numjobs ${numjobs}`]),
    ...(report.fsync === 0 ? [] : [`fsync ${report.fsync}`]),
    `${disk}${report.direct ? ' (direct)' : ''} of ${shortNumber(disk_bytes / 2 ** 20)} MiB`,
    ...(report.packed ? ['packed rings'] : []),
  ].join(', ');
}

/** Titles of {@link diskCells}. */
export const DISK_COLUMNS = [
  'method',
  'guests',
  'rw',
  'bytes',
  'depth',
  'kIOPS',
  'Gb/s',
  'memcpy',
  'ns',
  'p50 us',
  'p99 us',
  'lane %',
  'guests %',
  'traps',
  'calls/s',
  'fair',
] as const;

/** The cells of one row, numbers rounded to what can be read. */
export function diskCells(report: DiskReport): (string | number)[] {
  const { method, guests, rw, bs, iodepth, results, limit } = report;
  const figures = [
    results.iops / 1000,
    results.gbps,
    results.gbps / limit.memcpy_gbps,
    results.ns_per_request,
    results.latency_us.p50,
    results.latency_us.p99,
    results.cpu_pct.driver_domain,
    results.cpu_pct.guests,
    results.traps_per_request,
    results.interrupts_per_s,
    results.fairness,
  ];
  return [method, guests, rw, bs, iodepth, ...figures.map((figure) => Number(shortNumber(figure)))];
}
