/**
 * The regions of a PCI function: BARs, expansion ROM, configuration space ("VFIO_USER_DEVICE_GET_
 * REGION_INFO", "VFIO_USER_REGION_READ"). An access is taken apart into naturally aligned ones of 1, 2
 * and 4 bytes, which is what a function knows.
 */
import { duplicateFd } from '../../os/fd.ts';
import { EINVAL } from '../../os/libc.ts';
import type { BarInfo, MappableArea, PciFunction } from '../../pci/function.ts';
import * as vfu from '../../spec/vfio-user.ts';
import { FdBag } from '../fd-bag.ts';
import { Refusal } from './codec.ts';

export interface RegionInfo {
  readonly payload: Uint8Array;
  /** The memory of the areas that may be mapped, if the reply tells of them. */
  readonly fds: FdBag;
}

const READ_WRITE = vfu.REGION_FLAG_READ | vfu.REGION_FLAG_WRITE;

export class Regions {
  readonly #function: PciFunction;
  readonly #bytes: Float64Array;

  constructor(pciFunction: PciFunction) {
    this.#function = pciFunction;
    this.#bytes = new Float64Array(vfu.PCI_REGIONS);
    for (const [index, bar] of pciFunction.bars.entries()) this.#bytes[index] = bar?.bytes ?? 0;
    this.#bytes[vfu.REGION_ROM] = pciFunction.rom?.length ?? 0;
    this.#bytes[vfu.REGION_CONFIG] = pciFunction.configBytes;
  }

  /**
   * The reply to GET_REGION_INFO. A client that has no room for capabilities (`argsz`) is told how
   * much it takes and where they would be, and asks again.
   * @throws Refusal EINVAL for a region that is none.
   */
  info(index: number, argsz: number): RegionInfo {
    const bytes = this.#bytes[index];
    if (bytes === undefined) throw new Refusal(EINVAL, `region ${index}`);
    const areas = mappable(this.#function.bars[index]);
    const first = areas[0];
    const capBytes =
      first === undefined
        ? 0
        : vfu.CAP_HEADER_BYTES + vfu.SPARSE_MMAP_BYTES + areas.length * vfu.SPARSE_AREA_BYTES;
    const wanted = vfu.REGION_INFO_BYTES + capBytes;
    const isWhole = argsz >= wanted;
    const payload = new Uint8Array(isWhole ? wanted : vfu.REGION_INFO_BYTES);
    const view = new DataView(payload.buffer);
    const access = bytes === 0 ? 0 : index === vfu.REGION_ROM ? vfu.REGION_FLAG_READ : READ_WRITE;
    const mmap = first === undefined ? 0 : vfu.REGION_FLAG_MMAP | vfu.REGION_FLAG_CAPS;
    view.setUint32(0, wanted, true);
    view.setUint32(4, access | mmap, true);
    view.setUint32(8, index, true);
    view.setUint32(12, first === undefined ? 0 : vfu.REGION_INFO_BYTES, true);
    view.setBigUint64(16, BigInt(bytes), true);
    if (first === undefined) return { payload, fds: new FdBag() };
    view.setBigUint64(24, BigInt(first.fdOffset - first.offset), true);
    if (!isWhole) return { payload, fds: new FdBag() };
    const cap = vfu.REGION_INFO_BYTES;
    view.setUint16(cap, vfu.CAP_SPARSE_MMAP, true);
    view.setUint16(cap + 2, vfu.CAP_SPARSE_MMAP_VERSION, true);
    view.setUint32(cap + vfu.CAP_HEADER_BYTES, areas.length, true);
    for (const [i, area] of areas.entries()) {
      const at = cap + vfu.CAP_HEADER_BYTES + vfu.SPARSE_MMAP_BYTES + i * vfu.SPARSE_AREA_BYTES;
      view.setBigUint64(at, BigInt(area.offset), true);
      view.setBigUint64(at + 8, BigInt(area.bytes), true);
    }
    return { payload, fds: new FdBag([duplicateFd(first.fd)]) };
  }

  /** @throws Refusal EINVAL unless [offset, offset + count) lies in the region and is not empty. */
  check(region: number, offset: number, count: number): void {
    const bytes = region < vfu.PCI_REGIONS ? (this.#bytes[region] as number) : 0;
    if (count > 0 && offset + count <= bytes) return;
    throw new Refusal(
      EINVAL,
      `${count} bytes at offset ${offset} of region ${region} of ${bytes} bytes`,
    );
  }

  /** Reads a checked range into a view. */
  read(region: number, offset: number, count: number, into: DataView, at: number): void {
    if (region === vfu.REGION_ROM) {
      const rom = this.#function.rom;
      for (let i = 0; i < count; i++) into.setUint8(at + i, rom?.[offset + i] ?? 0xff);
      return;
    }
    for (let done = 0; done < count; ) {
      const width = widthAt(offset + done, count - done);
      const value = this.#readOne(region, offset + done, width);
      if (width === 4) into.setUint32(at + done, value, true);
      else if (width === 2) into.setUint16(at + done, value, true);
      else into.setUint8(at + done, value);
      done += width;
    }
  }

  /** Writes a checked range out of a view. Writes to the ROM do nothing. */
  write(region: number, offset: number, count: number, from: DataView, at: number): void {
    if (region === vfu.REGION_ROM) return;
    for (let done = 0; done < count; ) {
      const width = widthAt(offset + done, count - done);
      const value =
        width === 4
          ? from.getUint32(at + done, true)
          : width === 2
            ? from.getUint16(at + done, true)
            : from.getUint8(at + done);
      if (region === vfu.REGION_CONFIG) this.#function.writeConfig(offset + done, width, value);
      else this.#function.writeBar(region, offset + done, width, value);
      done += width;
    }
  }

  #readOne(region: number, offset: number, width: number): number {
    return region === vfu.REGION_CONFIG
      ? this.#function.readConfig(offset, width)
      : this.#function.readBar(region, offset, width);
  }
}

/** The widest access that is naturally aligned at an offset and not longer than what is left. */
function widthAt(offset: number, left: number): number {
  if (left >= 4 && offset % 4 === 0) return 4;
  return left >= 2 && offset % 2 === 0 ? 2 : 1;
}

/** The areas that one descriptor and one offset can stand for: vfio has no more for a region. */
function mappable(bar: BarInfo | undefined): readonly MappableArea[] {
  const areas = bar?.areas ?? [];
  const first = areas[0];
  if (first === undefined || first.fdOffset < first.offset) return [];
  const shift = first.fdOffset - first.offset;
  return areas.filter((area) => area.fd === first.fd && area.fdOffset - area.offset === shift);
}
