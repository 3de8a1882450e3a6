import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NetReceiver } from '../net-pair.ts';
import { InterruptDrivenReceiver } from './interrupt-driven.ts';

/** A ring in which frames of 100 bytes wait, of which a look takes four at most. */
class Ring {
  waiting = 0;
  released = 0;
  published = 0;
  readonly length = new Uint32Array(4).fill(100);
  readonly queue = {
    size: 8,
    outstanding: 8,
    kicks: 0,
    publish: () => {
      this.published++;
      return true;
    },
    enableCalls: () => assert.fail('the gate is the one that is asked'),
    disableCalls: () => undefined,
  };
  readonly pool = { count: 8, first: 0, stride: 1, addresses: () => new Float64Array(8) };
  readonly offset = new Uint32Array(4);
  readonly pieces = new Uint16Array(4);
  readonly firstPiece = new Uint16Array(4);
  readonly pieceBuffer = new Uint16Array(4);
  readonly pieceLength = new Uint32Array(4);

  receive(): number {
    const count = Math.min(4, this.waiting);
    this.waiting -= count;
    return count;
  }

  release(): void {
    this.released++;
  }

  post(): void {
    // Buffers are of no interest here.
  }
}

function rig() {
  const ring = new Ring();
  const seen = { opened: 0, looks: 0 };
  const gate = { open: () => seen.opened++, close: () => undefined };
  const receiver = new InterruptDrivenReceiver(ring satisfies NetReceiver, gate, () => {
    seen.looks++;
  });
  return { ring, seen, receiver };
}

test('after an interrupt the ring is looked at until it is empty, then the gate is opened once', () => {
  const { ring, seen, receiver } = rig();
  ring.waiting = 6;
  assert.deepEqual([receiver.receive(), receiver.receive(), receiver.receive()], [4, 2, 0]);
  assert.deepEqual([seen.opened, ring.published], [1, 1]);
  assert.deepEqual([receiver.frames, receiver.bytes[0]], [6, 600]);
  ring.waiting = 1;
  assert.equal(receiver.receive(), 0, 'no interrupt: the frame waits');
  assert.deepEqual([seen.opened, seen.looks], [1, 1]);
  receiver.wake();
  assert.equal(receiver.receive(), 1);
  receiver.release();
  assert.equal(ring.released, 1);
  receiver.restart();
  assert.deepEqual([receiver.frames, receiver.bytes[0]], [0, 0]);
});

test('who wants to sleep is told to look on only while an interrupt is being served', () => {
  const { receiver } = rig();
  assert.equal(receiver.enableCalls(), true);
  receiver.receive();
  assert.equal(receiver.enableCalls(), false);
  receiver.wake();
  assert.equal(receiver.enableCalls(), true);
});
