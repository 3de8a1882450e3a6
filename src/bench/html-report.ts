/** The report of `sluice bench all` as one HTML file that needs nothing else. */
import { isRandom } from '../guest/embedded/disk-options.ts';
import { type Chart, escapeMarkup, renderChart, shortNumber } from './chart.ts';
import { DISK_COLUMNS, diskCells } from './disk-text.ts';
import type { DiskReport, MatrixReport, NetReport } from './report-schema.ts';
import { busyNote, MATRIX_COLUMNS, matrixCells, methodName } from './text-report.ts';

const STYLE = `
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5c6670; --line: #d9dee3; --paper: #fff;
  --bar: #2f6f9f; --limit: #c2571a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebee; --soft: #9aa5b0; --line: #363d45;
  --paper: #14171a; --bar: #5aa5da; --limit: #f0954f; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 46rem; } .soft { color: var(--soft); }
svg { width: 100%; height: auto; margin: .75rem 0; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .title { font-size: 14px; font-weight: 600; }
svg .tick { fill: var(--soft); } svg .grid { stroke: var(--line); } svg .bar { fill: var(--bar); }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
svg .limit { stroke: var(--limit); stroke-width: 2.5; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 600; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem; max-width: 46rem; }
`;

/** What the columns mean, in the words of the JSON report. */
const WORDS: readonly (readonly [string, string])[] = [
  [
    'Gb/s',
    '10⁹ bits a second, all guests together: of Ethernet frames that were delivered, or read and written.',
  ],
  [
    'memcpy',
    'Throughput as a share of what one thread copies that does nothing else, in the same run, over as much memory. It is the orange mark in the chart.',
  ],
  ['ns', "The lane's processor time for each delivered frame, or each request."],
  ['rw, depth', 'Reads or writes, one after the other or anywhere; requests on their way at once.'],
  ['kIOPS', 'Thousand reads and writes a second, all guests together.'],
  [
    'p50 us, p99 us',
    'Median and 99th percentile of the time from when a request is made available to when the guest finds it done.',
  ],
  [
    'lane %, guests %',
    'Processor time: the driver domain (rings, switching, copying, calls) and the guests. 100 is one processor.',
  ],
  [
    'traps',
    'Accesses to registers of emulated devices that became messages, for each delivered frame, or each request.',
  ],
  ['calls/s', 'Interrupts that guests were sent.'],
  [
    'trip us',
    'Median round trip of a single frame from guest to guest and back while nothing else moves.',
  ],
  ['fair', "Jain's index over the guests' rates; 1 when all get the same."],
];

/** @param report as `matrixReportSchema` describes it. */
export function matrixReportHtml(report: MatrixReport): string {
  const { machine, idle } = report;
  const note = busyNote([...report.rows, ...report.disks]);
  const where = `${machine.cpu}, ${machine.cores} cores · Node.js ${machine.node} · Linux ${machine.kernel}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sluice bench</title>
<style>${STYLE}</style>
</head>
<body>
<h1>Sluice bench</h1>
<p class="soft">Version ${escapeMarkup(report.version)} · ${escapeMarkup(report.date)}<br>${escapeMarkup(where)}</p>
${note === undefined ? '' : `<p><strong>${escapeMarkup(note)}</strong></p>`}
<h2>Network</h2>
<p>Embedded guests send frames in a ring, each to the next, through one lane: a switch, or the card's own between
its virtual functions. 10G: the wires between ports carry no more.
Figures are medians of ${report.rows[0]?.runs ?? 0} runs; whiskers show the smallest and the largest,
orange marks what one thread copies that does nothing else.</p>
${chartsOf(report.rows).map(renderChart).join('\n')}
<h3>All figures</h3>
${table(MATRIX_COLUMNS, report.rows.map(matrixCells))}
<p>Idle, with ${idle.guests} guests attached, the lane takes ${shortNumber(idle.lane_cpu_pct)} % of a processor.
A round trip that finds guests and lane asleep takes ${shortNumber(idle.round_trip_us.p50)} us in the median.</p>
<h2>Disks</h2>
<p>Embedded guests read and write disks in memory, each guest its own, through one lane.
Figures are medians of ${report.disks[0]?.runs ?? 0} runs; orange marks what one thread copies that does nothing else; ×8 are eight guests.</p>
${diskChartsOf(report.disks).map(renderChart).join('\n')}
<h3>All figures</h3>
${table(DISK_COLUMNS, report.disks.map(diskCells))}
<h2>What the columns mean</h2>
<dl>
${WORDS.map(([term, meaning]) => `<dt>${escapeMarkup(term)}</dt><dd>${escapeMarkup(meaning)}</dd>`).join('\n')}
</dl>
<script type="application/json" id="report">${scriptJson(report)}</script>
</body>
</html>
`;
}

/** One panel for each size of frame, one bar for each number of guests. */
function chartsOf(rows: readonly NetReport[]): Chart[] {
  const frames = [...new Set(rows.map(({ frame }) => frame))];
  const panelsOf = (bar: (row: NetReport) => Chart['panels'][number]['bars'][number]) =>
    frames.map((frame) => ({
      label: `frames of ${frame} bytes`,
      bars: rows.filter((row) => row.frame === frame).map(bar),
    }));
  const guests = (row: NetReport): string => `${methodName(row)}, ${row.guests} guests`;
  return [
    {
      title: 'Throughput',
      unit: 'Gb/s',
      panels: panelsOf((row) => ({
        label: guests(row),
        value: row.results.gbps,
        low: row.results.gbps_min,
        high: row.results.gbps_max,
        limit: row.limit.memcpy_gbps,
      })),
    },
    {
      title: 'Cost of a frame in the lane',
      unit: 'ns',
      panels: panelsOf((row) => ({ label: guests(row), value: row.results.ns_per_frame })),
    },
    {
      title: 'Round trip on an idle path, median',
      unit: 'us',
      panels: panelsOf((row) => ({ label: guests(row), value: row.results.latency_us.p50 })),
    },
  ];
}

/** One panel for each shape of requests, one bar for each direction and number of guests. */
function diskChartsOf(rows: readonly DiskReport[]): Chart[] {
  const shapeOf = ({ rw, bs, iodepth }: DiskReport): string =>
    `${isRandom(rw) ? 'random' : 'in order'}, ${bs} bytes, depth ${iodepth}`;
  const shapes = [...new Set(rows.map(shapeOf))];
  const labelOf = ({ method, rw, guests }: DiskReport): string =>
    `${method}, ${rw.replace('rand', '')}${guests === 1 ? '' : ` ×${guests}`}`;
  const panels = (
    bar: (row: DiskReport) => Omit<Chart['panels'][number]['bars'][number], 'label'>,
  ): Chart['panels'] =>
    shapes.map((label) => ({
      label,
      bars: rows
        .filter((row) => shapeOf(row) === label)
        .map((row) => ({ label: labelOf(row), ...bar(row) })),
    }));
  return [
    {
      title: 'Throughput of disks',
      unit: 'Gb/s',
      panels: panels((row) => ({ value: row.results.gbps, limit: row.limit.memcpy_gbps })),
    },
    {
      title: 'Requests',
      unit: 'thousand a second',
      panels: panels((row) => ({
        value: row.results.iops / 1000,
        low: row.results.iops_min / 1000,
        high: row.results.iops_max / 1000,
      })),
    },
    {
      title: 'Latency, median',
      unit: 'us',
      panels: panels((row) => ({ value: row.results.latency_us.p50 })),
    },
  ];
}

function table(
  columns: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  return `<div class="scroll"><table>
<thead><tr>${columns.map((column) => `<th>${escapeMarkup(column)}</th>`).join('')}</tr></thead>
<tbody>
${rows.map((row) => `<tr>${row.map(cell).join('')}</tr>`).join('\n')}
</tbody></table></div>`;
}

function cell(value: string | number): string {
  return `<td>${escapeMarkup(String(value))}</td>`;
}

/** JSON that cannot end the script element it stands in. */
function scriptJson(value: unknown): string {
  return JSON.stringify(value).replaceAll('<', '\\u003c');
}
