/**
 * A client of a vfio-user function that only traps: reads of a register, one after the other, each
 * timed. A process of its own, because client and lane are to be on processors of their own choice.
 *
 *   node trap-client.ts SOCKET PROCESSOR TRAPS    prints a JSON object: median and p99 in µs
 */
import { pinThread } from '../../src/os/affinity.ts';
import { REGION_CONFIG } from '../../src/spec/vfio-user.ts';
import { VfioUserClient } from '../../src/transport/vfio-user/client.ts';

/** Traps before those that count: code is compiled. */
const WARMUP = 5000;

const [socket = '', cpu, traps] = process.argv.slice(2);
pinThread([Number(cpu)]);
const client = VfioUserClient.connect(socket);
client.negotiate();
for (let i = 0; i < WARMUP; i++) client.read(REGION_CONFIG, 0, 4);
const times = new Float64Array(Number(traps));
for (let i = 0; i < times.length; i++) {
  const start = performance.now();
  client.read(REGION_CONFIG, 0, 4);
  times[i] = (performance.now() - start) * 1e3;
}
client.close();
times.sort();
const at = (part: number): number => times[Math.floor(part * (times.length - 1))] as number;
console.log(JSON.stringify({ median: at(0.5), p99: at(0.99) }));
