/** A sink, and beside it perhaps a source: what most guests do. */
import type { Role, RoleContext, RoleCounts } from './role.ts';
import { Sink, type SinkOptions } from './sink.ts';
import { Source, type SourceOptions } from './source.ts';

export class Traffic implements Role {
  private readonly context: RoleContext;
  private readonly sink: Sink;
  private readonly source: Source | undefined;

  constructor(context: RoleContext, sink: SinkOptions, source: SourceOptions | undefined) {
    this.context = context;
    this.sink = new Sink(context, sink);
    this.source = source === undefined ? undefined : new Source(context, source);
  }

  get drained(): boolean {
    return this.source?.drained ?? true;
  }

  poll(): number {
    const received = this.sink.poll();
    const { source } = this;
    return source === undefined ? received : received + source.poll();
  }

  arm(): boolean {
    const received = this.context.pair.receive.queue.enableCalls();
    const sendable = this.source?.arm() ?? false;
    return received || sendable;
  }

  disarm(): void {
    this.context.pair.receive.queue.disableCalls();
    this.source?.disarm();
  }

  stop(): void {
    this.source?.stop();
  }

  counts(): RoleCounts {
    const received = this.sink.counts();
    if (this.source === undefined) return received;
    const { sent, sentBytes, sentByFlow } = this.source.counts();
    return { ...received, sent, sentBytes, sentByFlow };
  }
}
