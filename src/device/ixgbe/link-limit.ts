/**
 * How much fits through the modelled wire and the slot that the card is in: what each frame takes of
 * them, and who may send next when they are busy.
 *
 * What guests send is held back in their rings; what comes from the wire or would not fit through the slot
 * is lost, as it would be before it reached the card.
 */
import { TokenBucket } from '../../base/token-bucket.ts';
import type { Burst } from '../../net/burst.ts';
import { read16le } from '../../net/frame.ts';
import { clock, readClock } from '../../os/clock.ts';
import { IXGBE_POOLS } from '../../spec/ixgbe.ts';
import {
  NET_HEADER_GSO_SIZE,
  NET_HEADER_GSO_TYPE,
  NET_HEADER_HDR_LEN,
  VIRTIO_NET_HDR_GSO_NONE,
} from '../../spec/virtio-net.ts';

export const LINK_SPEEDS = ['10G', 'none'] as const;
export type LinkSpeed = (typeof LINK_SPEEDS)[number];

/** Mb/s of a link; undefined: no limit. */
export function linkMegabits(link: LinkSpeed): number | undefined {
  return link === 'none' ? undefined : WIRE_BITS_PER_S / 1e6;
}

/** 10GBASE-R: bits a second of frames, preambles and gaps (IEEE 802.3 table 44-1). */
const WIRE_BITS_PER_S = 10e9;
/** Preamble and start of frame, check sequence, gap (IEEE 802.3 §3.1, §4.4.2). */
const PREAMBLE_BYTES = 8;
const FCS_BYTES = 4;
const GAP_BYTES = 12;
const LEAST_FRAME_BYTES = 60;

/** PCIe 2.0 x8: 5 GT/s a lane, eight bits in ten (PCIe Base 2.0 §4.2.1), each way. */
const SLOT_BITS_PER_S = 5e9 * 8 * (8 / 10);
/** What a packet takes beside its data: framing, sequence, header of four words, LCRC (§2.2, §3.5). */
const PACKET_BYTES = 24;
/** Most data of one packet, and of one read request. */
const PAYLOAD_BYTES = 256;
const REQUEST_BYTES = 512;
/** A descriptor, fetched and written back four at a time. */
const DESCRIPTOR_BYTES = 16 + PACKET_BYTES / 4;

/**
 * What may come at once after a pause, in seconds. More than the card's packet buffers hold: a lane that
 * shares its processor with others often has none for milliseconds, and is not to lose their part of the rate.
 */
const BURST_S = 10e-3;
const BITS = 8;

/** A clock that is read without allocating, as `os/clock.ts` has it. */
export interface LinkTime {
  /** What {@link readClock} read last, in ns, at index 0. */
  readonly clock: Float64Array;
  readonly readClock: () => void;
}

const MONOTONIC: LinkTime = { clock, readClock };

/** Frames that a frame is on the wire. */
export function segmentsOf(burst: Burst, slot: number): number {
  const header = (burst.headerAt[slot] as number) - burst.slotsAt;
  const bytes = burst.slots8;
  if (bytes[header + NET_HEADER_GSO_TYPE] === VIRTIO_NET_HDR_GSO_NONE) return 1;
  const size = read16le(bytes, header + NET_HEADER_GSO_SIZE);
  const payload =
    (burst.frameLength[slot] as number) - read16le(bytes, header + NET_HEADER_HDR_LEN);
  return size === 0 || payload <= size ? 1 : Math.ceil(payload / size);
}

/** Bytes of a frame in all its segments, headers of each included. */
export function segmentedBytes(burst: Burst, slot: number): number {
  const length = burst.frameLength[slot] as number;
  const segments = segmentsOf(burst, slot);
  if (segments === 1) return length;
  const header = (burst.headerAt[slot] as number) - burst.slotsAt;
  return length + (segments - 1) * read16le(burst.slots8, header + NET_HEADER_HDR_LEN);
}

/** Bits that a frame takes of the wire; `tagged`: it gets a tag. */
export function wireBits(burst: Burst, slot: number, tagged: boolean): number {
  const segments = segmentsOf(burst, slot);
  const length = segmentedBytes(burst, slot) + (tagged ? 4 * segments : 0);
  const padded = segments === 1 ? Math.max(length, LEAST_FRAME_BYTES) : length;
  return BITS * (padded + segments * (PREAMBLE_BYTES + FCS_BYTES + GAP_BYTES));
}

/** {@link wireBits} of frames in one segment each, without tags, whose padded bytes are `padded`. */
export function wireBitsOf(frames: number, padded: number): number {
  return BITS * (padded + frames * (PREAMBLE_BYTES + FCS_BYTES + GAP_BYTES));
}

/** The slot, both ways: memory is read to send, and written to receive. */
export class SlotLimit {
  readonly #reads: TokenBucket;
  readonly #writes: TokenBucket;
  readonly #time: LinkTime;

  constructor(time: LinkTime = MONOTONIC) {
    this.#time = time;
    this.#reads = bucket(SLOT_BITS_PER_S, time);
    this.#writes = bucket(SLOT_BITS_PER_S, time);
  }

  /** Something may be begun: neither way is in debt. */
  get ready(): boolean {
    return hasTokens(this.#reads, this.#time) && hasTokens(this.#writes, this.#time);
  }

  /** A frame of so many bytes was read from memory. */
  sent(bytes: number): void {
    this.#reads.spend(
      BITS * (bytes + Math.ceil(bytes / PAYLOAD_BYTES) * PACKET_BYTES + DESCRIPTOR_BYTES),
    );
    this.#writes.spend(BITS * (Math.ceil(bytes / REQUEST_BYTES) * PACKET_BYTES + DESCRIPTOR_BYTES));
  }

  /** So many frames were written to memory, `bytes` together. */
  received(frames: number, bytes: number): void {
    if (frames === 0) return;
    const packets = frames * Math.ceil(bytes / frames / PAYLOAD_BYTES);
    this.#writes.spend(BITS * (bytes + packets * PACKET_BYTES + frames * DESCRIPTOR_BYTES));
    this.#reads.spend(BITS * frames * DESCRIPTOR_BYTES);
  }

  waitNs(): number {
    return Math.max(this.#reads.waitNs(), this.#writes.waitNs());
  }
}

/** One that sends: whether it has anything is asked only when that matters. */
export interface Sender {
  /** Frames wait in its rings. */
  readonly pending: boolean;
}

/**
 * Whose turn it is to send. With nothing to limit everybody may. When the wire or the slot is busy, those
 * that wait take turns: who is guaranteed something and has not had it comes first, then who has sent the
 * fewest bits (start-time fair queueing, with the bits of one turn as the unit).
 */
export class TransmitSchedule {
  readonly #wire: TokenBucket | undefined;
  readonly #slot: SlotLimit | undefined;
  readonly #time: LinkTime;
  readonly #rates: (TokenBucket | undefined)[] = new Array(IXGBE_POOLS).fill(undefined);
  readonly #guarantees: (TokenBucket | undefined)[] = new Array(IXGBE_POOLS).fill(undefined);
  /** Nothing is limited at all. */
  #free: boolean;
  readonly #waiting = new Uint8Array(IXGBE_POOLS);
  #waitingCount = 0;
  /** Whose turn is next; -1: not decided. */
  #chosen = -1;
  /** Who has asked, and was passed over, since that was decided. */
  readonly #passed = new Uint8Array(IXGBE_POOLS);
  /** Where each sender stands, in bits, and where those are that were served. */
  readonly #start = new Float64Array(IXGBE_POOLS);
  readonly #virtual = new Float64Array(1);

  constructor(link: LinkSpeed, slot: SlotLimit | undefined, time: LinkTime = MONOTONIC) {
    this.#time = time;
    this.#wire = link === 'none' ? undefined : bucket(WIRE_BITS_PER_S, time);
    this.#slot = slot;
    this.#free = this.#isFree();
  }

  /** Limits of one sender, undefined without. They are kept as they are if they are the same. */
  setRates(pool: number, rate: TokenBucket | undefined, guarantee: TokenBucket | undefined): void {
    this.#rates[pool] = keep(this.#rates[pool], rate);
    this.#guarantees[pool] = keep(this.#guarantees[pool], guarantee);
    this.#free = this.#isFree();
  }

  /** Whether a sender may send a burst of each of its queues now. */
  admits(pool: number, sender: Sender): boolean {
    if (this.#free) return true;
    const rate = this.#rates[pool];
    if (rate !== undefined && !hasTokens(rate, this.#time)) {
      this.leave(pool);
      return false;
    }
    if (this.#waitingCount === 0 && this.#ready()) return true;
    if (!sender.pending) {
      this.leave(pool);
      return true;
    }
    this.#join(pool);
    if (!this.#ready() || !this.#hasTurn(pool)) return false;
    this.leave(pool);
    return true;
  }

  /** A sender sent frames: bits of the wire, which is 0 for what stayed in the card, and of frames. */
  charge(pool: number, wire: number, frames: number): void {
    if (this.#free) return;
    this.#wire?.spend(wire);
    this.#guarantees[pool]?.spend(wire);
    const rate = this.#rates[pool];
    if (rate !== undefined) {
      // A pause that was before may not count once more when there is nothing left.
      this.#time.readClock();
      rate.refill(this.#time.clock[0] as number);
      rate.spend(frames);
    }
    const start = Math.max(this.#start[pool] as number, this.#virtual[0] as number);
    this.#virtual[0] = start;
    this.#start[pool] = start + frames;
  }

  /** It does not wait any more. */
  leave(pool: number): void {
    if (this.#waiting[pool] === 0) return;
    this.#waiting[pool] = 0;
    this.#waitingCount--;
    if (this.#chosen === pool) this.#chosen = -1;
  }

  /** How long a sender is held back, in ns from now on; 0: it is not, or others have their turn before it. */
  waitNs(pool: number): number {
    if (this.#free) return 0;
    const rate = this.#rates[pool];
    if (rate !== undefined && !hasTokens(rate, this.#time)) return rate.waitNs();
    return Math.max(this.#wire?.waitNs() ?? 0, this.#slot?.waitNs() ?? 0);
  }

  /** Whether bits are counted at all. */
  get counts(): boolean {
    return !this.#free;
  }

  #isFree(): boolean {
    return (
      this.#wire === undefined &&
      this.#slot === undefined &&
      this.#rates.every((rate) => rate === undefined)
    );
  }

  #ready(): boolean {
    return (
      (this.#wire === undefined || hasTokens(this.#wire, this.#time)) &&
      (this.#slot === undefined || this.#slot.ready)
    );
  }

  /**
   * A lane asks for all its senders in turn. Who is asked for twice while somebody else has the turn and is not
   * asked for at all does not wait for that one: it has taken its doorbell back, or may not use the bus any more.
   */
  #hasTurn(pool: number): boolean {
    if (this.#next() !== pool && this.#passed[pool] === 1) this.leave(this.#chosen);
    if (this.#next() === pool) return true;
    this.#passed[pool] = 1;
    return false;
  }

  #join(pool: number): void {
    if (this.#waiting[pool] !== 0) return;
    this.#waiting[pool] = 1;
    this.#waitingCount++;
    this.#start[pool] = Math.max(this.#start[pool] as number, this.#virtual[0] as number);
  }

  #next(): number {
    if (this.#chosen >= 0) return this.#chosen;
    let least = -1;
    let isOwed = false;
    for (let pool = 0; pool < IXGBE_POOLS; pool++) {
      if (this.#waiting[pool] === 0) continue;
      const guarantee = this.#guarantees[pool];
      const owed = guarantee !== undefined && hasTokens(guarantee, this.#time);
      if (isOwed && !owed) continue;
      const isFirst = (owed && !isOwed) || least < 0;
      if (isFirst || (this.#start[pool] as number) < (this.#start[least] as number)) least = pool;
      isOwed = isOwed || owed;
    }
    this.#chosen = least;
    this.#passed.fill(0);
    return least;
  }
}

/** What comes in by the wire: what is more than it carries is lost. */
export class ReceiveLimit {
  readonly #wire: TokenBucket | undefined;
  readonly #slot: SlotLimit | undefined;
  readonly #time: LinkTime;

  constructor(link: LinkSpeed, slot: SlotLimit | undefined, time: LinkTime = MONOTONIC) {
    this.#time = time;
    this.#wire = link === 'none' ? undefined : bucket(WIRE_BITS_PER_S, time);
    this.#slot = slot;
  }

  /** There is something to ask for. */
  get isSet(): boolean {
    return this.#wire !== undefined || this.#slot !== undefined;
  }

  /** Whether a frame of so many bits of the wire arrives. */
  admits(bits: number): boolean {
    const wire = this.#wire;
    if (wire !== undefined) {
      if (!hasTokens(wire, this.#time)) return false;
      wire.spend(bits);
    }
    return this.#slot === undefined || this.#slot.ready;
  }

  /**
   * As {@link admits} for frames that take so many bits together, if there is room for all of them; else
   * false, and each is to be asked for.
   */
  admitsRun(bits: number): boolean {
    const wire = this.#wire;
    if (this.#slot !== undefined) return false;
    if (wire === undefined) return true;
    if (wire.tokens <= bits) return false;
    wire.spend(bits);
    return true;
  }
}

function bucket(rate: number, time: LinkTime): TokenBucket {
  time.readClock();
  return new TokenBucket({ rate, burst: rate * BURST_S }, time.clock[0] as number);
}

/** Looks at the clock only if there were none left. */
function hasTokens(limit: TokenBucket, time: LinkTime): boolean {
  if (limit.tokens > 0) return true;
  time.readClock();
  limit.refill(time.clock[0] as number);
  return limit.tokens > 0;
}

function keep(
  before: TokenBucket | undefined,
  now: TokenBucket | undefined,
): TokenBucket | undefined {
  return before !== undefined && now !== undefined && before.rate === now.rate ? before : now;
}
