import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MiB } from '../../base/bits.ts';
import { TestMemory } from '../../device/e1000/testing.ts';
import { Arena } from '../../memory/arena.ts';
import { NET_HEADER_BYTES, VIRTIO_NET_HDR_F_DATA_VALID } from '../../spec/virtio-net.ts';
import { BufferPool } from '../buffer-pool.ts';
import { DescriptorRing, ringEntries } from './descriptor-ring.ts';
import { ReceiveQueue } from './receive-queue.ts';

const BUFFERS = 16;
const RETURN_AT = 4;
const DONE = 1;
const END = 2;
const CHECKED = 4;
const BAD = 8;

/** A queue, and what its card does: it fills descriptors in order. */
class Rig {
  readonly tails: number[] = [];
  readonly ring: DescriptorRing;
  readonly queue: ReceiveQueue;
  readonly words: Uint32Array;
  readonly header: (buffer: number) => Uint32Array;
  opened = 0;
  #next = 0;

  constructor() {
    const memory = new TestMemory(Arena.create(), MiB).driver;
    const registers = {
      begin: () => undefined,
      setTail: (index: number) => void this.tails.push(index),
    };
    this.ring = new DescriptorRing(registers, memory, 0, ringEntries(BUFFERS), 2);
    this.words = this.ring.words;
    const pool = new BufferPool(memory, 4096, BUFFERS, NET_HEADER_BYTES + 2048);
    this.queue = new ReceiveQueue({
      ring: this.ring,
      gate: { open: () => void this.opened++, close: () => undefined },
      memory,
      format: { statusWord: 2, lengthWord: 3, checkedMask: CHECKED | BAD, checked: CHECKED },
      pool,
      returnAt: RETURN_AT,
    });
    this.header = (buffer) =>
      new Uint32Array(
        memory.arena.buffer,
        memory.arenaAddress + pool.first + buffer * pool.stride,
        3,
      );
    this.ring.start();
    this.queue.fill();
  }

  frame(length: number, status = DONE | END): void {
    this.words[4 * this.#next + 2] = status;
    this.words[4 * this.#next + 3] = length;
    this.#next = (this.#next + 1) % this.ring.entries;
  }

  /** Takes what there is, and gives its buffers back. */
  take(): number[] {
    const count = this.queue.receive();
    const lengths = [...this.queue.length.subarray(0, count)];
    this.queue.release();
    return lengths;
  }
}

test('buffers are given back in batches: until then no descriptor is written', () => {
  const rig = new Rig();
  assert.deepEqual(rig.tails, [BUFFERS]);
  for (let i = 1; i < RETURN_AT; i++) {
    rig.frame(100 + i);
    const { next } = rig.ring;
    assert.deepEqual(rig.take(), [100 + i]);
    assert.equal(rig.ring.next, next);
  }
  assert.equal(rig.tails.length, 1);
  rig.frame(200);
  assert.deepEqual(rig.take(), [200]);
  assert.deepEqual(rig.tails, [BUFFERS, (BUFFERS + RETURN_AT) % rig.ring.entries]);
  // All buffers are the card's again, each once, however long it goes on.
  for (let i = 0; i < 5 * BUFFERS; i++) {
    rig.frame(60 + i);
    assert.deepEqual(rig.take(), [60 + i]);
  }
  assert.ok(rig.queue.outstanding > BUFFERS - RETURN_AT);
});

test('who wants to sleep gives all buffers back first', () => {
  const rig = new Rig();
  rig.frame(100);
  rig.take();
  assert.equal(rig.queue.outstanding, BUFFERS - 1);
  assert.equal(rig.queue.enableCalls(), false);
  assert.deepEqual([rig.queue.outstanding, rig.opened], [BUFFERS, 1]);
  rig.frame(101);
  assert.equal(rig.queue.enableCalls(), true, 'a frame is there');
});

test('headers say what was found of checksums, whatever they said before', () => {
  const rig = new Rig();
  const told = (status: number): number[] => {
    rig.frame(100, DONE | END | status);
    assert.equal(rig.queue.receive(), 1);
    const buffer = rig.queue.pieceBuffer[0] as number;
    const header = rig.header(buffer);
    const words = [...header];
    rig.queue.release();
    header.fill(0xffff_ffff);
    return words;
  };
  // More than there are buffers: each is met with what the last one left in it.
  for (let i = 0; i < 3 * BUFFERS; i++) {
    assert.deepEqual(told(CHECKED), [VIRTIO_NET_HDR_F_DATA_VALID, 0, 1 << 16]);
    assert.deepEqual(told(CHECKED | BAD), [0, 0, 1 << 16]);
    assert.deepEqual(told(0), [0, 0, 1 << 16]);
  }
});

test('a frame that does not end in its buffer is the card’s mistake', () => {
  const rig = new Rig();
  rig.frame(100, DONE);
  assert.throws(() => rig.queue.receive(), { code: 'ring' });
});
