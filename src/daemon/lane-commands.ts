/** What the daemon can have a lane do, and what it gets back: everything here can be posted. */

import type { MemoryDiskDescription } from '../block/memory.ts';
import type { NbdDiskDescription } from '../block/nbd/description.ts';
import type { FileDiskDescription } from '../block/open/file.ts';
import type { VfDescription } from '../device/ixgbe/vf-policy.ts';
import type { LaneHandle } from '../engine/lane-handle.ts';
import type { Isolation } from '../memory/guest-memory.ts';
import type { PciCounter } from '../method/pci-attachment.ts';
import type { NetConfig, WireConfig } from './config.ts';
import type { ControllerConfig, DiskConfig, GuestDiskConfig } from './disk-config.ts';
import type { NicPortConfig, NicWireConfig, SriovNetConfig } from './nic-config.ts';

/** A disk that the main thread has opened, for the lane that uses it. */
export type DiskDescription = FileDiskDescription | MemoryDiskDescription | NbdDiskDescription;

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

/** The counters of a disk device, live. */
export interface DeviceCounters {
  readonly device: string;
  readonly shared: SharedArrayBuffer;
}

/** What a port looks like from its lane. */
export interface PortState {
  readonly port: string;
  /** What it is plugged into: a switch, or a port of a NIC (`nic0/0`). */
  readonly switch: string;
  readonly kind: 'guest' | 'tap' | 'switch' | 'capture' | 'nic';
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

/** What a disk device looks like from its lane. */
export interface DeviceState {
  /** `web/disk0` */
  readonly device: string;
  readonly disk: string;
  /** A VMM is connected. */
  readonly connected: boolean;
  /** The guest's driver has started. */
  readonly running: boolean;
  /** Feature bits that the driver took, in hexadecimal. */
  readonly features: string;
  readonly protocolFeatures: readonly string[];
  /** Bytes of memory that the guest shares. */
  readonly memoryBytes: number;
  /** Why the device was stopped; null while it works. */
  readonly fault: string | null;
}

/** What a PCI function with its socket looks like from its lane. */
export interface FunctionState {
  /** `web/net0`, `web/ahci0` */
  readonly function: string;
  readonly model: string;
  /** A VMM is connected. */
  readonly connected: boolean;
  /** The guest lets it reach memory. */
  readonly busMaster: boolean;
  /** Maps of its DMA domain, and bytes in them. */
  readonly maps: number;
  readonly memoryBytes: number;
  /** Vectors that the VMM has set up. */
  readonly vectors: { readonly intx: number; readonly msi: number; readonly msix: number };
  readonly counters: Readonly<Record<PciCounter, number>>;
  /** Its VMM was disconnected by Sluice, and will not come back. */
  readonly lost: boolean;
  /** Why the device was stopped; null while it works. */
  readonly fault: string | null;
}

/** A virtual function, with what was set of it: see `ip link show`. */
export interface VfState extends Omit<VfDescription, 'address'> {
  /** `nic0/0/vf3` */
  readonly function: string;
  /** The port of the NIC: `nic0/0` */
  readonly nic: string;
  /** Whose it is: `web/net0`, or as the function if no guest of the file has it. */
  readonly port: string;
  readonly socket: string;
  /** A VMM is connected. */
  readonly connected: boolean;
  /** The guest's driver has started. */
  readonly running: boolean;
  /** The address that it has now, which is the guest's to change where nothing speaks against it. */
  readonly address: string;
  /** Frames that were dropped because the guest may not send from that address or VLAN. */
  readonly spoofed: number;
}

/** A DMA that was refused. */
export interface DmaFaultState {
  /** ISO 8601 */
  readonly time: string;
  readonly function: string;
  readonly iova: number;
  readonly length: number;
  readonly direction: 'read' | 'write';
  readonly reason: string;
}

/** What a disk looks like from its lane. */
export interface DiskState {
  readonly disk: string;
  readonly bytes: number;
  readonly blockBytes: number;
  readonly readonly: boolean;
  /** Null: it cannot lose its power. */
  readonly power: 'on' | 'off' | null;
}

export interface RingState {
  /** A port or a disk device. */
  readonly port: string;
  readonly ring: number;
  readonly direction: 'rx' | 'tx' | 'request';
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
  readonly disks: readonly DiskState[];
  readonly devices: readonly DeviceState[];
  readonly functions: readonly FunctionState[];
  readonly vfs: readonly VfState[];
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
  readonly addNic: {
    readonly args: Omit<NicPortConfig, 'wire'>;
    readonly reply: readonly PortCounters[];
  };
  /** Sets what of a port's traffic virtual functions get a copy of. */
  readonly setMirrors: {
    readonly args: Omit<NicPortConfig, 'wire'>;
    readonly reply: undefined;
  };
  readonly removeNic: { readonly args: string; readonly reply: undefined };
  readonly plugNic: {
    readonly args: { readonly nic: string; readonly wire: NicWireConfig };
    readonly reply: readonly PortCounters[];
  };
  readonly unplugNic: { readonly args: string; readonly reply: undefined };
  /** Sets what is said of a virtual function. */
  readonly setVf: { readonly args: SriovNetConfig; readonly reply: undefined };
  readonly addPort: { readonly args: NetConfig; readonly reply: readonly PortCounters[] };
  /** Answered when its guest's memory is not used any more. */
  readonly removePort: { readonly args: string; readonly reply: undefined };
  readonly addDisk: {
    readonly args: { readonly disk: DiskConfig; readonly description: DiskDescription };
    readonly reply: undefined;
  };
  /** Answered when a volatile cache that it has is written. */
  readonly removeDisk: { readonly args: string; readonly reply: undefined };
  /** Cuts the power of a disk, or gives it back; answered when that is done. */
  readonly powerDisk: {
    readonly args: { readonly disk: string; readonly on: boolean };
    readonly reply: undefined;
  };
  /** The size has changed, or is about to become `most` bytes; guests are told. */
  readonly refreshDisk: {
    readonly args: { readonly disk: string; readonly most: number };
    readonly reply: undefined;
  };
  readonly addController: { readonly args: ControllerConfig; readonly reply: undefined };
  /** Answered when its guest's memory is not used any more. */
  readonly removeController: { readonly args: string; readonly reply: undefined };
  readonly addDevice: { readonly args: GuestDiskConfig; readonly reply: DeviceCounters };
  /** Answered when the requests that were on their way are complete. */
  readonly removeDevice: { readonly args: string; readonly reply: undefined };
  /** Removes all disk devices and disks; answered when no request is on its way. */
  readonly drain: { readonly args: undefined; readonly reply: undefined };
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
  /** The last DMA that was refused, oldest first. */
  readonly dmaFaults: { readonly args: undefined; readonly reply: readonly DmaFaultState[] };
  readonly macs: { readonly args: undefined; readonly reply: readonly MacState[] };
};

/** What a lane tells without being asked. */
export type LaneEvent = { readonly kind: 'fault'; readonly fault: Fault };

/** A lane as the daemon has it. */
export type Lane = LaneHandle<LaneCommands, LaneEvent>;
