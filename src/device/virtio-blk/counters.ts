/** What a virtio-blk device counts. */
import { CounterBlock } from '../../base/counters.ts';
import { EOPNOTSUPP } from '../../os/libc.ts';

/** asm-generic/errno-base.h, errno.h */
const ENOSPC = 28;
const EDQUOT = 122;

/** Requests and bytes are counted when they have succeeded, errors by their reason. */
export const BLOCK_COUNTERS = [
  'reads',
  'read_bytes',
  'writes',
  'write_bytes',
  'flushes',
  'discards',
  'discard_bytes',
  'write_zeroes',
  'write_zeroes_bytes',
  /** Serial numbers and lifetimes that were asked for. */
  'queries',
  /** The disk failed the request: its errno is in the log. */
  'error_io',
  /** The disk or its file system is full. */
  'error_no_space',
  /** A type, flag or command that the device or the disk does not have. */
  'error_unsupported',
  /** Beyond the end of the disk, or more than a range may have. */
  'error_range',
  /** Not in whole blocks. */
  'error_alignment',
  /** A change of a readonly disk. */
  'error_readonly',
  /** A request that is not made as its type says. */
  'error_malformed',
  /** Turns in which a ring was not looked at because all slots for requests were in use. */
  'slot_waits',
  'kicks',
  'calls',
] as const;

export type BlockCounter = (typeof BLOCK_COUNTERS)[number];

/** Index of a counter in the block's `values`. */
export const BLOCK_COUNTER_INDEX = Object.fromEntries(
  BLOCK_COUNTERS.map((name, i) => [name, i]),
) as Readonly<Record<BlockCounter, number>>;

export function newBlockCounters(shared?: SharedArrayBuffer): CounterBlock<BlockCounter> {
  return new CounterBlock(BLOCK_COUNTERS, shared);
}

/** Index of the counter for a request that the disk failed with a negative errno. */
export function failureCounter(result: number): number {
  if (result === -EOPNOTSUPP) return BLOCK_COUNTER_INDEX.error_unsupported;
  const isFull = result === -ENOSPC || result === -EDQUOT;
  return isFull ? BLOCK_COUNTER_INDEX.error_no_space : BLOCK_COUNTER_INDEX.error_io;
}
