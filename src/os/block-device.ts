/** What a block device says of itself, and what direct I/O demands of memory and offsets. */
import { readFileSync } from 'node:fs';
import { check, libc } from './libc.ts';

// uapi/linux/fs.h. The same numbers on x86-64 and arm64.
const BLKROGET = 0x125e;
const BLKSSZGET = 0x1268;
const BLKIOOPT = 0x1279;
const BLKPBSZGET = 0x127b;
const BLKGETSIZE64 = 0x8008_1272;

export interface BlockDevice {
  readonly bytes: number;
  readonly readonly: boolean;
  readonly logicalBytes: number;
  readonly physicalBytes: number;
  /** 0: none is better. */
  readonly optimalBytes: number;
}

function ask(fd: number, request: number, path: string): number {
  const answer = new DataView(new ArrayBuffer(8));
  check(libc.ioctl(fd, request, new Uint8Array(answer.buffer)), 'ioctl', path);
  return Number(answer.getBigUint64(0, true));
}

export function blockDeviceBytes(fd: number, path: string): number {
  return ask(fd, BLKGETSIZE64, path);
}

export function blockDevice(fd: number, path: string): BlockDevice {
  return {
    bytes: blockDeviceBytes(fd, path),
    readonly: ask(fd, BLKROGET, path) !== 0,
    logicalBytes: ask(fd, BLKSSZGET, path),
    physicalBytes: ask(fd, BLKPBSZGET, path),
    optimalBytes: ask(fd, BLKIOOPT, path),
  };
}

/**
 * A figure of a device's request queue (Documentation/ABI/stable/sysfs-block), such as
 * `discard_granularity`; 0 if this kernel does not have it.
 * @param device st_rdev of the device's node
 */
export function queueFigure(device: bigint, name: string): number {
  // glibc's gnu_dev_major and gnu_dev_minor.
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xffff_f000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffff_ff00n);
  const base = `/sys/dev/block/${major}:${minor}`;
  // A partition has the queue of its disk.
  for (const path of [`${base}/queue/${name}`, `${base}/../queue/${name}`]) {
    try {
      return Number(readFileSync(path, 'utf8'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return 0;
}

const AT_EMPTY_PATH = 0x1000;
const STATX_DIOALIGN = 0x2000;
/** struct statx (uapi/linux/stat.h): mask 0, dio_mem_align 152, dio_offset_align 156. */
const STATX_BYTES = 256;

export interface DirectAlignment {
  readonly memory: number;
  readonly offset: number;
}

/** What O_DIRECT demands of a file; undefined if the kernel (before Linux 6.1) or file system does not tell. */
export function directAlignment(fd: number, path: string): DirectAlignment | undefined {
  const buffer = new DataView(new ArrayBuffer(STATX_BYTES));
  const empty = new Uint8Array(1);
  const bytes = new Uint8Array(buffer.buffer);
  check(libc.statx(fd, empty, AT_EMPTY_PATH, STATX_DIOALIGN, bytes), 'statx', path);
  const memory = buffer.getUint32(152, true);
  const offset = buffer.getUint32(156, true);
  if ((buffer.getUint32(0, true) & STATX_DIOALIGN) === 0 || offset === 0) return undefined;
  return { memory: Math.max(1, memory), offset };
}
