/** What commands that are no traps ask, and what is answered: information, DMA maps, written pages. */
import { isPowerOfTwo } from '../../base/bits.ts';
import { type DmaDomain, MAX_DMA_MAPS } from '../../memory/dma-domain.ts';
import { EINVAL } from '../../os/libc.ts';
import * as vfu from '../../spec/vfio-user.ts';
import type { FdBag } from '../fd-bag.ts';
import {
  type Capabilities,
  ENOENT,
  expectAtLeast,
  expectBytes,
  MAX_DATA_BYTES,
  MAX_MESSAGE_FDS,
  type Message,
  payloadOf,
  Refusal,
  u32At,
  u64At,
} from './codec.ts';
import type { IrqSet } from './irqs.ts';

/** "The capability list must be a subset of those proposed." */
export function offer(client: Capabilities): Capabilities {
  return {
    maxMessageFds: MAX_MESSAGE_FDS,
    maxDataBytes: MAX_DATA_BYTES,
    pageSizes: vfu.DEFAULT_PGSIZES,
    maxDmaMaps: MAX_DMA_MAPS,
    writeMultiple: client.writeMultiple,
    // There is no state of a device to migrate.
    migration: undefined,
  };
}

/** @throws Refusal EINVAL if the reply may not have as many bytes as its fixed part has. */
export function argszOf(message: Message, least: number): number {
  const argsz = u32At(message, 0);
  if (argsz < least) throw new Refusal(EINVAL, `argsz ${argsz}, expected ${least} or more`);
  return argsz;
}

export function deviceInfo(message: Message): Uint8Array {
  expectBytes(message, vfu.DEVICE_INFO_BYTES);
  argszOf(message, vfu.DEVICE_INFO_BYTES);
  return payloadOf(vfu.DEVICE_INFO_BYTES, (view) => {
    view.setUint32(0, vfu.DEVICE_INFO_BYTES, true);
    view.setUint32(4, vfu.DEVICE_FLAGS_RESET | vfu.DEVICE_FLAGS_PCI, true);
    view.setUint32(8, vfu.PCI_REGIONS, true);
    view.setUint32(12, vfu.PCI_IRQS, true);
  });
}

export function irqInfo(irqs: IrqSet, message: Message): Uint8Array {
  expectBytes(message, vfu.IRQ_INFO_BYTES);
  argszOf(message, vfu.IRQ_INFO_BYTES);
  const index = u32At(message, 8);
  const { flags, count } = irqs.info(index);
  return payloadOf(vfu.IRQ_INFO_BYTES, (view) => {
    view.setUint32(0, vfu.IRQ_INFO_BYTES, true);
    view.setUint32(4, flags, true);
    view.setUint32(8, index, true);
    view.setUint32(12, count, true);
  });
}

export function mapDma(domain: DmaDomain, message: Message, fds: FdBag): void {
  expectBytes(message, vfu.DMA_MAP_BYTES);
  if (fds.count > 1) throw new Refusal(EINVAL, `${fds.count} descriptors, expected one or none`);
  const flags = u32At(message, 4);
  if ((flags & ~(vfu.DMA_MAP_READABLE | vfu.DMA_MAP_WRITEABLE)) !== 0) {
    throw new Refusal(EINVAL, `flags 0x${flags.toString(16)}`);
  }
  const map = {
    // "zero if the region is not mappable": without a descriptor it means nothing.
    offset: fds.count === 0 ? 0 : u64At(message, 8),
    iova: u64At(message, 16),
    length: u64At(message, 24),
    readable: (flags & vfu.DMA_MAP_READABLE) !== 0,
    writable: (flags & vfu.DMA_MAP_WRITEABLE) !== 0,
  };
  domain.map(map, fds.count === 0 ? undefined : fds.peek(0));
}

/** A bitmap of written pages that is asked for. */
interface BitmapRequest {
  readonly pageBytes: number;
  readonly bytes: number;
}

export interface UnmapRequest {
  readonly all: boolean;
  readonly iova: number;
  readonly length: number;
  readonly bitmap: BitmapRequest | undefined;
}

/** @throws Refusal EINVAL for bad fields, ENOENT if there is no such map. */
export function decodeUnmap(domain: DmaDomain, message: Message): UnmapRequest {
  expectAtLeast(message, vfu.DMA_UNMAP_BYTES);
  const flags = u32At(message, 4);
  const iova = u64At(message, 8);
  const length = u64At(message, 16);
  const wantsBitmap = flags === vfu.DMA_UNMAP_GET_DIRTY_BITMAP;
  expectBytes(message, vfu.DMA_UNMAP_BYTES + (wantsBitmap ? vfu.BITMAP_BYTES : 0));
  if (flags === vfu.DMA_UNMAP_ALL) {
    if (iova === 0 && length === 0) return { all: true, iova, length, bitmap: undefined };
    throw new Refusal(EINVAL, 'all maps, but with an address or a size');
  }
  if (flags !== 0 && !wantsBitmap) throw new Refusal(EINVAL, `flags 0x${flags.toString(16)}`);
  if (!wantsBitmap) return { all: false, iova, length, bitmap: undefined };
  // A bitmap is of one map.
  if (!domain.has(iova, length)) {
    throw new Refusal(ENOENT, `no map at IOVA 0x${iova.toString(16)} of ${length} bytes`);
  }
  const bitmap = decodeBitmap(message, vfu.DMA_UNMAP_BYTES, length);
  return { all: false, iova, length, bitmap };
}

/** Takes maps away, and returns the payload of the reply: "the original DMA entry in the request". */
export function unmapDma(domain: DmaDomain, request: UnmapRequest, message: Message): Uint8Array {
  const { all, iova, length, bitmap } = request;
  const payload = new Uint8Array(message.length + (bitmap?.bytes ?? 0));
  payload.set(message.bytes.subarray(message.at, message.at + message.length));
  if (bitmap !== undefined) {
    domain.takeDirty(iova, length, bitmap.pageBytes, payload.subarray(message.length));
  }
  if (all) domain.clear();
  else domain.unmap(iova, length);
  return payload;
}

/** DIRTY_PAGES: begins, ends, or reads the log of written pages. Returns the payload of the reply. */
export function dirtyPages(domain: DmaDomain, message: Message): Uint8Array {
  expectAtLeast(message, vfu.DIRTY_PAGES_BYTES);
  const flags = u32At(message, 4);
  const isGet = flags === vfu.DIRTY_PAGES_GET_BITMAP;
  expectBytes(message, vfu.DIRTY_PAGES_BYTES + (isGet ? vfu.DIRTY_RANGE_BYTES : 0));
  if (!isGet) {
    if (flags !== vfu.DIRTY_PAGES_START && flags !== vfu.DIRTY_PAGES_STOP) {
      throw new Refusal(EINVAL, `flags 0x${flags.toString(16)}`);
    }
    domain.logging = flags === vfu.DIRTY_PAGES_START;
    return new Uint8Array(0);
  }
  const iova = u64At(message, 8);
  const length = u64At(message, 16);
  if (!domain.has(iova, length)) {
    throw new Refusal(ENOENT, `no map at IOVA 0x${iova.toString(16)} of ${length} bytes`);
  }
  const bitmap = decodeBitmap(message, 24, length);
  const payload = new Uint8Array(message.length + bitmap.bytes);
  payload.set(message.bytes.subarray(message.at, message.at + message.length));
  domain.takeDirty(iova, length, bitmap.pageBytes, payload.subarray(message.length));
  return payload;
}

function decodeBitmap(message: Message, at: number, length: number): BitmapRequest {
  const pageBytes = u64At(message, at);
  const bytes = u64At(message, at + 8);
  if (!isPowerOfTwo(pageBytes) || pageBytes < vfu.DEFAULT_PGSIZES) {
    throw new Refusal(EINVAL, `pages of ${pageBytes} bytes`);
  }
  const needed = Math.ceil(length / pageBytes / 8);
  if (bytes < needed || bytes > MAX_DATA_BYTES) {
    throw new Refusal(EINVAL, `a bitmap of ${bytes} bytes for ${length} bytes of memory`);
  }
  return { pageBytes, bytes };
}
