import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { SluiceError } from '../../base/errors.ts';
import { findQemuTools, imageError, isLockMessage } from './image-tools.ts';

describe('findQemuTools', () => {
  it('finds the programs in PATH, or says what to install', (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'sluice-tools-'));
    t.after(() => rmSync(directory, { recursive: true }));
    const missing = (error: unknown): boolean =>
      error instanceof SluiceError &&
      error.code === 'not-found' &&
      /no qemu-nbd/.test(error.message) &&
      /qemu-utils/.test(error.remedy ?? '');
    const environment = { PATH: `/nonexistent:${directory}` };
    assert.throws(() => findQemuTools(environment), missing);
    assert.throws(() => findQemuTools({}), missing);
    for (const name of ['qemu-nbd', 'qemu-img']) writeFileSync(join(directory, name), '');
    assert.throws(() => findQemuTools(environment), missing, 'a file that cannot be run is none');
    for (const name of ['qemu-nbd', 'qemu-img']) chmodSync(join(directory, name), 0o755);
    assert.deepEqual(findQemuTools(environment), {
      nbd: [join(directory, 'qemu-nbd')],
      img: [join(directory, 'qemu-img')],
    });
  });
});

describe('imageError', () => {
  // What QEMU 11 says.
  for (const [said, code, lock] of [
    [
      'qemu-nbd: Failed to blk_new_open \'a\': Failed to get "write" lock\nIs another process using the image [a]?',
      'state',
      true,
    ],
    ["qemu-nbd: Failed to blk_new_open 'a': Image is not in qcow2 format", 'config', false],
    ["qemu-img: a: Unknown driver 'qcow7'", 'unsupported', false],
    ["qemu-nbd: Could not open block device '/dev/x': Input/output error", 'state', false],
    ['', 'state', false],
  ] as const) {
    it(`takes ${JSON.stringify(said.slice(0, 60))} for ${code}${lock ? ', locked' : ''}`, () => {
      const error = imageError('disk a', said);
      assert.equal(error.code, code);
      assert.equal(isLockMessage(said), lock);
      assert.match(error.message, /^disk a: [^q]/, 'the name of the program says nothing');
      assert.doesNotMatch(error.message, /\n/);
    });
  }
});
