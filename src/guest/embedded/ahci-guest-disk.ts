/** A guest's disk behind an AHCI controller that is reached by a vfio-user socket. */
import { SluiceError } from '../../base/errors.ts';
import { AhciDisk } from '../../driver/ahci/ahci-disk.ts';
import { Hba } from '../../driver/ahci/hba.ts';
import { planPort } from '../../driver/ahci/port-memory.ts';
import { AhciRegisters } from '../../driver/ahci/registers.ts';
import type { AhciRequestQueue } from '../../driver/ahci/request-queue.ts';
import { BoundFunction } from '../../driver/pci/bound-function.ts';
import type { PciBus } from '../../driver/pci/bus.ts';
import type { Arena } from '../../memory/arena.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { AHCI_CLASS_CODE } from '../../spec/ahci.ts';
import { PCI_CLASS_CODE } from '../../spec/pci.ts';
import { GUEST_BASE, releaseMemory, shareGuestMemory } from './attachment.ts';
import { DEFAULT_REQUEST_BYTES, DEFAULT_SLOTS, type DiskAttachment } from './disk-attachment.ts';
import type { DiskGuestInfo, DiskGuestSpec } from './protocol.ts';

export class AhciGuestDisk implements DiskAttachment {
  readonly info: DiskGuestInfo;
  readonly queues: readonly AhciRequestQueue[];
  calls = 0;
  readonly #bus: PciBus;
  readonly #disk: AhciDisk;
  readonly #memory: DriverMemory;

  /**
   * Brings controller, port and drive up; the bus is the attachment's from now on.
   * @throws SluiceError if they do not suit.
   */
  constructor(spec: DiskGuestSpec, arena: Arena, loop: PollLoop, bus: PciBus) {
    const { name, slots = DEFAULT_SLOTS, requestBytes = DEFAULT_REQUEST_BYTES } = spec;
    this.#bus = bus;
    let memory: DriverMemory | undefined;
    try {
      refuse(spec);
      const plan = planPort(
        {
          slots,
          requestBytes,
          ...(spec.segmentBytes === undefined ? {} : { segmentBytes: spec.segmentBytes }),
        },
        GUEST_BASE,
      );
      const fn = new BoundFunction(bus);
      checkClass(name, bus);
      memory = shareGuestMemory(name, plan.bytes, arena, (fd, size, at) => bus.map(at, size, fd));
      this.#memory = memory;
      fn.enableInterrupts(1, () => this.calls++, ['msi']);
      const hba = new Hba(new AhciRegisters(bus), `the controller of guest ${name}`);
      this.#disk = new AhciDisk({ hba, port: spec.port ?? 0, plan, memory, clock: loop });
      hba.enableInterrupts();
      if (spec.writeback !== undefined) this.#disk.setWriteCache(spec.writeback);
      const { info } = this.#disk;
      this.queues = [this.#disk.queue];
      this.info = {
        name,
        bytes: info.bytes,
        // A drive does not tell: it refuses what is written.
        readonly: false,
        blockBytes: info.blockBytes,
        writeback: info.writeCache,
        queues: 1,
        packed: false,
        features: '',
        memoryBytes: memory.size,
        slots,
        requestBytes,
      };
    } catch (error) {
      bus.close();
      if (memory !== undefined) releaseMemory(memory);
      throw error;
    }
  }

  get kicks(): number {
    return this.#disk.queue.kicks;
  }

  close(): void {
    this.#bus.close();
    releaseMemory(this.#memory);
  }
}

/** What only virtio-blk has. */
function refuse({ name, queues, queueSize, wishes }: DiskGuestSpec): void {
  if ((queues ?? 1) === 1 && queueSize === undefined && wishes === undefined) return;
  throw new SluiceError(
    'config',
    `guest ${name}: queues and rings for a disk behind an AHCI controller`,
    { remedy: 'a drive has one queue of 32 requests' },
  );
}

function checkClass(name: string, bus: PciBus): void {
  // Class, subclass and programming interface, above the revision.
  const found = bus.readConfig(PCI_CLASS_CODE - 1, 4) >>> 8;
  if (found === AHCI_CLASS_CODE) return;
  throw new SluiceError(
    'unsupported',
    `guest ${name}: a function of class 0x${found.toString(16).padStart(6, '0')} is no AHCI controller`,
  );
}
