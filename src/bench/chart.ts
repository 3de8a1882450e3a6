/**
 * Bar charts as SVG: a row of panels, each with a scale of its own, because the panels of a bench
 * differ by factors (frames of 64 bytes and of 64 KiB). Colours come from the page's style sheet.
 */

export interface Bar {
  readonly label: string;
  readonly value: number;
  /** Ends of a whisker. */
  readonly low?: number;
  readonly high?: number;
  /** A mark above the bar: what could not be exceeded. */
  readonly limit?: number;
}

export interface Panel {
  readonly label: string;
  readonly bars: readonly Bar[];
}

export interface Chart {
  readonly title: string;
  /** Of the values, as printed above each bar. */
  readonly unit: string;
  readonly panels: readonly Panel[];
}

const PANEL_WIDTH = 250;
const PANEL_GAP = 30;
const PLOT_TOP = 52;
const PLOT_HEIGHT = 180;
const PLOT_BOTTOM = PLOT_TOP + PLOT_HEIGHT;
const HEIGHT = PLOT_BOTTOM + 58;
const AXIS_WIDTH = 44;
const BAR_SHARE = 0.62;
const WANTED_TICKS = 4;

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Text that can stand in HTML and XML, attributes included. */
export function escapeMarkup(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ENTITIES[character] ?? character);
}

/** Multiples of 1, 2 or 5 times a power of ten, from 0 up to at least `top`. */
export function ticksTo(top: number): number[] {
  if (!(top > 0)) return [0, 1];
  const rough = top / WANTED_TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((s) => s >= rough) ?? top;
  const count = Math.ceil(top / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, index) => Number((index * step).toPrecision(12)));
}

/** A number as short as it can be read: three significant digits, none after 100. */
export function shortNumber(value: number): string {
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/** The chart as an SVG element of its own. */
export function renderChart(chart: Chart): string {
  const width = chart.panels.length * (PANEL_WIDTH + PANEL_GAP) - PANEL_GAP;
  const panels = chart.panels.map((panel, index) =>
    renderPanel(panel, index * (PANEL_WIDTH + PANEL_GAP)),
  );
  const title = escapeMarkup(`${chart.title}, ${chart.unit}`);
  return [
    `<svg viewBox="0 0 ${width} ${HEIGHT}" role="img" aria-label="${title}" xmlns="http://www.w3.org/2000/svg">`,
    `<text class="title" x="0" y="16">${title}</text>`,
    ...panels,
    '</svg>',
  ].join('\n');
}

function renderPanel({ label, bars }: Panel, left: number): string {
  const top = Math.max(
    ...bars.map(({ value, high = 0, limit = 0 }) => Math.max(value, high, limit)),
  );
  const ticks = ticksTo(top);
  const scale = PLOT_HEIGHT / (ticks.at(-1) as number);
  const y = (value: number): number => round(PLOT_BOTTOM - value * scale);
  const plotLeft = left + AXIS_WIDTH;
  const right = left + PANEL_WIDTH;
  const slot = (right - plotLeft) / Math.max(1, bars.length);
  const grid = ticks.map(
    (tick) =>
      `<line class="grid" x1="${plotLeft}" x2="${right}" y1="${y(tick)}" y2="${y(tick)}"/>` +
      `<text class="tick" x="${plotLeft - 6}" y="${y(tick) + 4}" text-anchor="end">${shortNumber(tick)}</text>`,
  );
  const middle = round((plotLeft + right) / 2);
  return [
    '<g>',
    ...grid,
    ...bars.map((bar, index) => renderBar(bar, plotLeft + (index + 0.5) * slot, slot, y)),
    `<text class="panel" x="${middle}" y="${PLOT_BOTTOM + 44}" text-anchor="middle">${escapeMarkup(label)}</text>`,
    '</g>',
  ].join('\n');
}

function renderBar(bar: Bar, centre: number, slot: number, y: (value: number) => number): string {
  const { value, low, high, limit } = bar;
  const half = (slot * BAR_SHARE) / 2;
  const x = round(centre);
  const left = round(centre - half);
  const right = round(centre + half);
  const labelled = Math.max(value, high ?? 0);
  return [
    `<rect class="bar" x="${left}" y="${y(value)}" width="${round(2 * half)}" height="${round(PLOT_BOTTOM - y(value))}"/>`,
    low === undefined || high === undefined
      ? ''
      : `<line class="whisker" x1="${x}" x2="${x}" y1="${y(low)}" y2="${y(high)}"/>`,
    limit === undefined
      ? ''
      : `<line class="limit" x1="${left}" x2="${right}" y1="${y(limit)}" y2="${y(limit)}"/>`,
    `<text class="value" x="${x}" y="${round(y(labelled) - 6)}" text-anchor="middle">${shortNumber(value)}</text>`,
    `<text class="tick" x="${x}" y="${PLOT_BOTTOM + 18}" text-anchor="middle">${escapeMarkup(bar.label)}</text>`,
  ].join('');
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
