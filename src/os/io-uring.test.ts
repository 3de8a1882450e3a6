import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { SystemError } from '../base/errors.ts';
import { Epoll } from './epoll.ts';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FSYNC_DATASYNC,
  IO_FALLOCATE,
  IO_FSYNC,
  IO_NOP,
  IO_READ,
  IO_READV,
  IO_WRITE,
  RWF_DSYNC,
} from './io-ring.ts';
import { IoUring, ioUringRefusal } from './io-uring.ts';
import { EBADF } from './libc.ts';
import { ask, bytes, memory, results } from './testing.ts';

const directory = mkdtempSync(join(tmpdir(), 'sluice-ring-'));
after(() => rmSync(directory, { recursive: true }));

function withRing(
  body: (ring: IoUring, path: string, epoll: Epoll) => void,
  options: { readonly entries?: number; readonly setups?: readonly number[] } = {},
): void {
  const path = join(directory, 'file');
  writeFileSync(path, Buffer.alloc(16384, 'abcdefg'));
  const file = openSync(path, 'r+');
  const epoll = new Epoll();
  const ring = new IoUring({ entries: 8, files: [file], epoll, ...options });
  try {
    body(ring, path, epoll);
  } finally {
    ring.close();
    epoll.close();
    closeSync(file);
  }
}

describe('io_uring', { skip: ioUringRefusal() ?? false }, () => {
  test('reads, writes, syncs and punches holes', () => {
    withRing((ring, path) => {
      ask(ring, { op: IO_READ, tag: 1, offset: 7, at: 100, length: 14 });
      ring.submit();
      assert.deepEqual(results(ring, 1), [[1, 14]]);
      assert.equal(bytes.toString('utf8', 100, 114), 'abcdefgabcdefg');

      bytes.write('hello', 200);
      ask(ring, { op: IO_WRITE, tag: 2, offset: 5000, at: 200, length: 5, flags: RWF_DSYNC });
      ring.submit();
      assert.deepEqual(results(ring, 1), [[2, 5]]);
      ask(ring, { op: IO_FSYNC, tag: 3, flags: FSYNC_DATASYNC });
      const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      ask(ring, { op: IO_FALLOCATE, tag: 4, offset: 8192, words4: 4096, length: mode });
      ring.submit();
      assert.deepEqual(results(ring, 2), [
        [3, 0],
        [4, 0],
      ]);
      const content = readFileSync(path);
      assert.equal(content.toString('utf8', 4999, 5006), 'bhelloa');
      assert.ok(content.subarray(8192, 12288).every((byte) => byte === 0));
      assert.notEqual(content[12288], 0);
    });
  });

  test('scatters what it reads by a list of iovecs', () => {
    withRing((ring) => {
      new BigUint64Array(memory.buffer, 0, 4).set([
        memory.address + 1000n,
        3n,
        memory.address + 2000n,
        4n,
      ]);
      ask(ring, { op: IO_READV, tag: 9, offset: 0, at: 0, length: 2 });
      ring.submit();
      assert.deepEqual(results(ring, 1), [[9, 7]]);
      assert.equal(bytes.toString('utf8', 1000, 1003), 'abc');
      assert.equal(bytes.toString('utf8', 2000, 2004), 'defg');
    });
  });

  test('gives a result for each entry, round and round', () => {
    withRing((ring) => {
      let tag = 0;
      for (let burst = 1; burst <= 50; burst++) {
        const count = 1 + (burst % ring.size);
        const first = tag;
        for (let i = 0; i < count; i++) ask(ring, { op: IO_NOP, tag: tag++ });
        ring.submit();
        assert.equal(ring.waiting(), 0);
        const wanted = Array.from({ length: count }, (_, i) => [first + i, 0] as const);
        assert.deepEqual(results(ring, count), wanted);
      }
    });
  });

  test('tells when all entries are taken, and loses no result that has no room', () => {
    withRing(
      (ring) => {
        assert.equal(ring.size, 4);
        let sent = 0;
        // Twice as many results as there is room for: the kernel keeps the rest.
        for (let burst = 0; burst < 4; burst++) {
          for (let i = 0; i < 4; i++) ask(ring, { op: IO_NOP, tag: sent++ });
          assert.equal(ring.take(), -1);
          ring.submit();
        }
        const found = results(ring, sent);
        assert.deepEqual(
          found.map(([tag]) => tag),
          Array.from({ length: sent }, (_, i) => i),
        );
        assert.equal(ring.ready(), 0);
      },
      { entries: 4 },
    );
  });

  test('gives errors as negative numbers', () => {
    withRing((ring) => {
      ask(ring, { op: IO_READ, tag: 1, at: 0, length: 10 });
      ring.entries[1] = 5; // no such file
      ring.submit();
      assert.deepEqual(results(ring, 1), [[1, -EBADF]]);
    });
  });

  test('wakes an epoll set between arm and disarm, and not else', () => {
    withRing((ring, _path, epoll) => {
      ask(ring, { op: IO_NOP, tag: 1 });
      ring.submit();
      assert.equal(epoll.wait(0), 0, 'nobody has asked');
      assert.equal(ring.arm(), true, 'there is one already');
      results(ring, 1);
      assert.equal(ring.arm(), false);
      ask(ring, { op: IO_FSYNC, tag: 2, flags: FSYNC_DATASYNC });
      ring.submit();
      // The kernel may interrupt the wait to have this thread finish the request.
      let woken = 0;
      for (let tries = 0; woken === 0 && tries < 10; tries++) woken = epoll.wait(10_000);
      assert.equal(woken, 1);
      ring.disarm();
      results(ring, 1);
      ask(ring, { op: IO_NOP, tag: 3 });
      ring.submit();
      results(ring, 1);
      assert.equal(epoll.wait(0), 0, 'nobody asks any more');
    });
  });

  test('does without flags that the kernel does not know', () => {
    withRing(
      (ring) => {
        ask(ring, { op: IO_NOP, tag: 1 });
        ring.submit();
        assert.deepEqual(results(ring, 1), [[1, 0]]);
      },
      { setups: [2 ** 31, 0] },
    );
    assert.throws(
      () => withRing(() => undefined, { setups: [2 ** 31] }),
      (error) => error instanceof SystemError && error.errnoName === 'EINVAL',
    );
  });
});
