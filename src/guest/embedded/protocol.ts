/**
 * What the launcher and the process of the embedded guests say to each other: one JSON object a
 * line, requests on the process's standard input, replies and events on its standard output.
 */
import { type ErrorCode, SluiceError } from '../../base/errors.ts';
import type { BlkWishes } from '../../driver/virtio-blk/negotiation.ts';
import type { NetWishes } from '../../driver/virtio-net/negotiation.ts';
import type { DiskCounts, DiskWorkSpec } from './disk-options.ts';
import type { PingEnd } from './ping.ts';
import type { RoleCounts } from './role.ts';

/**
 * What the guest's device is: a virtio device behind vhost-user; behind vfio-user an emulated one, or a
 * physical or virtual function of an 82599.
 */
export type GuestMethod = DiskGuestMethod | 'direct' | 'sriov';
export type DiskGuestMethod = 'paravirtual' | 'emulated';

/** A guest: a memory file, a driver, a socket. */
export interface GuestSpec {
  /** Unique in the process. */
  readonly name: string;
  /** `paravirtual` unless given. */
  readonly method?: GuestMethod;
  /** The socket of its device. */
  readonly socket: string;
  /** Used if the device tells none. */
  readonly mac: string;
  /** Pairs to use, at most what the device has; 1 unless given. */
  readonly queuePairs?: number;
  /** 512 unless given. */
  readonly queueSize?: number;
  /** What differs from `DEFAULT_NET_WISHES`. */
  readonly wishes?: Partial<NetWishes>;
  /** Largest frame that the guest will send and receive whole, in bytes; 1514 unless given. */
  readonly frame?: number;
  /** Used if the device tells none; 1500 unless given. Larger frames are sent with segmentation offload. */
  readonly mtu?: number;
  /** Bytes of a receive buffer with its virtio_net_hdr; enough for `frame` unless given. */
  readonly receiveBytes?: number;
  /** Buffers that wait for frames, and frames that may be on their way at once, per pair. */
  readonly receiveBuffers?: number;
  readonly sendFrames?: number;
  /**
   * `direct` and `sriov`: frames are looked for only after an interrupt, as stock drivers do, of which
   * there are so many a second at most; 0: as many as there are reasons; `adaptive`: the driver decides.
   * Unless given, the guest looks while it is awake, and wants interrupts only to be woken.
   */
  readonly interrupts?: number | 'adaptive';
}

/** What became of an attachment. */
export interface GuestInfo {
  readonly name: string;
  readonly mac: string;
  readonly mtu: number;
  readonly queuePairs: number;
  readonly packed: boolean;
  /** Negotiated feature bits, in hexadecimal. */
  readonly features: string;
  readonly memoryBytes: number;
  /**
   * Of each pair: frames that can be on their way, how many of them a source uses (and so how many guests of
   * these sizes can take), and buffers for received ones.
   */
  readonly sendFrames: number;
  readonly sendWindow: number;
  readonly receiveBuffers: number;
}

export interface SourceSpec {
  /** Served in turn, frame by frame. Flow numbers are below 1024 and should not be used twice. */
  readonly targets: readonly { readonly mac: string; readonly flow: number }[];
  readonly frame: number;
  /** Frames a second; as many as possible unless given. */
  readonly rate?: number;
  /** Frames on their way at most; as many as the guest was attached for unless given. */
  readonly window?: number;
  /** Frames in all; no end unless given. */
  readonly frames?: number;
}

/** What a pair of queues is to do. */
export type RoleSpec =
  | { readonly role: 'traffic'; readonly verifyEvery?: number; readonly source?: SourceSpec }
  | { readonly role: 'echo' }
  | { readonly role: 'watch' }
  | {
      readonly role: 'ping';
      readonly mac: string;
      readonly flow: number;
      readonly frame: number;
      readonly intervalUs?: number;
      readonly until?: PingEnd;
    };

export interface GuestReading {
  /** By pair of queues, since its role began. */
  readonly pairs: readonly RoleCounts[];
  /** Since the guest was attached. */
  readonly kicks: number;
  /** Times that a call woke the process or was found by it; calls close together count once. */
  readonly calls: number;
  /** Why the guest no longer runs. */
  readonly failure: string | undefined;
}

/** A guest with a disk: a memory file, a driver, a socket. */
export interface DiskGuestSpec {
  /** Unique in the process, among guests of all kinds. */
  readonly name: string;
  /** `paravirtual` unless given. */
  readonly method?: DiskGuestMethod;
  readonly socket: string;
  /** Emulated: the port of the controller that the drive is plugged into; 0 unless given. */
  readonly port?: number;
  /** Queues to use, at most what the device has; 1 unless given. */
  readonly queues?: number;
  /** 128 unless given. */
  readonly queueSize?: number;
  /** What differs from `DEFAULT_BLK_WISHES`. */
  readonly wishes?: Partial<BlkWishes>;
  /** Turns the disk's cache on or off; else it stays as it is. */
  readonly writeback?: boolean;
  /** Requests that can be on their way at once, per queue; 32 unless given. */
  readonly slots?: number;
  /** Bytes of the largest request; 4096 unless given. */
  readonly requestBytes?: number;
  /** Bytes of a segment, to have requests of several; as many as the device takes unless given. */
  readonly segmentBytes?: number;
}

export interface DiskGuestInfo {
  readonly name: string;
  /** Size of the disk. */
  readonly bytes: number;
  readonly readonly: boolean;
  /** Logical block of the disk. */
  readonly blockBytes: number;
  /** Writes are durable after a flush only. */
  readonly writeback: boolean;
  readonly queues: number;
  readonly packed: boolean;
  /** Negotiated feature bits, in hexadecimal. */
  readonly features: string;
  readonly memoryBytes: number;
  readonly slots: number;
  readonly requestBytes: number;
}

export interface DiskGuestReading {
  /** By queue, since its work began. */
  readonly queues: readonly DiskCounts[];
  /** As in {@link GuestReading}. */
  readonly kicks: number;
  readonly calls: number;
  readonly failure: string | undefined;
}

/** All of a process at one moment of its own thread. */
export interface ProcessReading {
  /** CLOCK_MONOTONIC. */
  readonly nowNs: number;
  /** Processor time of the guests' thread, in microseconds. */
  readonly cpuUs: number;
  /** Bytes that the thread's heap has handed out since the start. */
  readonly heapBytes: number;
  readonly turns: number;
  readonly busyTurns: number;
  readonly sleeps: number;
  readonly guests: Readonly<Record<string, GuestReading>>;
  readonly disks: Readonly<Record<string, DiskGuestReading>>;
}

/** Requests by name: what each takes and gives. */
export interface Requests {
  attach: { readonly args: GuestSpec; readonly reply: GuestInfo };
  attachDisk: { readonly args: DiskGuestSpec; readonly reply: DiskGuestInfo };
  detach: { readonly args: { readonly guest: string }; readonly reply: null };
  /** Gives pairs new roles, the first to the first; pairs without one become sinks. */
  start: {
    readonly args: { readonly roles: Readonly<Record<string, readonly RoleSpec[]>> };
    readonly reply: null;
  };
  /** Gives the queues of disks work, the first to the first; queues without any rest. */
  startDisks: {
    readonly args: { readonly work: Readonly<Record<string, readonly DiskWorkSpec[]>> };
    readonly reply: null;
  };
  /** Ends all sending, and all work. The reply comes once the devices have taken what was on its way. */
  stop: { readonly args: { readonly timeoutMs: number }; readonly reply: { drained: boolean } };
  read: { readonly args: null; readonly reply: ProcessReading };
}

export type RequestName = keyof Requests;

export type Request = {
  readonly [Name in RequestName]: {
    readonly id: number;
    readonly name: Name;
    readonly args: Requests[Name]['args'];
  };
}[RequestName];

export interface SentError {
  readonly code: ErrorCode | undefined;
  readonly message: string;
  readonly remedy: string | undefined;
}

export type Message =
  | { readonly kind: 'ready' }
  | { readonly kind: 'reply'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly error: SentError }
  /** A guest has lost its device, or found it broken. */
  | { readonly kind: 'lost'; readonly guest: string; readonly reason: string };

export function sentError(error: unknown): SentError {
  const sluice = error instanceof SluiceError ? error : undefined;
  return {
    code: sluice?.code,
    message: error instanceof Error ? error.message : String(error),
    remedy: sluice?.remedy,
  };
}

export function receivedError({ code, message, remedy }: SentError): Error {
  if (code === undefined) return new Error(message);
  return new SluiceError(code, message, remedy === undefined ? {} : { remedy });
}
