/** Takes frames and notes when it found them: the other end of a ping that measures how long one way takes. */
import { clock, readClock } from '../../os/clock.ts';
import { arrivals } from './arrivals.ts';
import type { Role, RoleContext, RoleCounts } from './role.ts';
import { NO_COUNTS } from './role.ts';
import { flowOf } from './test-frame.ts';

export class Watch implements Role {
  readonly drained = true;
  private readonly context: RoleContext;
  private received = 0;
  private receivedBytes = 0;

  constructor(context: RoleContext) {
    this.context = context;
  }

  poll(): number {
    const { pair, ram } = this.context;
    const { receive } = pair;
    const count = receive.receive();
    if (count === 0) return 0;
    readClock();
    for (let frame = 0; frame < count; frame++) {
      const length = receive.length[frame] as number;
      const flow = flowOf(ram, receive.offset[frame] as number, length);
      if (flow < 0) continue;
      arrivals[flow] = clock[0] as number;
      this.received++;
      this.receivedBytes += length;
    }
    receive.release();
    return count;
  }

  arm(): boolean {
    return this.context.pair.receive.queue.enableCalls();
  }

  disarm(): void {
    this.context.pair.receive.queue.disableCalls();
  }

  stop(): void {
    // It sends nothing.
  }

  counts(): RoleCounts {
    const { received, receivedBytes } = this;
    return { ...NO_COUNTS, received, receivedBytes };
  }
}
