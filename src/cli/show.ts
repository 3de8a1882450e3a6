/** `sluice show [guests|ports|disks|…]`: what a running daemon does. */
import { Argument, type Command } from 'commander';
import type { ApiReply } from '../control/api.ts';
import type { ControlClient } from '../control/client.ts';
import { printJson, printTable, sizeText } from './output.ts';
import { clientFor, controlCommand, type JsonOption, type PlaceOptions } from './place.ts';
import { vfsText } from './show-vfs.ts';

const MiB = 1024 * 1024;

const SUBJECTS = [
  'guests',
  'ports',
  'disks',
  'devices',
  'functions',
  'vfs',
  'rings',
  'switches',
  'macs',
  'faults',
  'status',
] as const;
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
  disks: async (client) => showDisks(await client.call('disks')),
  devices: async (client) => showDevices(await client.call('devices')),
  functions: async (client) => showFunctions(await client.call('functions')),
  vfs: async (client) => {
    process.stdout.write(vfsText(await client.call('vfs')));
  },
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
      ['TIME', 'DEVICE', 'REASON', 'DMA'],
      (await client.call('faults')).map(({ time, port, reason, dma }) => [
        time,
        port,
        reason,
        dma === null
          ? '-'
          : `${dma.direction} of ${dma.length} bytes at 0x${dma.iova.toString(16)}`,
      ]),
      'no faults',
    ),
  status: async (client) => showStatus(await client.call('status')),
};

/** Where a card or a disk stands on its way to working. */
function stateOf(port: {
  readonly connected: boolean;
  readonly running: boolean;
  readonly lost?: boolean;
}): string {
  if (port.lost === true) return 'lost: restart the guest';
  return port.running ? 'running' : port.connected ? 'connected' : 'waiting';
}

function showGuests(guests: ApiReply<'guests'>): void {
  printTable(
    ['GUEST', 'DEVICE', 'METHOD', 'AT', 'STATE', 'SOCKET'],
    guests.flatMap(({ guest, net, disk }) => [
      ...net.map((card) => [
        guest,
        card.port,
        card.method,
        `${placeText(card)}, ${card.mac}`,
        stateOf(card),
        card.socket,
      ]),
      ...disk.map((device) => [
        guest,
        device.device,
        device.method,
        `disk ${device.disk}`,
        stateOf(device),
        device.socket,
      ]),
    ]),
    'no guests',
  );
}

function placeText({ switch: place, vf }: ApiReply<'guests'>[number]['net'][number]): string {
  // Names of ports of NICs have a slash.
  if (!place.includes('/')) return `switch ${place}`;
  return vf === null ? place : `${place} vf ${vf}`;
}

function showPorts(ports: ApiReply<'ports'>): void {
  printTable(
    ['PORT', 'AT', 'LANE', 'STATE', 'TX frames', 'TX bytes', 'RX frames', 'RX bytes', 'DROPS'],
    ports.map((port) => [
      port.port,
      port.switch,
      port.lane,
      port.fault === null ? stateOf(port) : `failed: ${port.fault}`,
      port.counters.tx_frames,
      port.counters.tx_bytes,
      port.counters.rx_frames,
      port.counters.rx_bytes,
      reasonsOf(port.counters, DROPS),
    ]),
    'no ports',
  );
}

/** Counters that are not zero, of the names that a pattern fits: `no_buffer 12, spoof 3`, or `0`. */
function reasonsOf(counters: Readonly<Record<string, number>>, pattern: RegExp): string {
  const reasons = Object.entries(counters).flatMap(([name, value]) => {
    const reason = pattern.exec(name)?.[1];
    return reason === undefined || value === 0 ? [] : [`${reason} ${value}`];
  });
  return reasons.length === 0 ? '0' : reasons.join(', ');
}

const DROPS = /^[rt]x_drop_(.*)$/;
const ERRORS = /^error_(.*)$/;

const IO_HEAD = ['READS', 'READ bytes', 'WRITES', 'WRITTEN bytes', 'FLUSHES', 'ERRORS'] as const;

function ioColumns(counters: ApiReply<'disks'>[number]['counters']): readonly (string | number)[] {
  return [
    counters.reads,
    counters.read_bytes,
    counters.writes,
    counters.write_bytes,
    counters.flushes,
    reasonsOf(counters, ERRORS),
  ];
}

function showDisks(disks: ApiReply<'disks'>): void {
  printTable(
    ['DISK', 'KIND', 'SIZE', 'ACCESS', 'USED BY', 'ENGINE', ...IO_HEAD],
    disks.map((disk) => [
      disk.disk,
      disk.kind,
      disk.bytes === null ? '-' : sizeText(disk.bytes),
      disk.readonly ? 'readonly' : 'read, write',
      disk.usedBy.join(' ') || '-',
      String(disk.details['engine'] ?? '-'),
      ...ioColumns(disk.counters),
    ]),
    'no disks',
  );
}

function showDevices(devices: ApiReply<'devices'>): void {
  printTable(
    ['DEVICE', 'DISK', 'LANE', 'STATE', ...IO_HEAD, 'KICKS', 'CALLS'],
    devices.map((device) => [
      device.device,
      device.disk,
      device.lane,
      device.fault === null ? stateOf(device) : `failed: ${device.fault}`,
      ...ioColumns(device.counters),
      device.counters.kicks,
      device.counters.calls,
    ]),
    'no disk devices',
  );
}

function showFunctions(functions: ApiReply<'functions'>): void {
  printTable(
    [
      'FUNCTION',
      'MODEL',
      'LANE',
      'STATE',
      'MAPS',
      'VECTORS',
      'TRAPS read',
      'TRAPS written',
      'MESSAGES',
      'INTERRUPTS',
      'DMA FAULTS',
    ],
    functions.map(({ counters, vectors, ...item }) => [
      item.function,
      item.model,
      item.lane,
      item.fault === null ? stateOf({ ...item, running: item.busMaster }) : `failed: ${item.fault}`,
      item.maps,
      Object.entries(vectors)
        .flatMap(([kind, count]) => (count === 0 ? [] : `${kind} ${count}`))
        .join(', ') || '-',
      counters.trap_reads,
      counters.trap_writes,
      counters.messages,
      counters.interrupts,
      counters.dma_faults,
    ]),
    'no PCI functions',
  );
}

function showRings(rings: ApiReply<'rings'>): void {
  printTable(
    ['DEVICE', 'RING', 'DIR', 'SIZE', 'LAYOUT', 'STATE', 'AVAIL', 'USED'],
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
