/**
 * The control API, once, typed: server, client and documentation are made of it. JSON over HTTP on
 * the unix socket control.sock of the run directory; who may open that socket may do everything.
 */
import { z } from 'zod';
import { LANE_COUNTERS } from '../engine/lane-counters.ts';
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
  switch: z.string(),
  kind: z.enum(['guest', 'tap', 'switch', 'capture']),
  lane: z.int(),
  connected: z.boolean().describe('A VMM is connected (guests).'),
  running: z.boolean().describe("The guest's driver has started (guests)."),
  features: z.string().describe('Feature bits that the driver took, in hexadecimal.'),
  protocolFeatures: z.array(z.string()),
  memoryBytes: z.number().describe('Memory that the guest shares.'),
  fault: z.string().nullable().describe('Why the device was stopped.'),
  counters: counters(PORT_COUNTERS).describe("Directions are the guest's view."),
});

const ring = z.object({
  port: z.string(),
  ring: z.int(),
  direction: z.enum(['rx', 'tx']),
  size: z.int(),
  packed: z.boolean(),
  started: z.boolean(),
  enabled: z.boolean(),
  avail: z.int(),
  used: z.int(),
});

const guest = z.object({
  guest: z.string(),
  memoryBytes: z.number(),
  net: z.array(
    z.object({
      port: z.string(),
      method: z.string(),
      switch: z.string(),
      mac: z.string(),
      socket: z.string(),
      connected: z.boolean(),
      running: z.boolean(),
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

const fault = z.object({ time: z.string(), port: z.string(), reason: z.string() });

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

interface Endpoint {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly summary: string;
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
    summary: 'Guests and their cards.',
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
    summary: 'Devices that failed, latest last.',
    reply: z.array(fault),
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
    summary: 'Ends the daemon.',
    reply: z.object({}),
  },
} as const satisfies Readonly<Record<string, Endpoint>>;

export type ApiName = keyof typeof API;

export type ApiReply<Name extends ApiName> = z.infer<(typeof API)[Name]['reply']>;

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
