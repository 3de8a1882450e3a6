/**
 * A ring for a file that lies in memory (tmpfs). io_uring hands every buffered write to such a file to a
 * thread of the kernel's, which takes four times as long as the write: reads and writes go by io_submit(2)
 * instead, a burst in one system call, which does them before it returns. All else goes by io_uring.
 *
 * Only for such files: of another, a read or a write may wait for a device, and the lane with it.
 *
 * struct iocb, struct io_event, IOCB_CMD_*: uapi/linux/aio_abi.h; the ring of events: fs/aio.c.
 */
import { SystemError } from '../base/errors.ts';
import { ENTRY_WORDS, IO_READ, IO_READV, IO_WRITE, IO_WRITEV, type IoRing } from './io-ring.ts';
import type { IoUring } from './io-uring.ts';
import {
  bufferAt,
  EINTR,
  ENOSYS,
  errno,
  errnoName,
  pinned,
  submitCall,
  systemCall,
  systemError,
} from './libc.ts';

interface Calls {
  readonly setup: number;
  readonly destroy: number;
  readonly submit: number;
}

/** asm/unistd.h: the old calls have other numbers on x86. */
const CALLS: Calls =
  process.arch === 'x64'
    ? { setup: 206, destroy: 207, submit: 209 }
    : { setup: 0, destroy: 1, submit: 2 };

const IOCB_CMD_PREAD = 0;
const IOCB_CMD_PWRITE = 1;
const IOCB_CMD_PREADV = 7;
const IOCB_CMD_PWRITEV = 8;

const OPCODE_MASK = 63;
/** By the opcode of an entry; -1 for what goes by io_uring. */
const COMMANDS = new Int8Array(OPCODE_MASK + 1).fill(-1);
COMMANDS[IO_READ] = IOCB_CMD_PREAD;
COMMANDS[IO_WRITE] = IOCB_CMD_PWRITE;
COMMANDS[IO_READV] = IOCB_CMD_PREADV;
COMMANDS[IO_WRITEV] = IOCB_CMD_PWRITEV;

// struct iocb: words of 64 bytes.
const IOCB_WORDS = 16;
const IOCB_RW_FLAGS = 3;
const IOCB_OPCODE = 4;
const IOCB_FILE = 5;
const IOCB_BUFFER = 6;
const IOCB_BYTES = 8;
const IOCB_OFFSET = 10;

/** What the caller fills in of an entry. */
const CALLER_WORDS = 10;

// struct aio_ring and struct io_event: words.
const RING_HEADER_WORDS = 8;
const R_NR = 1;
const R_HEAD = 2;
const R_TAIL = 3;
const R_MAGIC = 4;
const R_INCOMPATIBLE = 6;
const AIO_RING_MAGIC = 0xa10a_10a1;
const EVENT_WORDS = 8;
const EVENT_RESULT = 4;

export class AtOnceRing implements IoRing {
  readonly entries: Uint32Array;
  readonly #uring: IoUring;
  readonly #size: number;
  /** The context's name: the address of its ring of events. */
  readonly #context: bigint;
  readonly #events: Uint32Array;
  readonly #eventCount: number;
  /** The iocbs, and behind them the list of their pointers. */
  readonly #iocbs: Uint32Array;
  readonly #list: bigint;
  /** Pairs of tag and result of transfers, in turn. */
  readonly #results: Int32Array;
  readonly #resultMask: number;
  // Positions are 32-bit integers that wrap.
  #head = 0;
  #tail = 0;
  /** Transfers that the last {@link ready} counted: what comes later is not among them. */
  #shown = 0;
  /** Transfers of which no result has been read. */
  #flying = 0;
  #taken = 0;

  /**
   * @param uring for what is not done at once; closed with this ring
   * @param fd the file, which stays open until the ring is closed
   * @param entries operations that may be on their way at once
   * @throws SystemError if the kernel has no such call, or no room for a context (fs.aio-max-nr)
   */
  constructor(uring: IoUring, fd: number, entries: number) {
    this.#uring = uring;
    this.#size = entries;
    this.entries = new Uint32Array(entries * ENTRY_WORDS);
    const context = pinned(8);
    if (systemCall(CALLS.setup, entries, context.address) === -1)
      throw systemError('io_setup', `${entries} entries`);
    this.#context = new BigUint64Array(context.buffer)[0] as bigint;
    const header = new Uint32Array(bufferAt(this.#context, RING_HEADER_WORDS * 4));
    this.#eventCount = header[R_NR] as number;
    if (header[R_MAGIC] !== AIO_RING_MAGIC || header[R_INCOMPATIBLE] !== 0) {
      this.#destroy();
      throw new SystemError(ENOSYS, errnoName(ENOSYS), 'io_setup', 'events of another form');
    }
    const words = RING_HEADER_WORDS + this.#eventCount * EVENT_WORDS;
    this.#events = new Uint32Array(bufferAt(this.#context, words * 4));
    const iocbBytes = entries * IOCB_WORDS * 4;
    const { buffer, address } = pinned(iocbBytes + entries * 8);
    this.#iocbs = new Uint32Array(buffer);
    this.#list = address + BigInt(iocbBytes);
    const pointers = new BigUint64Array(buffer, iocbBytes);
    for (let i = 0; i < entries; i++) {
      pointers[i] = address + BigInt(i * IOCB_WORDS * 4);
      this.#iocbs[i * IOCB_WORDS + IOCB_FILE] = fd;
    }
    // As many again may be submitted while results are read.
    const results = 2 ** Math.ceil(Math.log2(2 * entries));
    this.#results = new Int32Array(2 * results);
    this.#resultMask = results - 1;
  }

  take(): number {
    return this.#taken === this.#size ? -1 : this.#taken++ * ENTRY_WORDS;
  }

  waiting(): number {
    return this.#taken + this.#uring.waiting();
  }

  submit(): void {
    const { entries } = this;
    const taken = this.#taken;
    let transfers = 0;
    let kept = 0;
    for (let i = 0; i < taken; i++) {
      const at = i * ENTRY_WORDS;
      const command = COMMANDS[(entries[at] as number) & OPCODE_MASK] as number;
      if (command !== -1) this.#prepare(transfers++, at, command);
      else if (!this.#pass(at)) entries.copyWithin(kept++ * ENTRY_WORDS, at, at + ENTRY_WORDS);
    }
    this.#taken = kept;
    if (transfers !== 0) this.#transfer(transfers);
    if (this.#uring.waiting() !== 0) this.#uring.submit();
  }

  ready(): number {
    if (this.#flying !== 0) this.#reap();
    this.#shown = (this.#tail - this.#head) | 0;
    return this.#shown + this.#uring.ready();
  }

  tag(i: number): number {
    if (i >= this.#shown) return this.#uring.tag(i - this.#shown);
    return this.#results[((this.#head + i) & this.#resultMask) << 1] as number;
  }

  result(i: number): number {
    if (i >= this.#shown) return this.#uring.result(i - this.#shown);
    return this.#results[(((this.#head + i) & this.#resultMask) << 1) + 1] as number;
  }

  consume(n: number): void {
    const own = n < this.#shown ? n : this.#shown;
    this.#head = (this.#head + own) | 0;
    this.#shown -= own;
    if (n !== own) this.#uring.consume(n - own);
  }

  arm(): boolean {
    // The events of transfers wake nobody: there are none to wait for, as a rule.
    const left = this.#taken !== 0 || this.#flying !== 0 || this.#tail !== this.#head;
    return this.#uring.arm() || left;
  }

  disarm(): void {
    this.#uring.disarm();
  }

  close(): void {
    this.#uring.close();
    this.#destroy();
  }

  /** Turns the entry at a word into iocb number `index`. */
  #prepare(index: number, at: number, command: number): void {
    const { entries } = this;
    const iocbs = this.#iocbs;
    const to = index * IOCB_WORDS;
    iocbs[to] = entries[at + 8] as number;
    iocbs[to + IOCB_RW_FLAGS] = entries[at + 7] as number;
    iocbs[to + IOCB_OPCODE] = command;
    iocbs[to + IOCB_BUFFER] = entries[at + 4] as number;
    iocbs[to + IOCB_BUFFER + 1] = entries[at + 5] as number;
    iocbs[to + IOCB_BYTES] = entries[at + 6] as number;
    iocbs[to + IOCB_OFFSET] = entries[at + 2] as number;
    iocbs[to + IOCB_OFFSET + 1] = entries[at + 3] as number;
  }

  /** Gives an entry to io_uring; false if it has no room. */
  #pass(at: number): boolean {
    const to = this.#uring.take();
    if (to === -1) return false;
    const words = this.#uring.entries;
    for (let i = 0; i < CALLER_WORDS; i++) words[to + i] = this.entries[at + i] as number;
    return true;
  }

  /** Has the first `count` iocbs done. */
  #transfer(count: number): void {
    let done = submitCall(CALLS.submit, this.#context, count, this.#list);
    if (done === count) {
      this.#flying += count;
      this.#reap();
      return;
    }
    // The kernel stops at one that it does not take, which is told when that one is the first.
    let first = 0;
    for (;;) {
      if (done === -1) {
        const number = errno[0];
        if (number !== EINTR) {
          this.#put(this.#iocbs[first * IOCB_WORDS] as number, -number);
          first++;
        }
      } else {
        this.#flying += done;
        first += done;
        this.#reap();
      }
      if (first === count) return;
      done = submitCall(CALLS.submit, this.#context, count - first, this.#list + BigInt(first * 8));
    }
  }

  /** Takes events out of the kernel's ring. */
  #reap(): void {
    const events = this.#events;
    const tail = Atomics.load(events, R_TAIL);
    let head = events[R_HEAD] as number;
    while (head !== tail) {
      const at = RING_HEADER_WORDS + head * EVENT_WORDS;
      this.#put(events[at] as number, (events[at + EVENT_RESULT] as number) | 0);
      this.#flying--;
      head = head + 1 === this.#eventCount ? 0 : head + 1;
    }
    Atomics.store(events, R_HEAD, head);
  }

  #put(tag: number, result: number): void {
    const at = (this.#tail & this.#resultMask) << 1;
    this.#results[at] = tag;
    this.#results[at + 1] = result;
    this.#tail = (this.#tail + 1) | 0;
  }

  #destroy(): void {
    if (systemCall(CALLS.destroy, this.#context, 0) === -1) throw systemError('io_destroy', 'aio');
  }
}
