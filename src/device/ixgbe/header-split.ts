/** Which bytes of a received frame go to the header buffer, and what its descriptor says of it (§7.1.10). */
import {
  IXGBE_DESCTYPE_LEGACY,
  IXGBE_DESCTYPE_ONE_BUFFER,
  IXGBE_DESCTYPE_SPLIT,
  IXGBE_DESCTYPE_SPLIT_ALWAYS,
  IXGBE_RXD_ERROR_HEADER,
  IXGBE_RXD_HEADER_LENGTH_MAX,
  IXGBE_RXD_HEADER_LENGTH_SHIFT,
  IXGBE_RXD_HEADER_SPLIT,
} from '../../spec/ixgbe-descriptors.ts';
import { splitLength } from './receive-offload.ts';

export class HeaderSplit {
  /** Bytes that go to the header buffer. */
  bytes = 0;
  /** What the first word of the written back descriptor has of it; signed. */
  info = 0;
  /** What its status and errors have. */
  error = 0;

  /** No header is looked for. */
  none(): void {
    this.bytes = 0;
    this.info = 0;
    this.error = 0;
  }

  /** As {@link plan}, for any layout of descriptors (SRRCTL). False if there is no such layout. */
  choose(
    layout: number,
    frame: Uint8Array,
    at: number,
    length: number,
    total: number,
    wanted: number,
    room: number,
  ): boolean {
    this.none();
    if (layout === IXGBE_DESCTYPE_LEGACY || layout === IXGBE_DESCTYPE_ONE_BUFFER) return true;
    const always = layout === IXGBE_DESCTYPE_SPLIT_ALWAYS;
    if (!always && layout !== IXGBE_DESCTYPE_SPLIT) return false;
    this.plan(frame, at, length, total, wanted, room, always);
    return true;
  }

  /**
   * Of a frame of `total` bytes whose first `length` are at `at`. `wanted` is PSRTYPE; the header buffer
   * has `room` bytes; `always`: it is used for frames without a header, too.
   */
  plan(
    frame: Uint8Array,
    at: number,
    length: number,
    total: number,
    wanted: number,
    room: number,
    always: boolean,
  ): void {
    this.none();
    if (room === 0) return;
    if (always && total <= room) {
      this.bytes = total;
      this.info = Math.min(total, IXGBE_RXD_HEADER_LENGTH_MAX) << IXGBE_RXD_HEADER_LENGTH_SHIFT;
      return;
    }
    const header = Math.min(splitLength(frame, at, length, wanted), IXGBE_RXD_HEADER_LENGTH_MAX);
    if (header === 0) {
      if (!always) return;
      this.bytes = room;
      this.info = Math.min(room, IXGBE_RXD_HEADER_LENGTH_MAX) << IXGBE_RXD_HEADER_LENGTH_SHIFT;
      return;
    }
    this.info = (header << IXGBE_RXD_HEADER_LENGTH_SHIFT) | IXGBE_RXD_HEADER_SPLIT;
    if (header <= room) {
      this.bytes = Math.min(header, total);
      return;
    }
    this.error = IXGBE_RXD_ERROR_HEADER;
    this.bytes = always ? room : 0;
  }
}
