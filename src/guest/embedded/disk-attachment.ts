/** A guest's disk as the guest's work needs it, whatever the device behind it is. */
import type { DiskRequests } from '../../driver/disk-requests.ts';
import type { DiskGuestInfo } from './protocol.ts';

/** Of a guest that does not say. */
export const DEFAULT_SLOTS = 32;
export const DEFAULT_REQUEST_BYTES = 4096;

export interface DiskAttachment {
  readonly info: DiskGuestInfo;
  readonly queues: readonly DiskRequests[];
  /** Times that the device was told of requests. */
  readonly kicks: number;
  /** Times that a call, or an interrupt, was noticed. */
  readonly calls: number;
  /** Leaves the device and gives the memory back. */
  close(): void;
}
