/** What the daemon can have a lane do, and what it gets back: everything here can be posted. */
import type { Isolation } from '../memory/guest-memory.ts';
import type { NetConfig, WireConfig } from './config.ts';

/** Settings of a lane that hold for all that it runs. */
export interface LaneSettings {
  readonly isolation: Isolation;
  /** Directory of sockets and journals. */
  readonly run: string;
  /** Who guests' sockets belong to. */
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

/** The counters of a port, live: see `base/counters.ts`. */
export interface PortCounters {
  readonly port: string;
  readonly shared: SharedArrayBuffer;
}

/** What a port looks like from its lane. */
export interface PortState {
  readonly port: string;
  readonly switch: string;
  readonly kind: 'guest' | 'tap' | 'switch' | 'capture';
  /** A VMM is connected (guests only). */
  readonly connected: boolean;
  /** The guest's driver has started (guests only). */
  readonly running: boolean;
  /** Feature bits that the driver took, in hexadecimal. */
  readonly features: string;
  readonly protocolFeatures: readonly string[];
  /** Bytes of memory that the guest shares. */
  readonly memoryBytes: number;
  /** Why the device was stopped; null while it works. */
  readonly fault: string | null;
}

export interface RingState {
  readonly port: string;
  readonly ring: number;
  readonly direction: 'rx' | 'tx';
  readonly size: number;
  readonly packed: boolean;
  readonly started: boolean;
  readonly enabled: boolean;
  readonly avail: number;
  readonly used: number;
}

export interface MacState {
  readonly switch: string;
  readonly mac: string;
  readonly vlan: number;
  readonly port: string;
  readonly static: boolean;
  /** Seconds since the address was last heard. */
  readonly age: number;
}

/** A device or a guest that failed. */
export interface Fault {
  readonly port: string;
  readonly reason: string;
}

export interface LaneSnapshot {
  readonly ports: readonly PortState[];
  readonly rings: readonly RingState[];
}

export type LaneCommands = {
  readonly addSwitch: {
    readonly args: { readonly name: string; readonly ageing: number };
    readonly reply: undefined;
  };
  readonly removeSwitch: { readonly args: string; readonly reply: undefined };
  readonly addWire: {
    readonly args: {
      readonly name: string;
      readonly switch: string;
      readonly wire: WireConfig;
      /** For a capture: the ring that frames go into. */
      readonly ring: SharedArrayBuffer | undefined;
    };
    readonly reply: readonly PortCounters[];
  };
  readonly removeWire: { readonly args: string; readonly reply: undefined };
  readonly addPort: { readonly args: NetConfig; readonly reply: readonly PortCounters[] };
  readonly removePort: { readonly args: string; readonly reply: undefined };
  /** Shows the frames of a port to a capture. */
  readonly startCapture: {
    readonly args: {
      readonly port: string;
      readonly ring: SharedArrayBuffer;
      readonly snapLength: number | undefined;
    };
    readonly reply: undefined;
  };
  readonly stopCapture: { readonly args: string; readonly reply: undefined };
  readonly snapshot: { readonly args: undefined; readonly reply: LaneSnapshot };
  readonly macs: { readonly args: undefined; readonly reply: readonly MacState[] };
};

/** What a lane tells without being asked. */
export type LaneEvent = { readonly kind: 'fault'; readonly fault: Fault };
