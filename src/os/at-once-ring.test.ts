import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { AtOnceRing } from './at-once-ring.ts';
import { Epoll } from './epoll.ts';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FSYNC_DATASYNC,
  IO_FALLOCATE,
  IO_FSYNC,
  IO_READ,
  IO_READV,
  IO_WRITE,
  IO_WRITEV,
} from './io-ring.ts';
import { IoUring, ioUringRefusal } from './io-uring.ts';
import { EBADF, EFAULT } from './libc.ts';
import { ask, bytes, memory, results } from './testing.ts';

const ENTRIES = 8;

function withRing(body: (ring: AtOnceRing, path: string) => void, flags = 'r+'): void {
  const directory = mkdtempSync('/dev/shm/sluice-ring-');
  after(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'file');
  writeFileSync(path, Buffer.alloc(16384, 'abcdefg'));
  const file = openSync(path, flags);
  const epoll = new Epoll();
  const uring = new IoUring({ entries: ENTRIES, files: [file], epoll });
  const ring = new AtOnceRing(uring, file, ENTRIES);
  try {
    body(ring, path);
  } finally {
    ring.close();
    epoll.close();
    closeSync(file);
  }
}

describe('a ring of a file in memory', { skip: ioUringRefusal() ?? false }, () => {
  test('has done reads and writes when it has submitted them', () => {
    withRing((ring, path) => {
      bytes.write('hello', 200);
      ask(ring, { op: IO_READ, tag: 1, offset: 7, at: 100, length: 14 });
      ask(ring, { op: IO_WRITE, tag: 2, offset: 5000, at: 200, length: 5 });
      assert.equal(ring.waiting(), 2);
      ring.submit();
      assert.equal(ring.waiting(), 0);
      assert.equal(ring.ready(), 2);
      assert.equal(ring.arm(), true, 'there are results to be read');
      assert.deepEqual(results(ring, 2), [
        [1, 14],
        [2, 5],
      ]);
      assert.equal(ring.arm(), false);
      assert.equal(bytes.toString('utf8', 100, 114), 'abcdefgabcdefg');
      assert.equal(readFileSync(path).toString('utf8', 4999, 5006), 'bhelloa');
    });
  });

  test('scatters and gathers by lists of iovecs', () => {
    withRing((ring, path) => {
      const { address } = memory;
      const list = new BigUint64Array(memory.buffer, 0, 4);
      list.set([address + 1000n, 3n, address + 2000n, 4n]);
      ask(ring, { op: IO_READV, tag: 1, offset: 0, at: 0, length: 2 });
      ring.submit();
      assert.deepEqual(results(ring, 1), [[1, 7]]);
      assert.equal(bytes.toString('utf8', 1000, 1003), 'abc');
      assert.equal(bytes.toString('utf8', 2000, 2004), 'defg');
      ask(ring, { op: IO_WRITEV, tag: 2, offset: 701, at: 0, length: 2 });
      ring.submit();
      assert.deepEqual(results(ring, 1), [[2, 7]]);
      assert.equal(readFileSync(path).toString('utf8', 700, 709), 'aabcdefgb');
    });
  });

  test('leaves all else to io_uring, whose results come behind', () => {
    withRing((ring, path) => {
      const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      ask(ring, { op: IO_FALLOCATE, tag: 1, offset: 4096, words4: 4096, length: mode });
      ask(ring, { op: IO_READ, tag: 2, offset: 1, at: 0, length: 1 });
      ask(ring, { op: IO_FSYNC, tag: 3, flags: FSYNC_DATASYNC });
      ask(ring, { op: IO_READ, tag: 4, offset: 2, at: 1, length: 1 });
      ring.submit();
      assert.deepEqual(results(ring, 4), [
        [1, 0],
        [2, 1],
        [3, 0],
        [4, 1],
      ]);
      assert.equal(bytes.toString('utf8', 0, 2), 'bc');
      const content = readFileSync(path);
      assert.ok(content.subarray(4096, 8192).every((byte) => byte === 0));
      assert.notEqual(content[8192], 0);
    });
  });

  test('shows only what it has counted while more is submitted', () => {
    withRing((ring) => {
      ask(ring, { op: IO_FSYNC, tag: 1, flags: FSYNC_DATASYNC });
      ask(ring, { op: IO_READ, tag: 2, at: 0, length: 3 });
      ring.submit();
      while (ring.ready() < 2);
      assert.deepEqual([ring.tag(0), ring.result(0)], [2, 3]);
      ask(ring, { op: IO_READ, tag: 3, at: 0, length: 5 });
      ring.submit();
      assert.deepEqual([ring.tag(0), ring.result(0)], [2, 3]);
      assert.deepEqual([ring.tag(1), ring.result(1)], [1, 0]);
      ring.consume(2);
      assert.deepEqual(results(ring, 1), [[3, 5]]);
    });
  });

  test('gives a result for each entry, round and round', () => {
    withRing((ring) => {
      let tag = 0;
      for (let burst = 1; burst <= 300; burst++) {
        const count = 1 + (burst % ENTRIES);
        const first = tag;
        for (let i = 0; i < count; i++)
          ask(ring, { op: IO_READ, tag: tag++, at: i, length: i + 1 });
        if (count === ENTRIES) assert.equal(ring.take(), -1);
        ring.submit();
        const wanted = Array.from({ length: count }, (_, i) => [first + i, i + 1] as const);
        assert.deepEqual(results(ring, count), wanted);
      }
    });
  });

  test('gives errors as negative numbers, and does what stands around them', () => {
    withRing((ring, path) => {
      ask(ring, { op: IO_READ, tag: 1, at: 0, length: 2 });
      ask(ring, { op: IO_READ, tag: 2, words4: 4096, length: 10 });
      ask(ring, { op: IO_WRITE, tag: 3, at: 0, length: 10 });
      ask(ring, { op: IO_READV, tag: 4, words4: 4096, length: 1 });
      ask(ring, { op: IO_READ, tag: 5, at: 0, length: 4 });
      ring.submit();
      assert.deepEqual(results(ring, 5), [
        [1, 2],
        [2, -EFAULT],
        [3, -EBADF],
        [4, -EFAULT],
        [5, 4],
      ]);
      assert.equal(readFileSync(path).toString('utf8', 0, 7), 'abcdefg');
    }, 'r');
  });
});
