/** What became of requests: counts them, tells the log of those that failed, and says what the guest is told. */
import type { CounterBlock } from '../../base/counters.ts';
import type { Logger } from '../../base/log.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';
import {
  DISK_DISCARD,
  DISK_FLUSH,
  DISK_READ,
  DISK_WRITE,
  DISK_WRITE_ZEROES,
} from '../../block/requests.ts';
import { errnoName } from '../../os/libc.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP } from '../../spec/virtio-blk.ts';
import { BLOCK_COUNTER_INDEX, type BlockCounter, failureCounter } from './counters.ts';
import { FailureLog } from './failure-log.ts';
import {
  REFUSED_ALIGNMENT,
  REFUSED_MALFORMED,
  REFUSED_RANGE,
  REFUSED_READONLY,
  REFUSED_UNSUPPORTED,
  type RequestParser,
} from './request.ts';
import type { RequestSlots } from './request-slots.ts';

const OPERATIONS: Readonly<Record<number, string>> = {
  [DISK_READ]: 'read',
  [DISK_WRITE]: 'write',
  [DISK_FLUSH]: 'flush',
  [DISK_DISCARD]: 'discard',
  [DISK_WRITE_ZEROES]: 'write of zeroes',
};

const REFUSALS: Readonly<Record<number, { readonly counter: BlockCounter; readonly why: string }>> =
  {
    [REFUSED_UNSUPPORTED]: { counter: 'error_unsupported', why: 'is not supported' },
    [REFUSED_RANGE]: { counter: 'error_range', why: 'is beyond the end of the disk, or too long' },
    [REFUSED_ALIGNMENT]: {
      counter: 'error_alignment',
      why: "is not in whole blocks of the disk's",
    },
    [REFUSED_READONLY]: { counter: 'error_readonly', why: 'would change a readonly disk' },
    [REFUSED_MALFORMED]: { counter: 'error_malformed', why: 'is malformed' },
  };

export class Outcomes {
  private readonly values: Float64Array;
  private readonly failures: FailureLog;
  private readonly device: string;
  private readonly disk: string;

  constructor(
    device: string,
    disk: string,
    counters: CounterBlock<BlockCounter>,
    log: Logger,
    loop: PollLoop,
  ) {
    this.device = device;
    this.disk = disk;
    this.values = counters.values;
    this.failures = new FailureLog(`${device}: disk ${disk}`, log, loop);
  }

  close(): void {
    this.failures.close();
  }

  countKick(): void {
    this.add(KICKS, 1);
  }

  countCall(): void {
    this.add(CALLS, 1);
  }

  countWait(): void {
    this.add(SLOT_WAITS, 1);
  }

  countQuery(): void {
    this.add(QUERIES, 1);
  }

  /** The request in `slot` succeeded. */
  succeed(slots: RequestSlots, slot: number): void {
    const { table } = slots;
    const op = table.op[slot] as number;
    this.add(SUCCEEDED[op] as number, 1);
    if (op > DISK_WRITE) return;
    const counter = op === DISK_READ ? READ_BYTES : WRITE_BYTES;
    this.values[counter] = (this.values[counter] as number) + (table.bytes[slot] as number);
  }

  /** One range of a discard or write zeroes succeeded. */
  succeedRange(slots: RequestSlots, slot: number): void {
    const { table } = slots;
    const counter = table.op[slot] === DISK_DISCARD ? DISCARD_BYTES : WRITE_ZEROES_BYTES;
    this.values[counter] = (this.values[counter] as number) + (table.bytes[slot] as number);
  }

  /** The disk failed the request in `slot`. Returns the status for the guest. */
  fail(slots: RequestSlots, slot: number, result: number): number {
    this.tell(slots, slot, result);
    return this.countFailure(result);
  }

  /** The log gets a request that the disk failed with a negative errno. */
  tell(slots: RequestSlots, slot: number, result: number): void {
    const { table } = slots;
    this.failures.write('error', () => {
      const op = table.op[slot] as number;
      const sector = (table.offset[slot] as number) / SECTOR_BYTES;
      const sectors = (table.bytes[slot] as number) / SECTOR_BYTES;
      const name = errnoName(-result);
      const what = OPERATIONS[op] ?? `operation ${op}`;
      const place = op === DISK_FLUSH ? '' : ` of ${sectors} sectors at sector ${sector}`;
      return {
        message: `${what}${place} failed: ${name}`,
        fields: { device: this.device, disk: this.disk, errno: name, sector },
      };
    });
  }

  /** Counts a request that the disk failed. Returns the status for the guest. */
  countFailure(result: number): number {
    const counter = failureCounter(result);
    this.add(counter, 1);
    return counter === UNSUPPORTED ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
  }

  /** A request never reached the disk, REFUSED_* tells why. Returns the status for the guest. */
  refuse(outcome: number, parser: RequestParser): number {
    const { counter, why } = REFUSALS[outcome] ?? UNKNOWN_REFUSAL;
    this.add(BLOCK_COUNTER_INDEX[counter], 1);
    // Drivers try what a device may have (SCSI commands, lifetimes): not worth a warning.
    const level = outcome === REFUSED_UNSUPPORTED ? 'debug' : 'warn';
    this.failures.write(level, () => {
      const { type, sector } = parser;
      return {
        message: `the guest's request of type ${type} at sector ${sector} ${why}`,
        fields: { device: this.device, disk: this.disk, reason: counter, sector },
      };
    });
    return outcome === REFUSED_UNSUPPORTED ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
  }

  private add(counter: number, count: number): void {
    this.values[counter] = (this.values[counter] as number) + count;
  }
}

const UNKNOWN_REFUSAL = { counter: 'error_malformed', why: 'was refused' } as const;

/** Counters by DISK_*. */
const SUCCEEDED = new Uint8Array(DISK_WRITE_ZEROES + 1);
SUCCEEDED[DISK_READ] = BLOCK_COUNTER_INDEX.reads;
SUCCEEDED[DISK_WRITE] = BLOCK_COUNTER_INDEX.writes;
SUCCEEDED[DISK_FLUSH] = BLOCK_COUNTER_INDEX.flushes;
SUCCEEDED[DISK_DISCARD] = BLOCK_COUNTER_INDEX.discards;
SUCCEEDED[DISK_WRITE_ZEROES] = BLOCK_COUNTER_INDEX.write_zeroes;

const READ_BYTES = BLOCK_COUNTER_INDEX.read_bytes;
const WRITE_BYTES = BLOCK_COUNTER_INDEX.write_bytes;
const DISCARD_BYTES = BLOCK_COUNTER_INDEX.discard_bytes;
const WRITE_ZEROES_BYTES = BLOCK_COUNTER_INDEX.write_zeroes_bytes;
const QUERIES = BLOCK_COUNTER_INDEX.queries;
const UNSUPPORTED = BLOCK_COUNTER_INDEX.error_unsupported;
const SLOT_WAITS = BLOCK_COUNTER_INDEX.slot_waits;
const KICKS = BLOCK_COUNTER_INDEX.kicks;
const CALLS = BLOCK_COUNTER_INDEX.calls;
