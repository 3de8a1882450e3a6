/**
 * Where packed rings stand, kept in a file that outlives the process.
 *
 * A split ring shows its position in guest memory (the used index). A packed ring does not, and a
 * VMM that lost its back-end sends the base of the ring's last orderly start again (QEMU:
 * virtio_queue_packed_restore_last_avail_idx does nothing). So the queue notes in a shared mapping
 * what it is about to write (JOURNAL_BATCH, JOURNAL_LAST in `ring/packed-device-queue.ts`), and a
 * new process or connection goes on from there.
 *
 * The note must not mislead when the guest has rebooted, or reloaded its driver, while nobody
 * served it. It counts only if all of this holds:
 *   - the ring is the same: memory file, place in it, addresses, size;
 *   - the VMM sends the same base as at the ring's last start: a reset or an orderly stop in the
 *     meantime would have changed it, unless the ring had begun at the initial base, too. Or it
 *     sends a later one, after it has dropped frames itself ({@link passDropped});
 *   - then, the ring does not look as if nobody had served it yet ({@link looksUnserved});
 *   - the note was not closed by an orderly stop.
 *
 * The file: a header of 64 bytes (magic 8, queues 4), then 64 bytes a queue:
 *   open u32, base u32, size u32, journal words i32 i32, padding 4, device u64, inode u64, offset of
 *   the descriptor area in the file u64, guest address of the driver area u64 (and padding)
 */
import { closeSync } from 'node:fs';
import { SluiceError } from '../../base/errors.ts';
import type { Arena } from '../../memory/arena.ts';
import { allocateFile, lockFile, openLockFile } from '../../os/lock.ts';
import { SharedMapping } from '../../os/mapping.ts';
import { JOURNAL_BATCH, JOURNAL_LAST, JOURNAL_WORDS } from '../../ring/packed-device-queue.ts';
import {
  DESCRIPTOR_BYTES,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_USED,
} from '../../spec/virtio.ts';

/** Base of a packed ring that was just made: index 0, both wrap counters 1. */
export const INITIAL_PACKED_BASE = 0x8000_8000;

/** Which ring a note is about. */
export interface RingIdentity {
  readonly size: number;
  /** Device and inode of the memory file, "dev:ino". */
  readonly file: string;
  /** Where in that file the descriptor area begins. */
  readonly offset: number;
  /** Guest physical address of the driver area. */
  readonly driver: number;
}

/** A packed ring as it lies in guest memory. */
export interface PackedRingView {
  readonly arena: Arena;
  /** Arena address of the descriptor area. */
  readonly descriptor: number;
  readonly size: number;
  /** The device writes into this queue's buffers: what it had not finished must count as empty. */
  readonly writable: boolean;
}

const MAGIC = 0x314c_4e52_4a43_4c53n;
const HEADER_BYTES = 64;
const ENTRY_BYTES = 64;
const OPEN = 0;
const BASE = 1;
const SIZE = 2;
const WORDS = 3;
const FILE_DEVICE = 3;
const FILE_INODE = 4;
const OFFSET = 5;
const DRIVER = 6;

const INDEX_MASK = 0x7fff;
const WRAP = 0x8000;

export class PositionJournal {
  readonly path: string;
  readonly #fd: number;
  readonly #mapping: SharedMapping;
  readonly #queues: number;
  /** Queues whose note was made over the present connection. */
  readonly #own = new Set<number>();

  /**
   * Opens or makes the journal of a device with so many queues. A file of another kind or size is
   * begun anew.
   * @throws SluiceError `state` if another process holds it.
   */
  constructor(path: string, queues: number) {
    this.path = path;
    this.#queues = queues;
    const bytes = HEADER_BYTES + queues * ENTRY_BYTES;
    this.#fd = openLockFile(path);
    try {
      if (!lockFile(this.#fd, path)) {
        throw new SluiceError('state', `${path} is in use by another process`, {
          remedy: 'stop that process, or choose another run directory',
        });
      }
      allocateFile(this.#fd, path, bytes);
      this.#mapping = new SharedMapping(this.#fd, bytes);
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
    const header = new BigUint64Array(this.#mapping.buffer, 0, 2);
    if (header[0] !== MAGIC || header[1] !== BigInt(queues)) {
      new Uint8Array(this.#mapping.buffer).fill(0);
      header[1] = BigInt(queues);
      header[0] = MAGIC;
    }
  }

  /** A front-end has connected: notes of earlier connections may be asked for again. */
  beginConnection(): void {
    this.#own.clear();
  }

  /**
   * Where ring `index` stands if a note of an earlier connection tells, as a position with the wrap
   * counter in bit 15; else undefined. Finishes in the ring what had been begun.
   */
  recover(
    index: number,
    identity: RingIdentity,
    base: number,
    ring: PackedRingView,
  ): number | undefined {
    const { u32, u64, words } = this.#entry(index);
    if (this.#own.has(index) || Atomics.load(u32, OPEN) === 0) return undefined;
    const [device, inode] = fileNumbers(identity.file);
    const same =
      u32[SIZE] === identity.size &&
      u64[FILE_DEVICE] === device &&
      u64[FILE_INODE] === inode &&
      u64[OFFSET] === BigInt(identity.offset) &&
      u64[DRIVER] === BigInt(identity.driver);
    if (!same) return undefined;
    const batch = (words[JOURNAL_BATCH] as number) & 0xffff;
    const last = (words[JOURNAL_LAST] as number) & 0xffff;
    const end = (words[JOURNAL_LAST] as number) >>> 16;
    const inRange = [batch, last, end].every((p) => (p & INDEX_MASK) < identity.size);
    if (!inRange) return undefined;
    const straddled = (last & WRAP) !== (end & WRAP) && (end & INDEX_MASK) !== 0;
    if (isInitial(base) && looksUnserved(ring, straddled)) return undefined;
    const noted = u32[BASE] as number;
    if (base !== noted && !isDropped(ring, noted, base)) return undefined;
    if (end !== batch) finishBatch(ring, batch, last, end);
    return base === noted ? end : passDropped(ring, words, end, noted & 0xffff, base & 0xffff);
  }

  /**
   * Notes that ring `index` starts at `position`, after the VMM gave `base`. Returns the words that
   * the queue keeps up to date.
   */
  open(index: number, identity: RingIdentity, base: number, position: number): Int32Array {
    const { u32, u64, words } = this.#entry(index);
    const [device, inode] = fileNumbers(identity.file);
    Atomics.store(u32, OPEN, 0);
    u32[BASE] = base;
    u32[SIZE] = identity.size;
    u64[FILE_DEVICE] = device;
    u64[FILE_INODE] = inode;
    u64[OFFSET] = BigInt(identity.offset);
    u64[DRIVER] = BigInt(identity.driver);
    words[JOURNAL_BATCH] = position;
    words[JOURNAL_LAST] = position | (position << 16);
    Atomics.store(u32, OPEN, 1);
    this.#own.add(index);
    return words;
  }

  /** The ring was stopped in order: its note is void. */
  closeRing(index: number): void {
    Atomics.store(this.#entry(index).u32, OPEN, 0);
    this.#own.delete(index);
  }

  close(): void {
    this.#mapping.release();
    closeSync(this.#fd);
  }

  #entry(index: number): { u32: Uint32Array; u64: BigUint64Array; words: Int32Array } {
    if (index >= this.#queues) throw new RangeError(`ring ${index} of ${this.#queues}`);
    const at = HEADER_BYTES + index * ENTRY_BYTES;
    const { buffer } = this.#mapping;
    return {
      u32: new Uint32Array(buffer, at, ENTRY_BYTES / 4),
      u64: new BigUint64Array(buffer, at, ENTRY_BYTES / 8),
      words: new Int32Array(buffer, at + WORDS * 4, JOURNAL_WORDS),
    };
  }
}

function fileNumbers(file: string): [bigint, bigint] {
  const [device, inode] = file.split(':');
  return [BigInt(device ?? 0), BigInt(inode ?? 0)];
}

/** A front-end that knows of no used half sends it as zero. */
function isInitial(base: number): boolean {
  return base === INITIAL_PACKED_BASE || base === 0x8000;
}

function flagsAt(ring: PackedRingView, index: number): number {
  return ring.arena.view.getUint16(ring.descriptor + index * DESCRIPTOR_BYTES + 14, true);
}

/**
 * True if no device has served the ring since its driver made it, as far as the ring shows. The
 * driver begins with a ring of zeros; its first lap sets AVAIL and never USED (VIRTIO 1.3 §2.8.1),
 * from descriptor 0 on.
 *
 * A ring that was served shows it: in the laps with wrap counter 1 the device has set USED where its
 * last completion began; in those with 0 it has set descriptor 0 to neither AVAIL nor USED, or left a
 * tail with USED there, and what lies ahead carries a flag; and after one lap no descriptor is
 * zero. One case is left: the last completion began at the end of a lap with 0 and reached into the
 * next (`straddled`), and all the rest has been made available again. Then nothing tells it from a new
 * ring, and the ring is taken for the old one, which is likelier.
 */
export function looksUnserved(ring: PackedRingView, straddled: boolean): boolean {
  let madeAvailable = true;
  for (let index = 0; index < ring.size; index++) {
    const flags = flagsAt(ring, index);
    if ((flags & VIRTQ_DESC_F_USED) !== 0) return false;
    const available = (flags & VIRTQ_DESC_F_AVAIL) !== 0;
    if (available ? !madeAvailable : wasWritten(ring, index)) return false;
    madeAvailable = available;
  }
  return !(madeAvailable && straddled);
}

/** The driver has written an address or a length here. */
function wasWritten(ring: PackedRingView, index: number): boolean {
  const at = ring.descriptor + index * DESCRIPTOR_BYTES;
  const { view } = ring.arena;
  const address = view.getUint32(at, true) | view.getUint32(at + 4, true);
  return (address | view.getUint32(at + 8, true)) !== 0;
}

/**
 * Finishes completions that a process had begun to write when it ended. If the batch was published
 * nothing is left to do; else the first descriptor of the batch still waits to be written, those from
 * `last` on maybe, and those between have been. Nobody looks behind the first one, so what stands in the
 * middle of a chain may be marked as well. Their data may not have arrived: in a queue that the
 * device writes to they are returned empty.
 */
function finishBatch(ring: PackedRingView, batch: number, last: number, end: number): void {
  const held = isWaiting(ring, batch);
  if (held && ring.writable) {
    const size = ring.size;
    const first = batch & INDEX_MASK;
    const count = ((end & INDEX_MASK) - first + size) % size || size;
    let wrap = batch & WRAP;
    for (let i = 0; i < count; i++) {
      const index = (first + i) % size;
      if (i > 0 && index === 0) wrap ^= WRAP;
      const written = isUsed(ring, index | wrap) && isAvailable(ring, index, wrap);
      if (written) setLength(ring, index, 0);
    }
  }
  if (!held) return;
  const { size } = ring;
  let at = last;
  for (let left = distance(size, last, end); left > 0; ) {
    const waits = isWaiting(ring, at);
    const length = waits ? chainLength(ring, at & INDEX_MASK) : 1;
    if (waits && at !== batch) completeEmpty(ring, at);
    at = advance(size, at, length);
    left -= length;
  }
  completeEmpty(ring, batch);
}

/** Descriptors from one position forward to another; both wrap counters make a full circle. */
function distance(size: number, from: number, to: number): number {
  const place = (position: number): number =>
    (position & INDEX_MASK) + ((position & WRAP) === 0 ? size : 0);
  return (place(to) - place(from) + 2 * size) % (2 * size);
}

/** The VMM can have come from one base to the other by dropping what was available. */
function isDropped(ring: PackedRingView, from: number, to: number): boolean {
  const inStep = [from, to].every((base) => (base & 0xffff) === base >>> 16);
  const inRange = (to & INDEX_MASK) < ring.size;
  return !ring.writable && inStep && inRange && distance(ring.size, from, to) <= ring.size;
}

/**
 * Goes past what the VMM has completed itself. While it has no back-end, QEMU drops what the guest
 * sends (hw/net/virtio-net.c, virtio_net_drop_tx_queue_data), from the position that it knows of,
 * which for a packed ring is an old one. What it finds available there may be
 *   - what comes next, and it was right;
 *   - in the lap ahead: the driver will take those completions when it gets there, so all that is
 *     before them is dropped as well, and the ring goes on behind them;
 *   - the rest of a chain whose head was used: nobody looks there, and the ring goes on where it stood.
 * Frames are lost, as with any link that is down; buffers are not. Returns where to go on.
 */
function passDropped(
  ring: PackedRingView,
  words: Int32Array,
  stood: number,
  from: number,
  to: number,
): number {
  const { size } = ring;
  const ahead = distance(size, stood, from);
  if (ahead >= size) return distance(size, from, stood) > distance(size, from, to) ? stood : to;
  let position = stood;
  for (let left = ahead; left > 0; ) {
    if (!isWaiting(ring, position)) return position;
    const length = chainLength(ring, position & INDEX_MASK);
    const next = advance(size, position, length);
    // As a batch of its own: this, too, may be cut off.
    words[JOURNAL_BATCH] = position;
    words[JOURNAL_LAST] = position | (next << 16);
    completeEmpty(ring, position);
    position = next;
    left -= length;
  }
  return to;
}

function advance(size: number, position: number, count: number): number {
  const index = (position & INDEX_MASK) + count;
  return index < size ? index | (position & WRAP) : (index - size) | (~position & WRAP);
}

function chainLength(ring: PackedRingView, head: number): number {
  let length = 1;
  for (let at = head; length < ring.size && hasNext(ring, at); length++) at = (at + 1) % ring.size;
  return length;
}

function hasNext(ring: PackedRingView, index: number): boolean {
  return (flagsAt(ring, index) & VIRTQ_DESC_F_NEXT) !== 0;
}

/** The USED flag agrees with the wrap counter: the device has written here in that lap. */
function isUsed(ring: PackedRingView, position: number): boolean {
  const used = (flagsAt(ring, position & INDEX_MASK) & VIRTQ_DESC_F_USED) !== 0;
  return used === ((position & WRAP) !== 0);
}

function isAvailable(ring: PackedRingView, index: number, wrap: number): boolean {
  return ((flagsAt(ring, index) & VIRTQ_DESC_F_AVAIL) !== 0) === (wrap !== 0);
}

/** The driver has made it available in that lap, and nobody has used it. */
function isWaiting(ring: PackedRingView, position: number): boolean {
  return isAvailable(ring, position & INDEX_MASK, position & WRAP) && !isUsed(ring, position);
}

function setLength(ring: PackedRingView, index: number, length: number): void {
  ring.arena.view.setUint32(ring.descriptor + index * DESCRIPTOR_BYTES + 8, length, true);
}

/** Marks the buffer that begins at `position` used, with nothing written. */
function completeEmpty(ring: PackedRingView, position: number): void {
  const index = position & INDEX_MASK;
  // The buffer's id stands in the last descriptor of its chain (§2.8.6).
  const tail = (index + chainLength(ring, index) - 1) % ring.size;
  const id = ring.arena.view.getUint16(ring.descriptor + tail * DESCRIPTOR_BYTES + 12, true);
  const flags = (position & WRAP) === 0 ? 0 : VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED;
  setLength(ring, index, 0);
  const words = new Uint32Array(ring.arena.buffer, ring.descriptor, ring.size * 4);
  Atomics.store(words, index * 4 + 3, ((flags << 16) | id) >>> 0);
}
