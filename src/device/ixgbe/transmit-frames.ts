/**
 * From transmit descriptors to a burst (§7.2.3): which of them are one frame, where its bytes lie, and
 * its offloads as metadata. One for all queues of a lane: what is kept here lasts for one turn.
 */
import { WINDOW_BYTES } from '../../memory/arena.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { MAX_FRAME_BYTES, read16le } from '../../net/frame.ts';
import { BAD_OFFLOAD, classifyOffload } from '../../net/offload.ts';
import { BATCH, MORE_SEGMENTS } from '../../ring/chain-batch.ts';
import { ETHERNET_HEADER_BYTES } from '../../spec/ethernet.ts';
import {
  IXGBE_TXD_ADVANCED,
  IXGBE_TXD_END,
  IXGBE_TXD_IP_CHECKSUM,
  IXGBE_TXD_L4_CHECKSUM,
  IXGBE_TXD_LENGTH,
  IXGBE_TXD_SEGMENT,
  IXGBE_TXD_TYPE,
  IXGBE_TXD_TYPE_CONTEXT,
  IXGBE_TXD_TYPE_DATA,
  IXGBE_TXD_VLAN,
} from '../../spec/ixgbe-descriptors.ts';
import {
  NET_HEADER_FLAGS,
  NET_HEADER_GSO_SIZE,
  NET_HEADER_GSO_TYPE,
  NET_HEADER_HDR_LEN,
  VIRTIO_NET_HDR_GSO_NONE,
} from '../../spec/virtio-net.ts';
import { type DeviceMemory, iova, withinPage } from '../device-memory.ts';
import { WORK_SEGMENT } from '../transmit-context.ts';
import { gatherMore, insertTag } from '../transmit-headers.ts';
import { type PlainFrames, plainFramesFor } from './plain-frames.ts';
import {
  applyDescriptors,
  CONTEXT_TAG,
  contextAt,
  QUEUE_CONTEXT_WORDS,
  slotBytesNeeded,
  takeContext,
  workOf,
} from './transmit-offloads.ts';

const WORDS = 4;
/** The longest frame without segmentation (§7.2.1.1). */
const LONGEST = 15_872;

/** A data descriptor that is a whole frame and wants nothing done, but for FCS and report. */
const PLAIN_MASK =
  IXGBE_TXD_ADVANCED | IXGBE_TXD_TYPE | IXGBE_TXD_END | IXGBE_TXD_VLAN | IXGBE_TXD_SEGMENT;
const PLAIN = IXGBE_TXD_ADVANCED | IXGBE_TXD_TYPE_DATA | IXGBE_TXD_END;
const CHECKSUMS = IXGBE_TXD_IP_CHECKSUM | IXGBE_TXD_L4_CHECKSUM;
const CONTEXT_MASK = IXGBE_TXD_ADVANCED | IXGBE_TXD_TYPE;
const CONTEXT = IXGBE_TXD_ADVANCED | IXGBE_TXD_TYPE_CONTEXT;
/** In `#tag`: there is one, whatever it says. */
const TAG = 0x1_0000;

/** Runs of plain frames shorter than this make the loop for them a loss; so many of them are tried. */
const FEW = 4;
const TRIES = 2;

/** Why {@link TransmitFrames.collect} ended where it did. */
export const COLLECTED = 0;
/** The end of the frame is not in the window. */
export const UNFINISHED = 1;
/** A piece of the frame is at no address of ours. */
export const UNREACHABLE = 2;

const shared = new WeakMap<DataPath, TransmitFrames>();

export class TransmitFrames {
  /** Why the last {@link collect} ended. */
  ended = COLLECTED;
  /** Frames since {@link begin} that cannot be sent, by why. */
  badLength = 0;
  badOffload = 0;
  /** What {@link describe} left in the burst, as it is on a wire. */
  frames = 0;
  bytes = 0;
  /** Something is to be done with a frame of the burst. */
  #worked = false;
  /** Words of each frame's first descriptor. */
  readonly #command = new Uint32Array(BATCH);
  readonly #options = new Uint32Array(BATCH);
  /** WORK_*; tags with TAG; whether the frame is to be dropped. */
  readonly #work = new Uint8Array(BATCH);
  readonly #bad = new Uint8Array(BATCH);
  readonly #tag = new Uint32Array(BATCH);
  readonly #contexts = new Uint32Array(BATCH * QUEUE_CONTEXT_WORDS);
  readonly #plain: PlainFrames;
  readonly #span = new Float64Array(3);

  private constructor(path: DataPath) {
    this.#plain = plainFramesFor(path.arena);
  }

  /** The one of a lane. */
  static of(path: DataPath): TransmitFrames {
    let frames = shared.get(path);
    if (frames === undefined) {
      frames = new TransmitFrames(path);
      shared.set(path, frames);
    }
    return frames;
  }

  /** Begins a burst. */
  begin(burst: Burst): void {
    burst.clear();
    this.badLength = 0;
    this.badOffload = 0;
    this.frames = 0;
    this.bytes = 0;
    if (!this.#worked) return;
    this.#worked = false;
    this.#work.fill(0);
    this.#tag.fill(0);
  }

  /**
   * Adds the frames of descriptors `first…end) of `words` to the burst, as many as it has room for;
   * `contexts` are those of the queue. Returns where it ended: {@link ended} tells why. `wordsAt` is the
   * arena address of the words if that is in the window, else 0.
   */
  collect(
    burst: Burst,
    memory: DeviceMemory,
    words: Uint32Array,
    first: number,
    end: number,
    contexts: Uint32Array,
    wordsAt: number,
  ): number {
    const { chains } = burst;
    const { address, length, total } = chains;
    let index = first;
    let tries = wordsAt === 0 ? 0 : TRIES;
    this.ended = COLLECTED;
    while (index < end && chains.count < BATCH) {
      let at = index * WORDS;
      let command = words[at + 2] as number;
      if (tries > 0 && (command & PLAIN_MASK) === PLAIN) {
        const run = this.#collectRun(burst, memory, words, wordsAt, index, end);
        if (run < FEW) tries--;
        index += run;
        if (index === end || chains.count === BATCH) break;
        at = index * WORDS;
        command = words[at + 2] as number;
      }
      const bytes = command & IXGBE_TXD_LENGTH;
      if (
        (command & PLAIN_MASK) === PLAIN &&
        ((words[at + 3] as number) & CHECKSUMS) === 0 &&
        bytes >= ETHERNET_HEADER_BYTES &&
        bytes <= LONGEST
      ) {
        const from = memory.translate(
          iova(words[at] as number, words[at + 1] as number),
          bytes,
          false,
        );
        if (from >= 0) {
          const slot = chains.count;
          address[slot] = from;
          length[slot] = bytes;
          total[slot] = bytes;
          chains.count = slot + 1;
          index++;
          continue;
        }
      }
      if ((command & CONTEXT_MASK) === CONTEXT) {
        takeContext(words, at, contexts);
        index++;
        continue;
      }
      const next = this.#collectFrame(burst, memory, words, index, end, contexts);
      if (next === index) break;
      index = next;
    }
    return index;
  }

  /** Plain frames from `index` on, in memory that lies in one piece. Returns how many there were. */
  #collectRun(
    burst: Burst,
    memory: DeviceMemory,
    words: Uint32Array,
    wordsAt: number,
    index: number,
    end: number,
  ): number {
    const { chains } = burst;
    const span = this.#span;
    const at = index * WORDS;
    const address = iova(words[at] as number, words[at + 1] as number);
    if (!memory.span(address, false, span)) return 0;
    const low = span[0] as number;
    const high = span[1] as number;
    const delta = span[2] as number;
    if (high + delta > WINDOW_BYTES) return 0;
    const from = chains.count;
    const { tableAt } = burst;
    const to = this.#plain.collect(wordsAt, index, end, tableAt, from, BATCH, low, high, delta);
    chains.count = to;
    return to - from;
  }

  /** Adds the frame of descriptors `first…last`, whose bytes were brought to lane memory. */
  add(
    burst: Burst,
    words: Uint32Array,
    first: number,
    last: number,
    contexts: Uint32Array,
    at: number,
    bytes: number,
  ): void {
    this.#note(burst.chains.add(at, bytes), words, first, last, contexts);
  }

  /** One frame in any number of pieces. Returns the descriptor behind it, or `first`. */
  #collectFrame(
    burst: Burst,
    memory: DeviceMemory,
    words: Uint32Array,
    first: number,
    end: number,
    contexts: Uint32Array,
  ): number {
    const { chains } = burst;
    const slot = chains.count;
    const moreBefore = chains.moreCount;
    let total = 0;
    let pieces = 0;
    let index = first;
    let ended = false;
    chains.more[slot] = 0;
    chains.moreStart[slot] = moreBefore;
    while (index < end && !ended) {
      const at = index * WORDS;
      const command = words[at + 2] as number;
      let left = command & IXGBE_TXD_LENGTH;
      let address = iova(words[at] as number, words[at + 1] as number);
      while (left > 0) {
        let part = left;
        let from = memory.translate(address, part, false);
        if (from < 0 && address >= 0) {
          part = withinPage(address, left);
          from = memory.translate(address, part, false);
        }
        if (from < 0 || chains.moreCount === MORE_SEGMENTS) {
          this.#giveUp(burst, slot, moreBefore, UNREACHABLE);
          return first;
        }
        if (pieces === 0) {
          chains.address[slot] = from;
          chains.length[slot] = part;
        } else {
          const more = chains.moreCount++;
          chains.moreAddress[more] = from;
          chains.moreLength[more] = part;
          chains.more[slot] = pieces;
          chains.shaped = true;
        }
        pieces++;
        total += part;
        address += part;
        left -= part;
      }
      ended = (command & IXGBE_TXD_END) !== 0;
      index++;
    }
    if (!ended) {
      this.#giveUp(burst, slot, moreBefore, UNFINISHED);
      return first;
    }
    if (pieces === 0) {
      // A frame of no bytes: its descriptors are given back, and nothing is sent.
      this.badLength++;
      return index;
    }
    chains.count = slot + 1;
    chains.total[slot] = total;
    this.#note(slot, words, first, index - 1, contexts);
    return index;
  }

  #giveUp(burst: Burst, slot: number, moreBefore: number, why: number): void {
    burst.chains.moreCount = moreBefore;
    burst.chains.more[slot] = 0;
    this.ended = why;
  }

  #note(
    slot: number,
    words: Uint32Array,
    first: number,
    last: number,
    contexts: Uint32Array,
  ): void {
    const command = words[first * WORDS + 2] as number;
    const options = words[first * WORDS + 3] as number;
    const advanced = (command & IXGBE_TXD_ADVANCED) !== 0;
    const work = workOf(command, options);
    this.#command[slot] = command;
    this.#options[slot] = options;
    this.#work[slot] = work;
    // Lengths are looked at with them.
    this.#worked = true;
    if (!advanced) {
      // VLE and tag are those of the last descriptor (§7.2.3.2.2).
      if (((words[last * WORDS + 2] as number) & IXGBE_TXD_VLAN) !== 0) {
        this.#tag[slot] = ((words[last * WORDS + 3] as number) >>> 16) | TAG;
      }
      return;
    }
    const tagged = (command & IXGBE_TXD_VLAN) !== 0;
    if (work === 0 && !tagged) return;
    const from = contextAt(options);
    const to = slot * QUEUE_CONTEXT_WORDS;
    for (let i = 0; i < QUEUE_CONTEXT_WORDS; i++) {
      this.#contexts[to + i] = contexts[from + i] as number;
    }
    if (tagged) this.#tag[slot] = (contexts[from + CONTEXT_TAG] as number) | TAG;
  }

  /**
   * Gathers the frames of the burst, puts tags in and offloads into metadata, and takes out what
   * contradicts itself.
   */
  describe(burst: Burst, vlanType: number): void {
    burst.sourceHeaderBytes = 0;
    burst.gather();
    const { count } = burst;
    const { needs } = burst;
    for (let slot = 0; slot < count; slot++) needs[slot] = 0;
    if (!this.#worked) {
      this.frames = count;
      this.bytes = burst.totalBytes();
      return;
    }
    let bad = 0;
    for (let slot = 0; slot < count; slot++) {
      const good = this.#finish(burst, slot, vlanType);
      this.#bad[slot] = good ? 0 : 1;
      if (good) this.#countFrame(burst, slot);
      else bad++;
    }
    if (bad > 0) burst.drop(this.#bad);
  }

  /** Tag and offloads of one frame; false if it is to be dropped, which is counted. */
  #finish(burst: Burst, slot: number, vlanType: number): boolean {
    const work = this.#work[slot] as number;
    const length = burst.frameLength[slot] as number;
    const isLong = length > ((work & WORK_SEGMENT) !== 0 ? MAX_FRAME_BYTES : LONGEST);
    if (length < ETHERNET_HEADER_BYTES || isLong) {
      this.badLength++;
      return false;
    }
    const tag = this.#tag[slot] as number;
    if (work === 0 && tag === 0) return true;
    const at = slot * QUEUE_CONTEXT_WORDS;
    if (work !== 0) gatherMore(burst, slot, slotBytesNeeded(work, this.#contexts, at));
    const shift = tag === 0 ? 0 : insertTag(burst, slot, vlanType, tag);
    if (work === 0) return true;
    const command = this.#command[slot] as number;
    const options = this.#options[slot] as number;
    if (applyDescriptors(burst, slot, command, options, this.#contexts, at, shift)) {
      const mask = classifyFrame(burst, slot);
      if (mask !== BAD_OFFLOAD) {
        burst.needs[slot] = mask;
        return true;
      }
    }
    this.badOffload++;
    return false;
  }

  /** What the frame is on a wire: with segmentation, many. */
  #countFrame(burst: Burst, slot: number): void {
    const length = burst.frameLength[slot] as number;
    const at = (burst.headerAt[slot] as number) - burst.slotsAt;
    let frames = 1;
    let bytes = length;
    if (burst.slots8[at + NET_HEADER_GSO_TYPE] !== VIRTIO_NET_HDR_GSO_NONE) {
      const header = read16le(burst.slots8, at + NET_HEADER_HDR_LEN);
      frames = Math.ceil((length - header) / read16le(burst.slots8, at + NET_HEADER_GSO_SIZE));
      bytes += (frames - 1) * header;
    }
    this.frames += frames;
    this.bytes += bytes;
  }
}

/** The offloads that a receiver needs, as {@link classifyOffload}. */
function classifyFrame(burst: Burst, slot: number): number {
  const at = (burst.headerAt[slot] as number) - burst.slotsAt;
  const bytes = burst.slots8;
  if (bytes[at + NET_HEADER_FLAGS] === 0 && bytes[at + NET_HEADER_GSO_TYPE] === 0) return 0;
  return classifyOffload(burst, slot);
}
