import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SystemError } from '../base/errors.ts';
import { Epoll } from './epoll.ts';
import { closeFd, createEventFd, createPipe, drainEventFd, signalEventFd } from './fd.ts';
import { EAGAIN, EBADF, EFAULT, EINTR, EINVAL, ENOMEM } from './libc.ts';
import { PollFd, wasInterrupted } from './poll-fd.ts';
import { unixSocketPair } from './unix-socket.ts';

test('tells what can be read, as long as it can', () => {
  const fd = createEventFd();
  const waiter = new PollFd(fd);
  assert.equal(waiter.wait(0), false);
  signalEventFd(fd);
  assert.equal(waiter.wait(-1), true);
  assert.equal(waiter.wait(0), true);
  drainEventFd(fd);
  assert.equal(waiter.wait(1), false);
  closeFd(fd);
});

test('wakes up when the other end of a socket or a pipe has gone', () => {
  const [ours, theirs] = unixSocketPair();
  const { read, write } = createPipe();
  const waiters = [new PollFd(ours.fd), new PollFd(read)];
  for (const waiter of waiters) assert.equal(waiter.wait(0), false);
  theirs.close();
  closeFd(write);
  for (const waiter of waiters) assert.equal(waiter.wait(-1), true);
  ours.close();
  closeFd(read);
});

test('without a descriptor there is never anything', () => {
  assert.equal(new PollFd(-1).wait(1), false);
});

test('takes an interruption for none, also where its errno was lost, and a fault for one', () => {
  for (const number of [EINTR, EAGAIN]) assert.equal(wasInterrupted(number), true);
  for (const number of [EBADF, EFAULT, EINVAL, ENOMEM]) assert.equal(wasInterrupted(number), false);
  const set = new Epoll();
  set.close();
  assert.throws(
    () => set.wait(1),
    (error) => error instanceof SystemError && error.errno === EBADF,
  );
});
