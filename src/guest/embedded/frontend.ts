/** What an embedded guest needs of the transports that attach its driver to a device. */
import type { PciBus } from '../../driver/pci/bus.ts';
import type { Kick, QueueLayout } from '../../ring/driver-queue.ts';

export interface Frontend {
  /** Features of device and transport. */
  readonly features: bigint;
  /** Queues that the device says it has; undefined if it cannot tell. */
  readonly maxQueues: number | undefined;
  /** The device's configuration space, as far as it can be read; empty if it cannot. */
  readConfig(bytes: number): Uint8Array;
  /** Writes fields of the configuration space. @throws SluiceError `unsupported` where it cannot be written. */
  writeConfig(offset: number, bytes: Uint8Array): void;
  acceptFeatures(features: bigint): void;
  /** Shares one piece of memory: `size` bytes of a file from its beginning. The descriptor stays the caller's. */
  shareMemory(fd: number, size: number, guestAddress: number): void;
  /** Which kick belongs to a queue; before the queue is started. */
  kick(index: number): Kick;
  /** Lets the device use a queue whose memory is initialised. */
  startQueue(index: number, layout: QueueLayout): void;
  /** Times that a call was noticed. */
  readonly calls: number;
  /**
   * Ends the attachment. The device may write into the memory for a moment longer: into the file,
   * which it has mapped itself.
   */
  close(): void;
}

/** Attaches to a socket; `onLost` is called once if the device's side goes away later. */
export interface Transports {
  /** A virtio device behind a vhost-user socket. */
  virtio(socket: string, onLost: (reason: string) => void): Frontend;
  /** A PCI function behind a vfio-user socket. */
  pci(socket: string, onLost: (reason: string) => void): PciBus;
}
