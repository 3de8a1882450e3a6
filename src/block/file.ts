/**
 * Raw files and block devices as disks. The main thread opens and resizes them (`open/file.ts`), a
 * lane makes a {@link FileDisk} of what was opened: io_uring reads and writes guests' memory directly.
 *
 * There is one ring for each use of a disk, not one for a lane: every device sends its own burst
 * anyway, so a shared ring would save no system call, and here a tag is a slot, and a disk that hangs
 * has nobody else's results behind it.
 */
import { fstatSync } from 'node:fs';
import { alignDown, alignUp } from '../base/bits.ts';
import { SluiceError, SystemError } from '../base/errors.ts';
import { AtOnceRing } from '../os/at-once-ring.ts';
import { blockDeviceBytes } from '../os/block-device.ts';
import { closeFd } from '../os/fd.ts';
import type { IoRing } from '../os/io-ring.ts';
import { IoUring } from '../os/io-uring.ts';
import type { Disk, DiskInfo, DiskLane, DiskQueueOptions } from './disk.ts';
import { FileQueue } from './file-queue.ts';
import { type FileCounts, FileState } from './file-state.ts';
import { FileWorkerLane } from './file-worker.ts';
import type { FileDiskDescription } from './open/file.ts';

export class FileDisk implements Disk {
  readonly name: string;
  #info: DiskInfo;
  readonly #description: FileDiskDescription;
  readonly #lane: DiskLane;
  readonly #state: FileState;
  readonly #worker: FileWorkerLane | undefined;
  readonly #queues = new Set<FileQueue>();
  readonly #listeners = new Set<() => void>();

  /** Takes the description's descriptor over. */
  constructor(description: FileDiskDescription, lane: DiskLane) {
    const { name, info, traits, fileBytes, worker } = description;
    this.name = name;
    this.#info = info;
    this.#description = description;
    this.#lane = lane;
    this.#state = new FileState(traits, fileBytes);
    this.#worker = worker === undefined ? undefined : new FileWorkerLane(worker, lane.loop.epoll);
  }

  get info(): DiskInfo {
    return this.#info;
  }

  get counts(): FileCounts {
    const { bounced, continued } = this.#state;
    return { bounced, continued };
  }

  onChange(listener: () => void): { readonly remove: () => void } {
    // Each registration by itself, even of the same function.
    const call = (): void => listener();
    this.#listeners.add(call);
    return { remove: () => void this.#listeners.delete(call) };
  }

  /** @throws SystemError if the kernel refuses another io_uring, SluiceError `unsupported` without room */
  open({ requests, sink, loop }: DiskQueueOptions): FileQueue {
    const queue = new FileQueue({
      requests,
      sink,
      loop,
      ring: this.#ring(requests.slots, loop),
      state: this.#state,
      blockBytes: this.#info.blockBytes,
      log: this.#lane.log,
      onClose: (closed) => this.#queues.delete(closed),
    });
    this.#queues.add(queue);
    return queue;
  }

  /**
   * Looks at the file's size again and tells the listeners if it has changed. A readonly disk may end
   * within a block; of another only whole blocks count.
   * @param most take no more than so many bytes: before the file shrinks, see `resizeFileDisk`
   */
  refreshSize(most = Number.POSITIVE_INFINITY): void {
    const { fd, path, isDevice } = this.#description;
    const now = isDevice ? blockDeviceBytes(fd, path) : fstatSync(fd).size;
    const fileBytes = Math.min(now, most);
    const { blockBytes, readonly } = this.#info;
    const bytes = readonly ? alignUp(fileBytes, blockBytes) : alignDown(fileBytes, blockBytes);
    this.#state.fileBytes = fileBytes;
    if (bytes === this.#info.bytes) return;
    this.#info = { ...this.#info, bytes };
    for (const listener of [...this.#listeners]) listener();
  }

  close(): void {
    if (this.#queues.size !== 0)
      throw new SluiceError('state', `disk ${this.name} is used by ${this.#queues.size} devices`);
    this.#worker?.close();
    closeFd(this.#description.fd);
  }

  #ring(slots: number, loop: DiskQueueOptions['loop']): IoRing {
    if (this.#worker !== undefined) return this.#worker.open(slots);
    const { fd } = this.#description;
    const uring = new IoUring({ entries: slots, files: [fd], epoll: loop.epoll });
    if (!this.#state.traits.memoryOnly) return uring;
    try {
      return new AtOnceRing(uring, fd, slots);
    } catch (error) {
      // Slower, but all that it does io_uring does too.
      if (!(error instanceof SystemError)) throw error;
      this.#lane.log.warn('a disk in memory is written by threads of the kernel', {
        disk: this.name,
        error: error.message,
      });
      return uring;
    }
  }
}
