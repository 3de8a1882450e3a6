/**
 * Requests to a disk as the user of a driver makes them, whatever the disk is: a queue of a virtio-blk
 * device, a port of an AHCI controller.
 *
 * A request is a *slot* with a buffer for its data. The user fills in `sector` and `bytes` of a free
 * slot, submits it, and finds it again among `done`, in whatever order the device finishes. Which slots
 * are free is the user's matter.
 */

/** In {@link DiskRequests.status}: the device did what it was asked for. */
export const REQUEST_OK = 0;

export interface DiskRequests {
  /** Requests that can be on their way at once. */
  readonly slots: number;
  /** Bytes of data of the largest request. */
  readonly requestBytes: number;
  /** By slot, filled in by the user: first sector (of 512 bytes), and bytes of data. */
  readonly sector: Float64Array;
  readonly bytes: Uint32Array;
  /** All slots' data as little-endian words; slot s begins at s * {@link wordsPerSlot}. */
  readonly words: Uint32Array;
  readonly wordsPerSlot: number;
  /** Slots that the last {@link collect} returned. */
  readonly done: Uint16Array;
  /** By slot: {@link REQUEST_OK}, or what the device said of the last request. */
  readonly status: Uint8Array;
  /** Requests that were submitted and not collected. */
  readonly outstanding: number;

  /** Reads `bytes[slot]` from `sector[slot]` on. False if the device takes none at present: try again later. */
  read(slot: number): boolean;
  write(slot: number): boolean;
  /** Everything that was completed before becomes durable. */
  flush(slot: number): boolean;
  /** Makes all submitted requests visible to the device. */
  publish(): void;
  /** Takes finished requests, as many as fit, into `done` and `status`. Returns how many. */
  collect(): number;
  /** The user wants to sleep, and to be woken by a call. True if there is something to collect. */
  enableCalls(): boolean;
  disableCalls(): void;
}
