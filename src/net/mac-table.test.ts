import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import { macHigh, macLow, parseMac } from './mac.ts';
import {
  LEARN_KNOWN,
  LEARN_MOVED,
  LEARN_NEW,
  LEARN_REFUSED,
  MacTable,
  type MacTableOptions,
} from './mac-table.ts';

const SECOND = 1e9;

/** Station number n as a pair of numbers; even first byte. */
const low = (n: number): number => (n << 1) >>> 0;
const high = (n: number): number => (n * 7) & 0xffff;

function learn(table: MacTable, n: number, port: number, now: number, vlan = 0): number {
  return table.learn(low(n), high(n), vlan, port, now);
}
const lookup = (table: MacTable, n: number, vlan = 0): number =>
  table.lookup(low(n), high(n), vlan);

test('a station is found in its VLAN only, and follows its port', () => {
  const table = new MacTable();
  assert.equal(lookup(table, 1, 10), -1);
  assert.equal(learn(table, 1, 3, 0, 10), LEARN_NEW);
  assert.equal(learn(table, 1, 3, 1, 10), LEARN_KNOWN);
  assert.equal(lookup(table, 1, 10), 3);
  assert.equal(lookup(table, 1, 11), -1);
  assert.equal(lookup(table, 1, 0), -1);
  const { generation } = table;
  assert.equal(learn(table, 1, 4, 2, 10), LEARN_MOVED);
  assert.equal(lookup(table, 1, 10), 4);
  assert.notEqual(table.generation, generation);
  assert.deepEqual([table.moved, table.count], [1, 1]);
});

test('addresses above 2^31 and the highest VLAN are told apart', () => {
  const table = new MacTable();
  const mac = parseMac('fe:ff:ff:ff:ff:ff');
  table.learn(macLow(mac), macHigh(mac), 4094, 7, 0);
  assert.equal(table.lookup(macLow(mac), macHigh(mac), 4094), 7);
  assert.deepEqual(table.list(5), [
    { mac: 'fe:ff:ff:ff:ff:ff', vlan: 4094, port: 7, static: false, age: 5 },
  ]);
});

test('a multicast source is not learned', () => {
  const table = new MacTable();
  assert.equal(table.learn(0x01, 0, 0, 1, 0), LEARN_REFUSED);
  assert.equal(table.count, 0);
});

test('static entries are not moved, aged or replaced', () => {
  const table = new MacTable({ entries: 8, entriesPerPort: 8 });
  learn(table, 1, 2, 0);
  table.addStatic(low(1), high(1), 0, 5);
  assert.equal(learn(table, 1, 2, 1), LEARN_REFUSED);
  assert.equal(table.sweep(1000 * SECOND), 0);
  for (let n = 2; n < 500; n++) learn(table, n, 2, n);
  assert.equal(lookup(table, 1), 5);
  assert.ok(table.count <= 8);
  assert.equal(table.learnedBy[5], 0);
  table.addStatic(low(1), high(1), 0, 6);
  assert.equal(lookup(table, 1), 6);
  assert.equal(table.remove(low(1), high(1), 0), true);
  assert.equal(table.remove(low(1), high(1), 0), false);
});

test('static entries beyond the table are refused with a remedy', () => {
  const table = new MacTable({ entries: 8 });
  assert.throws(
    () => {
      for (let n = 0; n < 9; n++) table.addStatic(low(n), high(n), 0, 1);
    },
    (error) => error instanceof SluiceError && error.code === 'state' && error.remedy !== undefined,
  );
  assert.equal(table.count, 8);
  assert.equal(learn(table, 100, 2, 0), LEARN_REFUSED);
  assert.equal(table.refused, 1);
});

test('a table size that is no power of two is refused', () => {
  for (const entries of [0, 4, 100]) assert.throws(() => new MacTable({ entries }), SluiceError);
});

test('removing a port forgets its stations and no others', () => {
  const table = new MacTable();
  for (let n = 0; n < 100; n++) learn(table, n, n % 3, 0);
  table.addStatic(low(200), high(200), 0, 1);
  assert.equal(table.removePort(1), 34);
  for (let n = 0; n < 100; n++) assert.equal(lookup(table, n), n % 3 === 1 ? -1 : n % 3);
  assert.equal(lookup(table, 200), -1);
  assert.deepEqual([...table.learnedBy.subarray(0, 3)], [34, 0, 33]);
});

test('a full table replaces the oldest and keeps its bound', () => {
  const table = new MacTable({ entries: 64, entriesPerPort: 64, seed: 1 });
  for (let n = 0; n < 1000; n++) {
    assert.equal(learn(table, n, n & 7, n), LEARN_NEW);
    assert.ok(table.count <= 64);
    assert.equal(lookup(table, n), n & 7);
  }
  assert.equal(table.count, 64);
  assert.equal(table.replaced, 1000 - 64);
});

test('a guest that floods addresses displaces none of the others', () => {
  fc.assert(
    fc.property(fc.integer(), fc.integer({ min: 1, max: 400 }), (seed, stations) => {
      const table = new MacTable({ entries: 2048, seed: seed >>> 0 });
      for (let n = 0; n < stations; n++) learn(table, n, 1 + (n & 7), n);
      const known = Array.from({ length: stations }, (_, n) => lookup(table, n));
      for (let n = 0; n < 20_000; n++) learn(table, 1_000_000 + n, 0, 1000 + n);
      assert.ok((table.learnedBy[0] as number) <= table.entriesPerPort);
      // Only a bucket that others had filled could have lost one of theirs.
      const lost = known.filter((port, n) => port !== -1 && lookup(table, n) !== port);
      assert.ok(lost.length <= 1, `${lost.length} stations of others were displaced`);
      assert.ok(table.replaced + table.refused > 10_000);
    }),
    { numRuns: 20 },
  );
});

test('a port at its limit cannot take over stations of another port', () => {
  const table = new MacTable({ entries: 64, entriesPerPort: 2 });
  learn(table, 1, 0, 0);
  learn(table, 2, 0, 0);
  learn(table, 3, 1, 0);
  assert.equal(learn(table, 3, 0, 1), LEARN_REFUSED);
  assert.equal(lookup(table, 3), 1);
});

type Step =
  | { readonly kind: 'learn'; readonly n: number; readonly vlan: number; readonly port: number }
  | { readonly kind: 'static'; readonly n: number; readonly vlan: number; readonly port: number }
  | { readonly kind: 'remove'; readonly n: number; readonly vlan: number }
  | { readonly kind: 'removePort'; readonly port: number }
  | { readonly kind: 'wait'; readonly seconds: number };

const station = { n: fc.nat(30), vlan: fc.constantFrom(0, 1, 10, 4094) };
const port = fc.nat(5);
const steps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('learn' as const), ...station, port }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('static' as const), ...station, port }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), ...station }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('removePort' as const), port }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait' as const), seconds: fc.nat(40) }) },
);

test('the table agrees with a simple model', () => {
  const options: MacTableOptions = { entries: 4096, ageing: 60 };
  fc.assert(
    fc.property(fc.array(steps, { maxLength: 80 }), (run) => {
      const table = new MacTable(options);
      const model = new Map<string, { port: number; heard: number; static: boolean }>();
      let now = 0;
      for (const step of run) {
        now += SECOND / 4;
        switch (step.kind) {
          case 'learn': {
            learn(table, step.n, step.port, now, step.vlan);
            const key = `${step.n}/${step.vlan}`;
            if (model.get(key)?.static !== true)
              model.set(key, { port: step.port, heard: now, static: false });
            break;
          }
          case 'static':
            table.addStatic(low(step.n), high(step.n), step.vlan, step.port);
            model.set(`${step.n}/${step.vlan}`, { port: step.port, heard: now, static: true });
            break;
          case 'remove':
            assert.equal(
              table.remove(low(step.n), high(step.n), step.vlan),
              model.delete(`${step.n}/${step.vlan}`),
            );
            break;
          case 'removePort': {
            const keys = [...model].filter(([, entry]) => entry.port === step.port);
            for (const [key] of keys) model.delete(key);
            assert.equal(table.removePort(step.port), keys.length);
            break;
          }
          case 'wait': {
            now += step.seconds * SECOND;
            const old = [...model].filter(([, e]) => !e.static && e.heard <= now - 60 * SECOND);
            for (const [key] of old) model.delete(key);
            assert.equal(table.sweep(now), old.length);
            break;
          }
        }
        assert.equal(table.count, model.size);
      }
      for (let n = 0; n <= 30; n++) {
        for (const vlan of [0, 1, 10, 4094])
          assert.equal(lookup(table, n, vlan), model.get(`${n}/${vlan}`)?.port ?? -1);
      }
      assert.equal(table.list(now).length, model.size);
    }),
  );
});
