/** The counters in Prometheus' text format (exposition format 0.0.4). */
import type { FunctionFigures, LaneFigures, PortFigures, VfFigures } from '../daemon/daemon.ts';
import type { DeviceFigures } from '../daemon/disks.ts';
import { BLOCK_COUNTERS } from '../device/virtio-blk/counters.ts';
import { LANE_COUNTERS, type LaneCounter } from '../engine/lane-counters.ts';
import { PCI_COUNTERS } from '../method/pci-attachment.ts';
import { PORT_COUNTERS } from '../net/port.ts';

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/** Figures of a lane that can fall. */
const GAUGES: ReadonlySet<LaneCounter> = new Set(['heap_used_bytes']);

type Labels = Readonly<Record<string, string | number>>;

/** Counters of errors of a disk device: one family, by reason. */
const ERROR = 'error_';

/** The whole page. */
export function metricsText(
  lanes: readonly LaneFigures[],
  ports: readonly PortFigures[],
  devices: readonly DeviceFigures[],
  functions: readonly FunctionFigures[],
  vfs: readonly VfFigures[],
): string {
  const lines: string[] = [];
  const family = (
    name: string,
    type: 'counter' | 'gauge',
    rows: readonly (readonly [Labels, number])[],
  ): void => {
    lines.push(`# TYPE ${name} ${type}`);
    for (const [labels, value] of rows) lines.push(`${name}${labelText(labels)} ${value}`);
  };
  const laneRows = (value: (lane: LaneFigures) => number): readonly (readonly [Labels, number])[] =>
    lanes.map((lane) => [{ lane: lane.lane }, value(lane)]);
  for (const name of LANE_COUNTERS) {
    const [title, type] = GAUGES.has(name)
      ? ([`sluice_lane_${name}`, 'gauge'] as const)
      : ([`sluice_lane_${name}_total`, 'counter'] as const);
    family(
      title,
      type,
      laneRows((lane) => lane[name]),
    );
  }
  family(
    'sluice_lane_cpu_seconds_total',
    'counter',
    laneRows((lane) => lane.cpu_ns / 1e9),
  );
  family(
    'sluice_lane_wait_seconds_total',
    'counter',
    laneRows((lane) => lane.wait_ns / 1e9),
  );
  for (const name of PORT_COUNTERS) {
    family(
      `sluice_port_${name}_total`,
      'counter',
      ports.map((port) => [{ port: port.port, switch: port.switch }, port.counters[name]]),
    );
  }
  family(
    'sluice_port_connected',
    'gauge',
    ports.map((port) => [{ port: port.port, switch: port.switch }, Number(port.connected)]),
  );
  family(
    'sluice_port_running',
    'gauge',
    ports.map((port) => [{ port: port.port, switch: port.switch }, Number(port.running)]),
  );
  const deviceLabels = ({ device, disk }: DeviceFigures): Labels => ({ device, disk });
  for (const name of BLOCK_COUNTERS.filter((other) => !other.startsWith(ERROR))) {
    family(
      `sluice_disk_${name}_total`,
      'counter',
      devices.map((device) => [deviceLabels(device), device.counters[name]]),
    );
  }
  const errors = BLOCK_COUNTERS.filter((name) => name.startsWith(ERROR));
  family(
    'sluice_disk_errors_total',
    'counter',
    devices.flatMap((device) =>
      errors.map(
        (name) =>
          [
            { ...deviceLabels(device), reason: name.slice(ERROR.length) },
            device.counters[name],
          ] as const,
      ),
    ),
  );
  for (const state of ['connected', 'running'] as const) {
    family(
      `sluice_disk_${state}`,
      'gauge',
      devices.map((device) => [deviceLabels(device), Number(device[state])]),
    );
  }
  const functionLabels = (item: FunctionFigures): Labels => ({
    function: item.function,
    model: item.model,
  });
  for (const name of PCI_COUNTERS) {
    family(
      `sluice_function_${name}_total`,
      'counter',
      functions.map((item) => [functionLabels(item), item.counters[name]]),
    );
  }
  for (const state of ['connected', 'lost'] as const) {
    family(
      `sluice_function_${state}`,
      'gauge',
      functions.map((item) => [functionLabels(item), Number(item[state])]),
    );
  }
  const vfLabels = ({ nic, vf, port }: VfFigures): Labels => ({ nic, vf, port });
  family(
    'sluice_vf_spoofed_total',
    'counter',
    vfs.map((vf) => [vfLabels(vf), vf.spoofed]),
  );
  family(
    'sluice_vf_link',
    'gauge',
    vfs.map((vf) => [vfLabels(vf), Number(vf.link)]),
  );
  return `${lines.join('\n')}\n`;
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(
    ([name, value]) => `${name}="${escapeLabel(String(value))}"`,
  );
  return `{${pairs.join(',')}}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
