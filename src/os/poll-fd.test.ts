import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closeFd, createEventFd, createPipe, drainEventFd, signalEventFd } from './fd.ts';
import { PollFd } from './poll-fd.ts';
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
