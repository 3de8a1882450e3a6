import assert from 'node:assert/strict';
import { test } from 'node:test';
import { testArena } from '../ring/ring-pair.ts';
import { DISK_READ, RequestTable } from './requests.ts';

test('segments are kept as arena addresses and as iovecs, slot by slot', () => {
  const arena = testArena();
  const table = new RequestTable(arena, 3, 2);
  const addresses = Float64Array.of(0, 0x1_2345_6780);
  try {
    table.begin(1, DISK_READ, 0, 4096, 300);
    assert.equal(table.add(1, 0x4_0000, 100), true);
    assert.equal(table.addFrom(1, addresses, 1, 8, 200), true);
    assert.equal(table.addFrom(1, addresses, 1, 0, 1), false);
    assert.equal(table.add(1, 0, 1), false);
    assert.equal(table.count[1], 2);
    const first = 1 * table.segments;
    assert.deepEqual([...table.address.subarray(first, first + 2)], [0x4_0000, 0x1_2345_6788]);
    assert.deepEqual([...table.length.subarray(first, first + 2)], [100, 200]);
    // struct iovec { void *base; size_t length }, as the kernel reads it.
    const at = table.iovecOf(1) - Number(arena.pointer(0));
    const words = [0, 8, 16, 24].map((offset) => arena.view.getBigUint64(at + offset, true));
    assert.deepEqual(words, [arena.pointer(0x4_0000), 100n, arena.pointer(0x1_2345_6788), 200n]);
    table.begin(1, DISK_READ, 0, 0, 0);
    assert.equal(table.count[1], 0);
  } finally {
    table.release();
  }
});
