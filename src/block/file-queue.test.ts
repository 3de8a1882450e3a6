import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { loggerTo } from '../base/log.ts';
import {
  ENTRY_WORDS,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  IO_FALLOCATE,
  IO_FSYNC,
  IO_READ,
  IO_READV,
  IO_WRITE,
  IO_WRITEV,
  type IoRing,
  RWF_DSYNC,
} from '../os/io-ring.ts';
import { bufferAt, EAGAIN, EINTR, EINVAL, EIO, EOPNOTSUPP } from '../os/libc.ts';
import { FileQueue } from './file-queue.ts';
import { FileState, type FileTraits } from './file-state.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_FUA,
  REQUEST_UNMAP,
  RequestTable,
} from './requests.ts';
import { testLane } from './testing.ts';

const ENOSPC = 28;
const TWO_32 = 2 ** 32;
const SLOTS = 4;
const SEGMENTS = 8;
const MiB = 1024 * 1024;

const { arena, loop } = testLane();
const base = Number(arena.pointer(0));

/** An operation as the file would see it. */
interface Operation {
  readonly op: number;
  readonly slot: number;
  readonly offset: number;
  /** Arena addresses and lengths of the memory; none for operations without. */
  readonly memory: readonly (readonly [number, number])[];
  readonly bytes: number;
  /** Word 6: mode of a fallocate. */
  readonly mode: number;
  readonly flags: number;
}

/** A ring whose other side is the test. */
class ScriptedRing implements IoRing {
  readonly entries = new Uint32Array(SLOTS * ENTRY_WORDS);
  /** What was submitted and not answered. */
  readonly operations: Operation[] = [];
  /** Entries that a submit takes: a kernel that is short of memory takes fewer. */
  takes = Number.POSITIVE_INFINITY;
  closed = false;
  readonly #results: (readonly [number, number])[] = [];
  #taken = 0;
  #sent = 0;

  take(): number {
    if (this.waiting() === SLOTS) return -1;
    return (this.#taken++ % SLOTS) * ENTRY_WORDS;
  }

  submit(): void {
    for (let i = 0; i < this.takes && this.#sent < this.#taken; i++)
      this.operations.push(this.#read((this.#sent++ % SLOTS) * ENTRY_WORDS));
  }

  waiting(): number {
    return this.#taken - this.#sent;
  }

  ready(): number {
    return this.#results.length;
  }

  tag(i: number): number {
    return this.#results[i]?.[0] as number;
  }

  result(i: number): number {
    return this.#results[i]?.[1] as number;
  }

  consume(n: number): void {
    this.#results.splice(0, n);
  }

  arm(): boolean {
    return this.ready() > 0;
  }

  disarm(): void {
    assert.equal(this.closed, false);
  }

  close(): void {
    this.closed = true;
  }

  /** Answers the oldest operation. */
  answer(result: number): void {
    const operation = this.operations.shift();
    assert.ok(operation !== undefined, 'nothing was submitted');
    this.#results.push([operation.slot, result]);
  }

  #read(at: number): Operation {
    const word = (index: number): number => this.entries[at + index] as number;
    const op = word(0) & 0xff;
    const address = word(5) * TWO_32 + word(4);
    const memory: (readonly [number, number])[] = [];
    if (op === IO_READ || op === IO_WRITE) memory.push([address - base, word(6)]);
    if (op === IO_READV || op === IO_WRITEV) memory.push(...vectorAt(address, word(6)));
    return {
      op,
      slot: word(8),
      offset: word(3) * TWO_32 + word(2),
      memory,
      bytes: op === IO_FALLOCATE ? address : memory.reduce((sum, [, length]) => sum + length, 0),
      mode: word(6),
      flags: word(7),
    };
  }
}

/** The list of iovecs at a process pointer: arena addresses and lengths. */
function vectorAt(pointer: number, count: number): (readonly [number, number])[] {
  const words = new BigUint64Array(bufferAt(BigInt(pointer), count * 16));
  return Array.from({ length: count }, (_, index) => [
    Number(words[2 * index] as bigint) - base,
    Number(words[2 * index + 1] as bigint),
  ]);
}

interface Bench {
  readonly queue: FileQueue;
  readonly ring: ScriptedRing;
  readonly state: FileState;
  readonly table: RequestTable;
  /** [slot, result] of each completion, in order. */
  readonly completed: (readonly [number, number])[];
  readonly errors: string[];
  /** Arena address of 4 MiB. */
  readonly memory: number;
}

const plain: FileTraits = {
  direct: false,
  memoryAlignment: 1,
  memoryOnly: false,
  punch: true,
  zeroRange: true,
};
const direct: FileTraits = { ...plain, direct: true, memoryAlignment: 512 };
const MEMORY = 4 * MiB;

let close = (): void => undefined;
afterEach(() => close());

function bench(traits: FileTraits = plain, fileBytes = 2 ** 40): Bench {
  const table = new RequestTable(arena, SLOTS, SEGMENTS);
  const memory = arena.allocate(MEMORY, 'test');
  const completed: (readonly [number, number])[] = [];
  const errors: string[] = [];
  const ring = new ScriptedRing();
  const state = new FileState(traits, fileBytes);
  const queue = new FileQueue({
    requests: table,
    sink: { complete: (slot, result) => completed.push([slot, result]) },
    loop,
    ring,
    state,
    blockBytes: 512,
    log: loggerTo((level, message) => level === 'error' && errors.push(message)),
    onClose: () => undefined,
  });
  close = () => {
    table.release();
    arena.unmap(memory, MEMORY);
  };
  return { queue, ring, state, table, completed, errors, memory };
}

interface Request {
  readonly slot?: number;
  readonly op: number;
  readonly offset?: number;
  readonly bytes?: number;
  readonly flags?: number;
  /** Offsets in the bench's memory, and lengths. */
  readonly segments?: readonly (readonly [number, number])[];
}

function submit({ queue, table, memory }: Bench, request: Request): void {
  const { slot = 0, op, offset = 0, flags = 0, segments = [] } = request;
  const bytes = request.bytes ?? segments.reduce((sum, [, length]) => sum + length, 0);
  table.begin(slot, op, flags, offset, bytes);
  for (const [at, length] of segments) assert.ok(table.add(slot, memory + at, length));
  queue.submit(slot);
  queue.flush();
}

/** Answers the oldest operation and lets the queue see it. */
function answer({ queue, ring }: Bench, result: number): void {
  ring.answer(result);
  queue.poll();
}

/** The only operation on its way. */
function only({ ring }: Bench): Operation {
  assert.equal(ring.operations.length, 1);
  return ring.operations[0] as Operation;
}

const TWO_SEGMENTS = [
  [1000, 512],
  [9000, 1536],
] as const;

describe('transfers', () => {
  test('one segment is memory, several are a list', () => {
    const b = bench();
    const offset = 5 * TWO_32 + 4096;
    submit(b, { op: DISK_READ, offset, segments: [[512, 4096]] });
    const read = only(b);
    assert.equal(read.op, IO_READ);
    assert.equal(read.offset, offset);
    assert.deepEqual(read.memory, [[b.memory + 512, 4096]]);
    answer(b, 4096);
    submit(b, { slot: 3, op: DISK_WRITE, offset, segments: TWO_SEGMENTS });
    const write = only(b);
    assert.equal(write.op, IO_WRITEV);
    assert.deepEqual(
      write.memory,
      TWO_SEGMENTS.map(([at, length]) => [b.memory + at, length]),
    );
    assert.equal(write.flags, 0);
    answer(b, 2048);
    assert.deepEqual(b.completed, [
      [0, 0],
      [3, 0],
    ]);
    assert.equal(b.queue.inFlight, 0);
  });

  test('what was done in part is continued where it stopped', () => {
    const b = bench();
    submit(b, { op: DISK_WRITE, offset: 8192, segments: TWO_SEGMENTS });
    answer(b, 100);
    assert.deepEqual(only(b).memory, [
      [b.memory + 1100, 412],
      [b.memory + 9000, 1536],
    ]);
    assert.equal(only(b).offset, 8292);
    answer(b, 412 + 36);
    assert.deepEqual(only(b).memory, [[b.memory + 9036, 1500]]);
    assert.deepEqual(b.completed, []);
    answer(b, 1500);
    assert.deepEqual(b.completed, [[0, 0]]);
    assert.equal(b.state.continued, 2);
    submit(b, { op: DISK_READ, segments: [[0, 1024]] });
    answer(b, 1);
    assert.deepEqual(only(b).memory, [[b.memory + 1, 1023]]);
    answer(b, 1023);
    assert.deepEqual(b.completed, [
      [0, 0],
      [0, 0],
    ]);
  });

  test('what was interrupted is done again', () => {
    const b = bench();
    submit(b, { op: DISK_READ, segments: TWO_SEGMENTS });
    const first = only(b);
    answer(b, -EINTR);
    assert.deepEqual(only(b), first);
    answer(b, -EAGAIN);
    assert.deepEqual(only(b), first);
    answer(b, 2048);
    submit(b, { op: DISK_FLUSH });
    answer(b, -EINTR);
    assert.equal(only(b).op, IO_FSYNC);
    answer(b, 0);
    submit(b, { op: DISK_WRITE_ZEROES, bytes: 4096 });
    answer(b, -EINTR);
    assert.equal(only(b).mode & FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE);
    answer(b, 0);
    assert.deepEqual(
      b.completed.map(([, result]) => result),
      [0, 0, 0],
    );
    assert.equal(b.state.flushing, 0);
  });

  test('an error is the result of its request', () => {
    const b = bench();
    submit(b, { slot: 0, op: DISK_WRITE, segments: [[0, 512]] });
    submit(b, { slot: 1, op: DISK_READ, segments: [[0, 512]] });
    submit(b, { slot: 2, op: DISK_WRITE, segments: [[0, 1024]] });
    answer(b, -ENOSPC);
    answer(b, -EIO);
    answer(b, 512);
    answer(b, -ENOSPC);
    assert.deepEqual(b.completed, [
      [0, -ENOSPC],
      [1, -EIO],
      [2, -ENOSPC],
    ]);
  });

  test('behind the end of the file there are zeroes, before it there must be data', () => {
    const b = bench(plain, 700);
    b.table.arena.bytes.fill(7, b.memory, b.memory + 4096);
    submit(b, {
      op: DISK_READ,
      offset: 512,
      segments: [
        [0, 100],
        [200, 412],
      ],
    });
    answer(b, 188);
    assert.deepEqual(b.completed, [[0, 0]]);
    const { bytes } = arena;
    assert.equal(bytes[b.memory + 287], 7);
    assert.ok(bytes.subarray(b.memory + 288, b.memory + 612).every((byte) => byte === 0));
    assert.equal(bytes[b.memory + 612], 7);

    submit(b, { op: DISK_READ, offset: 0, segments: [[0, 512]] });
    answer(b, 0);
    assert.deepEqual(b.completed[1], [0, -EIO]);
    assert.match(b.errors[0] ?? '', /truncated/);
    submit(b, { op: DISK_WRITE, offset: 0, segments: [[0, 512]] });
    answer(b, 0);
    assert.deepEqual(b.completed[2], [0, -EIO]);
  });

  test('what the kernel does not take is sent again', () => {
    const b = bench();
    b.ring.takes = 1;
    for (let slot = 0; slot < SLOTS; slot++) {
      b.table.begin(slot, DISK_READ, 0, 0, 512);
      b.table.add(slot, b.memory, 512);
      b.queue.submit(slot);
    }
    b.queue.flush();
    assert.equal(b.ring.operations.length, 1);
    assert.equal(b.queue.arm(), true, 'the lane must not sleep');
    b.queue.disarm();
    b.queue.poll();
    b.queue.poll();
    b.queue.poll();
    assert.deepEqual(
      b.ring.operations.map(({ slot }) => slot),
      [0, 1, 2, 3],
    );
    assert.equal(b.queue.arm(), false);
    for (let slot = 0; slot < SLOTS; slot++) answer(b, 512);
    assert.equal(b.completed.length, SLOTS);
  });
});

describe('durability', () => {
  test('a write through is a write that syncs', () => {
    const b = bench();
    submit(b, { op: DISK_WRITE, flags: REQUEST_FUA, segments: [[0, 512]] });
    assert.equal(only(b).flags, RWF_DSYNC);
    answer(b, 512);
    submit(b, { op: DISK_WRITE_ZEROES, flags: REQUEST_FUA, bytes: 512 });
    answer(b, 0);
    assert.deepEqual(b.completed.length, 1, 'not before it is durable');
    assert.equal(only(b).op, IO_FSYNC);
    answer(b, 0);
    assert.equal(b.completed.length, 2);
  });

  test('a flush is left out only if nothing was completed since the last that succeeded', () => {
    const b = bench();
    submit(b, { op: DISK_FLUSH });
    assert.equal(only(b).op, IO_FSYNC, 'a process before may have left something');
    submit(b, { slot: 1, op: DISK_FLUSH });
    assert.equal(b.ring.operations.length, 2, 'the first is not done yet');
    answer(b, 0);
    answer(b, 0);
    submit(b, { op: DISK_FLUSH });
    assert.equal(b.ring.operations.length, 0);
    assert.equal(b.queue.inFlight, 1);
    assert.equal(b.queue.arm(), true);
    assert.equal(b.queue.poll(), 1);
    for (const change of [
      { op: DISK_WRITE, segments: [[0, 512]] as const, done: 512 },
      { op: DISK_DISCARD, bytes: 512, done: 0 },
      { op: DISK_WRITE_ZEROES, bytes: 512, done: 0 },
      { op: DISK_WRITE, segments: [[0, 512]] as const, done: -ENOSPC },
    ]) {
      submit(b, change);
      answer(b, change.done);
      submit(b, { op: DISK_FLUSH });
      answer(b, 0);
    }
    // A write that completes while a flush is on its way is not flushed by it.
    submit(b, { slot: 0, op: DISK_WRITE, segments: [[0, 512]] });
    answer(b, 512);
    submit(b, { slot: 0, op: DISK_WRITE, segments: [[0, 512]] });
    submit(b, { slot: 1, op: DISK_FLUSH });
    answer(b, 512);
    answer(b, 0);
    submit(b, { slot: 1, op: DISK_FLUSH });
    assert.equal(only(b).op, IO_FSYNC);
    answer(b, 0);
  });

  test('after a flush that failed none succeeds: the kernel forgets what it lost', () => {
    const b = bench();
    submit(b, { op: DISK_FLUSH });
    answer(b, -EIO);
    submit(b, { op: DISK_FLUSH });
    submit(b, { slot: 1, op: DISK_WRITE, flags: REQUEST_FUA, segments: [[0, 512]] });
    assert.equal(b.ring.operations.length, 0);
    b.queue.poll();
    submit(b, { op: DISK_WRITE, segments: [[0, 512]] });
    answer(b, 512);
    assert.deepEqual(b.completed, [
      [0, -EIO],
      [0, -EIO],
      [1, -EIO],
      [0, 0],
    ]);
    assert.equal(b.errors.length, 1);
  });

  test('past the page cache a flush can be tried again', () => {
    const b = bench(direct);
    submit(b, { op: DISK_FLUSH });
    answer(b, -EIO);
    submit(b, { op: DISK_FLUSH });
    answer(b, 0);
    assert.deepEqual(b.completed, [
      [0, -EIO],
      [0, 0],
    ]);
  });

  test('in memory there is nothing to flush', () => {
    const b = bench({ ...plain, memoryOnly: true });
    submit(b, { op: DISK_WRITE, flags: REQUEST_FUA, segments: [[0, 512]] });
    assert.equal(only(b).flags, 0);
    answer(b, 512);
    submit(b, { op: DISK_FLUSH });
    assert.equal(b.ring.operations.length, 0);
    assert.equal(b.queue.poll(), 1);
  });
});

describe('discards and zeroes', () => {
  test('a file system without holes', () => {
    const b = bench();
    submit(b, { op: DISK_DISCARD, offset: 4096, bytes: 8192 });
    assert.equal(only(b).mode & FALLOC_FL_PUNCH_HOLE, FALLOC_FL_PUNCH_HOLE);
    assert.equal(only(b).offset, 4096);
    assert.equal(only(b).bytes, 8192);
    answer(b, -EOPNOTSUPP);
    submit(b, { op: DISK_DISCARD, bytes: 8192 });
    assert.equal(b.ring.operations.length, 0, 'it is not asked again');
    b.queue.poll();
    submit(b, { op: DISK_WRITE_ZEROES, flags: REQUEST_UNMAP, bytes: 8192 });
    assert.equal(only(b).mode & FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE);
    answer(b, 0);
    assert.deepEqual(
      b.completed.map(([, result]) => result),
      [0, 0, 0],
    );
  });

  test('zeroes are written where nothing else is left', () => {
    const b = bench();
    const bytes = 5 * MiB;
    submit(b, { op: DISK_WRITE_ZEROES, flags: REQUEST_UNMAP, offset: MiB, bytes });
    assert.equal(only(b).mode & FALLOC_FL_PUNCH_HOLE, FALLOC_FL_PUNCH_HOLE);
    answer(b, -EOPNOTSUPP);
    answer(b, -EOPNOTSUPP);
    let at = 0;
    while (at < bytes) {
      const operation = only(b);
      assert.equal(operation.op, IO_WRITE);
      assert.equal(operation.offset, MiB + at);
      const [from, length] = operation.memory[0] as readonly [number, number];
      assert.ok(arena.bytes.subarray(from, from + length).every((byte) => byte === 0));
      // The first is done in part.
      const done = at === 0 ? 4096 : length;
      at += done;
      answer(b, done);
    }
    assert.equal(at, bytes);
    assert.deepEqual(b.completed, [[0, 0]]);
    submit(b, { op: DISK_WRITE_ZEROES, bytes: 512 });
    assert.equal(only(b).op, IO_WRITE);
    answer(b, -ENOSPC);
    assert.deepEqual(b.completed[1], [0, -ENOSPC]);
  });

  test('zeroes that are to keep their blocks keep them', () => {
    const b = bench();
    submit(b, { op: DISK_WRITE_ZEROES, bytes: 512 });
    assert.equal(only(b).mode & FALLOC_FL_PUNCH_HOLE, 0);
    answer(b, 0);
  });
});

describe('O_DIRECT', () => {
  test('memory that is not aligned goes through memory that is', () => {
    const b = bench(direct);
    arena.bytes.fill(3, b.memory, b.memory + MEMORY);
    const segments = [
      [512, 512],
      [2000, 1024],
    ] as const;
    submit(b, { op: DISK_WRITE, offset: 4096, segments });
    const write = only(b);
    assert.equal(write.op, IO_WRITE);
    const [at, length] = write.memory[0] as readonly [number, number];
    assert.equal(at % 4096, 0);
    assert.equal(length, 1536);
    assert.ok(arena.bytes.subarray(at, at + length).every((byte) => byte === 3));
    answer(b, 1536);
    submit(b, { op: DISK_READ, offset: 4096, segments });
    const [to] = only(b).memory[0] as readonly [number, number];
    arena.bytes.fill(9, to, to + 1536);
    answer(b, 1536);
    assert.ok(arena.bytes.subarray(b.memory + 512, b.memory + 1024).every((byte) => byte === 9));
    assert.equal(arena.bytes[b.memory + 1999], 3);
    assert.ok(arena.bytes.subarray(b.memory + 2000, b.memory + 3024).every((byte) => byte === 9));
    assert.equal(arena.bytes[b.memory + 3024], 3);
    assert.equal(b.state.bounced, 2);
    submit(b, { op: DISK_READ, offset: 4096, segments: [[1024, 512]] });
    assert.deepEqual(only(b).memory, [[b.memory + 1024, 512]]);
    answer(b, 512);
    assert.equal(b.state.bounced, 2);
  });

  test('large requests go by pieces, and an error ends them', () => {
    const b = bench(direct);
    const bytes = 600 * 1024;
    submit(b, { op: DISK_READ, offset: 0, segments: [[1, bytes]] });
    let done = 0;
    while (b.completed.length === 0) {
      assert.equal(only(b).offset, done);
      done += only(b).bytes;
      answer(b, only(b).bytes);
    }
    assert.equal(done, bytes);
    submit(b, { op: DISK_WRITE, offset: 0, segments: [[1, bytes]] });
    answer(b, only(b).bytes);
    answer(b, -EIO);
    assert.deepEqual(b.completed, [
      [0, 0],
      [0, -EIO],
    ]);
  });

  test('a file that wants more alignment than it tells gets it', () => {
    const b = bench({ ...direct, memoryAlignment: 1 });
    submit(b, { op: DISK_READ, segments: [[3, 512]] });
    assert.deepEqual(only(b).memory, [[b.memory + 3, 512]]);
    answer(b, -EINVAL);
    assert.notEqual(only(b).memory[0]?.[0], b.memory + 3);
    answer(b, -EINVAL);
    assert.deepEqual(b.completed, [[0, -EINVAL]]);
  });

  test('what was done in part is continued at a whole block', () => {
    const b = bench(direct);
    submit(b, { op: DISK_WRITE, offset: 0, segments: [[0, 2048]] });
    answer(b, 1000);
    assert.equal(only(b).offset, 512);
    assert.equal(only(b).bytes, 1536);
    answer(b, 1536);
    assert.deepEqual(b.completed, [[0, 0]]);
    submit(b, { op: DISK_WRITE, offset: 0, segments: [[0, 2048]] });
    answer(b, 100);
    assert.deepEqual(b.completed[1], [0, -EIO], 'no step forward');
  });
});
