/** Writing versions of a volatile log to the disk below, and making them durable there. */
import type { Disk, DiskLane, DiskQueue, DiskSink } from './disk.ts';
import { DISK_FLUSH, DISK_WRITE, RequestTable } from './requests.ts';
import type { BlockVersion, VolatileLog } from './volatile-log.ts';

const SLOTS = 16;
/** Blocks of one request. */
const SEGMENTS = 64;

export class Destager implements DiskSink {
  readonly #log: VolatileLog;
  readonly #table: RequestTable;
  readonly #queue: DiskQueue;
  readonly #free = Array.from({ length: SLOTS }, (_, slot) => slot);
  #versions: readonly BlockVersion[] = [];
  #next = 0;
  #flushed = true;
  #result = 0;

  constructor(disk: Disk, lane: DiskLane, log: VolatileLog) {
    this.#log = log;
    this.#table = new RequestTable(lane.arena, SLOTS, SEGMENTS);
    this.#queue = disk.open({ requests: this.#table, sink: this, loop: lane.loop });
  }

  get inFlight(): number {
    return this.#queue.inFlight;
  }

  /** Nothing is left to do: {@link result} tells how it went. */
  get idle(): boolean {
    return this.#queue.inFlight === 0 && this.#next === this.#versions.length && this.#flushed;
  }

  /** 0, or the negative errno of what failed first. */
  get result(): number {
    return this.#result;
  }

  /** Begins to write these versions, sorted by block, and to flush. */
  start(versions: readonly BlockVersion[]): void {
    this.#versions = versions;
    this.#next = 0;
    this.#flushed = false;
    this.#result = 0;
    this.#send();
  }

  /** Begins no more. */
  stop(): void {
    this.#next = this.#versions.length;
    this.#flushed = true;
  }

  poll(): number {
    const count = this.#queue.poll();
    if (count > 0) this.#send();
    return count;
  }

  arm(): boolean {
    return this.#queue.arm();
  }

  disarm(): void {
    this.#queue.disarm();
  }

  complete(slot: number, result: number): void {
    this.#free.push(slot);
    if (result >= 0) return;
    if (this.#result === 0) this.#result = result;
    this.stop();
  }

  close(): void {
    this.#queue.close();
    this.#table.release();
  }

  #send(): void {
    const { blockBytes } = this.#log;
    const versions = this.#versions;
    while (this.#next < versions.length) {
      const slot = this.#free.pop();
      if (slot === undefined) break;
      const first = (versions[this.#next] as BlockVersion).block;
      this.#table.begin(slot, DISK_WRITE, 0, first * blockBytes, 0);
      let count = 0;
      for (; this.#next < versions.length && count < SEGMENTS; count++) {
        const { block, entry } = versions[this.#next] as BlockVersion;
        if (block !== first + count) break;
        this.#table.add(slot, this.#log.addressOf(entry), blockBytes);
        this.#next++;
      }
      this.#table.bytes[slot] = count * blockBytes;
      this.#queue.submit(slot);
    }
    if (this.#next === versions.length && !this.#flushed && this.#queue.inFlight === 0) {
      this.#flushed = true;
      const slot = this.#free.pop() as number;
      this.#table.begin(slot, DISK_FLUSH, 0, 0, 0);
      this.#queue.submit(slot);
    }
    this.#queue.flush();
  }
}
