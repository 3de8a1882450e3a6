/** What all ports of one lane share: its memory, its one burst, its copies, its loop. */
import { Arena, type ArenaHandle } from '../memory/arena.ts';
import { CopyQueue } from '../memory/copy.ts';
import type { PollLoop } from '../os/poll-loop.ts';
import { Burst } from './burst.ts';
import { Scatter } from './scatter.ts';

export interface DataPath {
  readonly arena: Arena;
  readonly copies: CopyQueue;
  /** The burst on its way now: a lane does one thing at a time. */
  readonly burst: Burst;
  readonly scatter: Scatter;
  readonly loop: PollLoop;
}

/** The data path of a lane. */
export function createDataPath(arena: Arena | ArenaHandle, loop: PollLoop): DataPath {
  const own = arena instanceof Arena ? arena : Arena.attach(arena);
  const copies = new CopyQueue(own);
  return { arena: own, copies, burst: new Burst(own, copies), scatter: new Scatter(copies), loop };
}
