/**
 * Memory access of a PCI function, as its device model sees it. Implemented by {@link DmaDomain};
 * memory that a guest did not share by descriptor is reached by messages of the transport.
 */

/**
 * Why a DMA did not happen. Numbers, because the fault log keeps them in a typed array:
 * {@link DMA_FAULT_REASONS} names them.
 */
export const DMA_FAULT = {
  /** Nothing is mapped there, or not all of it. */
  unmapped: 0,
  /** A write to a map without the write permission. */
  readOnly: 1,
  /** A read of a map without the read permission. */
  writeOnly: 2,
  /** Bus Master Enable of the command register is off (PCI Local Bus 3.0 §6.2.2). */
  busMaster: 3,
  /** The guest went, or refused, or answered wrongly, while its memory was accessed by message. */
  peer: 4,
  /** The device found the address of no use: misaligned, beyond 2^53, or past the end of a list. */
  address: 5,
} as const;

export type DmaFault = (typeof DMA_FAULT)[keyof typeof DMA_FAULT];

/** Names of the reasons, as `sluice show faults` prints them; the index is the number. */
export const DMA_FAULT_REASONS = [
  'not mapped',
  'write to a read-only map',
  'read of a write-only map',
  'bus master off',
  'refused by the guest',
  'bad address',
] as const;

/** Results of {@link DmaSpace.read} and {@link DmaSpace.write}. */
export const DMA_DONE = 1;
export const DMA_PENDING = 0;
export const DMA_REFUSED = -1;

/** Most bytes of one {@link DmaSpace.read} or {@link DmaSpace.write}. */
export const MAX_DMA_COPY = 1024 * 1024;

export interface DmaSpace {
  /** Goes up when the map or bus mastering changes: addresses that were translated before are void. */
  readonly generation: number;

  /** What to call when a pending access is over. One client a function. */
  onDone: ((tag: number, ok: boolean) => void) | undefined;

  /**
   * Arena address of [iova, iova + length) if memory with a descriptor is mapped there in one piece
   * with the permission, and bus mastering is on; else -1, and no fault is recorded: ask the slow
   * calls, or tell {@link fault}. Allocates nothing.
   *
   * `iova` is an exact number, 0 to 2^53 - 1; `length` at least 1.
   */
  translate(iova: number, length: number, write: boolean): number;

  /**
   * The map that {@link translate} would find an address in: where it begins, where it ends, and what is
   * added to its addresses, to `into`. False if there is none. Good until {@link generation} changes.
   */
  span?(iova: number, write: boolean, into: Float64Array): boolean;

  /**
   * Copies guest memory, in however many pieces it is mapped, to lane memory at the arena address
   * `to`. {@link DMA_DONE}; {@link DMA_PENDING}: `onDone(tag, ok)` follows, never from within this
   * call, and the lane memory must stay until then; {@link DMA_REFUSED}: a fault was recorded and
   * nothing copied. At most {@link MAX_DMA_COPY} bytes; `tag` is any 32-bit number.
   */
  read(iova: number, length: number, to: number, tag: number): number;

  /** As {@link read}, from lane memory at the arena address `from` into guest memory. */
  write(iova: number, length: number, from: number, tag: number): number;

  /** Records a refused access. */
  fault(iova: number, length: number, write: boolean, reason: DmaFault): void;

  /**
   * Tells that the device wrote to `length` bytes at an arena address that {@link translate} gave,
   * for the log of dirty pages: needed only while {@link logging}.
   */
  markWritten(arenaAddress: number, length: number): void;
  readonly logging: boolean;
}
