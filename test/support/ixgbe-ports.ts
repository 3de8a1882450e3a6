/**
 * A lane with ports of an 82599 behind vfio-user sockets, all on one switch, for tests with real
 * guests: a process of its own, because a poll loop runs no event loop of Node's.
 *
 *     node ixgbe-ports.ts [--trapped] SOCKET …
 *
 * Port N of the command line has the address 52:54:00:00:99:0N. With `--trapped` no page of registers is
 * mapped: each access is a message. Prints `ready`, then the log.
 */
import { writeSync } from 'node:fs';
import { loggerTo } from '../../src/base/log.ts';
import { PhysicalFunction } from '../../src/device/ixgbe/physical-function.ts';
import { Arena } from '../../src/memory/arena.ts';
import { DmaFiles } from '../../src/memory/dma-files.ts';
import type { Burst } from '../../src/net/burst.ts';
import { createDataPath } from '../../src/net/data-path.ts';
import { PortPolicy } from '../../src/net/policy.ts';
import type { Port } from '../../src/net/port.ts';
import { Switch } from '../../src/net/switch.ts';
import { PollLoop } from '../../src/os/poll-loop.ts';
import { VfioUserServer } from '../../src/transport/vfio-user/server.ts';

/** The port's place on the switch. */
function plug(port: PhysicalFunction, lan: Switch): void {
  const place: Port = {
    name: port.name,
    counters: port.counters,
    offloads: 0,
    deliver: (burst: Burst, frames: Uint8Array, count: number, tagged: boolean) =>
      port.deliver(burst, frames, count, tagged),
    flush: () => port.flush(),
  };
  port.uplink = {
    send: (_from, burst) => lan.forward(place, burst),
    publish: () => lan.publish(),
  };
  lan.addPort(place, new PortPolicy({}, 0));
}

const mapped = !process.argv.includes('--trapped');
const sockets = process.argv.slice(2).filter((argument) => argument !== '--trapped');
const arena = Arena.create();
const loop = new PollLoop();
const path = createDataPath(arena, loop);
const files = new DmaFiles(arena);
const lan = new Switch('lan', path);
const log = loggerTo((level, message) => writeSync(1, `${level}: ${message}\n`));
for (const [index, socket] of sockets.entries()) {
  const port = new PhysicalFunction({
    name: `nic0/${index}`,
    path,
    mac: Uint8Array.of(0x52, 0x54, 0, 0, 0x99, index),
    port: (index & 1) === 0 ? 0 : 1,
    mapped,
  });
  plug(port, lan);
  loop.addPoller(port);
  new VfioUserServer({ loop, log, path: socket, function: port, files });
}
writeSync(1, 'ready\n');
loop.run();
