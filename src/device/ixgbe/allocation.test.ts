import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { getHeapStatistics } from 'node:v8';
import { Arena } from '../../memory/arena.ts';
import type { DmaSpace } from '../../memory/dma.ts';
import { createDataPath } from '../../net/data-path.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { TEST_BASE } from '../e1000/testing.ts';
import { QueueRig } from './testing-queue.ts';

/** Until the engine has compiled all of it. */
const WARM_UP = 3000;
const ROUNDS = 500;
const FRAMES = 255;
const ENTRIES = 256;
const TWO_32 = 4294967296;
/** A number on the heap takes 16. V8 counts its own memory too. */
const MOST_BYTES_A_FRAME = 12;

const arena = Arena.create();

for (const inRuns of [true, false]) {
  test(`frames ${inRuns ? 'in runs' : 'one by one'} leave nothing on the heap`, (t) =>
    check(t, inRuns));
}

function check(t: TestContext, inRuns: boolean): void {
  const path = createDataPath(arena, new PollLoop());
  const rig = new QueueRig(path, arena);
  const { memory, transmit, receive } = rig;
  // The guest's memory, above 4 GiB.
  const high: DmaSpace = {
    generation: 0,
    logging: false,
    onDone: undefined,
    translate: (iova, length, write) => memory.translate(iova - TWO_32, length, write),
    span: (iova, write, into) => {
      if (!inRuns || !memory.span(iova - TWO_32, write, into)) return false;
      into[0] = (into[0] as number) + TWO_32;
      into[1] = (into[1] as number) + TWO_32;
      into[2] = (into[2] as number) - TWO_32;
      return true;
    },
    read: () => assert.fail('read'),
    write: () => assert.fail('write'),
    fault: () => assert.fail('fault'),
    markWritten: () => assert.fail('markWritten'),
  };
  rig.device.connect(high);
  rig.startTransmit(ENTRIES);
  rig.startReceive({ entries: ENTRIES });
  rig.setTx('TDBAH', 1);
  rig.setRx('RDBAH', 1);
  for (let i = 0; i < FRAMES; i++) {
    const bytes = Buffer.alloc(60 + 5 * i, i);
    rig.descriptor(rig.place(bytes), 0x2b30_0000 | bytes.length, 0, 1);
  }
  const ring = memory.bytes(TEST_BASE + 0x1_0000, 16 * ENTRIES);
  const words = new Uint32Array(ring.buffer, ring.byteOffset, 4 * ENTRIES);
  const all = new Uint8Array(arena.buffer, path.tables.take(), BATCH);
  for (let i = 0; i < BATCH; i++) all[i] = i;
  const sink = {
    send: (burst: typeof rig.path.burst): void => {
      const { headerAt, headerLength, slotsAt } = burst;
      const first = receive.putRun(burst, all, 0, burst.count, 0, false, 0);
      put += first;
      for (let i = first; i < burst.count; i++) {
        const at = (headerAt[i] as number) - slotsAt + NET_HEADER_BYTES;
        receive.put(burst, i, at, (headerLength[i] as number) - NET_HEADER_BYTES, 0, 0, 0, 0);
      }
      burst.copies.flush();
    },
    publish: (): void => receive.writeBack(),
  };
  let put = 0;
  const first = rig.buffer(0);
  const round = (): void => {
    for (let i = 0; i < ENTRIES; i++) {
      words[4 * i] = first + 2048 * i;
      words[4 * i + 1] = 1;
      words[4 * i + 2] = 0;
    }
    rig.setRx('RDH', 0);
    rig.setRx('RDT', FRAMES);
    rig.setTx('TDH', 0);
    rig.setTx('TDT', FRAMES);
    while (transmit.pending) transmit.poll(sink);
  };
  for (let i = 0; i < WARM_UP; i++) round();
  const before = getHeapStatistics().total_allocated_bytes;
  for (let i = 0; i < ROUNDS; i++) round();
  const used = getHeapStatistics().total_allocated_bytes - before;
  assert.equal(rig.counts.received, (WARM_UP + ROUNDS) * FRAMES);
  assert.equal(rig.counts.missed, 0);
  assert.equal(put, inRuns ? rig.counts.received : 0);
  const each = used / (ROUNDS * FRAMES);
  t.diagnostic(`${each.toFixed(2)} bytes a frame`);
  assert.ok(each < MOST_BYTES_A_FRAME, `${each} bytes a frame`);
}
