/** What all ports of one lane share: its memory, its one burst, its copies, its loop. */
import { Arena, type ArenaHandle } from '../memory/arena.ts';
import { CopyQueue, FRAME_TABLE } from '../memory/copy.ts';
import { Slab } from '../memory/slab.ts';
import type { PollLoop } from '../os/poll-loop.ts';
import { BATCH } from '../ring/chain-batch.ts';
import { Burst } from './burst.ts';
import { Scatter } from './scatter.ts';
import { SoftwareOffload } from './software-offload.ts';

export interface DataPath {
  readonly arena: Arena;
  readonly copies: CopyQueue;
  /** The burst on its way now: a lane does one thing at a time. */
  readonly burst: Burst;
  readonly scatter: Scatter;
  /** Makes frames fit for receivers without offloads, one frame at a time. */
  readonly software: SoftwareOffload;
  /** Arena address of the numbers 0 to 64 as 16-bit words: what num_buffers is copied from. */
  readonly countsAt: number;
  /** Frame tables: of buffers that were read ahead, and whatever else WebAssembly is to see. */
  readonly tables: Slab;
  readonly loop: PollLoop;
}

/** The data path of a lane. */
export function createDataPath(arena: Arena | ArenaHandle, loop: PollLoop): DataPath {
  const own = arena instanceof Arena ? arena : Arena.attach(arena);
  const copies = new CopyQueue(own);
  return {
    arena: own,
    copies,
    burst: new Burst(own, copies),
    scatter: new Scatter(copies),
    software: new SoftwareOffload(own, copies),
    countsAt: layOutCounts(own),
    tables: new Slab(own, FRAME_TABLE.size, 'sluice-frame-tables'),
    loop,
  };
}

function layOutCounts(arena: Arena): number {
  const at = arena.allocate((BATCH + 1) * Uint16Array.BYTES_PER_ELEMENT, 'sluice-counts');
  new Uint16Array(arena.buffer, at, BATCH + 1).set(Array.from({ length: BATCH + 1 }, (_, i) => i));
  return at;
}
