import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GuardedPoller } from '../engine/guard.ts';
import type { DmaSpace } from '../memory/dma.ts';
import { NO_DMA } from '../pci/testing.ts';
import { ScratchFunction } from '../transport/vfio-user/testing.ts';
import { GuardedFunction } from './guarded-function.ts';

/** Every way in that a transport has. */
const ENTRIES: Readonly<Record<string, (fn: GuardedFunction) => unknown>> = {
  readConfig: (fn) => fn.readConfig(0, 2),
  writeConfig: (fn) => fn.writeConfig(0, 2, 1),
  readBar: (fn) => fn.readBar(0, 0, 1),
  writeBar: (fn) => fn.writeBar(0, 0, 4, 1),
  reset: (fn) => fn.reset(),
  resume: (fn) => fn.resume(),
  hold: (fn) => fn.hold(),
  detach: (fn) => fn.detach(),
  attach: (fn) =>
    fn.attach({ dma: { ...NO_DMA }, interrupts: SILENT, setBusMaster: () => undefined }),
};
const SILENT = {
  keepsMasks: true,
  setIntx: () => undefined,
  signalMsi: () => undefined,
  signalMsix: () => undefined,
};
/** What a function that failed answers: a bus without it reads ones. */
const ANSWERS: Readonly<Record<string, unknown>> = {
  readConfig: 0xffff,
  readBar: 0xff,
  hold: false,
};

function guarded(breakAt?: string) {
  const inner = new ScratchFunction();
  inner.close();
  const called: string[] = [];
  const failures: unknown[] = [];
  const guard = new GuardedPoller(
    { poll: () => 0, arm: () => false, disarm: () => undefined },
    (error) => failures.push(error),
  );
  const watched = new Proxy(inner, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== 'function' || typeof name !== 'string' || !(name in ENTRIES))
        return value;
      return (...args: readonly unknown[]): unknown => {
        called.push(name);
        if (name === breakAt) throw new Error(`a bug in ${name}`);
        return Reflect.apply(value, target, args);
      };
    },
  });
  return { fn: new GuardedFunction(watched, guard), guard, called, failures };
}

for (const [name, enter] of Object.entries(ENTRIES)) {
  test(`a failure of ${name} ends the function once, and is not thrown`, () => {
    const { fn, guard, failures, called } = guarded(name);
    assert.equal(enter(fn), ANSWERS[name]);
    assert.equal(guard.failed, true);
    assert.deepEqual(failures.map(String), [`Error: a bug in ${name}`]);
    // From now on it is left alone; but it is to let go of its guest.
    const before = called.length;
    for (const other of ['readConfig', 'writeConfig', 'readBar', 'writeBar', 'reset', 'resume']) {
      ENTRIES[other]?.(fn);
    }
    assert.equal(called.length, before);
    fn.hold();
    fn.detach();
    assert.deepEqual(called.slice(before), ['hold', 'detach']);
    assert.equal(failures.length, 1);
  });
}

test('a function that works is reached as it is', () => {
  const { fn, failures } = guarded();
  fn.writeConfig(4, 2, 0x1234);
  assert.equal(fn.readConfig(4, 2), 0x1234);
  fn.writeBar(0, 8, 4, 0x5678_9abc);
  assert.equal(fn.readBar(0, 8, 4), 0x5678_9abc);
  assert.equal(fn.hold(), true);
  assert.equal(fn.configBytes, 4096);
  assert.deepEqual(fn.irqs, { intx: true, msi: 4, msix: 8 });
  assert.deepEqual(failures, []);
});

test('a failure when DMA is done ends the function, too', () => {
  const { fn, guard, failures } = guarded();
  const tags: number[] = [];
  const dma: DmaSpace = {
    ...NO_DMA,
    onDone: (tag) => {
      tags.push(tag);
      if (tag === 2) throw new Error('a bug when DMA is done');
    },
  };
  fn.attach({ dma, interrupts: SILENT, setBusMaster: () => undefined });
  dma.onDone?.(1, true);
  assert.equal(guard.failed, false);
  dma.onDone?.(2, false);
  assert.deepEqual(failures.map(String), ['Error: a bug when DMA is done']);
  // What was on its way is over also for one that has failed.
  dma.onDone?.(3, true);
  assert.deepEqual(tags, [1, 2, 3]);
});
