/** One embedded guest with a disk, whatever its device: work for each queue. */
import { SluiceError } from '../../base/errors.ts';
import { SECTOR_BYTES } from '../../block/disk.ts';
import type { Arena } from '../../memory/arena.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import { AhciGuestDisk } from './ahci-guest-disk.ts';
import type { DiskAttachment } from './disk-attachment.ts';
import { type DiskWorkSpec, writes } from './disk-options.ts';
import { DiskWork } from './disk-work.ts';
import type { Transports } from './frontend.ts';
import type { DiskGuestInfo, DiskGuestReading, DiskGuestSpec } from './protocol.ts';
import { RoleRunner } from './role-runner.ts';
import { VirtioDisk } from './virtio-disk.ts';

export class EmbeddedDiskGuest {
  readonly info: DiskGuestInfo;
  readonly #loop: PollLoop;
  readonly #disk: DiskAttachment;
  readonly #runner: RoleRunner<DiskWork>;

  /**
   * Attaches to a device; the guest does nothing yet.
   * @throws SluiceError if the device cannot be reached or does not suit.
   */
  constructor(
    spec: DiskGuestSpec,
    arena: Arena,
    loop: PollLoop,
    transports: Transports,
    onLost: (reason: string) => void,
  ) {
    this.#loop = loop;
    this.#runner = new RoleRunner(spec.name, loop, onLost);
    const fail = (reason: string): void => this.#runner.fail(reason);
    this.#disk =
      spec.method === 'emulated'
        ? new AhciGuestDisk(spec, arena, loop, transports.pci(spec.socket, fail))
        : new VirtioDisk(spec, arena, transports.virtio(spec.socket, fail));
    this.info = this.#disk.info;
    this.#runner.begin([]);
  }

  /**
   * Gives the queues work, the first to the first; those without any rest. Counts begin at zero.
   * @throws SluiceError `state` while requests are on their way, `config` for work that cannot be done.
   */
  start(specs: readonly DiskWorkSpec[]): void {
    const { name, bytes, blockBytes, readonly } = this.info;
    if (specs.length > this.info.queues) {
      throw new SluiceError(
        'config',
        `work for ${specs.length} of the ${this.info.queues} queues of guest ${name}`,
      );
    }
    for (const { rw, bs, offset } of specs) {
      if (readonly && writes(rw)) {
        throw new SluiceError('config', `guest ${name}: ${rw} on a readonly disk`);
      }
      if (bs % blockBytes !== 0 || offset % blockBytes !== 0) {
        throw new SluiceError(
          'config',
          `guest ${name}: requests of ${bs} bytes from ${offset} on to a disk with blocks of ${blockBytes}`,
          { remedy: `choose multiples of ${Math.max(blockBytes, SECTOR_BYTES)}` },
        );
      }
    }
    this.#runner.replace(() =>
      specs.map((spec, index) => {
        const queue = this.#disk.queues[index];
        if (queue === undefined) throw new SluiceError('state', `there is no queue ${index}`);
        return new DiskWork({ queue, loop: this.#loop, diskBytes: bytes }, spec);
      }),
    );
  }

  /** Submits no more; see {@link drained}. */
  stop(): void {
    this.#runner.stop();
  }

  /** True once the device has done all requests, and what was written was read where that was asked for. */
  get drained(): boolean {
    return this.#runner.drained;
  }

  read(): DiskGuestReading {
    return {
      queues: this.#runner.roles.map((role) => role.counts()),
      kicks: this.#disk.kicks,
      calls: this.#disk.calls,
      failure: this.#runner.failure,
    };
  }

  /** Detaches and gives the memory back. */
  close(): void {
    this.#runner.end();
    this.#disk.close();
  }
}
