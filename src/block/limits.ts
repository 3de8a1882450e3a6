/**
 * A disk with rates: requests and bytes a second, in all, of reads and of writes, as virtual machine
 * monitors throttle disks. The limits are the disk's, whoever uses it.
 *
 * What may not pass yet waits in order, reads apart from writes, so that a limit on one of them does
 * not hold up the other. A flush waits behind the writes that were submitted before it and costs
 * nothing. Discarding and writing zeroes count as a write without bytes: no data moves. While
 * everything waits the lane sleeps until a timer wakes it.
 */
import { SluiceError } from '../base/errors.ts';
import { TokenBucket } from '../base/token-bucket.ts';
import type { PollLoop, Timer } from '../os/poll-loop.ts';
import type { Disk, DiskInfo, DiskQueue, DiskQueueOptions } from './disk.ts';
import { DISK_FLUSH, DISK_READ, DISK_WRITE, type RequestTable } from './requests.ts';
import { SlotRing } from './slot-ring.ts';

/** Limits of a disk; what is left out is not limited. */
export interface DiskLimits {
  /** Requests a second. */
  readonly iops?: number | undefined;
  readonly iopsRead?: number | undefined;
  readonly iopsWrite?: number | undefined;
  /** Bytes a second. */
  readonly bps?: number | undefined;
  readonly bpsRead?: number | undefined;
  readonly bpsWrite?: number | undefined;
  /** Seconds of the limits that may pass at once after a pause. Default: {@link DEFAULT_BURST_S}. */
  readonly burst?: number | undefined;
}

export const DEFAULT_BURST_S = 1;

/** Two kinds of requests wait apart. */
const READS = 0;
const WRITES = 1;

/** The buckets that one kind of requests takes from. */
interface Rates {
  readonly requests: readonly TokenBucket[];
  readonly bytes: readonly TokenBucket[];
}

function opens(buckets: readonly TokenBucket[]): boolean {
  for (let i = 0; i < buckets.length; i++) {
    if ((buckets[i] as TokenBucket).tokens <= 0) return false;
  }
  return true;
}

export class LimitedDisk implements Disk {
  readonly #disk: Disk;
  readonly #buckets: readonly TokenBucket[];
  /** By READS and WRITES. */
  readonly #rates: readonly [Rates, Rates];
  #queues: readonly LimitedQueue[] = [];
  /** Queue whose turn is next. */
  #turn = 0;
  /** One number: as a property it would be allocated at each change. */
  readonly #refilledAt = new Float64Array(1);
  #timer: Timer | undefined;
  #timerDue = 0;

  /** @throws SluiceError `config` for a limit or a burst that is not positive */
  constructor(disk: Disk, limits: DiskLimits) {
    this.#disk = disk;
    const { burst = DEFAULT_BURST_S } = limits;
    const buckets: TokenBucket[] = [];
    const bucket = (rate: number | undefined): TokenBucket[] => {
      if (rate === undefined) return [];
      // Full at first, whatever the clock says.
      const made = new TokenBucket({ rate, burst: rate * burst }, 0);
      buckets.push(made);
      return [made];
    };
    const requests = bucket(limits.iops);
    const bytes = bucket(limits.bps);
    this.#rates = [
      {
        requests: [...requests, ...bucket(limits.iopsRead)],
        bytes: [...bytes, ...bucket(limits.bpsRead)],
      },
      {
        requests: [...requests, ...bucket(limits.iopsWrite)],
        bytes: [...bytes, ...bucket(limits.bpsWrite)],
      },
    ];
    this.#buckets = buckets;
  }

  get name(): string {
    return this.#disk.name;
  }

  get info(): DiskInfo {
    return this.#disk.info;
  }

  onChange(listener: () => void): { readonly remove: () => void } {
    return this.#disk.onChange(listener);
  }

  open(options: DiskQueueOptions): DiskQueue {
    const queue = new LimitedQueue(this, this.#disk.open(options), options);
    this.#queues = [...this.#queues, queue];
    return queue;
  }

  close(): void {
    this.#timer?.cancel();
    this.#disk.close();
  }

  /** For {@link LimitedQueue}. */
  removeQueue(queue: LimitedQueue): void {
    this.#queues = this.#queues.filter((other) => other !== queue);
    this.#turn = 0;
  }

  /** For {@link LimitedQueue}: whether requests of a kind pass without being counted. */
  isFree(kind: number): boolean {
    const { requests, bytes } = this.#rates[kind] as Rates;
    return requests.length === 0 && bytes.length === 0;
  }

  /** For {@link LimitedQueue}: lets a request of a kind pass, and counts it, if the rates allow. */
  admit(kind: number, table: RequestTable, slot: number): boolean {
    const rates = this.#rates[kind] as Rates;
    if (!opens(rates.requests) || !opens(rates.bytes)) return false;
    for (let i = 0; i < rates.requests.length; i++) (rates.requests[i] as TokenBucket).take(1);
    const op = table.op[slot];
    if (op !== DISK_READ && op !== DISK_WRITE) return true;
    for (let i = 0; i < rates.bytes.length; i++) {
      (rates.bytes[i] as TokenBucket).take(table.bytes[slot] as number);
    }
    return true;
  }

  /** For {@link LimitedQueue}: passes on what may pass, of all queues in turn; returns how many requests. */
  release(loop: PollLoop): number {
    if (loop.now !== this.#refilledAt[0]) this.#refill(loop.now);
    const queues = this.#queues;
    let released = 0;
    let refused = 0;
    while (refused < queues.length) {
      const queue = queues[this.#turn] as LimitedQueue;
      this.#turn = this.#turn + 1 === queues.length ? 0 : this.#turn + 1;
      if (queue.releaseOne()) {
        released++;
        refused = 0;
      } else {
        refused++;
      }
    }
    if (released > 0) for (let i = 0; i < queues.length; i++) (queues[i] as LimitedQueue).send();
    return released;
  }

  /** For {@link LimitedQueue}: wakes the loop when the first of those that wait may pass. */
  wake(loop: PollLoop): void {
    let wait = Number.POSITIVE_INFINITY;
    for (const queue of this.#queues) {
      for (const kind of [READS, WRITES]) {
        if (queue.waiting(kind) === 0) continue;
        const { requests, bytes } = this.#rates[kind] as Rates;
        // All of them must have let enough in.
        const waits = [...requests, ...bytes].map((bucket) => bucket.waitNs());
        wait = Math.min(wait, Math.max(0, ...waits));
      }
    }
    const due = loop.now + wait;
    if (wait === Number.POSITIVE_INFINITY) return;
    if (this.#timer !== undefined) {
      if (this.#timerDue <= due) return;
      this.#timer.cancel();
    }
    this.#timerDue = due;
    this.#timer = loop.setTimer(Math.ceil(wait / 1000), () => {
      // The queues are polled now that the loop is awake: no more is needed.
      this.#timer = undefined;
    });
  }

  #refill(now: number): void {
    this.#refilledAt[0] = now;
    for (let i = 0; i < this.#buckets.length; i++) (this.#buckets[i] as TokenBucket).refill(now);
  }
}

class LimitedQueue implements DiskQueue {
  readonly #disk: LimitedDisk;
  readonly #queue: DiskQueue;
  readonly #requests: RequestTable;
  readonly #loop: PollLoop;
  /** What waits, in order; the number is that of the request's coming. */
  readonly #waiting: readonly [SlotRing, SlotRing];
  #order = 0;
  /** Requests were passed on and not sent. */
  #unsent = false;

  constructor(disk: LimitedDisk, queue: DiskQueue, options: DiskQueueOptions) {
    const { requests, loop } = options;
    this.#disk = disk;
    this.#queue = queue;
    this.#requests = requests;
    this.#loop = loop;
    this.#waiting = [new SlotRing(requests.slots), new SlotRing(requests.slots)];
  }

  get inFlight(): number {
    return this.#queue.inFlight + this.#waiting[READS].count + this.#waiting[WRITES].count;
  }

  waiting(kind: number): number {
    return (this.#waiting[kind] as SlotRing).count;
  }

  submit(slot: number): void {
    const kind = this.#requests.op[slot] === DISK_READ ? READS : WRITES;
    if (this.#disk.isFree(kind)) {
      this.#queue.submit(slot);
      return;
    }
    this.#order = (this.#order + 1) | 0;
    this.#waiting[kind].push(slot, this.#order);
  }

  flush(): void {
    this.#unsent = true;
    if (this.#isWaiting()) this.#disk.release(this.#loop);
    this.send();
  }

  poll(): number {
    const count = this.#queue.poll();
    if (this.#isWaiting()) this.#disk.release(this.#loop);
    return count;
  }

  arm(): boolean {
    const complete = this.#queue.arm();
    if (!this.#isWaiting()) return complete;
    // What was passed on just now may be complete already: the loop must look again.
    if (this.#disk.release(this.#loop) > 0) return true;
    this.#disk.wake(this.#loop);
    return complete;
  }

  disarm(): void {
    this.#queue.disarm();
  }

  close(): void {
    if (this.inFlight > 0) {
      throw new SluiceError('state', `a disk is closed with ${this.inFlight} requests in flight`);
    }
    this.#queue.close();
    this.#disk.removeQueue(this);
  }

  /** Passes on the oldest request that may pass; false if none may. */
  releaseOne(): boolean {
    const [reads, writes] = this.#waiting;
    const readFirst =
      writes.count === 0 || (reads.count > 0 && ((reads.firstValue - writes.firstValue) | 0) < 0);
    return readFirst
      ? this.#releaseOf(READS) || this.#releaseOf(WRITES)
      : this.#releaseOf(WRITES) || this.#releaseOf(READS);
  }

  /** Sends what was passed on. */
  send(): void {
    if (!this.#unsent) return;
    this.#unsent = false;
    this.#queue.flush();
  }

  #isWaiting(): boolean {
    return this.#waiting[READS].count > 0 || this.#waiting[WRITES].count > 0;
  }

  #releaseOf(kind: number): boolean {
    const waiting = this.#waiting[kind] as SlotRing;
    if (waiting.count === 0) return false;
    const slot = waiting.first;
    const isFlush = this.#requests.op[slot] === DISK_FLUSH;
    if (!isFlush && !this.#disk.admit(kind, this.#requests, slot)) return false;
    waiting.shift();
    this.#queue.submit(slot);
    this.#unsent = true;
    return true;
  }
}
