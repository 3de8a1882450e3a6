/** Who is told of which access, and what a reset does to those on their way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MiB } from '../base/bits.ts';
import { Arena } from '../memory/arena.ts';
import { DMA_PENDING, DMA_REFUSED } from '../memory/dma.ts';
import { DeviceMemory, iova, withinPage } from './device-memory.ts';
import { TEST_BASE, TestMemory } from './e1000/testing.ts';

const arena = Arena.create();
const lane = arena.allocate(4096);

for (const clients of [1, 2, 3, 256]) {
  test(`${clients} clients are told of their own accesses`, () => {
    const space = new TestMemory(arena, 2 * MiB);
    const memory = new DeviceMemory(arena, clients);
    memory.connect(space);
    space.reach = 'remote';
    const told: number[] = [];
    for (let who = 0; who < clients; who++) {
      memory.setClient(who, { completed: () => told.push(who) });
    }
    for (const turn of [0, 1]) {
      for (let who = 0; who < clients; who++) {
        assert.equal(memory.read(who, TEST_BASE, 16, lane), DMA_PENDING);
      }
      assert.equal(memory.busy, true);
      // Accesses from before a reset count for nothing, and nothing begins until they are over.
      if (turn === 1) memory.forget();
      assert.equal(memory.ready, turn === 0);
      let drained = 0;
      memory.onDrained = () => drained++;
      space.settle();
      assert.equal(drained, 1);
      assert.equal(memory.ready, true);
      assert.deepEqual(
        told.splice(0),
        turn === 0 ? Array.from({ length: clients }, (_, who) => who) : [],
      );
    }
  });
}

test('the epoch goes round without meeting a client’s number', () => {
  const space = new TestMemory(arena, 2 * MiB);
  const memory = new DeviceMemory(arena, 256);
  memory.connect(space);
  space.reach = 'remote';
  let told = 0;
  memory.setClient(255, { completed: () => told++ });
  for (let i = 0; i < 2 ** 23 + 3; i++) memory.forget();
  assert.equal(memory.read(255, TEST_BASE, 16, lane), DMA_PENDING);
  space.settle();
  assert.equal(told, 1);
});

test('descriptors of which a part was refused have not come', () => {
  const space = new TestMemory(arena, 2 * MiB);
  const memory = new DeviceMemory(arena, 2);
  memory.connect(space);
  space.reach = 'remote';
  const told: boolean[] = [];
  memory.setClient(1, { completed: (ok) => told.push(ok) });
  // A ring that begins before the guest's memory: what is behind its end is there, its beginning is not.
  const bring = (count: number): number => memory.bring(1, TEST_BASE - 32, 16, 8, 2, count, lane);
  assert.equal(bring(8), 2);
  space.settle();
  assert.equal(bring(6), 2);
  space.settle();
  assert.deepEqual(told, [false, true]);
  bring(8);
  memory.forget();
  space.settle();
  bring(6);
  space.settle();
  assert.deepEqual(told, [false, true, true], 'a reset forgets that, too');
});

test('an address that cannot be one is a fault', () => {
  const space = new TestMemory(arena, 2 * MiB);
  const memory = new DeviceMemory(arena, 2);
  memory.connect(space);
  assert.equal(iova(0, 0x20_0000), -1);
  assert.equal(iova(5, 1), 2 ** 32 + 5);
  assert.equal(memory.translate(-1, 16, true), -1);
  assert.equal(memory.write(0, -1, 16, lane), DMA_REFUSED);
  assert.equal(space.faults.length, 1);
  assert.equal(withinPage(4090, 100), 6);
  assert.equal(withinPage(4096, 100), 100);
});
