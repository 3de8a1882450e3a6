/** Base address registers: their declaration as registers, sizing included, and their addresses. */

import { TWO_32 } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import {
  PCI_BAR_IO,
  PCI_BAR_MAX_IO_BYTES,
  PCI_BAR_MEMORY_64,
  PCI_BAR_MIN_IO_BYTES,
  PCI_BAR_MIN_MEMORY_BYTES,
  PCI_BAR_PREFETCHABLE,
  PCI_BARS,
  PCI_ROM_BAR,
  PCI_ROM_ENABLE,
  PCI_ROM_MAX_BYTES,
  PCI_ROM_MIN_BYTES,
} from '../spec/pci.ts';
import type { BarInfo, BarKind, MappableArea } from './function.ts';
import type { PciRegister } from './registers.ts';

/** A BAR as a device declares it. */
export interface BarDeclaration {
  readonly kind: BarKind;
  /** A power of two. */
  readonly bytes: number;
  /** Default: false. */
  readonly prefetchable?: boolean;
  /** Default: none, every access is a trap. */
  readonly areas?: readonly MappableArea[];
}

/** The BARs of a function, by index; those after the last need no entry. */
export type BarList = readonly (BarDeclaration | undefined)[];

function isPower(bytes: number): boolean {
  return bytes >= 1 && bytes < 2 ** 53 && Number.isInteger(Math.log2(bytes));
}

function checkBar(owner: string, index: number, bar: BarDeclaration, bars: BarList): void {
  const fail = (why: string): never => {
    throw new SluiceError('config', `${owner}: BAR ${index} ${why}`);
  };
  if (index >= PCI_BARS) {
    fail('does not exist: a function has six');
  }
  const least = bar.kind === 'io' ? PCI_BAR_MIN_IO_BYTES : PCI_BAR_MIN_MEMORY_BYTES;
  const most =
    bar.kind === 'io' ? PCI_BAR_MAX_IO_BYTES : bar.kind === 'memory32' ? 2 ** 31 : 2 ** 52;
  if (!isPower(bar.bytes) || bar.bytes < least || bar.bytes > most) {
    fail(`has ${bar.bytes} bytes: a power of two from ${least} to ${most} is possible`);
  }
  if (bar.kind === 'io' && (bar.prefetchable === true || (bar.areas ?? []).length > 0)) {
    fail('is I/O space, which is not prefetchable nor mapped');
  }
  if (bar.kind === 'memory64' && (index === PCI_BARS - 1 || bars[index + 1] !== undefined)) {
    fail('has 64 bits, and needs the place of the next one');
  }
  let end = 0;
  for (const area of bar.areas ?? []) {
    if (area.offset < end || area.bytes <= 0 || area.offset + area.bytes > bar.bytes) {
      fail('has mappable areas that overlap, are out of order, or beyond its end');
    }
    end = area.offset + area.bytes;
  }
}

/**
 * Six BARs with all that a transport asks for.
 * @throws SluiceError `config` for sizes and places that PCI does not have.
 */
export function completeBars(owner: string, bars: BarList): (BarInfo | undefined)[] {
  bars.forEach((bar, index) => {
    if (bar !== undefined) {
      checkBar(owner, index, bar, bars);
    }
  });
  return Array.from({ length: PCI_BARS }, (_, index) => {
    const bar = bars[index];
    return bar && { prefetchable: false, areas: [], ...bar };
  });
}

/** The bits of an address register of `bytes` that can be written, the lower 32 and the upper. */
export function barMask(bytes: number): { readonly low: number; readonly high: number } {
  return {
    low: bytes >= TWO_32 ? 0 : ~(bytes - 1) >>> 0,
    high: bytes >= TWO_32 ? ~(bytes / TWO_32 - 1) >>> 0 : 0xffff_ffff,
  };
}

/** The registers of six BARs that begin at `base` (PCI 3.0 §6.2.5.1; VF BARs: PCIe §9.3.3.14). */
export function barRegisters(
  bars: readonly (BarInfo | undefined)[],
  base: number,
  prefix: string,
): PciRegister[] {
  const registers: PciRegister[] = [];
  bars.forEach((bar, index) => {
    if (bar === undefined) {
      return;
    }
    const { low, high } = barMask(bar.bytes);
    const type =
      bar.kind === 'io'
        ? PCI_BAR_IO
        : (bar.kind === 'memory64' ? PCI_BAR_MEMORY_64 : 0) |
          (bar.prefetchable ? PCI_BAR_PREFETCHABLE : 0);
    const at = base + 4 * index;
    registers.push({
      name: `${prefix}${index}`,
      offset: at,
      bytes: 4,
      rw: low,
      reset: type,
      meaning: `${bar.kind} of ${bar.bytes} bytes`,
    });
    if (bar.kind === 'memory64') {
      registers.push({
        name: `${prefix}${index + 1}`,
        offset: at + 4,
        bytes: 4,
        rw: high,
        meaning: `upper half of ${prefix}${index}`,
      });
    }
  });
  return registers;
}

/**
 * The expansion ROM's address register (PCI 3.0 §6.2.5.2).
 * @throws SluiceError `config` for a size that is no power of two from 2 KiB to 16 MiB.
 */
export function romRegister(owner: string, bytes: number): PciRegister {
  if (!isPower(bytes) || bytes < PCI_ROM_MIN_BYTES || bytes > PCI_ROM_MAX_BYTES) {
    throw new SluiceError('config', `${owner}: an expansion ROM of ${bytes} bytes`, {
      remedy: `Pad the image to a power of two from ${PCI_ROM_MIN_BYTES} to ${PCI_ROM_MAX_BYTES}`,
    });
  }
  return {
    name: 'ROM_BAR',
    offset: PCI_ROM_BAR,
    bytes: 4,
    rw: (barMask(bytes).low | PCI_ROM_ENABLE) >>> 0,
    meaning: `expansion ROM of ${bytes} bytes`,
  };
}
