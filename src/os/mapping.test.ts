import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MiB } from '../base/bits.ts';
import { SystemError } from '../base/errors.ts';
import { closeFd, createPipe, identify, setNonBlocking, signalEventFd } from './fd.ts';
import { createMemfd, F_SEAL_SHRINK, SharedMapping, sealsOf } from './mapping.ts';

describe('memory files', () => {
  test('have the size asked for, and seals if asked for', () => {
    const sealed = createMemfd('sealed', MiB);
    const open = createMemfd('open', MiB, false);
    assert.equal(identify(sealed).size, MiB);
    assert.notEqual(sealsOf(sealed) & F_SEAL_SHRINK, 0);
    assert.equal(sealsOf(open) & F_SEAL_SHRINK, 0);
    assert.notEqual(identify(sealed).id, identify(open).id);
    closeFd(sealed);
    closeFd(open);
  });

  test('are shared between mappings; a released one reads zero and harms nobody', () => {
    const fd = createMemfd('shared', MiB);
    const one = new SharedMapping(fd, MiB);
    const other = new SharedMapping(fd, 4096, 8192);
    new DataView(one.buffer).setUint32(8192, 0xabcd, true);
    assert.equal(new DataView(other.buffer).getUint32(0, true), 0xabcd);
    one.release();
    one.release();
    assert.equal(new DataView(one.buffer).getUint32(8192, true), 0);
    assert.equal(new DataView(other.buffer).getUint32(0, true), 0xabcd);
    other.release();
    closeFd(fd);
  });
});

test('mappings of many sizes, one after the other, do not use address space up', () => {
  const fd = createMemfd('sparse', 2 ** 40, false);
  // Together some 100 TiB and more, which is as much as a process has.
  for (let i = 0; i < 300; i++) new SharedMapping(fd, 2 ** 39 + 4096 * i).release();
  closeFd(fd);
});

describe('errors of the kernel', () => {
  test('carry the number, the name, the call and what it was about', () => {
    assert.throws(
      () => new SharedMapping(99_999, 4096),
      (error) =>
        error instanceof SystemError &&
        error.errno === 9 &&
        error.errnoName === 'EBADF' &&
        error.syscall === 'mmap' &&
        error.message === 'EBADF: mmap fd 99999',
    );
    assert.throws(() => closeFd(99_999), /EBADF: close fd 99999/);
  });

  test('a call is reported failed when nobody reads it any more, not when it is full', () => {
    const { read, write } = createPipe();
    setNonBlocking(write);
    let calls = 0;
    while (calls < 100_000 && signalEventFd(write)) calls++;
    assert.equal(calls, 100_000);
    closeFd(read);
    assert.equal(signalEventFd(write), false);
    closeFd(write);
  });
});
