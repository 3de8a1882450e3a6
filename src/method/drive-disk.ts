/**
 * A disk as a drive of an emulated controller has it: what the drive asks for is counted, and the
 * configuration's word on caching and discarding holds. Virtio devices do this by themselves.
 */
import type { CounterBlock } from '../base/counters.ts';
import type { Disk, DiskInfo, DiskQueue, DiskQueueOptions, DiskSink } from '../block/disk.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
  REQUEST_FUA,
  type RequestTable,
} from '../block/requests.ts';
import {
  type BlockCounter,
  BLOCK_COUNTER_INDEX as COUNT,
  failureCounter,
} from '../device/virtio-blk/counters.ts';

export interface DriveDiskOptions {
  readonly counters: CounterBlock<BlockCounter>;
  /** False: each write is durable when it completes. */
  readonly writeback: boolean;
  /** Whether blocks may be given back. */
  readonly discard: boolean;
}

export class DriveDisk implements Disk {
  readonly #disk: Disk;
  readonly #options: DriveDiskOptions;
  #seen: DiskInfo | undefined;
  #info: DiskInfo;

  /** The disk stays its owner's. */
  constructor(disk: Disk, options: DriveDiskOptions) {
    this.#disk = disk;
    this.#options = options;
    this.#info = disk.info;
  }

  get name(): string {
    return this.#disk.name;
  }

  get info(): DiskInfo {
    const { info } = this.#disk;
    if (info !== this.#seen) {
      this.#seen = info;
      this.#info = this.#options.discard ? info : { ...info, discardBytes: 0 };
    }
    return this.#info;
  }

  onChange(listener: () => void): { readonly remove: () => void } {
    return this.#disk.onChange(listener);
  }

  open(options: DiskQueueOptions): DiskQueue {
    return new DriveQueue(this.#disk, options, this.#options);
  }

  /** The disk is its owner's to close. */
  close(): void {
    this.#seen = undefined;
  }
}

class DriveQueue implements DiskQueue, DiskSink {
  readonly #queue: DiskQueue;
  readonly #requests: RequestTable;
  readonly #sink: DiskSink;
  readonly #values: Float64Array;
  readonly #writeback: boolean;

  constructor(disk: Disk, options: DiskQueueOptions, { counters, writeback }: DriveDiskOptions) {
    this.#requests = options.requests;
    this.#sink = options.sink;
    this.#values = counters.values;
    this.#writeback = writeback;
    this.#queue = disk.open({ ...options, sink: this });
  }

  get inFlight(): number {
    return this.#queue.inFlight;
  }

  submit(slot: number): void {
    const { op, flags } = this.#requests;
    if (!this.#writeback && (op[slot] === DISK_WRITE || op[slot] === DISK_WRITE_ZEROES)) {
      flags[slot] = (flags[slot] as number) | REQUEST_FUA;
    }
    this.#queue.submit(slot);
  }

  flush(): void {
    this.#queue.flush();
  }

  poll(): number {
    return this.#queue.poll();
  }

  arm(): boolean {
    return this.#queue.arm();
  }

  disarm(): void {
    this.#queue.disarm();
  }

  close(): void {
    this.#queue.close();
  }

  complete(slot: number, result: number): void {
    // The slot is the sink's again, once it is told.
    if (result < 0) this.#add(failureCounter(result), 1);
    else this.#count(this.#requests.op[slot] as number, this.#requests.bytes[slot] as number);
    this.#sink.complete(slot, result);
  }

  #count(op: number, bytes: number): void {
    switch (op) {
      case DISK_READ:
        this.#add(COUNT.reads, 1);
        this.#add(COUNT.read_bytes, bytes);
        return;
      case DISK_WRITE:
        this.#add(COUNT.writes, 1);
        this.#add(COUNT.write_bytes, bytes);
        return;
      case DISK_FLUSH:
        this.#add(COUNT.flushes, 1);
        return;
      case DISK_DISCARD:
        this.#add(COUNT.discards, 1);
        this.#add(COUNT.discard_bytes, bytes);
        return;
      default:
        this.#add(COUNT.write_zeroes, 1);
        this.#add(COUNT.write_zeroes_bytes, bytes);
    }
  }

  #add(index: number, amount: number): void {
    this.#values[index] = (this.#values[index] as number) + amount;
  }
}
