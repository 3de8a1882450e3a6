/** Reports in words, for a terminal or a log. */
import { shortNumber } from './chart.ts';
import type { MatrixReport, NetReport, SoakReport } from './report-schema.ts';

/** Who waits for a processor this share of the time measures the machine's other work. */
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
      `${shortNumber(results.mpps)} Mpps, ${shortNumber(results.ns_per_frame)} ns of the lane each, ${shortNumber(results.frames_per_turn)} in a turn`,
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
    ...(results.delivery_us === undefined
      ? []
      : ([
          [
            'one way',
            `${shortNumber(results.delivery_us.p50)} us median, ${shortNumber(results.delivery_us.p99)} us 99th percentile, from the doorbell to the guest`,
          ],
        ] satisfies [string, string][])),
    [
      'processors',
      `driver domain ${shortNumber(results.cpu_pct.driver_domain)} %, device model ${shortNumber(results.cpu_pct.device_model)} %, guests ${shortNumber(results.cpu_pct.guests)} %`,
    ],
    [
      'events',
      `${shortNumber(results.traps_per_s)} traps/s (${shortNumber(results.traps_per_frame)} a frame), ${shortNumber(results.kicks_per_s)} kicks/s, ${shortNumber(results.interrupts_per_s)} interrupts/s`,
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
    const { lane_cpu_pct, round_trip_us, wakeup_us } = report.idle;
    const wakeup =
      wakeup_us === undefined
        ? ''
        : `wakes up within ${shortNumber(wakeup_us.p50)} us median, ${shortNumber(wakeup_us.p99)} us 99th percentile; `;
    rows.push([
      'idle',
      `the lane takes ${shortNumber(lane_cpu_pct)} % of a processor; ${wakeup}round trip from sleep ${shortNumber(round_trip_us.p50)} us median, ${shortNumber(round_trip_us.p99)} us 99th percentile`,
    ]);
  }
  rows.push([
    'machine',
    `${machine.cpu}, ${machine.cores} cores, Node.js ${machine.node}, Linux ${machine.kernel}`,
  ]);
  const title = `${methodName(report)}, ${guestsText(report.guests, `${report.guest} `)}${report.outside === true ? ' and machines outside' : ''}, frames of ${report.frame} bytes, ${report.direction}${report.packed ? ', packed rings' : ''}${report.queues > 1 ? `, ${report.queues} queue pairs` : ''}${nicText(report)}`;
  const note = busyNote([report]);
  return `${title}\n\n${labelled(rows)}${note === undefined ? '' : `\n${note}\n`}`;
}

/** How many guests. @param kind what stands before the word, with a space */
export function guestsText(guests: number, kind = ''): string {
  return guests === 1 ? `1 ${kind}guest` : `${guests} ${kind}guests`;
}

/** What was chosen of cards with functions. */
function nicText({ ports, link, itr }: NetReport): string {
  if (link === undefined) return '';
  const wire = link === 'none' ? 'no limit of the wire' : `wires of ${link}`;
  const interrupts =
    itr === undefined
      ? ''
      : `, interrupts ${itr === 'adaptive' ? itr : itr === 0 ? 'not throttled' : `throttled to ${itr}/s`}`;
  return `, ${ports} ports a card, ${wire}${interrupts}`;
}

/** A method, with the card that guests see, and what limits its wire if frames cross it. */
export function methodName({
  method,
  model,
  ports,
  link,
}: {
  readonly method: string;
  readonly model?: string | undefined;
  readonly ports?: number | undefined;
  readonly link?: string | undefined;
}): string {
  if (model === undefined) return method;
  // From function to function of one port there is no wire.
  if (ports === 1) return `${method} (${model}, one port)`;
  return link === undefined || link === 'none'
    ? `${method} (${model})`
    : `${method} (${model}, ${link})`;
}

/** Titles of {@link matrixCells}. */
export const MATRIX_COLUMNS = [
  'method',
  'guests',
  'bytes',
  'Gb/s',
  'memcpy',
  'Mpps',
  'ns',
  'lane %',
  'guests %',
  'traps',
  'calls/s',
  'trip us',
  'loss %',
  'fair',
] as const;

/** The cells of one row of the matrix, numbers rounded to what can be read. */
export function matrixCells(row: NetReport): (string | number)[] {
  const { guests, frame, results, limit } = row;
  const figures = [
    results.gbps,
    results.gbps / limit.memcpy_gbps,
    results.mpps,
    results.ns_per_frame,
    // One of them is 0.
    results.cpu_pct.driver_domain + results.cpu_pct.device_model,
    results.cpu_pct.guests,
    results.traps_per_frame,
    results.interrupts_per_s,
    results.latency_us.p50,
    results.loss_pct,
    results.fairness,
  ];
  return [methodName(row), guests, frame, ...figures.map((figure) => Number(shortNumber(figure)))];
}

/** What is to be said below the rows of the matrix. */
export function matrixNotes(report: MatrixReport): string {
  const { idle, machine } = report;
  const lines = [
    'Gb/s and Mpps: delivered to all guests; memcpy: share of the memory limit; ns: of the lane for a frame or request; traps: for a frame or request.',
    `Idle, ${idle.guests} guests attached: the lane takes ${shortNumber(idle.lane_cpu_pct)} % of a processor${idle.wakeup_us === undefined ? '' : `, wakes up within ${shortNumber(idle.wakeup_us.p50)} us`}; a round trip that wakes everybody takes ${shortNumber(idle.round_trip_us.p50)} us.`,
    `Machine: ${machine.cpu}, ${machine.cores} cores, Node.js ${machine.node}, Linux ${machine.kernel}.`,
  ];
  const note = busyNote([...report.rows, ...report.disks]);
  return `${[...lines, ...(note === undefined ? [] : [note])].join('\n')}\n`;
}

/** A report that tells for how long who waited for a processor. */
export interface Waited {
  readonly results: {
    readonly waited_pct: { readonly driver_domain: number; readonly guests: number | null };
  };
}

/** What is said of figures that other programs had a part in; undefined if none had. */
export function busyNote(rows: readonly Waited[]): string | undefined {
  const waits = rows.map(({ results: { waited_pct } }) =>
    Math.max(waited_pct.driver_domain, waited_pct.guests ?? 0),
  );
  const worst = Math.max(0, ...waits);
  if (worst < BUSY_PCT) return undefined;
  return `The machine was busy with other work: for up to ${shortNumber(worst)} % of the time lane or guests waited for a processor. Repeat on a quiet machine.`;
}

/** The verdict of a soak and what it rests on. */
export function soakReportText(report: SoakReport): string {
  const { driver_domain: memory, errors } = report;
  const rows: [string, string][] = [
    ...trendRows(memory),
    [
      'frames',
      `${report.frames} in ${shortNumber(report.seconds)} s, ${shortNumber(report.gbps)} Gb/s, ${shortNumber(report.loss_pct)} % lost`,
    ],
    [
      'wrong frames',
      `${errors.reordered} reordered, ${errors.duplicated} duplicated, ${errors.corrupt} corrupt`,
    ],
    ['allocated', `${shortNumber(report.heap_bytes_per_frame)} bytes of heap a frame`],
    ['verdict', report.verdict],
  ];
  const title = `${methodName(report)}, ${report.guests} guests, frames of ${report.frame} bytes, ${report.direction}: memory of the driver domain`;
  return `${title}\n\n${labelled(rows)}`;
}

/** How the memory of a driver domain has moved. */
export function trendRows({ rss, heap }: SoakReport['driver_domain']): [string, string][] {
  const mib = (bytes: number): string => `${shortNumber(bytes / 2 ** 20)} MiB`;
  const text = (trend: SoakReport['driver_domain']['rss']): string =>
    `${mib(trend.first_bytes)} -> ${mib(trend.last_bytes)}, ${(trend.bytes_per_minute / 1024).toFixed(1)} KiB a minute`;
  return [
    ['resident', text(rss)],
    ['heap in use', text(heap)],
  ];
}

/** What each guest has; of many guests the extremes. */
export function perGuestText(rates: readonly number[]): string {
  if (rates.length <= 8) return rates.map(shortNumber).join(' ');
  return `${shortNumber(Math.min(...rates))} to ${shortNumber(Math.max(...rates))}`;
}

/** Lines of a label and a text each. */
export function labelled(rows: readonly (readonly [label: string, text: string])[]): string {
  const width = 2 + Math.max(...rows.map(([label]) => label.length));
  return rows.map(([label, text]) => `${label.padEnd(width)}${text}\n`).join('');
}
