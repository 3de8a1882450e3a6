import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { reserveHugePages } from './hugepages.ts';

let pool: string;
beforeEach(() => {
  pool = mkdtempSync(join(tmpdir(), 'sluice-hugepages-'));
});
afterEach(() => rmSync(pool, { recursive: true }));

const total = (): number => Number(readFileSync(`${pool}/nr_hugepages`, 'utf8'));

function setPool(pages: number, free: number): void {
  writeFileSync(`${pool}/nr_hugepages`, `${pages}\n`);
  writeFileSync(`${pool}/free_hugepages`, `${free}\n`);
}

test('what is missing is added and given back', () => {
  setPool(10, 4);
  const restore = reserveHugePages(15, pool);
  assert.equal(total(), 14);
  restore();
  assert.equal(total(), 10);
});

test('nothing is changed where enough are free', () => {
  setPool(10, 10);
  const restore = reserveHugePages(20, pool);
  assert.equal(total(), 10);
  setPool(3, 3);
  restore();
  assert.equal(total(), 3);
});

test('a number that somebody else has set since is left alone', () => {
  setPool(0, 0);
  const restore = reserveHugePages(2, pool);
  setPool(500, 500);
  restore();
  assert.equal(total(), 500);
});
