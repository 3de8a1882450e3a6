/** Single root I/O virtualization: the PF's capability and the arithmetic of VFs (PCIe 4.0 §9.3.3). */
import { TWO_32 } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import {
  PCI_EXT_CAP_ID_SRIOV,
  PCIE_SRIOV_BAR0,
  PCIE_SRIOV_BYTES,
  PCIE_SRIOV_CAP_ARI_PRESERVED,
  PCIE_SRIOV_CAPABILITIES,
  PCIE_SRIOV_CONTROL,
  PCIE_SRIOV_CONTROL_ARI_HIERARCHY,
  PCIE_SRIOV_CONTROL_VF_ENABLE,
  PCIE_SRIOV_CONTROL_VF_MEMORY,
  PCIE_SRIOV_DEPENDENCY_LINK,
  PCIE_SRIOV_FIRST_OFFSET,
  PCIE_SRIOV_INITIAL_VFS,
  PCIE_SRIOV_MIGRATION,
  PCIE_SRIOV_NUM_VFS,
  PCIE_SRIOV_PAGES,
  PCIE_SRIOV_STATUS,
  PCIE_SRIOV_STRIDE,
  PCIE_SRIOV_SUPPORTED_PAGES,
  PCIE_SRIOV_SYSTEM_PAGE,
  PCIE_SRIOV_TOTAL_VFS,
  PCIE_SRIOV_VF_DEVICE_ID,
} from '../spec/pci.ts';
import { type BarList, barMask, barRegisters, completeBars } from './bars.ts';
import type { PciCapability, PciConfigSpace } from './config-space.ts';
import type { BarInfo } from './function.ts';
import type { PciRegister } from './registers.ts';

export interface SriovOptions {
  readonly totalVfs: number;
  /** Routing ids: of the first VF from the PF's, and from each to the next. */
  readonly firstOffset: number;
  readonly stride: number;
  readonly vfDevice: number;
  /** Of one VF. Memory only. */
  readonly bars: BarList;
  /** This PF's own function number, on which dependency links build. Default: 0. */
  readonly functionNumber?: number;
  /** The guest enabled so many VFs; 0: disabled them, or reset the PF. */
  readonly onVfs: (count: number) => void;
}

const PAGE_UNIT = 4096;

export class Sriov implements PciCapability {
  readonly name = 'single root I/O virtualization';
  readonly id = PCI_EXT_CAP_ID_SRIOV;
  readonly version = 1;
  readonly bytes = PCIE_SRIOV_BYTES;
  readonly registers: readonly PciRegister[];
  readonly #options: SriovOptions;
  readonly #bars: readonly (BarInfo | undefined)[];
  #space: PciConfigSpace | undefined;
  #base = 0;
  #count = 0;
  /** System page size, in bytes. */
  #page = PAGE_UNIT;

  /** @throws SluiceError `config` for BARs that VFs cannot have, and routing ids that collide. */
  constructor(options: SriovOptions) {
    this.#options = options;
    const { totalVfs, firstOffset, stride, vfDevice, functionNumber = 0 } = options;
    this.#bars = completeBars('SR-IOV', options.bars);
    const ids = firstOffset + stride * (totalVfs - 1);
    if (totalVfs < 1 || firstOffset < 1 || (totalVfs > 1 && stride < 1) || ids > 0xffff) {
      throw new SluiceError('config', `SR-IOV: ${totalVfs} VFs do not fit into the routing ids`);
    }
    if (this.#bars.some((bar) => bar?.kind === 'io')) {
      throw new SluiceError('config', 'SR-IOV: VFs have no I/O space');
    }
    const control =
      PCIE_SRIOV_CONTROL_VF_ENABLE |
      PCIE_SRIOV_CONTROL_VF_MEMORY |
      PCIE_SRIOV_CONTROL_ARI_HIERARCHY;
    // biome-ignore format: one register a line
    this.registers = [
      { name: 'CAPABILITIES', offset: PCIE_SRIOV_CAPABILITIES, bytes: 4, reset: PCIE_SRIOV_CAP_ARI_PRESERVED, meaning: 'no VF migration' },
      { name: 'CONTROL', offset: PCIE_SRIOV_CONTROL, bytes: 2, rw: control, meaning: 'VF enable, VF memory, ARI' },
      { name: 'STATUS', offset: PCIE_SRIOV_STATUS, bytes: 2, meaning: 'VF migration: none' },
      { name: 'INITIAL_VFS', offset: PCIE_SRIOV_INITIAL_VFS, bytes: 2, reset: totalVfs, meaning: 'VFs at first' },
      { name: 'TOTAL_VFS', offset: PCIE_SRIOV_TOTAL_VFS, bytes: 2, reset: totalVfs, meaning: 'most VFs' },
      { name: 'NUM_VFS', offset: PCIE_SRIOV_NUM_VFS, bytes: 2, rw: 0xffff, meaning: 'VFs wanted; fixed while enabled' },
      { name: 'DEPENDENCY_LINK', offset: PCIE_SRIOV_DEPENDENCY_LINK, bytes: 1, reset: functionNumber, meaning: 'PF that this one needs' },
      { name: 'FIRST_OFFSET', offset: PCIE_SRIOV_FIRST_OFFSET, bytes: 2, reset: firstOffset, meaning: 'routing id of the first VF' },
      { name: 'STRIDE', offset: PCIE_SRIOV_STRIDE, bytes: 2, reset: stride, meaning: 'from VF to VF' },
      { name: 'VF_DEVICE_ID', offset: PCIE_SRIOV_VF_DEVICE_ID, bytes: 2, reset: vfDevice, meaning: 'device id of VFs' },
      { name: 'SUPPORTED_PAGES', offset: PCIE_SRIOV_SUPPORTED_PAGES, bytes: 4, reset: PCIE_SRIOV_PAGES, meaning: '4 KiB << n' },
      { name: 'SYSTEM_PAGE', offset: PCIE_SRIOV_SYSTEM_PAGE, bytes: 4, rw: PCIE_SRIOV_PAGES, reset: 1, meaning: 'one of them; fixed while enabled' },
      ...barRegisters(this.#bars, PCIE_SRIOV_BAR0, 'VF_BAR'),
      { name: 'MIGRATION', offset: PCIE_SRIOV_MIGRATION, bytes: 4, meaning: 'none' },
    ];
  }

  bind(space: PciConfigSpace, offset: number): void {
    this.#space = space;
    this.#base = offset;
    space.onWrite(offset + PCIE_SRIOV_CONTROL, () => this.#controlWritten(space));
    space.onWrite(offset + PCIE_SRIOV_SYSTEM_PAGE, () => this.#takePage(space));
    this.#takePage(space);
  }

  /** §9.2.2.2: a reset of the PF takes its VFs away. */
  reset(): void {
    if (this.#space !== undefined) {
      this.#takePage(this.#space);
      this.#controlWritten(this.#space);
    }
  }

  /** VFs that there are: no more than TotalVFs, whatever the guest wrote. */
  get count(): number {
    return this.#count;
  }

  /** VF Memory Space Enable. */
  get memoryEnabled(): boolean {
    return this.#count > 0 && (this.#control() & PCIE_SRIOV_CONTROL_VF_MEMORY) !== 0;
  }

  /** Bytes from a VF's BAR to the next one's: its size, at least a system page (§9.3.3.14). */
  barBytes(bar: number): number {
    return Math.max(this.#bars[bar]?.bytes ?? 0, this.#page);
  }

  /** Address of a BAR of a VF (0 …), where the guest put the first one's; exact to 2^53. */
  barAddress(bar: number, vf: number): number {
    const at = this.#base + PCIE_SRIOV_BAR0 + 4 * bar;
    const low = ((this.#space?.get(at, 4) ?? 0) & ~0xf) >>> 0;
    const wide = this.#bars[bar]?.kind === 'memory64';
    const high = wide ? (this.#space?.get(at + 4, 4) ?? 0) : 0;
    return high * TWO_32 + low + vf * this.barBytes(bar);
  }

  /** Routing id (bus, device, function) of a VF (0 …), from the PF's. */
  routingId(pf: number, vf: number): number {
    return (pf + this.#options.firstOffset + vf * this.#options.stride) & 0xffff;
  }

  #control(): number {
    return this.#space?.get(this.#base + PCIE_SRIOV_CONTROL, 2) ?? 0;
  }

  #controlWritten(space: PciConfigSpace): void {
    const enabled = (this.#control() & PCIE_SRIOV_CONTROL_VF_ENABLE) !== 0;
    space.setWritable(this.#base + PCIE_SRIOV_NUM_VFS, 2, enabled ? 0 : 0xffff);
    space.setWritable(this.#base + PCIE_SRIOV_SYSTEM_PAGE, 4, enabled ? 0 : PCIE_SRIOV_PAGES);
    const wanted = space.get(this.#base + PCIE_SRIOV_NUM_VFS, 2);
    const count = enabled ? Math.min(wanted, this.#options.totalVfs) : 0;
    if (count !== this.#count) {
      this.#count = count;
      this.#options.onVfs(count);
    }
  }

  /** Each VF BAR is at least a page, and aligned to it. */
  #takePage(space: PciConfigSpace): void {
    const value = space.get(this.#base + PCIE_SRIOV_SYSTEM_PAGE, 4);
    // Not exactly one bit is undefined (§9.3.3.13): the lowest counts, and none is 4 KiB.
    this.#page = PAGE_UNIT * Math.max(value & -value, 1);
    this.#bars.forEach((bar, index) => {
      if (bar === undefined) {
        return;
      }
      const at = this.#base + PCIE_SRIOV_BAR0 + 4 * index;
      const { low, high } = barMask(this.barBytes(index));
      const type = space.get(at, 4) & 0xf;
      space.setWritable(at, 4, low);
      space.set(at, 4, (space.get(at, 4) & low) | type);
      if (bar.kind === 'memory64') {
        space.setWritable(at + 4, 4, high);
      }
    });
  }
}
