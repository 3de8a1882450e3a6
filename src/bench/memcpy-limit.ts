/**
 * What the machine's memory allows: frames copied from place to place by one thread that does
 * nothing else, over as much memory as the run that it is compared with goes through.
 *
 * The copy is the one of the data path (memory/copy.ts). It runs in a process of its own, since the
 * address space of an arena is never given back.
 */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { z } from 'zod';
import { alignUp } from '../base/bits.ts';
import { BufferPool } from '../driver/buffer-pool.ts';
import { Arena, WINDOW_BYTES } from '../memory/arena.ts';
import { CopyQueue } from '../memory/copy.ts';
import { monotonicNs } from '../os/clock.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';
import { gbps } from './statistics.ts';

export interface MemcpyWork {
  /** Bytes of one copy. */
  readonly frame: number;
  /** Bytes that the copies go through, source and destination together. */
  readonly footprint: number;
  /** Processors to run on; undefined leaves it to the kernel. */
  readonly cpus: readonly number[] | undefined;
  /** How many short windows there are, of which the fastest counts; {@link WINDOWS} unless given. */
  readonly windows?: number | undefined;
}

const WINDOWS = 8;
/** For one of many benches. */
export const BRIEF_WINDOWS = 4;
const WINDOW_NS = 40e6;

/** Gb/s of the fastest of some short windows: of a limit, what disturbs it is no part. */
export function measureMemcpy({
  frame,
  footprint,
  windows = WINDOWS,
}: Omit<MemcpyWork, 'cpus'>): number {
  const arena = Arena.create(WINDOW_BYTES);
  const copies = new CopyQueue(arena);
  const stride = BufferPool.bytesFor(1, NET_HEADER_BYTES + frame);
  const slots = Math.max(1, Math.floor(footprint / 2 / stride));
  const half = alignUp(slots * stride, 4096);
  const from = arena.allocate(half, 'sluice-bench');
  const to = arena.allocate(half, 'sluice-bench');
  // Memory has pages once it was written.
  arena.bytes.fill(0x5a, from, from + half);
  let best = 0;
  for (let window = 0; window < windows; window++) {
    const start = monotonicNs();
    let bytes = 0;
    let elapsed = 0;
    while (elapsed < WINDOW_NS) {
      for (let slot = 0; slot < slots; slot++) {
        copies.push(to + slot * stride, from + slot * stride, frame);
      }
      copies.flush();
      bytes += slots * frame;
      elapsed = monotonicNs() - start;
    }
    best = Math.max(best, gbps(bytes, elapsed / 1e9));
  }
  return best;
}

const run = promisify(execFile);
const answerSchema = z.strictObject({ gbps: z.number().positive() });

/** {@link measureMemcpy} in a process of its own. @returns Gb/s. */
export async function measureMemcpyLimit(work: MemcpyWork): Promise<number> {
  const entry = new URL('./memcpy-process.ts', import.meta.url);
  const { stdout } = await run(process.execPath, [
    '--disable-warning=ExperimentalWarning',
    fileURLToPath(entry),
    JSON.stringify(work),
  ]);
  return answerSchema.parse(JSON.parse(stdout)).gbps;
}
