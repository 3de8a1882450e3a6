/** `sluice show [guests|ports|rings|switches|macs|faults|status]`: what a running daemon does. */
import { Argument, type Command } from 'commander';
import type { ApiReply } from '../control/api.ts';
import type { ControlClient } from '../control/client.ts';
import { printJson, printTable } from './output.ts';
import { clientFor, controlCommand, type JsonOption, type PlaceOptions } from './place.ts';

const MiB = 1024 * 1024;

const SUBJECTS = ['guests', 'ports', 'rings', 'switches', 'macs', 'faults', 'status'] as const;
type Subject = (typeof SUBJECTS)[number];

export function showCommand(): Command {
  return controlCommand('show')
    .addArgument(new Argument('[what]', 'what to show').choices(SUBJECTS).default('guests'))
    .action(async (what: Subject, options: PlaceOptions & JsonOption) => {
      const client = clientFor(options);
      if (options.json === true) printJson(await client.call(what));
      else await SHOW[what](client);
    });
}

const SHOW: Readonly<Record<Subject, (client: ControlClient) => Promise<void>>> = {
  guests: async (client) => showGuests(await client.call('guests')),
  ports: async (client) => showPorts(await client.call('ports')),
  rings: async (client) => showRings(await client.call('rings')),
  switches: async (client) =>
    printTable(
      ['SWITCH', 'LANE', 'WIRE', 'PORTS'],
      (await client.call('switches')).map((row) => [
        row.switch,
        row.lane,
        row.wire,
        row.ports.join(' '),
      ]),
      'no switches',
    ),
  macs: async (client) =>
    printTable(
      ['SWITCH', 'MAC', 'VLAN', 'PORT', 'AGE s'],
      (await client.call('macs')).map((row) => [
        row.switch,
        row.mac,
        row.vlan,
        row.port,
        row.static ? 'static' : Math.round(row.age),
      ]),
      'no MAC address has been learned',
    ),
  faults: async (client) =>
    printTable(
      ['TIME', 'PORT', 'REASON'],
      (await client.call('faults')).map(({ time, port, reason }) => [time, port, reason]),
      'no faults',
    ),
  status: async (client) => showStatus(await client.call('status')),
};

/** Where a card stands on its way to carrying frames. */
function stateOf(port: { readonly connected: boolean; readonly running: boolean }): string {
  return port.running ? 'running' : port.connected ? 'connected' : 'waiting';
}

function showGuests(guests: ApiReply<'guests'>): void {
  printTable(
    ['GUEST', 'PORT', 'METHOD', 'SWITCH', 'MAC', 'STATE', 'SOCKET'],
    guests.flatMap(({ guest, net }) =>
      net.map((card) => [
        guest,
        card.port,
        card.method,
        card.switch,
        card.mac,
        stateOf(card),
        card.socket,
      ]),
    ),
    'no guests',
  );
}

function showPorts(ports: ApiReply<'ports'>): void {
  printTable(
    ['PORT', 'SWITCH', 'LANE', 'STATE', 'TX frames', 'TX bytes', 'RX frames', 'RX bytes', 'DROPS'],
    ports.map((port) => [
      port.port,
      port.switch,
      port.lane,
      port.fault === null ? stateOf(port) : `failed: ${port.fault}`,
      port.counters.tx_frames,
      port.counters.tx_bytes,
      port.counters.rx_frames,
      port.counters.rx_bytes,
      dropsOf(port.counters),
    ]),
    'no ports',
  );
}

/** `no_buffer 12, spoof 3`, or `0`. */
function dropsOf(counters: Readonly<Record<string, number>>): string | number {
  const drops = Object.entries(counters).flatMap(([name, value]) => {
    const reason = /^[rt]x_drop_(.*)$/.exec(name)?.[1];
    return reason === undefined || value === 0 ? [] : [`${reason} ${value}`];
  });
  return drops.length === 0 ? '0' : drops.join(', ');
}

function showRings(rings: ApiReply<'rings'>): void {
  printTable(
    ['PORT', 'RING', 'DIR', 'SIZE', 'LAYOUT', 'STATE', 'AVAIL', 'USED'],
    rings.map((ring) => [
      ring.port,
      ring.ring,
      ring.direction,
      ring.size,
      ring.packed ? 'packed' : 'split',
      ring.started ? (ring.enabled ? 'running' : 'disabled') : 'stopped',
      ring.avail,
      ring.used,
    ]),
    'no guest is connected',
  );
}

function showStatus(status: ApiReply<'status'>): void {
  process.stdout.write(
    `sluice ${status.version}, pid ${status.pid}, up ${Math.round(status.uptime_s)} s\nconfiguration ${status.config}\nrun directory ${status.run}\n\n`,
  );
  printTable(
    ['LANE', 'CPU s', 'TURNS', 'BUSY', 'SLEEPS', 'HEAP MiB allocated', 'FAILURES'],
    status.lanes.map((lane) => [
      lane.lane,
      Number((lane.cpu_ns / 1e9).toFixed(3)),
      lane.turns,
      lane.busy_turns,
      lane.sleeps,
      Number((lane.heap_allocated_bytes / MiB).toFixed(1)),
      lane.device_failures,
    ]),
    'no lanes',
  );
}
