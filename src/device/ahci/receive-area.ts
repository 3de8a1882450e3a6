/**
 * The received FIS area of a port (AHCI §4.2.1): builds FISes in memory of the lane and puts them where
 * the guest wants them.
 */

import type { Arena } from '../../memory/arena.ts';
import { DMA_DONE, type DmaSpace } from '../../memory/dma.ts';
import {
  AHCI_RFIS_BYTES,
  AHCI_RFIS_DMA_SETUP,
  AHCI_RFIS_PIO_SETUP,
  AHCI_RFIS_REGISTER,
  AHCI_RFIS_SET_DEVICE_BITS,
} from '../../spec/ahci.ts';
import {
  FIS_D2H,
  FIS_D2H_BYTES,
  FIS_DMA_SETUP,
  FIS_DMA_SETUP_BYTES,
  FIS_INTERRUPT,
  FIS_PIO_SETUP,
  FIS_PIO_SETUP_BYTES,
  FIS_SET_DEVICE_BITS,
  FIS_SET_DEVICE_BITS_BYTES,
  FIS_TO_HOST,
  STATUS_BSY,
  STATUS_DRQ,
} from '../../spec/ata.ts';
import type { AtaDevice } from './ata-device.ts';

/** Bits of the status that a Set Device Bits FIS carries (SATA §10.5.7). */
const SDB_STATUS = 0x77;
/** Memory in which FISes are built: those that are told, and those that are not waited for. */
export const FIS_SCRATCH = 128;

export class ReceiveArea {
  /** FRE: FISes are put into memory. */
  enabled = false;
  /** Its IOVA, below 2^53. */
  readonly iova = new Float64Array(1);
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly scratch: number;
  /** Arena address of the area if it is directly reachable, -1 if not, and for which map. */
  private at = -1;
  private generation = -1;

  /** @param scratch arena address of {@link FIS_SCRATCH} bytes of the lane's memory */
  constructor(arena: Arena, scratch: number) {
    this.bytes = arena.bytes;
    this.view = arena.view;
    this.scratch = scratch;
  }

  /** The translation that was remembered is void: another area, another domain. */
  forget(): void {
    this.generation = -1;
  }

  /** D2H Register FIS with the output registers. DMA_*. */
  register(device: AtaDevice, interrupt: boolean, dma: DmaSpace, tag: number): number {
    const { view, scratch } = this;
    this.registers(scratch, device, FIS_D2H, interrupt ? FIS_INTERRUPT : 0, device.status);
    view.setUint32(scratch + 16, 0);
    return this.put(AHCI_RFIS_REGISTER, FIS_D2H_BYTES, dma, tag);
  }

  /** PIO Setup FIS of the last block of data to the host, which ends the command. DMA_*. */
  pioSetup(device: AtaDevice, bytes: number, dma: DmaSpace, tag: number): number {
    const { view, scratch } = this;
    const flags = FIS_INTERRUPT | FIS_TO_HOST;
    this.registers(scratch, device, FIS_PIO_SETUP, flags, device.status | STATUS_DRQ);
    // E_STATUS: the status behind the data.
    view.setUint8(scratch + 15, device.status);
    view.setUint32(scratch + 16, bytes & 0xffff, true);
    return this.put(AHCI_RFIS_PIO_SETUP, FIS_PIO_SETUP_BYTES, dma, tag);
  }

  /** Set Device Bits FIS: these tags are done. DMA_*. */
  setDeviceBits(status: number, error: number, tags: number, dma: DmaSpace, tag: number): number {
    const { view, scratch } = this;
    view.setUint8(scratch, FIS_SET_DEVICE_BITS);
    view.setUint8(scratch + 1, FIS_INTERRUPT);
    view.setUint8(scratch + 2, status & SDB_STATUS);
    view.setUint8(scratch + 3, error);
    view.setUint32(scratch + 4, tags, true);
    return this.put(AHCI_RFIS_SET_DEVICE_BITS, FIS_SET_DEVICE_BITS_BYTES, dma, tag);
  }

  /**
   * What a drive sends between a queued command and its data: that it took the command, and which tag
   * the data are of. No interrupt tells of them, so memory without a descriptor is spared the messages.
   */
  queuedData(
    device: AtaDevice,
    queueTag: number,
    toHost: boolean,
    bytes: number,
    dma: DmaSpace,
  ): void {
    if (!this.enabled) return;
    const { view } = this;
    // A FIS that is still on its way by message stays as it is.
    const scratch = this.scratch + FIS_SCRATCH / 2;
    const at = this.locate(dma);
    if (at < 0) return;
    this.registers(scratch, device, FIS_D2H, 0, device.status);
    view.setUint32(scratch + 16, 0);
    this.bytes.copyWithin(at + AHCI_RFIS_REGISTER, scratch, scratch + FIS_D2H_BYTES);
    view.setUint32(scratch, FIS_DMA_SETUP | ((toHost ? FIS_TO_HOST : 0) << 8), true);
    view.setUint32(scratch + 4, queueTag, true);
    for (let i = 8; i < FIS_DMA_SETUP_BYTES; i += 4) view.setUint32(scratch + i, 0);
    view.setUint32(scratch + 20, bytes, true);
    this.bytes.copyWithin(at + AHCI_RFIS_DMA_SETUP, scratch, scratch + FIS_DMA_SETUP_BYTES);
    if (dma.logging) dma.markWritten(at, AHCI_RFIS_BYTES);
  }

  private registers(
    scratch: number,
    device: AtaDevice,
    type: number,
    flags: number,
    status: number,
  ): void {
    const { view } = this;
    const lba = device.lba[0] as number;
    view.setUint8(scratch, type);
    view.setUint8(scratch + 1, flags);
    view.setUint8(scratch + 2, status & ~STATUS_BSY);
    view.setUint8(scratch + 3, device.error);
    view.setUint32(scratch + 4, lba % 0x100_0000, true);
    view.setUint8(scratch + 7, device.device);
    view.setUint32(scratch + 8, Math.floor(lba / 0x100_0000), true);
    view.setUint32(scratch + 12, device.count, true);
  }

  /** Puts the FIS in the scratch memory to its place. */
  private put(offset: number, length: number, dma: DmaSpace, tag: number): number {
    if (!this.enabled) return DMA_DONE;
    const { scratch } = this;
    const at = this.locate(dma);
    if (at < 0) return dma.write((this.iova[0] as number) + offset, length, scratch, tag);
    this.bytes.copyWithin(at + offset, scratch, scratch + length);
    if (dma.logging) dma.markWritten(at + offset, length);
    return DMA_DONE;
  }

  private locate(dma: DmaSpace): number {
    if (this.generation !== dma.generation) {
      this.generation = dma.generation;
      this.at = dma.translate(this.iova[0] as number, AHCI_RFIS_BYTES, true);
    }
    return this.at;
  }
}
