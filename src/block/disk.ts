/**
 * The disk interface: what a storage device model works on, whatever is behind it (a file, memory,
 * an NBD server, a wrapper around another disk).
 *
 * A disk belongs to one lane. A device opens a {@link DiskQueue} on it, with a table of requests
 * that the device owns: it fills a slot in, submits it, and is told of its completion by
 * {@link DiskSink.complete} from within {@link DiskQueue.poll}, never from within `submit`.
 * Requests complete in any order. Nothing here throws for a request: a request that fails completes
 * with a negative errno.
 */
import type { Logger } from '../base/log.ts';
import type { Arena } from '../memory/arena.ts';
import type { PollLoop } from '../os/poll-loop.ts';
import type { RequestTable } from './requests.ts';

/** Unit of offsets and lengths of requests to virtio, ATA and SCSI disks alike. */
export const SECTOR_BYTES = 512;

/** The lane that a disk belongs to. */
export interface DiskLane {
  readonly arena: Arena;
  readonly loop: PollLoop;
  readonly log: Logger;
}

/**
 * How worn a disk is, as eMMC and UFS devices tell it (JESD84-B50; VIRTIO 1.3 §5.2.6, struct
 * virtio_blk_lifetime).
 */
export interface DiskLifetime {
  /** Reserve blocks used up: 0 not known, 1 less than 80 %, 2 80 %, 3 90 %. */
  readonly preEol: number;
  /** Lifetime used of SLC and of MLC cells: 0 not known, 1 to 10 in steps of 10 %, 11 exceeded. */
  readonly typeA: number;
  readonly typeB: number;
}

/** What a disk is. All sizes in bytes. */
export interface DiskInfo {
  /** A multiple of {@link SECTOR_BYTES}. Changes when the disk is resized: see {@link Disk.onChange}. */
  readonly bytes: number;
  readonly readonly: boolean;
  /** Logical block: offsets, lengths and (for `direct` files) memory must be multiples of it. */
  readonly blockBytes: number;
  /** Physical block, best unit and alignment of writes: a multiple of `blockBytes`. */
  readonly physicalBlockBytes: number;
  /** Best size of requests; 0: none is better. */
  readonly optimalBytes: number;
  /** DISCARD is worth a request; its unit. 0: the disk cannot. */
  readonly discardBytes: number;
  /** DISK_WRITE_ZEROES is understood. */
  readonly writeZeroes: boolean;
  /** Completed writes may be lost in a power cut until a flush: else DISK_FLUSH has nothing to do. */
  readonly volatileCache: boolean;
  /** Only of disks that know it. */
  readonly lifetime?: DiskLifetime | undefined;
}

/** Who is told of completions. */
export interface DiskSink {
  /**
   * A request is done. `result`: 0 or more when all of it was done, else a negative errno
   * (asm-generic/errno-base.h). Its slot is the owner's again; it may submit others from within.
   */
  complete(slot: number, result: number): void;
}

export interface DiskQueueOptions {
  readonly requests: RequestTable;
  readonly sink: DiskSink;
  readonly loop: PollLoop;
}

/** A way to a disk: one for each device that uses it. */
export interface DiskQueue {
  /** Requests that were submitted and are not complete. */
  readonly inFlight: number;
  /**
   * Takes a request. The range must be within the disk and a write must not be to a readonly one: the
   * caller checks, because only it knows what its guest is to be told.
   */
  submit(slot: number): void;
  /** Sends what was submitted on its way: once a burst. */
  flush(): void;
  /** Tells the sink of what has completed; returns how many requests. */
  poll(): number;
  /** The lane wants to sleep: completions must wake its loop from now on. True if there are some already. */
  arm(): boolean;
  /** The lane is awake and polls. */
  disarm(): void;
  /** Ends the use of the disk. @throws SluiceError `state` while requests are in flight */
  close(): void;
}

export interface Disk {
  /** As the configuration names it. */
  readonly name: string;
  readonly info: DiskInfo;
  /** Called after `info` has changed (a resize). Several may listen. */
  onChange(listener: () => void): { readonly remove: () => void };
  open(options: DiskQueueOptions): DiskQueue;
  /** All queues are closed. Gives descriptors and memory back. */
  close(): void;
}
