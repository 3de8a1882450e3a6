/**
 * What the physical function of an 82599 and its virtual functions have in common: registers of which
 * the queues' pages can be mapped into the guest, queues, interrupts, DMA. A function is polled, since a
 * store to a mapped doorbell wakes nobody.
 */
import type { CounterBlock } from '../../base/counters.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { read16 } from '../../net/frame.ts';
import { newPortCounters, PORT_COUNTER_INDEX, type PortCounter } from '../../net/port.ts';
import type { Poller } from '../../os/poll-loop.ts';
import type { PciDeclaration } from '../../pci/config-space.ts';
import { PciDevice } from '../../pci/device.ts';
import type { ResetKind } from '../../pci/registers.ts';
import { ETHERNET_HEADER_BYTES, ETHERTYPE_VLAN, VLAN_TAG_BYTES } from '../../spec/ethernet.ts';
import {
  IXGBE_QUEUE_ENABLE,
  IXGBE_RXD_INEXACT,
  IXGBE_RXD_RSS_NONE,
  IXGBE_RXD_VLAN,
  IXGBE_RXDCTL_VLAN_STRIP,
} from '../../spec/ixgbe-descriptors.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { DeviceMemory } from '../device-memory.ts';
import { CHECKED_IP, CHECKED_L4, ReceiveChecksum } from '../receive-checksum.ts';
import { FrameRuns } from './frame-runs.ts';
import { type InterruptLayout, Interrupts } from './interrupts.ts';
import { QueueBounce } from './queue-bounce.ts';
import {
  DELIVERED,
  defaultQueueSettings,
  MALFORMED_LENGTH,
  type Malformed,
  type QueueParts,
  type QueueSettings,
  type QueueStatistics,
  queueClients,
  RX,
  TX,
} from './queue-parts.ts';
import { checksumStatus, localStatus, packetType } from './receive-offload.ts';
import { ReceiveQueue } from './receive-queue.ts';
import type { RegisterMemory } from './register-memory.ts';
import type { Rss } from './rss.ts';
import { TransmitQueue } from './transmit-queue.ts';

const TX_FRAMES = PORT_COUNTER_INDEX.tx_frames;
const TX_BYTES = PORT_COUNTER_INDEX.tx_bytes;
const TX_DROP_BAD_LENGTH = PORT_COUNTER_INDEX.tx_drop_bad_length;
const TX_DROP_BAD_OFFLOAD = PORT_COUNTER_INDEX.tx_drop_bad_offload;
const RX_FRAMES = PORT_COUNTER_INDEX.rx_frames;
const RX_BYTES = PORT_COUNTER_INDEX.rx_bytes;
const RX_DROP_NO_BUFFER = PORT_COUNTER_INDEX.rx_drop_no_buffer;
const CALLS = PORT_COUNTER_INDEX.calls;

const ADDRESSES = 12;

/** Once in so many turns a function that looks as if it had nothing to do is looked at more closely. */
const TURNS_PER_SEARCH = 16;

/**
 * How long a doorbell may go unseen when a lane sleeps, in microseconds, by default. Shorter costs an idle
 * lane more wake-ups; 0: it never sleeps. Soon after a doorbell the next is looked for more often.
 */
export const DEFAULT_DOORBELL_POLL_US = 1000;

/** A sender that may go on sooner than this keeps its lane awake. */
const SHORTEST_SLEEP_NS = 1e6;

/** The shortest time between two looks for doorbells, in microseconds: shorter than falling asleep takes. */
const SHORTEST_NAP_US = 20;
/** A doorbell goes unseen for this part of the time since the one before it, if that is shorter. */
const NAP_PART = 0.5;

/** Where a function's frames go: the card. */
export interface FrameSink {
  /** Takes the frames of a burst. When it returns, all copies are done. */
  send(from: NicFunction, burst: Burst): void;
  /** The sender was told: receivers may be. */
  publish(): void;
  /** Whether a function may send now: its rate, and its turn on a busy wire. Without it, always. */
  admits?(from: NicFunction): boolean;
  /** How long a function that may not is to wait, in ns. */
  waitNs?(from: NicFunction): number;
}

/** Where the registers of a function are. */
export interface FunctionLayout {
  /** Indices in the words: of the block of each receive and each transmit queue. As many of both. */
  readonly receive: Uint32Array;
  readonly transmit: Uint32Array;
  readonly interrupts: InterruptLayout;
}

export interface NicFunctionOptions {
  /** Unique in the lane, such as `nic0/0/vf3`. */
  readonly name: string;
  readonly path: DataPath;
  readonly counters?: CounterBlock<PortCounter>;
  /**
   * Whether the pages of queues' registers are mapped into the guest: stores there are no traps, the lane
   * polls, and such registers keep bits that they have not (which a register test finds). Default: true.
   */
  readonly mapped?: boolean;
  /** Default: {@link DEFAULT_DOORBELL_POLL_US}. */
  readonly doorbellPollUs?: number;
}

/** To be added to the lane's pollers. */
export abstract class NicFunction extends PciDevice implements Poller {
  readonly counters: CounterBlock<PortCounter>;
  readonly path: DataPath;
  /** All registers, by offset / 4. Those of queues may be the guest's to change at any moment. */
  readonly words: Uint32Array;
  readonly receiveQueues: readonly ReceiveQueue[];
  readonly transmitQueues: readonly TransmitQueue[];
  /** The card. Frames that are sent before it is set are lost. */
  uplink: FrameSink | undefined;
  /** The guest reset this function, or is gone. */
  functionReset: ((kind: ResetKind) => void) | undefined;
  protected readonly irq: Interrupts;
  protected readonly memory: DeviceMemory;
  protected readonly settings: QueueSettings = defaultQueueSettings();
  readonly #values: Float64Array;
  readonly #checksum: ReceiveChecksum;
  readonly #runs: FrameRuns;
  readonly #registers: RegisterMemory;
  readonly #layout: FunctionLayout;
  readonly #bounce: QueueBounce;
  readonly #doorbellPollUs: number;
  readonly #mapped: boolean;
  /** Transmit queues that are enabled, the first {@link #active} of them. */
  readonly #enabled: Uint8Array;
  /** Where their registers are. */
  readonly #blocks: Uint32Array;
  #active = 0;
  /** When it had something to send last, in ns. */
  readonly #rungAt = new Float64Array(1);
  #turns = 0;
  /** Nothing but a doorbell brings work: no accesses are by messages. */
  #rests = false;
  /** Receive queues that got frames since the last flush, the first {@link #filled} of them. */
  readonly #touched: Uint8Array;
  readonly #isTouched: Uint8Array;
  #filled = 0;

  protected constructor(
    options: NicFunctionOptions,
    declaration: PciDeclaration,
    registers: RegisterMemory,
    layout: FunctionLayout,
  ) {
    super(declaration);
    const { path } = options;
    const queues = layout.receive.length;
    this.path = path;
    this.counters = options.counters ?? newPortCounters();
    this.#values = this.counters.values;
    this.#checksum = new ReceiveChecksum(path);
    this.#runs = FrameRuns.of(path);
    this.words = registers.words;
    this.memory = new DeviceMemory(path.arena, queueClients(queues));
    this.memory.onDrained = () => this.quiesced();
    this.irq = new Interrupts({
      layout: layout.interrupts,
      words: registers.words,
      loop: path.loop,
      output: this.interrupts,
      sent: () => this.count(CALLS, 1),
    });
    this.#registers = registers;
    this.#layout = layout;
    this.#doorbellPollUs = options.doorbellPollUs ?? DEFAULT_DOORBELL_POLL_US;
    this.#mapped = options.mapped ?? true;
    this.#enabled = new Uint8Array(queues);
    this.#blocks = new Uint32Array(queues);
    this.#touched = new Uint8Array(queues);
    this.#isTouched = new Uint8Array(queues);
    this.#bounce = new QueueBounce(path.arena, queues);
    const parts: QueueParts = {
      path,
      memory: this.memory,
      words: registers.words,
      interrupts: this.irq,
      statistics: this.#queueStatistics(),
      settings: this.settings,
      bounce: this.#bounce,
    };
    this.receiveQueues = Array.from(
      layout.receive,
      (block, index) => new ReceiveQueue(parts, index, block),
    );
    this.transmitQueues = Array.from(
      layout.transmit,
      (block, index) => new TransmitQueue(parts, index, block),
    );
  }

  /** Most interrupts of each vector in a second, whatever the driver asks for; undefined: no limit. */
  limitInterrupts(perSecond: number | undefined): void {
    this.irq.leastIntervalNs = perSecond === undefined ? 0 : Math.ceil(1e9 / perSecond);
  }

  /** Frames that the guest's queues hold may be sent: by this function's registers, and by the card. */
  protected abstract get transmitting(): boolean;

  /** The guest takes frames. */
  abstract get receiving(): boolean;

  /** Frames of the guest, as its transmit queues hand them over. */
  send(burst: Burst): void {
    this.uplink?.send(this, burst);
  }

  publish(): void {
    this.uplink?.publish();
  }

  /**
   * Takes the frames `frames[0…count)` of the burst, which the card's filters have for this function.
   * `tagged`: they come with the 802.1Q tag of their `tci`. `local`: another function of the card sent
   * them, their checksums are as their metadata say. Copies are queued; see {@link flush}.
   */
  accept(burst: Burst, frames: Uint8Array, count: number, tagged: boolean, local = false): void {
    if (!this.config.busMaster) {
      this.count(RX_DROP_NO_BUFFER, count);
      return;
    }
    const only = tagged ? -1 : this.onlyQueue;
    if (only >= 0) {
      this.#acceptList(only, burst, frames, count, local, 0);
      return;
    }
    const rss = tagged ? undefined : this.onlyRss;
    let i = 0;
    while (i < count) {
      if (rss?.isNear) {
        const end = this.#runs.hash(burst, frames, i, count, this.hashedBy, rss.tableAt);
        this.#acceptHashed(burst, frames, i, end, local);
        i = end;
        if (i === count) return;
      }
      this.#acceptOne(burst, frames[i++] as number, tagged, local);
    }
  }

  /** The receive queue that all frames go to, with nothing to be told of how it was found; -1: it differs. */
  protected get onlyQueue(): number {
    return -1;
  }

  /** What alone decides to which queue each frame goes, by {@link queueOf}; undefined: more than that. */
  protected get onlyRss(): Rss | undefined {
    return undefined;
  }

  /** What {@link onlyRss} hashes, as MRQC has it. */
  protected get hashedBy(): number {
    return 0;
  }

  /** The queue for the frames of a hash: below 16. */
  protected queueOf(_hash: number): number {
    return 0;
  }

  /** Status bits (signed) of all frames that are accepted now, if {@link onlyQueue} or {@link onlyRss} is. */
  protected commonStatus = 0;

  /** Accepts frames of one queue, without tag: in runs as far as it can be. */
  #acceptList(
    index: number,
    burst: Burst,
    frames: Uint8Array,
    count: number,
    local: boolean,
    hashesAt: number,
  ): void {
    const queue = this.receiveQueues[index];
    const status = this.commonStatus;
    let isQuick = queue !== undefined;
    let i = 0;
    while (i < count) {
      if (queue !== undefined && isQuick) {
        const run = queue.putRun(burst, frames, i, count, status, !local, hashesAt);
        i += run;
        if (run === 0) isQuick = false;
        else this.#touch(index);
        if (i === count) return;
      }
      this.#acceptOne(burst, frames[i++] as number, false, local);
    }
  }

  /** Accepts frames `frames[first…end)`, whose hashes were made: those of each queue together, in their order. */
  #acceptHashed(
    burst: Burst,
    frames: Uint8Array,
    first: number,
    end: number,
    local: boolean,
  ): void {
    const { lists, counts, hashes, types, hashesAt } = this.#runs;
    let queues = 0;
    // Whatever a function that failed has left there.
    counts.fill(0);
    for (let i = first; i < end; i++) {
      const slot = frames[i] as number;
      const isHashed = types[slot] !== IXGBE_RXD_RSS_NONE;
      const queue = isHashed ? this.queueOf((hashes[slot] as number) | 0) : 0;
      const at = counts[queue] as number;
      (lists[queue] as Uint8Array)[at] = slot;
      counts[queue] = at + 1;
      queues |= 1 << queue;
    }
    for (let left = queues; left !== 0; left &= left - 1) {
      const queue = 31 - Math.clz32(left & -left);
      const count = counts[queue] as number;
      this.#acceptList(queue, burst, lists[queue] as Uint8Array, count, local, hashesAt);
    }
  }

  /**
   * The receive queue for a frame whose first `length` bytes are at `at`, and whose tag beside it is `tci`
   * (0: none); sets {@link rssType} and {@link rssHash}. Any number that is no queue's drops the frame.
   */
  protected abstract selectQueue(
    bytes: Uint8Array,
    at: number,
    length: number,
    tci: number,
  ): number;

  /** Of the frame that {@link selectQueue} saw last: one of IXGBE_RXD_RSS_*, and its hash. */
  protected rssType = IXGBE_RXD_RSS_NONE;
  protected readonly rssHash = new Uint32Array(1);

  /** EtherType of the tags that are taken off. */
  protected get vlanType(): number {
    return ETHERTYPE_VLAN;
  }

  /** Whether frame `slot` came in by an exact address. */
  protected isExact(_slot: number): boolean {
    return true;
  }

  #acceptOne(burst: Burst, slot: number, tagged: boolean, local: boolean): void {
    const bytes = burst.slots8;
    let at = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
    let length = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
    const index = this.selectQueue(bytes, at, length, tagged ? (burst.tci[slot] as number) : 0);
    const queue = this.receiveQueues[index];
    if (queue === undefined) {
      this.count(RX_DROP_NO_BUFFER, 1);
      return;
    }
    const type = packetType(bytes, at, length);
    let status = 0;
    if (type !== 0) {
      status = local
        ? localStatus(bytes, at - NET_HEADER_BYTES, type)
        : checksumStatus(this.#checksum.verify(burst, slot, CHECKED_IP | CHECKED_L4));
    }
    if (!this.isExact(slot)) status |= IXGBE_RXD_INEXACT;
    const control = this.words[(this.#layout.receive[index] as number) + RX.RXDCTL] as number;
    const strips = (control & IXGBE_RXDCTL_VLAN_STRIP) !== 0;
    let vlan = 0;
    let isCut = false;
    if (tagged) {
      if (strips) {
        vlan = burst.tci[slot] as number;
        status |= IXGBE_RXD_VLAN;
      } else {
        at = burst.tag(slot) - burst.slotsAt + NET_HEADER_BYTES;
        length += VLAN_TAG_BYTES;
      }
    } else if (
      strips &&
      length >= ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES &&
      read16(bytes, at + ADDRESSES) === this.vlanType
    ) {
      vlan = read16(bytes, at + ADDRESSES + 2);
      status |= IXGBE_RXD_VLAN;
      isCut = true;
      at = withoutTag(burst, slot, at, length);
      length -= VLAN_TAG_BYTES;
    }
    // Signed: a number above 2^31 would be allocated.
    const hash = (this.rssHash[0] as number) | 0;
    if (queue.put(burst, slot, at, length, status, type | this.rssType, hash, vlan) === DELIVERED) {
      this.#touch(index);
    }
    // The header without tag is in the place of tagged ones, which the next receiver may need.
    if (isCut) burst.copies.flush();
  }

  /** The copies are done: descriptors are written back, the guest is interrupted. */
  flush(): void {
    for (let i = 0; i < this.#filled; i++) {
      const queue = this.#touched[i] as number;
      this.#isTouched[queue] = 0;
      (this.receiveQueues[queue] as ReceiveQueue).writeBack();
    }
    this.#filled = 0;
  }

  #touch(queue: number): void {
    if (this.#isTouched[queue] === 1) return;
    this.#isTouched[queue] = 1;
    this.#touched[this.#filled++] = queue;
  }

  /** Gives all memory back. No transport is attached any more. */
  close(): void {
    this.irq.reset();
    this.#bounce.release();
    this.#registers.release();
  }

  // Poller

  /** Without bus mastering it asks for no DMA that would be refused. */
  get #isMaster(): boolean {
    return this.attached && this.config.busMaster;
  }

  poll(): number {
    let work = this.irq.waiting ? this.irq.poll() : 0;
    // Functions at rest are most of a lane with many: they are to cost it next to nothing.
    if (++this.#turns < TURNS_PER_SEARCH && this.#rests && !this.#isRung()) return work;
    if (!this.#isMaster) return work;
    const { used } = this.#bounce;
    if (used) for (const queue of this.receiveQueues) queue.poll();
    if (!this.transmitting) return work;
    if (this.#turns >= TURNS_PER_SEARCH || this.#active === 0) {
      this.#turns = 0;
      this.#search();
      this.#rests = this.#active > 0 && !used;
    }
    if (this.pending && this.uplink?.admits?.(this) !== false) {
      this.#rungAt[0] = this.path.loop.now;
      work += this.#pollActive();
    }
    return work;
  }

  arm(): boolean {
    if (this.irq.arm()) return true;
    if (!this.#isMaster || !this.transmitting || this.#doorbells() === 0) return false;
    if (this.pending) {
      const waitNs = this.uplink?.waitNs?.(this) ?? 0;
      if (waitNs < SHORTEST_SLEEP_NS) return true;
      this.path.loop.wakeWithin(waitNs / 1000);
      return false;
    }
    if (!this.#mapped) return false;
    if (this.#doorbellPollUs === 0) return true;
    const { loop } = this.path;
    const sinceUs = (loop.now - (this.#rungAt[0] as number)) / 1000;
    loop.wakeWithin(Math.min(this.#doorbellPollUs, Math.max(SHORTEST_NAP_US, NAP_PART * sinceUs)));
    return false;
  }

  disarm(): void {
    // A trap is a message: it wakes the loop in any case. Doorbells are polled.
  }

  /** A tail is not where its head is. */
  #isRung(): boolean {
    const { words } = this;
    const blocks = this.#blocks;
    for (let i = 0; i < this.#active; i++) {
      const block = blocks[i] as number;
      if (words[block + TX.TDT] !== words[block + TX.TDH]) return true;
    }
    return false;
  }

  #pollActive(): number {
    let work = 0;
    for (let i = 0; i < this.#active; i++) {
      work += (this.transmitQueues[this.#enabled[i] as number] as TransmitQueue).poll(this);
    }
    return work;
  }

  /** Which queues are enabled now. */
  #search(): void {
    const { transmit } = this.#layout;
    let count = 0;
    for (let queue = 0; queue < transmit.length; queue++) {
      const control = this.words[(transmit[queue] as number) + TX.TXDCTL] as number;
      if ((control & IXGBE_QUEUE_ENABLE) === 0) continue;
      this.#blocks[count] = transmit[queue] as number;
      this.#enabled[count++] = queue;
    }
    this.#active = count;
  }

  /** Doorbells that may ring without a trap. */
  #doorbells(): number {
    this.#search();
    return this.#active;
  }

  /** Frames wait to be sent. */
  get pending(): boolean {
    for (let i = 0; i < this.#active; i++) {
      if ((this.transmitQueues[this.#enabled[i] as number] as TransmitQueue).pending) return true;
    }
    return false;
  }

  // PciDevice

  protected override onAttach(): void {
    this.memory.connect(this.dma);
  }

  protected override onReset(kind: ResetKind): void {
    this.memory.held = false;
    this.resetFunction();
    this.functionReset?.(kind);
  }

  /** All registers as after power-on; queues, interrupts and what the subclass keeps beside them. */
  protected abstract resetFunction(): void;

  /** The part of {@link resetFunction} that all have: queues, interrupts, registers of the queues. */
  protected resetQueues(): void {
    this.memory.forget();
    this.irq.reset();
    for (const queue of this.receiveQueues) queue.reset();
    for (const queue of this.transmitQueues) queue.reset();
    this.#isTouched.fill(0);
    this.#filled = 0;
    this.#active = 0;
    this.#turns = 0;
    this.#rests = false;
  }

  override detach(): void {
    // Who was attached may still have the pages mapped. The reset comes to the new ones.
    this.#registers.renew();
    super.detach();
    this.memory.connect(undefined);
  }

  protected override quiesce(): boolean {
    this.memory.held = true;
    return !this.memory.busy;
  }

  protected override onResume(): void {
    this.memory.held = false;
  }

  // Accounting

  /** Adds to a counter of the port, by its index. */
  protected count(counter: number, by: number): void {
    const values = this.#values;
    values[counter] = (values[counter] as number) + by;
  }

  /** Of what queues report, what only one kind of function has registers for. */
  protected countReceived(_queue: number, _frames: number, _bytes: number): void {
    // A counter of the port is enough for most.
  }

  protected countTransmitted(_queue: number, _frames: number, _bytes: number): void {
    // As above.
  }

  protected countMissed(_queue: number, _frames: number): void {
    // As above.
  }

  #queueStatistics(): QueueStatistics {
    return {
      transmitted: (queue, frames, bytes) => {
        this.count(TX_FRAMES, frames);
        this.count(TX_BYTES, bytes);
        this.countTransmitted(queue, frames, bytes);
      },
      received: (queue, frames, bytes) => {
        this.count(RX_FRAMES, frames);
        this.count(RX_BYTES, bytes);
        this.countReceived(queue, frames, bytes);
      },
      missed: (queue, frames) => {
        this.count(RX_DROP_NO_BUFFER, frames);
        this.countMissed(queue, frames);
      },
      malformed: (_queue: number, frames: number, reason: Malformed) =>
        this.count(reason === MALFORMED_LENGTH ? TX_DROP_BAD_LENGTH : TX_DROP_BAD_OFFLOAD, frames),
    };
  }
}

/** The header of frame `slot` at `at` without its tag, in the place of tagged headers; others may want it whole. */
function withoutTag(burst: Burst, slot: number, at: number, length: number): number {
  const bytes = burst.slots8;
  // What stands there may not be copied yet.
  burst.copies.flush();
  const to = burst.taggedAt - burst.slotsAt + slot * burst.slotBytes;
  bytes.copyWithin(to, at, at + ADDRESSES);
  bytes.copyWithin(to + ADDRESSES, at + ADDRESSES + VLAN_TAG_BYTES, at + length);
  return to;
}
