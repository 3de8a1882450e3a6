/**
 * SMART of a disk (ACS-3 §7.48, annex A; attributes as SFF-8035i has them): what it has done, and its
 * self-tests. Attributes and the log of self-tests begin anew with the process.
 */
import { TWO_32 } from '../../base/bits.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';
import {
  LOG_DIRECTORY,
  LOG_PAGE_BYTES,
  LOG_SMART_SELF_TEST,
  SMART_TEST_EXTENDED,
  SMART_TEST_SHORT,
} from '../../spec/ata.ts';
import { setChecksum } from './identify.ts';

const HOUR_NS = 3600e9;
const REVISION = 0x0010;
const ATTRIBUTE_BYTES = 12;
/** No threshold is ever reached: the normalized values tell nothing. */
const NORMALIZED = 100;
/** Pre-failure no; updated online. */
const ATTRIBUTE_FLAGS = 0x0032;

const ATTRIBUTE_POWER_ON_HOURS = 9;
const ATTRIBUTE_UNCORRECTABLE = 187;
const ATTRIBUTE_WRITTEN = 241;
const ATTRIBUTE_READ = 242;

/** Self-test execution status: upper 4 bits; the lower ones are tenths that are left. */
export const TEST_PASSED = 0x00;
export const TEST_ABORTED = 0x10;
export const TEST_INTERRUPTED = 0x20;
export const TEST_READ_FAILED = 0x70;
const TEST_RUNNING = 0xf0;

const LOG_ENTRIES = 21;
const LOG_ENTRY_BYTES = 24;
const LOG_INDEX = 508;

/** Places that a short test reads, spread over the disk. */
const SHORT_READS = 64;
/** What a test reads at once. */
export const TEST_BYTES = 64 * 1024;
/** For the estimate of how long an extended test takes: a slow disk. */
const ESTIMATE_BYTES_PER_MINUTE = 60 * 100e6;

export class Smart {
  enabled = true;
  /** Sectors of 512 bytes; reads that could not be done. */
  readonly totals = new Float64Array(3);
  /** Subcommand of the test that runs, or 0. */
  test = 0;
  private step = 0;
  private steps = 0;
  private executionStatus = TEST_PASSED;
  private readonly log = new Uint8Array(LOG_PAGE_BYTES);
  private logIndex = 0;
  private isOfflineDone = false;
  private readonly since: number;
  private readonly now: () => number;

  /** @param now a clock in ns */
  constructor(now: () => number) {
    this.now = now;
    this.since = now();
    this.log[0] = 1;
  }

  countRead(bytes: number): void {
    this.totals[1] = (this.totals[1] as number) + bytes / SECTOR_BYTES;
  }

  countWritten(bytes: number): void {
    this.totals[0] = (this.totals[0] as number) + bytes / SECTOR_BYTES;
  }

  countUncorrectable(): void {
    this.totals[2] = (this.totals[2] as number) + 1;
  }

  noteOffline(): void {
    this.isOfflineDone = true;
  }

  /** Begins a test of a disk of `bytes`, not captive. False for one that there is not. */
  startTest(subcommand: number, bytes: number): boolean {
    if (subcommand !== SMART_TEST_SHORT && subcommand !== SMART_TEST_EXTENDED) return false;
    if (this.test !== 0) this.endTest(TEST_ABORTED, 0);
    const all = Math.ceil(bytes / TEST_BYTES);
    this.test = subcommand;
    this.step = 0;
    this.steps = subcommand === SMART_TEST_SHORT ? Math.min(SHORT_READS, all) : all;
    this.executionStatus = TEST_RUNNING;
    return true;
  }

  /** First byte of what the test reads next, in a disk of `bytes` with such blocks. */
  nextRead(bytes: number, blockBytes: number): number {
    if (this.test !== SMART_TEST_SHORT) return this.step * TEST_BYTES;
    const at = Math.floor(((bytes - TEST_BYTES) * this.step) / Math.max(1, this.steps - 1));
    return Math.max(0, Math.floor(at / blockBytes) * blockBytes);
  }

  /** A read of the test is done. True if the test has more. */
  advance(result: number, lba: number): boolean {
    if (this.test === 0) return false;
    if (result < 0) {
      this.endTest(TEST_READ_FAILED, lba);
      return false;
    }
    this.step++;
    if (this.step < this.steps) {
      const tenths = Math.ceil(((this.steps - this.step) * 10) / this.steps);
      this.executionStatus = TEST_RUNNING | Math.min(9, tenths);
      return true;
    }
    this.endTest(TEST_PASSED, 0);
    return false;
  }

  /** Ends the test that runs, if one does, with a TEST_*. */
  endTest(status: number, lba: number): void {
    if (this.test === 0) return;
    this.executionStatus = status;
    const view = new DataView(this.log.buffer);
    const at = 2 + this.logIndex * LOG_ENTRY_BYTES;
    this.logIndex = (this.logIndex + 1) % LOG_ENTRIES;
    view.setUint8(at, this.test);
    view.setUint8(at + 1, status);
    view.setUint16(at + 2, this.hours() & 0xffff, true);
    view.setUint8(at + 4, 0);
    view.setUint32(at + 5, lba % TWO_32, true);
    view.setUint8(LOG_INDEX, this.logIndex === 0 ? LOG_ENTRIES : this.logIndex);
    this.test = 0;
  }

  /** SMART READ DATA of a disk of `bytes`. */
  data(bytes: number): Uint8Array {
    const page = new Uint8Array(LOG_PAGE_BYTES);
    const view = new DataView(page.buffer);
    view.setUint16(0, REVISION, true);
    const [written, read, uncorrectable] = this.totals as unknown as [number, number, number];
    const attributes: readonly (readonly [number, number])[] = [
      [ATTRIBUTE_POWER_ON_HOURS, this.hours()],
      [ATTRIBUTE_UNCORRECTABLE, uncorrectable],
      [ATTRIBUTE_WRITTEN, written],
      [ATTRIBUTE_READ, read],
    ];
    for (const [i, [id, raw]] of attributes.entries()) {
      const at = 2 + i * ATTRIBUTE_BYTES;
      view.setUint8(at, id);
      view.setUint16(at + 1, ATTRIBUTE_FLAGS, true);
      view.setUint8(at + 3, NORMALIZED);
      view.setUint8(at + 4, NORMALIZED);
      view.setUint32(at + 5, raw % TWO_32, true);
      view.setUint16(at + 9, Math.floor(raw / TWO_32) & 0xffff, true);
    }
    view.setUint8(362, this.isOfflineDone ? 2 : 0);
    view.setUint8(363, this.executionStatus);
    view.setUint8(367, 0x11); // EXECUTE OFF-LINE IMMEDIATE, self-tests
    view.setUint8(372, 1);
    const minutes = Math.ceil(bytes / ESTIMATE_BYTES_PER_MINUTE);
    view.setUint8(373, minutes < 0xff ? minutes : 0xff);
    if (minutes >= 0xff) view.setUint16(375, Math.min(minutes, 0xffff), true);
    setChecksum(page);
    return page;
  }

  thresholds(): Uint8Array {
    const page = new Uint8Array(LOG_PAGE_BYTES);
    page[0] = REVISION;
    const ids = [
      ATTRIBUTE_POWER_ON_HOURS,
      ATTRIBUTE_UNCORRECTABLE,
      ATTRIBUTE_WRITTEN,
      ATTRIBUTE_READ,
    ];
    for (const [i, id] of ids.entries()) page[2 + i * ATTRIBUTE_BYTES] = id;
    setChecksum(page);
    return page;
  }

  /** A log of SMART READ LOG, or undefined. */
  readLog(address: number): Uint8Array | undefined {
    if (address === LOG_DIRECTORY) {
      const page = new Uint8Array(LOG_PAGE_BYTES);
      page[0] = 1;
      page[2 * LOG_SMART_SELF_TEST] = 1;
      return page;
    }
    if (address !== LOG_SMART_SELF_TEST) return undefined;
    const page = this.log.slice();
    setChecksum(page);
    return page;
  }

  private hours(): number {
    return Math.floor((this.now() - this.since) / HOUR_NS);
  }
}
