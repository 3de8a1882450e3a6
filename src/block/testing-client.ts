/**
 * A client of disks for tests: fills slots in, checks what the disk interface promises of every
 * completion (`disk.ts`), and keeps a model of the contents. The suite over it is in `testing.ts`.
 */
import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { silentLogger } from '../base/log.ts';
import { Arena } from '../memory/arena.ts';
import { clock, readClock } from '../os/clock.ts';
import { type Poller, PollLoop } from '../os/poll-loop.ts';
import { type Disk, type DiskLane, type DiskQueue, type DiskSink, SECTOR_BYTES } from './disk.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  RequestTable,
} from './requests.ts';

/** After this long without the completion that a test waits for, it fails. */
const PATIENCE_NS = 60e9;
/** A server within this thread gets its turn so often. */
const SLICE_US = 2000;
/** What lies between the segments of a request: it must stay as it is. */
const GAP_BYTE = 0xa5;

let sharedLane: DiskLane | undefined;

/** The lane of this process's tests: an arena is reserved once. */
export function testLane(): DiskLane {
  sharedLane ??= { arena: Arena.create(), loop: new PollLoop(), log: silentLogger };
  return sharedLane;
}

/** A request as a test describes it. */
export interface TestRequest {
  /** DISK_*. */
  readonly op: number;
  readonly offset?: number;
  readonly bytes?: number;
  /** REQUEST_*. */
  readonly flags?: number;
  /** Lengths of the segments of a read or write, their sum `bytes`. Default: one segment. */
  readonly segments?: readonly number[];
  /** Content of a write. */
  readonly data?: Uint8Array;
  /** Told of the completion, within the disk's poll; `data`: what a read that succeeded has brought. */
  readonly done?: (result: number, data: Buffer) => void;
}

interface Segment {
  readonly at: number;
  readonly length: number;
}

interface Pending {
  readonly request: TestRequest;
  readonly segments: readonly Segment[];
}

export interface DiskClientOptions {
  /** Requests in flight at once. */
  readonly slots?: number;
  /** Segments of one. */
  readonly segments?: number;
  /** Bytes of memory that one may have. */
  readonly slotBytes?: number;
  /** Segments begin at multiples of it. */
  readonly alignment?: number;
}

export interface RunOptions {
  /** False: nothing but a completion interrupts the loop's sleep. */
  readonly slice?: boolean;
  /** True: the disk is polled only after the loop has slept, or was told not to. */
  readonly lazy?: boolean;
}

/** One user of a disk: a queue, a table, and memory for each slot. */
export class DiskClient implements DiskSink, Poller {
  readonly disk: Disk;
  readonly queue: DiskQueue;
  readonly table: RequestTable;
  readonly slots: number;
  readonly slotBytes: number;
  /** Completions so far. */
  completed = 0;
  readonly #lane: DiskLane;
  readonly #alignment: number;
  readonly #memory: number;
  readonly #free: number[];
  readonly #pending = new Map<number, Pending>();
  #polling = false;
  #until: () => boolean = () => false;
  #lazy = false;
  #woken = false;

  constructor(disk: Disk, lane: DiskLane, options: DiskClientOptions = {}) {
    this.disk = disk;
    this.#lane = lane;
    this.slots = options.slots ?? 16;
    this.#alignment = options.alignment ?? 1;
    const segments = options.segments ?? 8;
    const dataBytes = options.slotBytes ?? 128 * 1024;
    // Each segment may be preceded by a gap of less than a quarter of a page and its alignment.
    this.slotBytes = dataBytes + (segments + 1) * (1024 + this.#alignment);
    this.table = new RequestTable(lane.arena, this.slots, segments);
    this.#memory = lane.arena.allocate(this.slots * this.slotBytes, 'disk-test');
    this.#free = Array.from({ length: this.slots }, (_, slot) => this.slots - 1 - slot);
    this.queue = disk.open({ requests: this.table, sink: this, loop: lane.loop });
    lane.loop.addPoller(this);
  }

  /** Requests that were submitted and are not complete. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** Slots that are free. */
  get free(): number {
    return this.#free.length;
  }

  /** Fills a slot in and submits it; there must be a free one. Returns the slot. */
  submit(request: TestRequest): number {
    const slot = this.#free.pop();
    assert.ok(slot !== undefined, 'no free slot');
    const { op, offset = 0, bytes = 0, flags = 0 } = request;
    this.table.begin(slot, op, flags, offset, bytes);
    const segments: Segment[] = [];
    if (op === DISK_READ || op === DISK_WRITE) this.#place(slot, request, segments);
    this.#pending.set(slot, { request, segments });
    const before = this.completed;
    const { inFlight } = this.queue;
    this.queue.submit(slot);
    assert.equal(this.completed, before, 'a request completed within submit');
    assert.equal(this.queue.inFlight, inFlight + 1, 'submit adds one in flight');
    return slot;
  }

  complete(slot: number, result: number): void {
    assert.ok(this.#polling, `slot ${slot} completed outside of poll`);
    const pending = this.#pending.get(slot);
    assert.ok(pending !== undefined, `slot ${slot}, which is not in flight, completed`);
    assert.ok(Number.isInteger(result), `result ${result}`);
    this.#pending.delete(slot);
    this.#checkMemory(slot, pending, result);
    const data = result >= 0 ? this.#dataOf(pending) : Buffer.alloc(0);
    this.#free.push(slot);
    this.completed++;
    pending.request.done?.(result, data);
  }

  /** Polls the disk once, with the checks of its counts. */
  poll(): number {
    assert.ok(!this.#polling);
    if (this.#lazy && !this.#woken) return 0;
    this.#woken = false;
    const before = this.completed;
    const inFlight = this.queue.inFlight;
    this.#polling = true;
    const count = this.queue.poll();
    this.#polling = false;
    assert.equal(count, this.completed - before, 'poll returns the number of completions');
    assert.ok(count <= inFlight, 'poll completes only what was in flight when it began');
    assert.equal(this.queue.inFlight, this.#pending.size, 'inFlight');
    // What was submitted by `done` must be sent as well.
    if (count > 0) this.queue.flush();
    if (this.#until()) this.#lane.loop.stop();
    return count;
  }

  arm(): boolean {
    return this.queue.arm();
  }

  disarm(): void {
    this.queue.disarm();
    this.#woken = true;
  }

  /** Runs the lane's loop until something is so, asleep while there is nothing to do. */
  async run(until: () => boolean, { slice = true, lazy = false }: RunOptions = {}): Promise<void> {
    const { loop } = this.#lane;
    this.#until = until;
    this.#lazy = lazy;
    this.#woken = false;
    readClock();
    const deadline = (clock[0] as number) + PATIENCE_NS;
    let patience = true;
    this.queue.flush();
    while (!until()) {
      assert.ok(patience, `${this.disk.name}: ${this.inFlight} requests do not complete`);
      const timer = loop.setTimer(slice ? SLICE_US : PATIENCE_NS / 1000, () => {
        patience = slice;
        loop.stop();
      });
      try {
        loop.run();
      } finally {
        timer.cancel();
        this.#polling = false;
      }
      if (slice && !until()) await setImmediate();
      readClock();
      patience &&= (clock[0] as number) < deadline;
    }
    this.#until = () => false;
    this.#lazy = false;
  }

  /** Waits until nothing is in flight. */
  async drain(): Promise<void> {
    await this.run(() => this.inFlight === 0);
  }

  /** Does one request and gives its result (0 or a negative errno) and data. */
  async request(request: TestRequest): Promise<{ readonly result: number; readonly data: Buffer }> {
    let answer: { result: number; data: Buffer } | undefined;
    this.submit({
      ...request,
      done: (result, data) => {
        answer = { result, data };
        request.done?.(result, data);
      },
    });
    await this.run(() => answer !== undefined);
    assert.ok(answer !== undefined);
    return answer;
  }

  async #succeed(request: TestRequest): Promise<Buffer> {
    const { result, data } = await this.request(request);
    assert.ok(result >= 0, `op ${request.op} at ${request.offset ?? 0}: result ${result}`);
    return data;
  }

  /** Reads a range, by as many requests as it takes. */
  async read(offset: number, bytes: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    const most = this.#mostBytes();
    for (let at = 0; at < bytes; at += most) {
      const length = Math.min(most, bytes - at);
      parts.push(await this.#succeed({ op: DISK_READ, offset: offset + at, bytes: length }));
    }
    return Buffer.concat(parts);
  }

  /** Writes a range, by as many requests as it takes. */
  async write(offset: number, data: Uint8Array, flags = 0): Promise<void> {
    const most = this.#mostBytes();
    for (let at = 0; at < data.length; at += most) {
      const part = data.subarray(at, at + most);
      await this.#succeed({
        op: DISK_WRITE,
        offset: offset + at,
        bytes: part.length,
        flags,
        data: part,
      });
    }
  }

  async flush(): Promise<void> {
    await this.#succeed({ op: DISK_FLUSH });
  }

  async discard(offset: number, bytes: number): Promise<void> {
    await this.#succeed({ op: DISK_DISCARD, offset, bytes });
  }

  async writeZeroes(offset: number, bytes: number, flags = 0): Promise<void> {
    await this.#succeed({ op: DISK_WRITE_ZEROES, offset, bytes, flags });
  }

  /** Ends the use of the disk; nothing may be in flight. */
  close(): void {
    this.queue.close();
    this.#lane.loop.removePoller(this);
    this.table.release();
    this.#lane.arena.unmap(this.#memory, this.slots * this.slotBytes);
  }

  #mostBytes(): number {
    const { blockBytes } = this.disk.info;
    return Math.floor((this.slotBytes - 1024 - this.#alignment) / blockBytes) * blockBytes;
  }

  /** Lays the segments into the slot's memory, with gaps between them, and their content. */
  #place(slot: number, request: TestRequest, segments: Segment[]): void {
    const { arena } = this.#lane;
    const { bytes = 0, data } = request;
    const lengths = request.segments ?? [bytes];
    assert.equal(
      lengths.reduce((sum, length) => sum + length, 0),
      bytes,
      'the segments are the request',
    );
    const start = this.#memory + slot * this.slotBytes;
    arena.bytes.fill(GAP_BYTE, start, start + this.slotBytes);
    let at = start;
    let taken = 0;
    for (const [index, length] of lengths.entries()) {
      // Any gap will do; one that differs from segment to segment finds more.
      at += 1 + ((taken * 7 + index * 131) % 1000);
      at = Math.ceil(at / this.#alignment) * this.#alignment;
      assert.ok(at + length <= start + this.slotBytes, 'the request fits its memory');
      if (data !== undefined) arena.bytes.set(data.subarray(taken, taken + length), at);
      assert.ok(this.table.add(slot, at, length), 'the request has too many segments');
      segments.push({ at, length });
      at += length;
      taken += length;
    }
  }

  #dataOf(pending: Pending): Buffer {
    const { bytes } = this.#lane.arena;
    return Buffer.concat(pending.segments.map(({ at, length }) => bytes.slice(at, at + length)));
  }

  /** A disk writes to the segments of reads and to nothing else. */
  #checkMemory(slot: number, pending: Pending, result: number): void {
    const { op, data } = pending.request;
    if (op !== DISK_READ && op !== DISK_WRITE) return;
    const start = this.#memory + slot * this.slotBytes;
    const memory = Buffer.from(this.#lane.arena.buffer, start, this.slotBytes);
    let at = 0;
    for (const segment of [...pending.segments, { at: start + this.slotBytes, length: 0 }]) {
      const gap = memory.subarray(at, segment.at - start);
      const intact = gap.equals(Buffer.alloc(gap.length, GAP_BYTE));
      assert.ok(intact, 'memory beside the segments was written');
      at = segment.at - start + segment.length;
    }
    if (op === DISK_WRITE && result >= 0 && data !== undefined) {
      assert.ok(this.#dataOf(pending).equals(data), 'the memory of a write was changed');
    }
  }
}

/** Fills a sector with what write number `serial` (0: zeroes) puts there: each byte depends on both. */
export function fillSector(to: Buffer, at: number, sector: number, serial: number): void {
  let state =
    serial === 0 ? 0 : (Math.imul(sector + 1, 0x9e3779b1) ^ Math.imul(serial, 0x85ebca6b)) | 1;
  to.writeUInt32LE(serial === 0 ? 0 : sector >>> 0, at);
  to.writeUInt32LE(serial >>> 0, at + 4);
  for (let i = 8; i < SECTOR_BYTES; i += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    to.writeUInt32LE(state >>> 0, at + i);
  }
}

/** What a disk must hold, sector by sector. */
export class DiskModel {
  readonly sectors: number;
  /** Number of the write that a sector holds, 0: zeroes. */
  readonly serial: Uint32Array;
  /** 1: the sector was discarded and may read as zeroes as well. */
  readonly forgotten: Uint8Array;
  #serial = 0;

  constructor(bytes: number) {
    this.sectors = bytes / SECTOR_BYTES;
    this.serial = new Uint32Array(this.sectors);
    this.forgotten = new Uint8Array(this.sectors);
  }

  /** A new write to a range: its content. */
  write(offset: number, bytes: number): Buffer {
    const serial = ++this.#serial;
    this.#set(offset, bytes, serial);
    return this.expected(offset, bytes);
  }

  zero(offset: number, bytes: number): void {
    this.#set(offset, bytes, 0);
  }

  discard(offset: number, bytes: number): void {
    this.forgotten.fill(1, offset / SECTOR_BYTES, (offset + bytes) / SECTOR_BYTES);
  }

  /** What a range holds, as if nothing had been discarded. */
  expected(offset: number, bytes: number): Buffer {
    const buffer = Buffer.alloc(bytes);
    for (let at = 0; at < bytes; at += SECTOR_BYTES) {
      const sector = (offset + at) / SECTOR_BYTES;
      fillSector(buffer, at, sector, this.serial[sector] as number);
    }
    return buffer;
  }

  /** Fails unless a range was read as it must be. */
  check(offset: number, data: Buffer): void {
    const expected = this.expected(offset, data.length);
    if (data.equals(expected)) return;
    const zeroes = Buffer.alloc(SECTOR_BYTES);
    for (let at = 0; at < data.length; at += SECTOR_BYTES) {
      const sector = (offset + at) / SECTOR_BYTES;
      const found = data.subarray(at, at + SECTOR_BYTES);
      if (found.equals(expected.subarray(at, at + SECTOR_BYTES))) continue;
      if (this.forgotten[sector] === 1 && found.equals(zeroes)) continue;
      const [ofSector, ofWrite] = [found.readUInt32LE(0), found.readUInt32LE(4)];
      assert.fail(
        `sector ${sector} holds what looks like write ${ofWrite} to sector ${ofSector}, ` +
          `not write ${this.serial[sector] as number}`,
      );
    }
  }

  #set(offset: number, bytes: number, serial: number): void {
    const from = offset / SECTOR_BYTES;
    const to = (offset + bytes) / SECTOR_BYTES;
    this.serial.fill(serial, from, to);
    this.forgotten.fill(0, from, to);
  }
}
