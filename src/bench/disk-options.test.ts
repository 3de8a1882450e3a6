import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { fileOf, jobBytes, parseBytes, parseDiskOptions } from './disk-options.ts';

describe('disk options', () => {
  it('have defaults', () => {
    const { rw, bs, iodepth, numjobs, guests, disk } = parseDiskOptions({});
    assert.deepEqual(
      [rw, bs, iodepth, numjobs, guests, disk],
      ['randread', 4096, 32, 1, 1, 'memory'],
    );
  });

  it('are refused by name, with what is allowed', () => {
    for (const [input, message] of [
      [{ bs: 513 }, /--bs/],
      [{ iodepth: 0 }, /--iodepth/],
      [{ numjobs: 1000 }, /--numjobs/],
      [{ rwmixread: 101 }, /--rwmixread/],
      [{ disk: 'file:' }, /file:PATH/],
      [{ size: 1000 }, /--size/],
      [{ size: 8192, numjobs: 4 }, /--size 8192: 4 jobs/],
      [{ direct: true }, /--direct/],
      [{ overwrite: true, disk: 'tmpfs' }, /--overwrite/],
      [{ verify: true, bs: 512, size: 2 ** 40 }, /verify/],
      [{ method: 'emulated', packed: true }, /--packed/],
      [{ method: 'emulated', numjobs: 2 }, /--numjobs/],
      [{ method: 'emulated', iodepth: 33 }, /--iodepth 33: a drive has 32 tags/],
    ] as const) {
      assert.throws(() => parseDiskOptions(input), { code: 'usage', message }, String(message));
    }
  });

  it('name a file after file:', () => {
    assert.equal(fileOf(parseDiskOptions({ disk: 'file:a:b' })), 'a:b');
    assert.equal(fileOf(parseDiskOptions({ disk: 'tmpfs' })), undefined);
  });
});

describe('parseBytes', () => {
  it('takes sizes as fio does', () => {
    for (const [text, bytes] of [
      ['4096', 4096],
      ['4k', 4096],
      ['4K', 4096],
      ['128KiB', 131072],
      ['1m', 2 ** 20],
      ['2G', 2 ** 31],
      ['1T', 2 ** 40],
    ] as const) {
      assert.equal(parseBytes(text), bytes);
    }
    for (const text of ['', 'k', '4x', '-1', '1.5k', '4 k'])
      assert.ok(Number.isNaN(parseBytes(text)));
  });
});

describe('jobBytes', () => {
  it('shares a disk out in whole requests that fit', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 ** 40 }),
        fc.integer({ min: 1, max: 64 }),
        fc.integer({ min: 1, max: 2 ** 15 }),
        (size, numjobs, sectors) => {
          const bs = sectors * 512;
          const share = jobBytes(size, { numjobs, bs });
          assert.equal(share % bs, 0);
          assert.ok(share * numjobs <= size && (share + bs) * numjobs > size);
        },
      ),
    );
  });
});
