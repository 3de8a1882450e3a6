/**
 * io_uring(7): the submission and completion rings are memory shared with the kernel; a burst of
 * operations costs one system call, and results are read without any.
 *
 * Layouts and numbers: uapi/linux/io_uring.h.
 */
import { SystemError } from '../base/errors.ts';
import { EPOLLET, EPOLLIN, type Epoll } from './epoll.ts';
import { closeFd, createEventFd } from './fd.ts';
import { ENTRY_WORDS, type IoRing } from './io-ring.ts';
import {
  addressOf,
  EAGAIN,
  EBUSY,
  EINTR,
  EINVAL,
  enterCall,
  errno,
  errnoName,
  pinned,
  systemCall,
  systemError,
} from './libc.ts';
import { KernelMapping } from './mapping.ts';

// The same numbers on all architectures (asm-generic/unistd.h).
const SYS_IO_URING_SETUP = 425;
const SYS_IO_URING_ENTER = 426;
const SYS_IO_URING_REGISTER = 427;

const SETUP_CLAMP = 1 << 4;
const SETUP_SUBMIT_ALL = 1 << 7;
const SETUP_COOP_TASKRUN = 1 << 8;
const SETUP_TASKRUN_FLAG = 1 << 9;
const SETUP_SINGLE_ISSUER = 1 << 12;

/**
 * Ways to set a ring up, best first; a kernel that does not know a flag refuses it whole. SINGLE_ISSUER
 * is Linux 6.0, COOP_TASKRUN 5.19, SUBMIT_ALL 5.18.
 *
 * COOP_TASKRUN: no interrupt of the lane for a result, which is brought about when the lane next enters
 * the kernel; TASKRUN_FLAG tells it that it should. DEFER_TASKRUN, which also puts results off that a
 * kernel thread has ready, measured no faster for reads and slower for what such threads do (fsync,
 * fallocate): each of those then costs a call of its own.
 */
const SETUPS: readonly number[] = [
  SETUP_CLAMP | SETUP_SUBMIT_ALL | SETUP_COOP_TASKRUN | SETUP_TASKRUN_FLAG | SETUP_SINGLE_ISSUER,
  SETUP_CLAMP | SETUP_SUBMIT_ALL | SETUP_COOP_TASKRUN | SETUP_TASKRUN_FLAG,
  SETUP_CLAMP,
];

/** Linux 5.6: plain reads and writes and fallocate are there, and no result is ever dropped. */
const FEAT_NODROP = 1 << 1;
const FEAT_RW_CUR_POS = 1 << 3;
const FEAT_SINGLE_MMAP = 1 << 0;
const FEATURES = FEAT_SINGLE_MMAP | FEAT_NODROP | FEAT_RW_CUR_POS;

const ENTER_GETEVENTS = 1 << 0;
const REGISTER_FILES = 2;
const REGISTER_EVENTFD = 4;
const SQ_CQ_OVERFLOW = 1 << 1;
const SQ_TASKRUN = 1 << 2;
/** There is something that only a system call brings about. */
const SQ_CALL = SQ_CQ_OVERFLOW | SQ_TASKRUN;
const CQ_EVENTFD_DISABLED = 1;

const OFF_RINGS = 0;
const OFF_ENTRIES = 0x1000_0000;
const RESULT_BYTES = 16;

// struct io_uring_params: words.
const PARAMS_BYTES = 120;
const P_SQ_ENTRIES = 0;
const P_CQ_ENTRIES = 1;
const P_FLAGS = 2;
const P_FEATURES = 5;
const P_SQ_OFF = 10;
const P_CQ_OFF = 20;

interface Setup {
  readonly fd: number;
  readonly params: Uint32Array;
}

/** Makes the rings with the best of the set-ups that the kernel knows. */
function setUp(entries: number, setups: readonly number[] = SETUPS): Setup {
  for (const flags of setups) {
    const { buffer, address } = pinned(PARAMS_BYTES);
    const params = new Uint32Array(buffer);
    params[P_FLAGS] = flags;
    const fd = systemCall(SYS_IO_URING_SETUP, entries, address);
    if (fd !== -1) return { fd, params };
    // A flag that came with a later kernel.
    if (errno[0] !== EINVAL) break;
  }
  throw systemError('io_uring_setup', `${entries} entries`);
}

/** Why this process cannot use io_uring, such as `EPERM: io_uring_setup`; undefined if it can. */
export function ioUringRefusal(): string | undefined {
  try {
    const { fd, params } = setUp(1);
    closeFd(fd);
    if (((params[P_FEATURES] as number) & FEATURES) === FEATURES) return undefined;
    return 'its io_uring is older than Linux 5.6';
  } catch (error) {
    if (error instanceof SystemError) return `${error.errnoName}: ${error.syscall}`;
    throw error;
  }
}

export interface IoUringOptions {
  /** Operations that may be on their way at once; the kernel rounds up to a power of two. */
  readonly entries: number;
  /** What word 1 of an entry with ENTRY_FIXED_FILE counts. They stay open until the ring is closed. */
  readonly files: readonly number[];
  /** Where results wake the caller between `arm` and `disarm`. */
  readonly epoll: Epoll;
  /** IORING_SETUP_* flags to try, in this order. Default: the best that the kernel knows. */
  readonly setups?: readonly number[];
}

/** One io_uring. Belongs to the thread that makes it. */
export class IoUring implements IoRing {
  readonly entries: Uint32Array;
  /** Operations that can be on their way without a result being delayed. */
  readonly size: number;
  readonly #fd: number;
  readonly #event: number;
  readonly #epoll: Epoll;
  readonly #rings: KernelMapping;
  readonly #entriesMapping: KernelMapping;
  readonly #words: Int32Array;
  readonly #entryMask: number;
  readonly #resultMask: number;
  // Indexes of words in the shared rings.
  readonly #sqHead: number;
  readonly #sqTail: number;
  readonly #sqFlags: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqFlags: number;
  readonly #results: number;
  // Positions are 32-bit integers that wrap, signed so that they never become heap numbers.
  #taken = 0;
  #head = 0;

  /** @throws SystemError what the kernel answers where it refuses */
  constructor(options: IoUringOptions) {
    const { fd, params } = setUp(options.entries, options.setups);
    const p = (index: number): number => params[index] as number;
    const sqEntries = p(P_SQ_ENTRIES);
    const array = p(P_SQ_OFF + 6);
    const results = p(P_CQ_OFF + 5);
    const cqEntries = p(P_CQ_ENTRIES);
    this.#fd = fd;
    this.#epoll = options.epoll;
    const ringBytes = Math.max(array + sqEntries * 4, results + cqEntries * RESULT_BYTES);
    this.#rings = new KernelMapping(fd, ringBytes, OFF_RINGS);
    this.#entriesMapping = new KernelMapping(fd, sqEntries * ENTRY_WORDS * 4, OFF_ENTRIES);
    this.#words = new Int32Array(this.#rings.buffer);
    this.entries = new Uint32Array(this.#entriesMapping.buffer);
    this.size = sqEntries;
    this.#entryMask = sqEntries - 1;
    this.#resultMask = cqEntries - 1;
    this.#sqHead = p(P_SQ_OFF) / 4;
    this.#sqTail = p(P_SQ_OFF + 1) / 4;
    this.#sqFlags = p(P_SQ_OFF + 4) / 4;
    this.#cqHead = p(P_CQ_OFF) / 4;
    this.#cqTail = p(P_CQ_OFF + 1) / 4;
    this.#cqFlags = p(P_CQ_OFF + 6) / 4;
    this.#results = results / 4;
    // Entries are used in turn: entry n stands at place n of the list for good.
    for (let i = 0; i < sqEntries; i++) this.#words[array / 4 + i] = i;
    this.#event = createEventFd();
    this.disarm();
    const files = pinned(Math.max(4, options.files.length * 4));
    new Int32Array(files.buffer).set(options.files);
    this.#register(REGISTER_FILES, files.buffer, options.files.length);
    const event = pinned(4);
    new Int32Array(event.buffer)[0] = this.#event;
    this.#register(REGISTER_EVENTFD, event.buffer, 1);
    // Each result is an event of its own; nothing is read, it is enough to be awake.
    options.epoll.add(this.#event, EPOLLIN | EPOLLET, () => undefined);
  }

  take(): number {
    const taken = this.#taken;
    if (this.waiting() > this.#entryMask) return -1;
    this.#taken = (taken + 1) | 0;
    return (taken & this.#entryMask) * ENTRY_WORDS;
  }

  waiting(): number {
    return (this.#taken - (this.#words[this.#sqHead] as number)) | 0;
  }

  submit(): void {
    Atomics.store(this.#words, this.#sqTail, this.#taken);
    for (;;) {
      const count = this.waiting();
      if (count === 0) return;
      const flags = (this.#words[this.#sqFlags] as number) & SQ_CALL ? ENTER_GETEVENTS : 0;
      if (enterCall(SYS_IO_URING_ENTER, this.#fd, count, 0, flags, 0n, 0n) !== -1) continue;
      const number = errno[0];
      if (number === EINTR) continue;
      // Short of memory, or results have to be read first: the rest goes with a later call.
      if (number === EAGAIN || number === EBUSY) return;
      throw systemError('io_uring_enter', errnoName(number));
    }
  }

  ready(): number {
    const words = this.#words;
    const count = (Atomics.load(words, this.#cqTail) - this.#head) | 0;
    if (count !== 0 || ((words[this.#sqFlags] as number) & SQ_CALL) === 0) return count;
    return this.#call();
  }

  tag(i: number): number {
    return this.#words[this.#results + (((this.#head + i) & this.#resultMask) << 2)] as number;
  }

  result(i: number): number {
    return this.#words[this.#results + (((this.#head + i) & this.#resultMask) << 2) + 2] as number;
  }

  consume(n: number): void {
    this.#head = (this.#head + n) | 0;
    Atomics.store(this.#words, this.#cqHead, this.#head);
  }

  arm(): boolean {
    Atomics.store(this.#words, this.#cqFlags, 0);
    // The flag must be seen before the results are: a store and a load of another word, in order.
    return this.ready() !== 0 || this.waiting() !== 0;
  }

  disarm(): void {
    this.#words[this.#cqFlags] = CQ_EVENTFD_DISABLED;
  }

  close(): void {
    this.#epoll.remove(this.#event);
    this.#entriesMapping.release();
    this.#rings.release();
    closeFd(this.#fd);
    closeFd(this.#event);
  }

  /** Lets the kernel do what it has put off, and counts the results then. */
  #call(): number {
    if (enterCall(SYS_IO_URING_ENTER, this.#fd, 0, 0, ENTER_GETEVENTS, 0n, 0n) === -1) {
      const number = errno[0];
      if (number !== EINTR && number !== EAGAIN && number !== EBUSY) {
        throw systemError('io_uring_enter', errnoName(number));
      }
    }
    return (Atomics.load(this.#words, this.#cqTail) - this.#head) | 0;
  }

  #register(operation: number, list: ArrayBuffer, count: number): void {
    const at = addressOf(list);
    const result = systemCall(SYS_IO_URING_REGISTER, this.#fd, operation, at, count);
    // Named after the call, the list lives as long as the kernel reads it.
    if (result === -1)
      throw systemError('io_uring_register', `${operation}, ${list.byteLength} bytes`);
  }
}
