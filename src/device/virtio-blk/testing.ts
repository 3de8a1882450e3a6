/** For tests of the virtio-blk device: a disk that does what it is told, and a guest before the device. */
import assert from 'node:assert/strict';
import { CounterBlock } from '../../base/counters.ts';
import { type LogLevel, loggerTo } from '../../base/log.ts';
import type { Disk, DiskInfo, DiskQueue, DiskQueueOptions } from '../../block/disk.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
} from '../../block/requests.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { SegmentList } from '../../ring/driver-queue.ts';
import { RingPair, type RingPairOptions, testArena } from '../../ring/ring-pair.ts';
import { VIRTIO_BLK_T_IN } from '../../spec/virtio-blk.ts';
import { BLOCK_COUNTERS, type BlockCounter } from './counters.ts';
import { DEFAULT_SEG_MAX, EXTRA_SEGMENTS } from './features.ts';
import { VirtioBlk, type VirtioBlkOptions } from './virtio-blk.ts';

export const testLoop = new PollLoop();

/** A request as the disk got it. */
export interface SeenRequest {
  readonly slot: number;
  readonly op: number;
  readonly flags: number;
  readonly offset: number;
  readonly bytes: number;
  readonly segments: readonly number[];
}

const INFO: DiskInfo = {
  bytes: 1024 * 1024,
  readonly: false,
  blockBytes: 512,
  physicalBlockBytes: 4096,
  optimalBytes: 65536,
  discardBytes: 4096,
  writeZeroes: true,
  volatileCache: true,
};

/** A disk in an array. It keeps requests until {@link poll}; which it then completes, and how, is the test's. */
export class FakeDisk implements Disk, DiskQueue {
  readonly name = 'fake';
  info: DiskInfo;
  content: Buffer;
  readonly seen: SeenRequest[] = [];
  /** Submitted, and flushed or not. */
  pendingSlots: number[] = [];
  flushed = 0;
  polls = 0;
  armed = false;
  closed = false;
  /** Which of the pending requests the next poll completes: all, in order, unless set. */
  choose: (pending: readonly number[]) => readonly number[] = (pending) => pending;
  /** The result of a request instead of doing it, if it returns one. */
  result: (request: SeenRequest) => number | undefined = () => undefined;
  #options: DiskQueueOptions | undefined;
  readonly #listeners = new Set<() => void>();

  constructor(info: Partial<DiskInfo> = {}) {
    this.info = { ...INFO, ...info };
    this.content = Buffer.alloc(this.info.bytes);
  }

  get inFlight(): number {
    return this.pendingSlots.length;
  }

  onChange(listener: () => void): { readonly remove: () => void } {
    this.#listeners.add(listener);
    return { remove: () => this.#listeners.delete(listener) };
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  change(info: Partial<DiskInfo>): void {
    this.info = { ...this.info, ...info };
    if (this.info.bytes !== this.content.length) {
      const content = Buffer.alloc(this.info.bytes);
      this.content.copy(content);
      this.content = content;
    }
    for (const listener of this.#listeners) listener();
  }

  open(options: DiskQueueOptions): DiskQueue {
    this.#options = options;
    return this;
  }

  submit(slot: number): void {
    assert.ok(!this.pendingSlots.includes(slot), 'a slot that is on its way already');
    const request = this.#read(slot);
    assert.ok(request.offset + request.bytes <= this.info.bytes, 'beyond the end');
    assert.ok(request.offset % this.info.blockBytes === 0, 'a misaligned offset');
    assert.ok(request.bytes % this.info.blockBytes === 0, 'a misaligned length');
    assert.ok(!this.info.readonly || [DISK_READ, DISK_FLUSH].includes(request.op), 'readonly');
    if (request.op === DISK_READ || request.op === DISK_WRITE) {
      const sum = request.segments.reduce((total, length) => total + length, 0);
      assert.equal(sum, request.bytes);
    }
    this.seen.push(request);
    this.pendingSlots.push(slot);
  }

  flush(): void {
    this.flushed++;
  }

  poll(): number {
    this.polls++;
    const chosen = this.choose([...this.pendingSlots]);
    for (const slot of chosen) {
      const request = this.#read(slot);
      const result = this.result(request) ?? this.#do(slot, request);
      this.pendingSlots.splice(this.pendingSlots.indexOf(slot), 1);
      this.#options?.sink.complete(slot, result);
    }
    return chosen.length;
  }

  arm(): boolean {
    this.armed = true;
    return false;
  }

  disarm(): void {
    this.armed = false;
  }

  close(): void {
    assert.equal(this.inFlight, 0);
    this.closed = true;
  }

  #read(slot: number): SeenRequest {
    const { requests } = this.#options as DiskQueueOptions;
    const count = requests.count[slot] as number;
    return {
      slot,
      op: requests.op[slot] as number,
      flags: requests.flags[slot] as number,
      offset: requests.offset[slot] as number,
      bytes: requests.bytes[slot] as number,
      segments: Array.from(
        { length: count },
        (_, k) => requests.length[slot * requests.segments + k] as number,
      ),
    };
  }

  #do(slot: number, { op, offset, bytes, segments }: SeenRequest): number {
    const { requests } = this.#options as DiskQueueOptions;
    if (op === DISK_DISCARD || op === DISK_WRITE_ZEROES) {
      this.content.fill(0, offset, offset + bytes);
    }
    if (op !== DISK_READ && op !== DISK_WRITE) return 0;
    let at = offset;
    for (const [k, length] of segments.entries()) {
      const address = requests.address[slot * requests.segments + k] as number;
      const memory = Buffer.from(requests.arena.buffer, address, length);
      if (op === DISK_READ) this.content.copy(memory, 0, at, at + length);
      else memory.copy(this.content, at);
      at += length;
    }
    return 0;
  }
}

/** How a request lies in descriptors. */
export interface Shape {
  /** Bytes of the pieces of the readable part and of the writable part; what is left goes into a last piece. */
  readonly readable?: readonly number[];
  readonly writable?: readonly number[];
  readonly indirect?: boolean;
  /** Leaves this many bytes of the end of the header, and the status, away. */
  readonly headerBytes?: number;
  readonly noStatus?: boolean;
  /** Where the data lie, instead of in free memory. */
  readonly at?: number;
}

/** A request that was offered, until it has been used. */
export interface Offered {
  readonly id: number;
  readonly dataAt: number;
  readonly dataBytes: number;
  readonly statusAt: number;
  /** What the used ring said. */
  written?: number;
  status?: number;
  data?: Buffer;
}

const UNWRITTEN = 0xee;

/** Turns of the device that any request has finished in, if its disk completes all that it has. */
const MOST_TURNS = 100;

/** One queue of a guest: a driver that lays requests out in any shape. */
export class GuestQueue {
  readonly pair: RingPair;
  readonly waiting = new Map<number, Offered>();
  readonly done: Offered[] = [];
  readonly #view: DataView;
  #next: number;

  constructor(options: RingPairOptions) {
    this.pair = new RingPair(options);
    this.#view = this.pair.bytes();
    this.#next = this.pair.buffers;
  }

  /** Offers a request with `out` for the device and room for `room` bytes from it. Not yet published. */
  offer(
    type: number,
    sector: number | bigint,
    out: Uint8Array = new Uint8Array(0),
    room = 0,
    shape: Shape = {},
  ): Offered {
    const header = Buffer.alloc(16);
    header.writeUInt32LE(type, 0);
    header.writeBigUInt64LE(BigInt(sector), 8);
    const head = header.subarray(0, shape.headerBytes ?? 16);
    const readable = head.length + out.length;
    const writable = shape.noStatus === true ? room : room + 1;
    const at = shape.at === undefined ? this.take(readable + writable) : shape.at;
    this.write(at, Buffer.concat([head, out]));
    const writableAt = at + readable;
    this.write(writableAt, Buffer.alloc(writable, UNWRITTEN));
    const segments = new SegmentList(this.pair.layout.size * 4);
    pieces(segments, at, readable, shape.readable ?? [16], false);
    pieces(segments, writableAt, writable, shape.writable ?? [room], true);
    const id = this.pair.driver.addChain(segments, shape.indirect ?? false);
    assert.ok(id >= 0, 'no free descriptor');
    const offered: Offered = {
      id,
      dataAt: writableAt,
      dataBytes: room,
      statusAt: writableAt + room,
    };
    this.waiting.set(id, offered);
    return offered;
  }

  publish(): void {
    this.pair.driver.publish();
  }

  /** The segments of a request at `at`: header, data in two halves, status. */
  segments(at: number, header: number, data: number, fills: boolean): SegmentList {
    const segments = new SegmentList(4);
    segments.push(at, header, false);
    segments.push(at + header, data / 2, fills);
    segments.push(at + header + data / 2, data / 2, fills);
    segments.push(at + header + data, 1, true);
    return segments;
  }

  /** Takes back what the device has used. */
  collect(): Offered[] {
    const { driver } = this.pair;
    const out: Offered[] = [];
    for (let count = driver.collectUsed(64); count > 0; count = driver.collectUsed(64)) {
      for (let i = 0; i < count; i++) {
        const id = driver.usedId[i] as number;
        const offered = this.waiting.get(id);
        assert.ok(offered, `the device used ${id}, which it does not have`);
        this.waiting.delete(id);
        offered.written = driver.usedLength[i] as number;
        offered.status = this.#view.getUint8(offered.statusAt - this.#base);
        offered.data = this.read(offered.dataAt, offered.dataBytes);
        out.push(offered);
      }
    }
    this.done.push(...out);
    return out;
  }

  /** Memory that nobody uses, all over again when it ends. */
  take(bytes: number): number {
    if (this.#next + bytes > this.pair.end) this.#next = this.pair.buffers;
    const at = this.#next;
    assert.ok(at + bytes <= this.pair.end);
    this.#next += bytes;
    return at;
  }

  write(address: number, bytes: Uint8Array): void {
    new Uint8Array(this.#view.buffer, this.#view.byteOffset + address - this.#base).set(bytes);
  }

  read(address: number, bytes: number): Buffer {
    const at = this.#view.byteOffset + address - this.#base;
    return Buffer.from(Buffer.from(this.#view.buffer as ArrayBuffer, at, bytes));
  }

  get #base(): number {
    return this.pair.driverMemory.guestAddress;
  }
}

function pieces(
  segments: SegmentList,
  at: number,
  total: number,
  sizes: readonly number[],
  writable: boolean,
): void {
  let done = 0;
  for (const size of [...sizes, total]) {
    const part = Math.min(size, total - done);
    if (part > 0) segments.push(at + done, part, writable);
    done += part;
  }
}

export interface BlkGuestOptions {
  readonly disk?: FakeDisk;
  readonly ring?: Partial<RingPairOptions>;
  readonly device?: Partial<VirtioBlkOptions>;
  /** As the driver takes them; all that are offered unless given. */
  readonly features?: bigint;
}

/** A device on a fake disk, with its guest. */
export class BlkGuest {
  readonly disk: FakeDisk;
  readonly device: VirtioBlk;
  readonly queues: GuestQueue[];
  readonly broken: Error[] = [];
  readonly records: { level: LogLevel; message: string }[] = [];
  drained = 0;

  constructor(options: BlkGuestOptions = {}) {
    this.disk = options.disk ?? new FakeDisk();
    const count = options.device?.queues ?? 1;
    const ring = { size: 64, packed: false, ...options.ring };
    this.device = new VirtioBlk({
      name: 'web/disk0',
      disk: this.disk,
      queues: count,
      serial: 'a serial number',
      segMax: Math.min(ring.size - EXTRA_SEGMENTS, DEFAULT_SEG_MAX),
      arena: testArena(),
      loop: testLoop,
      log: loggerTo((level, message) => this.records.push({ level, message })),
      counters: new CounterBlock<BlockCounter>(BLOCK_COUNTERS),
      ...options.device,
    });
    this.device.onBroken = (reason) => this.broken.push(reason);
    this.device.onDrained = () => this.drained++;
    this.device.setDriverFeatures(options.features ?? this.device.features);
    this.queues = Array.from({ length: count }, () => new GuestQueue(ring));
    for (const [index, queue] of this.queues.entries()) {
      this.device.startQueue(index, queue.pair.device);
      this.device.setQueueEnabled(index, true);
    }
  }

  get queue(): GuestQueue {
    return this.queues[0] as GuestQueue;
  }

  /** Offers one request to the first queue and lets the device do it. Returns it as it was used. */
  do(
    type: number,
    sector: number | bigint,
    out: Uint8Array = new Uint8Array(0),
    room = 0,
    shape: Shape = {},
  ): Offered {
    const offered = this.queue.offer(type, sector, out, room, shape);
    this.queue.publish();
    let list: readonly Offered[] = [];
    for (let turns = 0; list.length === 0 && turns < MOST_TURNS; turns++) {
      this.device.poll();
      list = this.queue.collect();
    }
    const [used, ...others] = list;
    assert.equal(used, offered, 'not used');
    assert.equal(others.length, 0);
    return offered;
  }

  read(sector: number, bytes: number, shape: Shape = {}): Buffer {
    const used = this.do(VIRTIO_BLK_T_IN, sector, undefined, bytes, shape);
    assert.equal(used.status, 0);
    assert.equal(used.written, bytes + 1);
    return used.data as Buffer;
  }

  counter(name: BlockCounter): number {
    return this.device.counters.snapshot()[name];
  }

  close(): void {
    this.device.hold(undefined);
    for (let i = 0; i < 100 && !this.device.idle; i++) this.device.poll();
    this.device.reset();
    this.device.close();
    for (const queue of this.queues) queue.pair.release();
  }
}

/** Bytes that tell where they belong. */
export function pattern(bytes: number, seed: number): Buffer {
  return Buffer.from(
    Uint8Array.from({ length: bytes }, (_, i) => (i * 7 + seed * 31 + (i >> 8)) & 0xff),
  );
}

/** The data of a discard or write zeroes: first sector, sectors, flags of each range. */
export function ranges(
  ...list: readonly (readonly [sector: number | bigint, sectors: number, flags?: number])[]
): Buffer {
  const out = Buffer.alloc(16 * list.length);
  for (const [i, [sector, sectors, flags = 0]] of list.entries()) {
    out.writeBigUInt64LE(BigInt(sector), 16 * i);
    out.writeUInt32LE(sectors, 16 * i + 8);
    out.writeUInt32LE(flags, 16 * i + 12);
  }
  return out;
}
