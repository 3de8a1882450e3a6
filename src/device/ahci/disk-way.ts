/** A port's way to the disk of its drive: requests that commands make, and those of the drive itself. */
import { SluiceError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { type DiskQueue, type DiskSink, SECTOR_BYTES } from '../../block/disk.ts';
import { RequestTable } from '../../block/requests.ts';
import type { Arena } from '../../memory/arena.ts';
import { errnoName } from '../../os/libc.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import { AHCI_MAX_SLOTS } from '../../spec/ahci.ts';
import { FailureLog } from '../virtio-blk/failure-log.ts';
import type { AtaDevice } from './ata-device.ts';
import { PART_SEGMENTS } from './prdt.ts';

/** Slot of the request table for the drive's own reads. */
export const OWN_SLOT = AHCI_MAX_SLOTS;

/** What it needs of the controller. */
export interface DiskWayHost {
  readonly name: string;
  readonly arena: Arena;
  readonly loop: PollLoop;
  readonly log: Logger;
}

export class DiskWay {
  /** The requests: command slots, and {@link OWN_SLOT}. */
  readonly table: RequestTable;
  private readonly device: AtaDevice;
  private readonly name: string;
  private readonly queue: DiskQueue;
  private readonly failures: FailureLog;
  private readonly ownAt: number;
  private submitted = false;
  private ownRead = false;

  /** @param ownAt arena address of memory for the drive's own reads */
  constructor(host: DiskWayHost, device: AtaDevice, sink: DiskSink, ownAt: number) {
    const { disk } = device;
    if (disk === undefined)
      throw new SluiceError('state', 'a drive without a disk needs no way to it');
    this.device = device;
    this.name = host.name;
    this.ownAt = ownAt;
    this.table = new RequestTable(host.arena, AHCI_MAX_SLOTS + 1, PART_SEGMENTS);
    this.queue = disk.open({ requests: this.table, sink, loop: host.loop });
    this.failures = new FailureLog(`${host.name}: disk ${disk.name}`, host.log, host.loop);
  }

  get inFlight(): number {
    return this.queue.inFlight;
  }

  submit(slot: number): void {
    this.queue.submit(slot);
    this.submitted = true;
  }

  /** Sends on its way what was submitted since the last time. */
  send(): void {
    if (!this.submitted) return;
    this.submitted = false;
    this.queue.flush();
  }

  /** Tells the sink of what has completed. Returns how many. */
  poll(): number {
    return this.queue.inFlight > 0 ? this.queue.poll() : 0;
  }

  arm(): boolean {
    return this.queue.arm();
  }

  disarm(): void {
    this.queue.disarm();
  }

  /** Begins a read that the drive wants for itself, such as a self-test's. */
  readOwn(): void {
    if (this.ownRead || !this.device.background(this.table, OWN_SLOT, this.ownAt)) return;
    this.ownRead = true;
    this.submit(OWN_SLOT);
  }

  /** That read is done. */
  endOwn(result: number): void {
    this.ownRead = false;
    this.device.backgroundDone(result);
  }

  /** The log gets a request that the disk failed with a negative errno. */
  noteFailure(slot: number, result: number): void {
    this.failures.write('error', () => {
      const sector = (this.table.offset[slot] as number) / SECTOR_BYTES;
      const errno = errnoName(-result);
      return {
        message: `a request at sector ${sector} failed: ${errno}`,
        fields: { device: this.name, errno, sector },
      };
    });
  }

  /** Nothing may be in flight. */
  close(): void {
    this.queue.close();
    this.table.release();
    this.failures.close();
  }
}
