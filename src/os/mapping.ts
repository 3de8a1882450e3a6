/** Mappings: address space reservations, files mapped into them, anonymous shared memory (memfd). */
import { alignUp, MiB } from '../base/bits.ts';
import { bufferAt, check, cString, libc, systemError } from './libc.ts';

const PROT_NONE = 0;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const MADV_HUGEPAGE = 14;

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;

/** The file can no longer shrink (fcntl(2), F_ADD_SEALS): its mapping cannot fault. */
export const F_SEAL_SHRINK = 2;
export const F_SEAL_GROW = 4;

/** Where large pages can begin: mappings of guest memory are placed on multiples of it. */
export const HUGE_PAGE = 2 * MiB;
export const PAGE = 4096;

function map(
  address: bigint,
  length: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
  subject: string,
): bigint {
  const at = libc.mmap(address, BigInt(length), protection, flags, fd, BigInt(offset));
  if (at === MAP_FAILED) throw systemError('mmap', subject);
  return at;
}

/** Address space without memory behind it, aligned to {@link HUGE_PAGE}. */
export function reserveAddressSpace(length: number): bigint {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const at = map(0n, length + HUGE_PAGE, PROT_NONE, flags, -1, 0, `reservation of ${length} bytes`);
  return BigInt(alignUp(Number(at), HUGE_PAGE));
}

/** Lays `length` bytes of a file, from `offset` (a multiple of the page size), over `address`. */
export function mapFileAt(address: bigint, length: number, fd: number, offset: number): void {
  const flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE;
  map(address, length, PROT_READ | PROT_WRITE, flags, fd, offset, `fd ${fd}, ${length} bytes`);
}

/** Lays fresh zeroed memory over `address`; what was mapped there is gone from it. */
export function mapAnonymousAt(address: bigint, length: number): void {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
  map(address, length, PROT_READ | PROT_WRITE, flags, -1, 0, `${length} bytes`);
}

/** Asks for large pages; a kernel that has none to give is no error. */
export function adviseHugePages(address: bigint, length: number): void {
  libc.madvise(address, BigInt(length), MADV_HUGEPAGE);
}

/** Places that released mappings have left, by their size: taken again before new ones are reserved. */
const released = new Map<number, bigint[]>();

/**
 * A place for a mapping of `length` bytes. Sizes are powers of two, so that a place fits again: who
 * makes mappings of ever new sizes uses address space up no further than that.
 */
function takePlace(length: number): { readonly address: bigint; readonly size: number } {
  const size = 2 ** Math.ceil(Math.log2(Math.max(length, PAGE)));
  const address =
    released.get(size)?.pop() ??
    map(
      0n,
      size,
      PROT_NONE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
      -1,
      0,
      `reservation of ${size} bytes`,
    );
  return { address, size };
}

function leavePlace(address: bigint, size: number): void {
  mapAnonymousAt(address, size);
  const places = released.get(size);
  if (places === undefined) released.set(size, [address]);
  else places.push(address);
}

/** A file mapped on its own, shared with whoever else maps it. */
export class SharedMapping {
  readonly buffer: ArrayBuffer;
  readonly address: bigint;
  readonly length: number;
  readonly #size: number;
  #mapped = true;

  constructor(fd: number, length: number, offset = 0) {
    const { address, size } = takePlace(length);
    try {
      const access = PROT_READ | PROT_WRITE;
      map(address, length, access, MAP_SHARED | MAP_FIXED, fd, offset, `fd ${fd}`);
    } catch (error) {
      leavePlace(address, size);
      throw error;
    }
    this.length = length;
    this.address = address;
    this.#size = size;
    this.buffer = bufferAt(address, length);
  }

  /**
   * Gives the pages up. Zeroed memory of this process takes their place until another mapping does: a
   * view that somebody kept reads no file that was given back, and faults nowhere.
   */
  release(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    leavePlace(this.address, this.#size);
  }
}

/**
 * Memory of the kernel's, mapped where the kernel wants it: io_uring takes no place that is chosen for
 * it. The rest is as with {@link SharedMapping}.
 */
export class KernelMapping {
  readonly buffer: ArrayBuffer;
  readonly #address: bigint;
  readonly #length: number;
  #mapped = true;

  constructor(fd: number, length: number, offset: number) {
    const access = PROT_READ | PROT_WRITE;
    this.#address = map(0n, length, access, MAP_SHARED, fd, offset, `fd ${fd}`);
    this.#length = length;
    this.buffer = bufferAt(this.#address, length);
  }

  release(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    mapAnonymousAt(this.#address, this.#length);
  }
}

/** A new anonymous memory file of `bytes` (memfd_create(2)), sealed against resizing on request. */
export function createMemfd(name: string, bytes: number, sealed = true): number {
  const fd = check(
    libc.memfd_create(cString(name), MFD_CLOEXEC | MFD_ALLOW_SEALING),
    'memfd_create',
    name,
  );
  try {
    check(libc.ftruncate(fd, BigInt(bytes)), 'ftruncate', `${name} to ${bytes} bytes`);
    if (sealed) check(libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 'fcntl', name);
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  return fd;
}

/** The seals of a memory file, or 0 for a file that cannot have any. */
export function sealsOf(fd: number): number {
  const seals = libc.fcntl(fd, F_GET_SEALS, 0);
  return seals === -1 ? 0 : seals;
}
