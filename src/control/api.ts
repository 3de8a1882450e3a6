/**
 * The control API, once, typed: server, client and documentation are made of it. JSON over HTTP on
 * the unix socket control.sock of the run directory; who may open that socket may do everything.
 */
import { z } from 'zod';
import { vfNumber, vfWords } from '../daemon/vf-schema.ts';
import { VF_LINK_STATES, VF_MODES, VF_VLAN_PROTOCOLS } from '../device/ixgbe/vf-policy-settings.ts';
import { BLOCK_COUNTERS } from '../device/virtio-blk/counters.ts';
import { LANE_COUNTERS } from '../engine/lane-counters.ts';
import { PCI_COUNTERS } from '../method/pci-attachment.ts';
import { PORT_COUNTERS } from '../net/port.ts';

const count = z.number();

function counters<const Names extends readonly string[]>(names: Names) {
  return z.object(
    Object.fromEntries(names.map((name) => [name, count])) as Record<Names[number], typeof count>,
  );
}

const lane = counters(LANE_COUNTERS).extend({
  lane: z.int(),
  cpu_ns: z.number().describe('Processor time of the thread so far, in nanoseconds.'),
  wait_ns: z.number().describe('Time that the thread waited for a processor, in nanoseconds.'),
});

const port = z.object({
  port: z.string(),
  switch: z.string().describe('What it is plugged into: a switch, or a port of a NIC (nic0/0).'),
  kind: z.enum(['guest', 'tap', 'switch', 'capture', 'nic']),
  lane: z.int(),
  connected: z.boolean().describe('A VMM is connected (guests).'),
  running: z.boolean().describe("The guest's driver has started (guests)."),
  features: z.string().describe('Feature bits that the driver took, in hexadecimal.'),
  protocolFeatures: z.array(z.string()),
  memoryBytes: z.number().describe('Memory that the guest shares.'),
  fault: z.string().nullable().describe('Why the device was stopped.'),
  counters: counters(PORT_COUNTERS).describe("Directions are the guest's view."),
});

const device = z.object({
  device: z.string(),
  disk: z.string(),
  lane: z.int(),
  connected: z.boolean().describe('A VMM is connected.'),
  running: z.boolean().describe("The guest's driver has started."),
  features: z.string().describe('Feature bits that the driver took, in hexadecimal.'),
  protocolFeatures: z.array(z.string()),
  memoryBytes: z.number().describe('Memory that the guest shares.'),
  fault: z.string().nullable().describe('Why the device was stopped.'),
  counters: counters(BLOCK_COUNTERS),
});

const disk = z.object({
  disk: z.string(),
  kind: z.enum(['file', 'memory', 'nbd', 'image']),
  source: z.string().describe('File, URI, or `memory`.'),
  readonly: z.boolean(),
  power: z
    .enum(['on', 'off'])
    .nullable()
    .describe('Null: it has no volatile cache (`faults`), or is not open.'),
  serial: z.string(),
  lanes: z.array(z.int()).describe('Lanes that have it open; none while no guest has it.'),
  bytes: z.number().nullable().describe('Its size; null while it is not open.'),
  blockBytes: z.int().describe('Its logical block.'),
  usedBy: z.array(z.string()).describe('Devices, such as web/disk0.'),
  details: z
    .record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]))
    .describe('What its kind has to tell, while it is open.'),
  counters: counters(BLOCK_COUNTERS).describe('Of all its devices together.'),
});

const ring = z.object({
  port: z.string().describe('A port or a disk device.'),
  ring: z.int(),
  direction: z.enum(['rx', 'tx', 'request']),
  size: z.int(),
  packed: z.boolean(),
  started: z.boolean(),
  enabled: z.boolean(),
  avail: z.int(),
  used: z.int(),
});

const pciFunction = z.object({
  function: z.string().describe('A device of a guest, such as web/net0 or web/ahci0.'),
  model: z.string(),
  lane: z.int(),
  connected: z.boolean().describe('A VMM is connected.'),
  lost: z.boolean().describe('Sluice disconnected its VMM, which does not come back.'),
  busMaster: z.boolean().describe('The guest lets it reach memory.'),
  maps: z.int().describe('Maps of its DMA domain.'),
  memoryBytes: z.number().describe('Memory in these maps.'),
  vectors: z
    .object({ intx: z.int(), msi: z.int(), msix: z.int() })
    .describe('Interrupt vectors that the VMM has set up.'),
  fault: z.string().nullable().describe('Why the device was stopped.'),
  counters: counters(PCI_COUNTERS).describe('A trap is an access to a register.'),
});

const vf = z.object({
  function: z.string().describe('Such as nic0/0/vf3.'),
  nic: z.string().describe('The port of the NIC: nic0/0.'),
  vf: z.int(),
  port: z
    .string()
    .describe('Whose it is, such as web/net0; as `function` if it was made at run time.'),
  socket: z.string(),
  lane: z.int(),
  connected: z.boolean().describe('A VMM is connected.'),
  running: z.boolean().describe("The guest's driver has started."),
  address: z.string().describe('Its MAC address now.'),
  link: z.boolean().describe('The guest sees its link up.'),
  mac: z.string().nullable().describe('The MAC address that was given to it; null: none was.'),
  vlan: z.int().describe('0: none.'),
  qos: z.int(),
  proto: z.enum(VF_VLAN_PROTOCOLS),
  max_tx_rate: z.number().describe('Mb/s; 0: no limit.'),
  min_tx_rate: z.number().describe('Mb/s; 0: none is promised.'),
  spoofchk: z.boolean(),
  query_rss: z.boolean(),
  state: z.enum(VF_LINK_STATES),
  trust: z.boolean(),
  api: z
    .string()
    .nullable()
    .describe("Version of the mailbox's messages, such as 1.5; null: no driver uses it."),
  mode: z.enum(VF_MODES).describe('What it receives beside its own addresses.'),
  vlans: z.array(z.int()).readonly().describe('VLANs that its guest has asked for.'),
  macvlans: z.array(z.string()).readonly().describe('Further MAC addresses of its guest.'),
  spoofed: z.number().describe('Frames dropped for their source address or VLAN.'),
  counters: counters(PORT_COUNTERS).describe("Directions are the guest's view."),
});

const whichVf = {
  nic: z.string().describe('The port of the NIC: nic0/0.'),
  vf: vfNumber,
};

const guest = z.object({
  guest: z.string(),
  memoryBytes: z.number(),
  net: z.array(
    z.object({
      port: z.string(),
      method: z.string(),
      switch: z.string().describe('The switch, or the port of a NIC (nic0/0), that it is at.'),
      vf: z.int().nullable().describe('Number of the virtual function; null without one.'),
      mac: z.string(),
      socket: z.string(),
      connected: z.boolean(),
      running: z.boolean(),
      lost: z.boolean().describe('Emulated: its VMM was disconnected, and does not come back.'),
    }),
  ),
  disk: z.array(
    z.object({
      device: z.string(),
      method: z.string(),
      disk: z.string(),
      socket: z.string(),
      connected: z.boolean(),
      running: z.boolean(),
      lost: z.boolean().describe('Emulated: its VMM was disconnected, and does not come back.'),
    }),
  ),
});

const mac = z.object({
  switch: z.string(),
  mac: z.string(),
  vlan: z.int(),
  port: z.string(),
  static: z.boolean(),
  age: z.number().describe('Seconds since the address was last heard.'),
});

const switchRow = z.object({
  switch: z.string(),
  lane: z.int(),
  wire: z.string(),
  ports: z.array(z.string()),
});

const fault = z.object({
  time: z.string(),
  port: z.string().describe('The device; for DMA the PCI function.'),
  reason: z.string(),
  dma: z
    .object({
      iova: z.number().describe('I/O virtual address.'),
      length: z.number(),
      direction: z
        .enum(['read', 'write'])
        .describe('Whether the device would read memory or write it.'),
    })
    .nullable()
    .describe('A DMA that was refused; null: the device or its guest has failed.'),
});

const status = z.object({
  version: z.string(),
  pid: z.int(),
  config: z.string(),
  run: z.string(),
  uptime_s: z.number(),
  lanes: z.array(lane),
});

const applied = z.object({
  done: z.array(z.string()),
  failed: z.array(z.object({ action: z.string(), error: z.string() })),
});

export interface Endpoint {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly summary: string;
  /** What the request's body holds, as JSON. */
  readonly body?: z.ZodObject;
  readonly reply: z.ZodType;
}

export const API = {
  status: {
    method: 'GET',
    path: '/v1/status',
    summary: 'The daemon and its lanes.',
    reply: status,
  },
  guests: {
    method: 'GET',
    path: '/v1/guests',
    summary: 'Guests with their cards and disks.',
    reply: z.array(guest),
  },
  ports: {
    method: 'GET',
    path: '/v1/ports',
    summary: 'Ports with their counters.',
    reply: z.array(port),
  },
  rings: {
    method: 'GET',
    path: '/v1/rings',
    summary: 'Rings of connected guests.',
    reply: z.array(ring),
  },
  disks: {
    method: 'GET',
    path: '/v1/disks',
    summary: 'Disks, with what their devices have counted.',
    reply: z.array(disk),
  },
  devices: {
    method: 'GET',
    path: '/v1/devices',
    summary: "Guests' disk devices with their counters.",
    reply: z.array(device),
  },
  functions: {
    method: 'GET',
    path: '/v1/functions',
    summary: 'PCI functions that guests have, with traps, interrupts and DMA.',
    reply: z.array(pciFunction),
  },
  vfs: {
    method: 'GET',
    path: '/v1/vfs',
    summary: 'Virtual functions of NICs, with what is set of them and their counters.',
    reply: z.array(vf),
  },
  setVf: {
    method: 'POST',
    path: '/v1/vfs/set',
    summary: 'Sets words of a virtual function, as ip link set DEV vf NUM does.',
    body: z.object({ ...whichVf, set: vfWords }),
    reply: vf,
  },
  addVf: {
    method: 'POST',
    path: '/v1/vfs/add',
    summary: 'Makes a virtual function that no guest of the configuration has.',
    body: z.object({ ...whichVf, set: vfWords.default({}) }),
    reply: vf,
  },
  removeVf: {
    method: 'POST',
    path: '/v1/vfs/remove',
    summary: 'Removes a virtual function that was made at run time.',
    body: z.object(whichVf),
    reply: z.object({}),
  },
  resizeDisk: {
    method: 'POST',
    path: '/v1/disks/resize',
    summary: 'Gives a disk another size, and tells its guests.',
    body: z.object({
      disk: z.string(),
      bytes: z.int().positive(),
      shrink: z.boolean().default(false).describe('What lies behind a smaller size may be lost.'),
    }),
    reply: disk,
  },
  powerDisk: {
    method: 'POST',
    path: '/v1/disks/power',
    summary: 'Cuts the power of a disk with a volatile cache, or gives it back.',
    body: z.object({
      disk: z.string(),
      on: z.boolean().describe('Off: what no flush has made durable may be lost.'),
    }),
    reply: disk,
  },
  switches: {
    method: 'GET',
    path: '/v1/switches',
    summary: 'Switches and what is plugged in.',
    reply: z.array(switchRow),
  },
  macs: {
    method: 'GET',
    path: '/v1/macs',
    summary: 'MAC addresses that were learned.',
    reply: z.array(mac),
  },
  faults: {
    method: 'GET',
    path: '/v1/faults',
    summary: 'Devices that failed, and DMA that was refused, latest last.',
    reply: z.array(fault),
  },
  endCapture: {
    method: 'POST',
    path: '/v1/captures/end',
    summary:
      'Ends the capture of a port: what has passed until now is written, and its stream ends.',
    body: z.object({ port: z.string() }),
    reply: z.object({}),
  },
  reload: {
    method: 'POST',
    path: '/v1/reload',
    summary: 'Reads the configuration file again.',
    reply: applied,
  },
  shutdown: {
    method: 'POST',
    path: '/v1/shutdown',
    summary: 'Ends the daemon; the reply comes when the next one may start.',
    reply: z.object({}),
  },
} as const satisfies Readonly<Record<string, Endpoint>>;

export type ApiName = keyof typeof API;

export type ApiReply<Name extends ApiName> = z.infer<(typeof API)[Name]['reply']>;

/** What a request takes: nothing, or its body. */
export type ApiArguments<Name extends ApiName> = (typeof API)[Name] extends {
  readonly body: infer Body extends z.ZodObject;
}
  ? readonly [body: z.input<Body>]
  : readonly [];

/** What the daemon gets of it. */
export type ApiBody<Name extends ApiName> = (typeof API)[Name] extends {
  readonly body: infer Body extends z.ZodObject;
}
  ? z.output<Body>
  : undefined;

/** How an error is told, with an HTTP status of 4xx or 5xx. */
export const errorReply = z.object({
  error: z.object({ code: z.string(), message: z.string(), remedy: z.string().optional() }),
});

/** What POST /v1/captures takes; the reply is a pcapng stream. */
export const CAPTURE_PATH = '/v1/captures';
export const captureRequest = z.object({
  port: z.string(),
  snaplen: z.int().min(64).optional().describe('Most bytes kept of a frame.'),
});

export const METRICS_PATH = '/metrics';
