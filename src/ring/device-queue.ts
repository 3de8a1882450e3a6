/**
 * The device's side of a virtqueue, split or packed: what a device model uses. Never throws in the
 * hot path but for malformed rings, as a {@link RingError}, which breaks the device.
 */
import { SluiceError } from '../base/errors.ts';
import type { ChainBatch } from './chain-batch.ts';

/** Why a ring is malformed. The set is closed; each is counted by name. */
export type RingFault =
  /** The available index moved by more than the ring's size. */
  | 'index-jump'
  /** The available index went back: the driver takes back what it had made available. */
  | 'index-back'
  /** A head or next index is not below the ring's size. */
  | 'bad-index'
  /** The chain is longer than the ring: it loops. */
  | 'chain-too-long'
  /** A descriptor's range is not wholly in the memory that the guest shared. */
  | 'bad-address'
  /** An indirect table inside an indirect table, of a wrong length, or not negotiated. */
  | 'bad-indirect'
  /** A device-readable descriptor after a device-writable one (§2.7.4.2), or a kind that the queue does not carry. */
  | 'bad-direction'
  /** The chain has no byte, or 4 GiB and more. */
  | 'bad-length';

export class RingError extends SluiceError {
  override readonly name = 'RingError';
  readonly fault: RingFault;

  constructor(fault: RingFault, message: string) {
    super('ring', message);
    this.fault = fault;
  }
}

/** What chains of a queue may consist of. */
export type Direction =
  /** Device-readable segments only (a network transmit queue). */
  | 'readable'
  /** Device-writable segments only (a network receive queue). */
  | 'writable'
  /** Readable ones first, then writable ones (block requests). */
  | 'both';

/** Raises the queue's interrupt in the guest. Implemented by the transport. */
export interface Interrupt {
  signal(): void;
}

/**
 * Where a ring stands, as GET_VRING_BASE and SET_VRING_BASE carry it (vhost-user, "Vring descriptor
 * indices"): split rings use `avail` alone; packed rings count descriptors with a wrap counter in bit 15.
 */
export interface RingPosition {
  readonly avail: number;
  readonly used: number;
}

export interface DeviceQueue {
  readonly size: number;
  readonly packed: boolean;
  /** Calls raised since the start. */
  calls: number;
  /** Chains that a former back-end had taken and not finished, as the notes of what is in flight told. */
  readonly recovered: number;
  /** Chains may be completed in order with fewer writes (VIRTIO_F_IN_ORDER). */
  readonly inOrder: boolean;

  /**
   * Appends up to `max` available chains to the batch, in order. Stops early when the batch is
   * full. Returns how many were added.
   * @throws RingError
   */
  collect(batch: ChainBatch, max: number): number;
  /** True if the driver has made chains available that were not collected yet. Looks only. */
  pending(): boolean;
  /** Gives back the last `count` chains that were collected and not completed: batch[from…]. */
  rewind(batch: ChainBatch, from: number): void;
  /** Marks chain `slot` of the batch used, `written` bytes long. Seen by the driver after {@link publish}. */
  complete(batch: ChainBatch, slot: number, written: number): void;
  /** Marks chains [from, to) used, with nothing written. */
  completeRange(batch: ChainBatch, from: number, to: number): void;
  /** Marks chains [from, to) used, `batch.written` bytes long each. */
  completeWritten(batch: ChainBatch, from: number, to: number): void;
  /**
   * Marks one chain used, long after its batch was used for others and in any order: `id` and `span`
   * as they stood in the batch, `written` bytes long. Seen by the driver after {@link publish}. What was
   * written into its buffers is told to {@link noteWritten} before.
   */
  completeChain(id: number, span: number, written: number): void;
  /**
   * Tells the dirty log that the device has written into a chain that {@link completeChain} is about to
   * complete: an arena address and bytes. Costs nothing while nobody logs.
   */
  noteWritten(arenaAddress: number, length: number): void;
  /** Makes completions visible, and calls the driver if it wants to be called. */
  publish(): void;
  /** Asks the driver for kicks; true if chains became available in the meantime. */
  enableKicks(): boolean;
  disableKicks(): void;
  /** Forgets cached memory ranges: the memory table changed. */
  forget(): void;
  /** Where the ring stands: what was collected and not completed is not counted. */
  position(): RingPosition;
}
