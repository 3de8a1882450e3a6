/**
 * An NBD disk with a server that answers properly, or late, or whose bytes are changed, lost, doubled
 * and cut anywhere; connections end at any moment.
 *
 * Each request completes once; memory beside what reads may write is untouched; what the client sends
 * is always understood. As long as nothing was changed, everything succeeds and the data is right.
 */
import assert from 'node:assert/strict';
import { silentLogger } from '../src/base/log.ts';
import type { DiskLane } from '../src/block/disk.ts';
import type { NbdSocket } from '../src/block/nbd/connection.ts';
import { NbdDisk } from '../src/block/nbd/nbd-disk.ts';
import { ALL_FLAGS, TestServer, type TestServerConnection } from '../src/block/nbd/testing.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_FUA,
  REQUEST_UNMAP,
  RequestTable,
} from '../src/block/requests.ts';
import { Arena } from '../src/memory/arena.ts';
import type { IoQueue } from '../src/os/io-queue.ts';
import { PollLoop } from '../src/os/poll-loop.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const BLOCK = 512;
const DISK_BLOCKS = 64;
const SLOTS = 8;
const SEGMENTS = 4;
/** Each segment has this room, with a canary around it. */
const ROOM = 8192;
const CANARY = 0xa5;
const REQUESTS = 24;
/** Waits end after so long: requests that never are answered fail then. */
const RECONNECT_MS = 30;
/** Nothing may take longer, in ms. */
const PATIENCE_MS = 20_000;

let arena: Arena | undefined;

/** The server's end of a connection, in memory. */
class FakeSocket implements NbdSocket {
  readonly fd = -1;
  readonly reason = 'closed';
  readonly #random: Random;
  readonly #arena: Arena;
  readonly #server: TestServerConnection;
  /** One change in so many receives; 0: none. */
  readonly #hostility: number;
  #pending: Buffer = Buffer.alloc(0);
  #said: Buffer = Buffer.alloc(0);
  #closed = false;

  constructor(random: Random, memory: Arena, server: TestServerConnection, hostility: number) {
    this.#random = random;
    this.#arena = memory;
    this.#server = server;
    this.#hostility = hostility;
  }

  connected(): boolean {
    return !this.#hostile();
  }

  send(list: IoQueue): number {
    if (this.#closed) return -1;
    if (this.#random.oneIn(4)) return 0;
    const limit = 1 + this.#random.below(this.#random.pick([16, 600, 20_000]));
    const bytes = Buffer.concat(
      [...ranges(list)].map(({ at, length }) => this.#arena.bytes.slice(at, at + length)),
    ).subarray(0, limit);
    this.#server.push(bytes);
    return bytes.length;
  }

  receive(list: IoQueue): number {
    if (this.#random.oneIn(4)) this.#server.release();
    if (this.#random.oneIn(4)) return 0;
    this.#take();
    if (this.#pending.length === 0) return this.#closed || this.#server.closed ? -1 : 0;
    let left = 1 + this.#random.below(this.#random.pick([8, 40, 600, 20_000]));
    let received = 0;
    for (const { at, length } of ranges(list)) {
      const bytes = this.#pending.subarray(0, Math.min(length, left));
      this.#arena.bytes.set(bytes, at);
      this.#pending = this.#pending.subarray(bytes.length);
      left -= bytes.length;
      received += bytes.length;
    }
    return received;
  }

  close(): void {
    this.#closed = true;
  }

  #hostile(): boolean {
    return this.#hostility > 0 && this.#random.oneIn(this.#hostility);
  }

  /** Takes what the server says, and perhaps changes it. */
  #take(): void {
    let bytes = this.#server.take();
    this.#said = Buffer.concat([this.#said, bytes]).subarray(-200);
    const random = this.#random;
    if (bytes.length > 0 && this.#hostile()) {
      const at = random.below(bytes.length);
      bytes = random.pick([
        () => {
          bytes[at] = random.u32();
          return bytes;
        },
        () => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random.below(30))]),
        () =>
          Buffer.concat([
            bytes.subarray(0, at),
            random.bytes(random.below(60)),
            bytes.subarray(at),
          ]),
        () => Buffer.concat([bytes, this.#said.subarray(random.below(this.#said.length))]),
        () => {
          this.#closed = true;
          return bytes.subarray(0, at);
        },
      ])();
    }
    this.#pending = Buffer.concat([this.#pending, bytes]);
  }
}

function* ranges(list: IoQueue): Generator<{ readonly at: number; readonly length: number }> {
  for (let i = list.head; i < list.tail; i++) {
    yield { at: list.address[i] as number, length: list.length[i] as number };
  }
}

interface Wanted {
  readonly op: number;
  readonly offset: number;
  readonly data: Buffer;
  readonly places: readonly { readonly at: number; readonly length: number }[];
}

/** One disk, its requests and their memory. */
class Bench {
  readonly random: Random;
  readonly arena: Arena;
  readonly loop = new PollLoop({ idlePollUs: 0 });
  readonly disk: NbdDisk;
  readonly table: RequestTable;
  readonly memory: number;
  readonly hostility: number;
  readonly model = Buffer.alloc(DISK_BLOCKS * BLOCK);
  readonly wanted: (Wanted | undefined)[] = [];
  submitted = 0;
  completed = 0;

  constructor(random: Random) {
    this.random = random;
    arena ??= Arena.create();
    this.arena = arena;
    this.hostility = random.pick([0, 0, 3, 10, 40]);
    const connections = 1 + random.below(3);
    const structured = random.oneIn(2);
    const blocks = { min: 512, preferred: 512, max: random.pick([1024, 4096, 1 << 25]) };
    const flags = random.oneIn(2) ? ALL_FLAGS : ALL_FLAGS & ~8; // with and without FUA
    const server = new TestServer({
      bytes: DISK_BLOCKS * BLOCK,
      structured,
      blocks,
      flags,
      chunks: 1 + random.below(4),
      shuffle: 1 + random.below(4),
      eager: random.oneIn(4),
    });
    const lane: DiskLane = { arena, loop: this.loop, log: silentLogger };
    this.disk = new NbdDisk(
      {
        kind: 'nbd',
        name: 'fuzz',
        uri: 'nbd://fuzz/',
        addresses: [{ bytes: new Uint8Array(0), text: 'fuzz' }],
        exportName: '',
        export: {
          bytes: DISK_BLOCKS * BLOCK,
          flags,
          minBlock: blocks.min,
          preferredBlock: blocks.preferred,
          maxPayload: blocks.max,
          structured,
        },
        readonly: false,
        connections,
        retryMs: 0,
        reconnectMs: this.hostility === 0 ? PATIENCE_MS : RECONNECT_MS,
        replyMs: this.hostility === 0 ? PATIENCE_MS : RECONNECT_MS,
        afterLoss: random.oneIn(2) ? 'trust' : 'fail',
      },
      lane,
      () => new FakeSocket(random, this.arena, server.connect(), this.hostility),
    );
    this.table = new RequestTable(arena, SLOTS, SEGMENTS);
    this.memory = arena.allocate(SLOTS * SEGMENTS * 2 * ROOM, 'fuzz-nbd');
    arena.bytes.fill(CANARY, this.memory, this.memory + SLOTS * SEGMENTS * 2 * ROOM);
  }

  run(): void {
    const deadline = performance.now() + PATIENCE_MS;
    const queue = this.disk.open({ requests: this.table, sink: this, loop: this.loop });
    this.loop.addPoller({
      poll: () => {
        for (let slot = 0; slot < SLOTS && this.submitted < REQUESTS; slot++) {
          if (this.wanted[slot] !== undefined || this.random.oneIn(2)) continue;
          this.#fill(slot);
          this.submitted++;
          queue.submit(slot);
        }
        queue.flush();
        queue.poll();
        const late = performance.now() > deadline;
        if (this.completed === REQUESTS || late) this.loop.stop();
        return 0;
      },
      // Nothing wakes a loop whose sockets are in memory.
      arm: () => queue.arm() || true,
      disarm: () => queue.disarm(),
    });
    try {
      this.loop.run();
      assert.equal(this.completed, REQUESTS, 'every request completes');
      assert.equal(queue.inFlight, 0);
      queue.close();
      this.disk.close();
      const all = this.arena.bytes.subarray(this.memory, this.memory + SLOTS * SEGMENTS * 2 * ROOM);
      assert.ok(
        all.every((byte) => byte === CANARY),
        'memory beside a read was written',
      );
    } finally {
      this.loop.close();
      this.table.release();
      this.arena.unmap(this.memory, SLOTS * SEGMENTS * 2 * ROOM);
    }
  }

  complete(slot: number, result: number): void {
    const wanted = this.wanted[slot];
    assert.ok(wanted !== undefined, `slot ${slot} completed twice`);
    this.wanted[slot] = undefined;
    this.completed++;
    const { op, offset, data, places } = wanted;
    if (this.hostility === 0) {
      assert.equal(result, 0);
      if (op === DISK_READ) {
        const found = Buffer.concat(
          places.map(({ at, length }) => this.arena.bytes.slice(at, at + length)),
        );
        assert.ok(found.equals(this.model.subarray(offset, offset + data.length)));
      }
    }
    for (const { at, length } of places) this.arena.bytes.fill(CANARY, at, at + length);
  }

  /** A request to blocks that belong to this slot alone, so that the model knows what is there. */
  #fill(slot: number): void {
    const { random, table } = this;
    const op = random.pick([
      DISK_READ,
      DISK_READ,
      DISK_WRITE,
      DISK_WRITE,
      DISK_FLUSH,
      DISK_DISCARD,
      DISK_WRITE_ZEROES,
    ]);
    const share = DISK_BLOCKS / SLOTS;
    const first = random.below(share);
    const bytes = op === DISK_FLUSH ? 0 : (1 + random.below(share - first)) * BLOCK;
    const offset = op === DISK_FLUSH ? 0 : (slot * share + first) * BLOCK;
    const flags = (random.oneIn(3) ? REQUEST_FUA : 0) | (random.oneIn(2) ? REQUEST_UNMAP : 0);
    const data = Buffer.from(random.bytes(op === DISK_WRITE ? bytes : 0));
    const places: { at: number; length: number }[] = [];
    table.begin(slot, op, flags, offset, bytes);
    if (op === DISK_READ || op === DISK_WRITE) {
      for (let left = bytes, k = 0; left > 0; k++) {
        const length = k === SEGMENTS - 1 ? left : 1 + random.below(left);
        const at = this.memory + (slot * SEGMENTS + k) * 2 * ROOM + random.below(ROOM);
        if (op === DISK_WRITE) {
          this.arena.bytes.set(data.subarray(bytes - left, bytes - left + length), at);
        }
        assert.ok(table.add(slot, at, length));
        places.push({ at, length });
        left -= length;
      }
    }
    if (op === DISK_WRITE) data.copy(this.model, offset);
    if (op === DISK_DISCARD || op === DISK_WRITE_ZEROES) {
      this.model.fill(0, offset, offset + bytes);
    }
    const expected = op === DISK_READ ? Buffer.alloc(bytes) : data;
    this.wanted[slot] = { op, offset, data: expected, places };
  }
}

export const nbdClient: FuzzTarget = {
  name: 'nbd-client',
  run: (random) => new Bench(random).run(),
};
