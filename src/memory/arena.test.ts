import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { MiB, TiB } from '../base/bits.ts';
import { closeFd } from '../os/fd.ts';
import { createMemfd, HUGE_PAGE } from '../os/mapping.ts';
import { Arena, WINDOW_BYTES } from './arena.ts';

describe('Arena', () => {
  test('shows a file at the address that it returns, offsets that are no page included', () => {
    const arena = Arena.create(64 * 1024 * MiB);
    const fd = createMemfd('test', 8 * MiB);
    const whole = arena.mapFile(fd, 8 * MiB, 0);
    for (const offset of [0, 1, 4096, HUGE_PAGE - 1, HUGE_PAGE + 5000]) {
      const part = arena.mapFile(fd, 1 * MiB, offset);
      arena.view.setUint32(part, 0xc0de0000 + offset, true);
      assert.equal(arena.view.getUint32(whole + offset, true), 0xc0de0000 + offset);
      arena.unmap(part, 1 * MiB);
    }
    closeFd(fd);
  });

  test('shows low addresses in the window too, at the same offset', () => {
    const arena = Arena.create(64 * 1024 * MiB);
    const at = arena.allocate(4096);
    assert.ok(at > 0 && at < WINDOW_BYTES);
    arena.view.setUint32(at + 100, 0x12345678, true);
    assert.equal(new DataView(arena.window.buffer).getUint32(at + 100, true), 0x12345678);
  });

  test('lays zeroes over what was unmapped, in both views', () => {
    const arena = Arena.create(64 * 1024 * MiB);
    const at = arena.allocate(4096);
    arena.bytes[at] = 1;
    arena.unmap(at, 4096);
    assert.equal(arena.bytes[at], 0);
    assert.equal(new Uint8Array(arena.window.buffer)[at], 0);
  });

  test('goes above the window when that is full, and back into it when there is room', () => {
    const arena = Arena.create(1 * TiB);
    const fd = createMemfd('test', 3 * 1024 * MiB);
    const first = arena.mapFile(fd, 3 * 1024 * MiB, 0);
    const second = arena.mapFile(fd, 3 * 1024 * MiB, 0);
    assert.ok(first < WINDOW_BYTES);
    assert.ok(second >= WINDOW_BYTES);
    arena.view.setUint8(second + 5, 77);
    assert.equal(arena.view.getUint8(first + 5), 77);
    arena.unmap(first, 3 * 1024 * MiB);
    assert.equal(arena.mapFile(fd, 3 * 1024 * MiB, 0), first);
    closeFd(fd);
  });

  test('says so when the address space is used up', () => {
    const arena = Arena.create(WINDOW_BYTES + 18 * MiB);
    const fd = createMemfd('test', WINDOW_BYTES);
    assert.throws(() => arena.mapFile(fd, WINDOW_BYTES, 0), { code: 'memory' });
    closeFd(fd);
  });

  test('gives out ranges that never overlap, whatever is given back in between', () => {
    const arena = Arena.create(WINDOW_BYTES + 1024 * MiB);
    const fd = createMemfd('test', 64 * MiB);
    fc.assert(
      fc.property(
        fc.array(fc.record({ size: fc.integer({ min: 1, max: 64 * MiB }), drop: fc.nat(5) }), {
          maxLength: 40,
        }),
        (steps) => {
          const held: { at: number; size: number }[] = [];
          for (const { size, drop } of steps) {
            const at = arena.mapFile(fd, size, 0);
            for (const other of held)
              assert.ok(at >= other.at + other.size || at + size <= other.at);
            held.push({ at, size });
            if (drop === 0) {
              const gone = held.shift();
              if (gone !== undefined) arena.unmap(gone.at, gone.size);
            }
          }
          for (const { at, size } of held) arena.unmap(at, size);
        },
      ),
      { numRuns: 30 },
    );
    closeFd(fd);
  });

  test('is one address space for all threads, each with a part of its own', async () => {
    const [mine, theirs] = Arena.split(2, 64 * 1024 * MiB);
    assert.ok(mine !== undefined && theirs !== undefined);
    const arena = Arena.attach(mine);
    const at = arena.allocate(4096);
    arena.bytes[at] = 42;
    const worker = new Worker(
      `const { workerData, parentPort } = require('node:worker_threads');
       import(workerData.url).then(({ Arena }) => {
         const arena = Arena.attach(workerData.handle);
         const own = arena.allocate(4096);
         arena.bytes[own] = arena.bytes[workerData.at] + 1;
         parentPort.postMessage(own);
       });`,
      {
        eval: true,
        workerData: { url: new URL('./arena.ts', import.meta.url).href, handle: theirs, at },
      },
    );
    const own = await new Promise<number>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    assert.notEqual(own, at);
    assert.equal(arena.bytes[own], 43);
    await worker.terminate();
  });
});
