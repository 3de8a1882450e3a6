/**
 * Where io_uring is forbidden: a thread that reads and writes by plain system calls, fed by rings of
 * the same form in shared memory. It does one operation after the other.
 *
 * The main thread starts the worker and gives what the lane needs to reach it; the lane makes a
 * {@link WorkerRing} for each of its queues.
 *
 * Shared memory, in 32-bit words:
 *
 *   0       operations submitted so far (the worker waits on it)
 *   1       the worker waits
 *   2       results are to wake the lane
 *   3       the worker is to end
 *   4       the worker has died
 *   16 …    places, PLACE_WORDS each: position of submissions (tail, head), of results (tail, head),
 *           entries, results (tag, result)
 */
import { Worker } from 'node:worker_threads';
import { describeError, SluiceError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { EPOLLET, EPOLLIN, type Epoll } from '../os/epoll.ts';
import { closeFd, createEventFd, signalEventFd } from '../os/fd.ts';
import { ENTRY_WORDS, type IoRing } from '../os/io-ring.ts';
import { EIO } from '../os/libc.ts';

/** Queues that one disk can have at once, and operations of each. */
export const WORKER_PLACES = 8;
export const WORKER_ENTRIES = 1024;

export const W_SUBMITTED = 0;
export const W_WAITING = 1;
export const W_ARMED = 2;
export const W_STOP = 3;
export const W_DEAD = 4;
const PLACES_AT = 16;

export const P_SUBMIT_TAIL = 0;
export const P_SUBMIT_HEAD = 1;
export const P_RESULT_TAIL = 2;
const P_RESULT_HEAD = 3;
export const P_ENTRIES = 16;
const RESULT_WORDS = 2;
export const P_RESULTS = P_ENTRIES + WORKER_ENTRIES * ENTRY_WORDS;
const RESULTS = 2 * WORKER_ENTRIES;
const PLACE_WORDS = P_RESULTS + RESULTS * RESULT_WORDS;
const SHARED_BYTES = (PLACES_AT + WORKER_PLACES * PLACE_WORDS) * 4;

/** First word of a place. */
export function placeAt(place: number): number {
  return PLACES_AT + place * PLACE_WORDS;
}

/** Word of result number `position` of the place that begins at `base`. */
export function resultAt(base: number, position: number): number {
  return base + P_RESULTS + (position & (RESULTS - 1)) * RESULT_WORDS;
}

/** Word of submission number `position`. */
export function entryAt(base: number, position: number): number {
  return base + P_ENTRIES + (position & (WORKER_ENTRIES - 1)) * ENTRY_WORDS;
}

/** What a lane needs to reach a worker. Can be posted. */
export interface FileWorkerHandle {
  readonly shared: SharedArrayBuffer;
  /** An eventfd: results wake the lane by it. */
  readonly wakeFd: number;
}

export interface FileWorkerData {
  readonly handle: FileWorkerHandle;
  readonly fd: number;
}

/** Starts a worker for an open file. It ends when the lane has it end ({@link FileWorkerLane.close}). */
export function startFileWorker(fd: number, name: string, log: Logger): FileWorkerHandle {
  const shared = new SharedArrayBuffer(SHARED_BYTES);
  const handle = { shared, wakeFd: createEventFd() };
  const words = new Int32Array(shared);
  const data: FileWorkerData = { handle, fd };
  const worker = new Worker(new URL('./file-worker-main.ts', import.meta.url), {
    workerData: data,
    name: `disk-${name}`,
    // As for lanes: descriptors are opened by one and closed by another.
    trackUnmanagedFds: false,
  });
  worker.unref();
  worker.once('error', (error) => {
    log.error('the thread of a disk ended: its requests fail', {
      disk: name,
      error: describeError(error),
    });
  });
  worker.once('exit', () => {
    Atomics.store(words, W_DEAD, 1);
    if (Atomics.load(words, W_STOP) === 0) signalEventFd(handle.wakeFd);
    closeFd(handle.wakeFd);
  });
  return handle;
}

/** Has a worker end that no lane has used. */
export function stopFileWorker(handle: FileWorkerHandle): void {
  const words = new Int32Array(handle.shared);
  Atomics.store(words, W_STOP, 1);
  Atomics.add(words, W_SUBMITTED, 1);
  Atomics.notify(words, W_SUBMITTED);
}

/** A worker, seen from the lane: gives rings for queues. */
export class FileWorkerLane {
  readonly handle: FileWorkerHandle;
  readonly words: Int32Array;
  readonly #epoll: Epoll;
  readonly #used = new Set<number>();

  constructor(handle: FileWorkerHandle, epoll: Epoll) {
    this.handle = handle;
    this.words = new Int32Array(handle.shared);
    this.#epoll = epoll;
    epoll.add(handle.wakeFd, EPOLLIN | EPOLLET, () => undefined);
  }

  /** @throws SluiceError `unsupported` for more queues or operations than there is room for */
  open(entries: number): WorkerRing {
    const place = Array.from({ length: WORKER_PLACES }, (_, index) => index).find(
      (index) => !this.#used.has(index),
    );
    if (place === undefined || entries > WORKER_ENTRIES) {
      throw new SluiceError(
        'unsupported',
        `without io_uring a disk has ${WORKER_PLACES} users at most, with ${WORKER_ENTRIES} requests each`,
      );
    }
    this.#used.add(place);
    return new WorkerRing(this, place, () => this.#used.delete(place));
  }

  close(): void {
    this.#epoll.remove(this.handle.wakeFd);
    stopFileWorker(this.handle);
  }
}

/** One place of a worker's shared memory, the lane's side. */
export class WorkerRing implements IoRing {
  readonly entries: Uint32Array;
  readonly #words: Int32Array;
  readonly #base: number;
  readonly #onClose: () => void;
  // As in io_uring: positions are 32-bit integers that wrap.
  #taken: number;
  #sent: number;
  #head: number;

  constructor(lane: FileWorkerLane, place: number, onClose: () => void) {
    this.#words = lane.words;
    this.#base = placeAt(place);
    const bytes = (this.#base + P_ENTRIES) * 4;
    this.entries = new Uint32Array(lane.handle.shared, bytes, WORKER_ENTRIES * ENTRY_WORDS);
    this.#onClose = onClose;
    this.#taken = this.#words[this.#base + P_SUBMIT_TAIL] as number;
    this.#sent = this.#taken;
    this.#head = this.#words[this.#base + P_RESULT_HEAD] as number;
  }

  take(): number {
    const taken = this.#taken;
    const head = Atomics.load(this.#words, this.#base + P_SUBMIT_HEAD);
    if (((taken - head) | 0) >= WORKER_ENTRIES) return -1;
    this.#taken = (taken + 1) | 0;
    return (taken & (WORKER_ENTRIES - 1)) * ENTRY_WORDS;
  }

  waiting(): number {
    return (this.#taken - this.#sent) | 0;
  }

  submit(): void {
    if (this.#taken === this.#sent) return;
    const words = this.#words;
    this.#sent = this.#taken;
    Atomics.store(words, this.#base + P_SUBMIT_TAIL, this.#taken);
    Atomics.add(words, W_SUBMITTED, 1);
    if (Atomics.load(words, W_WAITING) !== 0) Atomics.notify(words, W_SUBMITTED);
  }

  ready(): number {
    const words = this.#words;
    const tail = this.#base + P_RESULT_TAIL;
    if (Atomics.load(words, W_DEAD) !== 0) this.#failAll();
    return (Atomics.load(words, tail) - this.#head) | 0;
  }

  tag(i: number): number {
    return this.#words[resultAt(this.#base, this.#head + i)] as number;
  }

  result(i: number): number {
    return this.#words[resultAt(this.#base, this.#head + i) + 1] as number;
  }

  consume(n: number): void {
    this.#head = (this.#head + n) | 0;
    Atomics.store(this.#words, this.#base + P_RESULT_HEAD, this.#head);
  }

  arm(): boolean {
    Atomics.store(this.#words, W_ARMED, 1);
    return this.ready() !== 0;
  }

  disarm(): void {
    // Other queues of the disk are disarmed in the same breath: a lane sleeps as a whole.
    Atomics.store(this.#words, W_ARMED, 0);
  }

  close(): void {
    this.#onClose();
  }

  /** In place of the worker, which is no more. */
  #failAll(): void {
    const words = this.#words;
    const base = this.#base;
    let head = words[base + P_SUBMIT_HEAD] as number;
    let tail = words[base + P_RESULT_TAIL] as number;
    for (; head !== this.#sent; head = (head + 1) | 0, tail = (tail + 1) | 0) {
      const at = resultAt(base, tail);
      words[at] = words[entryAt(base, head) + 8] as number;
      words[at + 1] = -EIO;
    }
    words[base + P_SUBMIT_HEAD] = head;
    words[base + P_RESULT_TAIL] = tail;
  }
}
