import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SharedMapping } from '../../os/mapping.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { NO_DMA } from '../../pci/testing.ts';
import { Bench, type ScratchFunction } from '../../transport/vfio-user/testing.ts';
import type { PciBus } from './bus.ts';
import { DirectBus } from './testing.ts';
import { VfioUserBus } from './vfio-user-bus.ts';

/** BAR 2 of the scratch function has four pages, of which the second can be mapped. */
const BAR = 2;
const PAGE = 4096;

function checkWindows(bus: PciBus, { sharedFd, calls }: ScratchFunction): void {
  const own = new SharedMapping(sharedFd, PAGE, PAGE);
  const words = new Uint32Array(own.buffer);
  const window = bus.window(BAR, PAGE + 64, 64);
  assert.ok(window !== undefined);
  assert.equal(window.length, 16);
  const before = calls.length;
  window[2] = 0xfeed_beef;
  assert.equal(words[18], 0xfeed_beef, 'the function sees what is stored');
  words[16] = 7;
  assert.equal(window[0], 7);
  assert.equal(calls.length, before, 'nobody is told');
  const again = bus.window(BAR, PAGE, PAGE);
  assert.equal(again?.[18], 0xfeed_beef, 'all windows are onto one memory');
  for (const [offset, bytes] of [
    [0, 64],
    [PAGE - 4, 8],
    [2 * PAGE - 4, 8],
    [2 * PAGE, 4],
  ] as const) {
    assert.equal(bus.window(BAR, offset, bytes), undefined, `${bytes} bytes at ${offset}`);
  }
  assert.equal(bus.window(0, 0, 4), undefined, 'a BAR without areas');
  bus.close();
  words[16] = 9;
  assert.equal(window[0], 0, 'what was given back is nothing of the function any more');
  own.release();
}

describe('registers that may be mapped', () => {
  test('of a function in the same thread', () => {
    const bench = new Bench();
    checkWindows(new DirectBus(bench.function, NO_DMA), bench.function);
    bench.close();
  });

  test('of a function behind a socket', () => {
    const bench = new Bench({ socket: true });
    const loop = new PollLoop();
    checkWindows(new VfioUserBus(bench.client, loop, () => undefined), bench.function);
    bench.close();
    loop.close();
  });
});
