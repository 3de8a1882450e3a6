/**
 * The one door to the C library: every system call that Node has no function for goes through
 * the table below, by node:ffi. Loaded once per thread (errno belongs to a thread).
 */
import ffi from 'node:ffi';
import { getSystemErrorName } from 'node:util';
import { SystemError } from '../base/errors.ts';

// Sizes and offsets are declared with 32 bits wherever every caller's value fits: 64-bit
// arguments and results must be BigInt, which costs an allocation a call.
// Calls that are made while frames flow take addresses as numbers ('u64') of pinned memory: for a
// 'pointer' Node's wrapper looks at every argument and allocates.
const { functions } = ffi.dlopen('libc.so.6', {
  __errno_location: { arguments: [], return: 'pointer' },
  mmap: { arguments: ['u64', 'u64', 'i32', 'i32', 'i32', 'i64'], return: 'u64' },
  madvise: { arguments: ['u64', 'u64', 'i32'], return: 'i32' },
  memfd_create: { arguments: ['pointer', 'u32'], return: 'i32' },
  ftruncate: { arguments: ['i32', 'i64'], return: 'i32' },
  fcntl: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
  flock: { arguments: ['i32', 'i32'], return: 'i32' },
  close: { arguments: ['i32'], return: 'i32' },
  read: { arguments: ['i32', 'u64', 'u32'], return: 'i32' },
  write: { arguments: ['i32', 'u64', 'u32'], return: 'i32' },
  writev: { arguments: ['i32', 'pointer', 'i32'], return: 'i32' },
  eventfd: { arguments: ['u32', 'i32'], return: 'i32' },
  pipe2: { arguments: ['pointer', 'i32'], return: 'i32' },
  epoll_create1: { arguments: ['i32'], return: 'i32' },
  epoll_ctl: { arguments: ['i32', 'i32', 'i32', 'pointer'], return: 'i32' },
  epoll_wait: { arguments: ['i32', 'u64', 'i32', 'i32'], return: 'i32' },
  poll: { arguments: ['u64', 'u32', 'i32'], return: 'i32' },
  ppoll: { arguments: ['u64', 'u32', 'u64', 'u64'], return: 'i32' },
  socket: { arguments: ['i32', 'i32', 'i32'], return: 'i32' },
  socketpair: { arguments: ['i32', 'i32', 'i32', 'pointer'], return: 'i32' },
  bind: { arguments: ['i32', 'pointer', 'u32'], return: 'i32' },
  listen: { arguments: ['i32', 'i32'], return: 'i32' },
  accept4: { arguments: ['i32', 'pointer', 'pointer', 'i32'], return: 'i32' },
  connect: { arguments: ['i32', 'pointer', 'u32'], return: 'i32' },
  getsockname: { arguments: ['i32', 'pointer', 'pointer'], return: 'i32' },
  getpeername: { arguments: ['i32', 'pointer', 'pointer'], return: 'i32' },
  sendmsg: { arguments: ['i32', 'u64', 'i32'], return: 'i32' },
  recvmsg: { arguments: ['i32', 'u64', 'i32'], return: 'i32' },
  setsockopt: { arguments: ['i32', 'i32', 'i32', 'pointer', 'u32'], return: 'i32' },
  getsockopt: { arguments: ['i32', 'i32', 'i32', 'pointer', 'pointer'], return: 'i32' },
  ioctl: { arguments: ['i32', 'u32', 'pointer'], return: 'i32' },
  fcntl64: { arguments: ['i32', 'i32', 'pointer'], return: 'i32' },
  fdatasync: { arguments: ['i32'], return: 'i32' },
  fallocate: { arguments: ['i32', 'i32', 'i64', 'i64'], return: 'i32' },
  preadv2: { arguments: ['i32', 'u64', 'i32', 'i64', 'i32'], return: 'i64' },
  pwritev2: { arguments: ['i32', 'u64', 'i32', 'i64', 'i32'], return: 'i64' },
  statx: { arguments: ['i32', 'pointer', 'i32', 'u32', 'pointer'], return: 'i32' },
  sched_setaffinity: { arguments: ['i32', 'u32', 'pointer'], return: 'i32' },
  // It has no parameter, and ignores this one: a hot call without arguments ends the process when V8
  // compiles it ("Check failed: FastApiCallNode::ArityForArgc", Node 26.10).
  sched_yield: { arguments: ['i32'], return: 'i32' },
});

export const libc = functions;

// What the C library has no function for, by number. One symbol has one signature a library handle:
// this one is for calls that set something up, the next for io_uring_enter(2), which is made while
// requests flow.
const { functions: numbered } = ffi.dlopen('libc.so.6', {
  syscall: { arguments: ['i64', 'u64', 'u64', 'u64', 'u64'], return: 'i64' },
});

/** syscall(2): a system call by its number, with up to four arguments. -1 with errno on failure. */
export function systemCall(
  number: number,
  a: number | bigint,
  b: number | bigint,
  c = 0n,
  d = 0,
): number {
  return Number(numbered.syscall(BigInt(number), BigInt(a), BigInt(b), c, BigInt(d)));
}

const { functions: entering } = ffi.dlopen('libc.so.6', {
  syscall: { arguments: ['i32', 'i32', 'u32', 'u32', 'u32', 'u64', 'u64'], return: 'i32' },
});

const { functions: submitting } = ffi.dlopen('libc.so.6', {
  syscall: { arguments: ['i32', 'u64', 'i32', 'u64'], return: 'i32' },
});

/** syscall(2) for io_submit(2): number, context, iocbs, pointer to the list of their pointers. */
export const submitCall = submitting.syscall;

/** syscall(2) for io_uring_enter(2): number, descriptor, to submit, to wait for, flags, 0n, 0n. */
export const enterCall = entering.syscall;

const errnoMemory = ffi.toArrayBuffer(functions.__errno_location(), 4, false);

/**
 * The calling thread's errno is `errno[0]`, after a call that returned -1. To be read by the function
 * that made the call, at once: where a function begins or a loop goes round V8 may do work of its own
 * (collect garbage, install code), and what that asks of the kernel leaves its errors here too.
 */
export const errno = new Int32Array(errnoMemory) as Int32Array & { readonly 0: number };

/** `ENOENT` and its like for a positive error number. */
export function errnoName(number: number): string {
  return getSystemErrorName(-number);
}

/** The error that errno describes. `subject` is the path, name or descriptor the call was about. */
export function systemError(syscall: string, subject: string): SystemError {
  const number = errno[0];
  return new SystemError(number, errnoName(number), syscall, subject);
}

/** Passes a result through unless it is -1, which becomes a {@link SystemError}. */
export function check(result: number, syscall: string, subject: string): number {
  if (result === -1) throw systemError(syscall, subject);
  return result;
}

/** Error numbers that callers branch on (asm-generic/errno-base.h, errno.h: one set on Linux). */
export const EINTR = 4;
export const EIO = 5;
export const EBADF = 9;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EFAULT = 14;
export const EBUSY = 16;
export const EINVAL = 22;
export const EPIPE = 32;
export const ENOSYS = 38;
export const EOPNOTSUPP = 95;
export const ECONNRESET = 104;

/** A zero-terminated UTF-8 string. */
export function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`, 'utf8');
}

/**
 * Memory whose address does not move while the returned buffer lives: for structures that hold
 * pointers to other structures. (A small typed array may live on the moving heap.)
 */
export function pinned(bytes: number): { readonly buffer: ArrayBuffer; readonly address: bigint } {
  const buffer = new ArrayBuffer(bytes);
  return { buffer, address: ffi.getRawPointer(buffer) };
}

/** An ArrayBuffer over memory at `address` that somebody else owns. */
export function bufferAt(address: bigint, bytes: number): ArrayBuffer {
  return ffi.toArrayBuffer(address, bytes, false);
}

/** Where the bytes of a buffer lie. Only for memory that does not move ({@link pinned}, mappings). */
export function addressOf(buffer: ArrayBuffer | SharedArrayBuffer): bigint {
  return ffi.getRawPointer(new Uint8Array(buffer));
}
