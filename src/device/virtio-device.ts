/**
 * What a transport needs of a virtio device model, whatever its type (VIRTIO 1.3 §2, §3).
 * The transport owns negotiation, memory and descriptors; the device owns rings and meaning.
 */
import type { DeviceQueue, Direction } from '../ring/device-queue.ts';

export interface VirtioDevice {
  /** Device type (VIRTIO_ID_*). */
  readonly type: number;
  /** Most virtqueues that the device has, control queues included. */
  readonly maxQueues: number;
  /** Largest queue size that the device takes. */
  readonly maxQueueSize: number;
  /** What the device offers: virtio feature bits. Transport features are not among them. */
  readonly features: bigint;
  /** What the chains of a queue consist of. */
  direction(index: number): Direction;
  /** Configuration space (§2.5), little-endian; read and written whole by the transport. */
  readonly configBytes: number;
  readConfig(): Uint8Array;
  /** @throws SluiceError `protocol` for a field that a driver may not write. */
  writeConfig(offset: number, bytes: Uint8Array): void;
  /**
   * The driver's choice, a subset of what the transport offered. Before any queue starts; again
   * after a reset.
   */
  setDriverFeatures(features: bigint): void;
  /** A queue has memory, position and interrupt: it may be polled from now on (once enabled). */
  startQueue(index: number, queue: DeviceQueue): void;
  /**
   * Ends the use of a queue. A device without {@link hold} has nothing in flight between two turns of
   * its poller; for one with it, the transport has waited for the drain.
   */
  stopQueue(index: number): void;
  /** vhost-user rings can be started yet disabled: then the device does not process them. */
  setQueueEnabled(index: number, enabled: boolean): void;
  /** The link's state as the guest is to see it, and requests to announce: see the device. */
  onConfigChange: (() => void) | undefined;
  /** The ring or a descriptor is malformed: transport tells the guest by the error descriptor or needs-reset. */
  onBroken: ((reason: Error) => void) | undefined;
  /** Back to the state after creation; queues are stopped. */
  reset(): void;

  // What only some devices have; a transport offers what rests on it only where it is there.

  /**
   * Takes no more chains from the queue (undefined: from any). True if none of its requests is in
   * flight; else {@link onDrained} is called once none is. May be called again for what is held
   * already. {@link startQueue}, or {@link setQueueEnabled} with true, ends the hold of that queue.
   */
  hold?(index: number | undefined): boolean;
  /**
   * Set by the transport: the requests of what was held last are complete and published. The
   * transport stops queues later, not from within.
   */
  onDrained?: (() => void) | undefined;
  /**
   * Requests complete in any order, long after they were taken, and must survive this process: they
   * are noted in the in-flight area, where the front-end keeps one (vhost-user, "Inflight I/O
   * tracking"), and VIRTIO_F_IN_ORDER is not offered.
   */
  readonly tracksInflight?: boolean;

  /** Features that say nothing without the configuration space: not offered where it cannot be read. */
  readonly configFeatures?: bigint;
  /** Tells the network where the guest is now, by a broadcast in the name of `mac` (6 bytes). */
  announce?(mac: Uint8Array): void;
  /**
   * The MTU that the VMM shows the guest, in bytes.
   * @throws SluiceError for one that the device cannot carry.
   */
  setMtu?(mtu: number): void;
  /** A kick has come for a queue. Only to be counted: the loop polls the queues anyway. */
  countKick?(index: number): void;
  /** The driver of a queue was called. Only to be counted. */
  countCall?(index: number): void;
}
