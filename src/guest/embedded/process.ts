/**
 * The process of the embedded guests: one thread, one poll loop, started by the launcher. Its
 * standard input carries requests and is waited for like any other descriptor; when it ends, the
 * launcher has gone, and the process ends as well.
 *
 * Argument: a JSON object, {@link ProcessOptions}.
 */
import { readSync, writeSync } from 'node:fs';
import { Arena } from '../../memory/arena.ts';
import { pinThread } from '../../os/affinity.ts';
import { EPOLLIN } from '../../os/epoll.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { GuestHost } from './host.ts';
import type { ProcessOptions } from './launcher.ts';
import { LineReader } from './line-reader.ts';
import type { Message, Request } from './protocol.ts';
import { transportsOf } from './transports.ts';

const STDIN = 0;
const STDOUT = 1;

function send(message: Message): void {
  writeSync(STDOUT, `${JSON.stringify(message)}\n`);
}

const options = JSON.parse(process.argv[2] ?? '{}') as ProcessOptions;
if (options.cpus !== undefined) pinThread(options.cpus);
const loop = new PollLoop(
  options.idlePollUs === undefined ? {} : { idlePollUs: options.idlePollUs },
);
const arena = Arena.create();
const host = new GuestHost(arena, loop, transportsOf(loop), send);
const reader = new LineReader();
const input = Buffer.alloc(65536);

loop.epoll.add(STDIN, EPOLLIN, () => {
  const bytes = readSync(STDIN, input);
  if (bytes === 0) loop.stop();
  else {
    for (const line of reader.push(input.subarray(0, bytes))) {
      host.handle(JSON.parse(line) as Request);
    }
  }
});
send({ kind: 'ready' });
loop.run();
host.close();
loop.close();
