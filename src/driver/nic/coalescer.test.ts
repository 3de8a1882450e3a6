import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COMPLETE, Coalescer, GIVEN_UP, NOT_A_SEGMENT, TAKEN } from './coalescer.ts';

const LARGE = 8192;
const HEADERS = 54;
const PSH = 8;
const ACK = 16;

/** A segment of `payload` bytes, each of which is `fill`, behind a virtio_net_hdr at 0. */
function segment(memory: Buffer, sequence: number, payload: number, fill: number, flags = ACK) {
  const frame = memory.subarray(12, 12 + HEADERS + payload);
  memory.fill(0, 0, 12 + HEADERS);
  frame.writeUInt16BE(0x0800, 12);
  frame[14] = 0x45;
  frame.writeUInt16BE(40 + payload, 16);
  frame[23] = 6;
  frame.writeUInt32BE(sequence, 38);
  frame[46] = 0x50;
  frame[47] = flags;
  frame.fill(fill, HEADERS);
  return HEADERS + payload;
}

function rig() {
  const memory = Buffer.alloc(2 * LARGE);
  const coalescer = new Coalescer(memory, LARGE - 12);
  coalescer.at = LARGE;
  const take = (sequence: number, payload: number, fill: number, flags?: number): number =>
    coalescer.take(0, segment(memory, sequence, payload, fill, flags));
  return { memory, coalescer, take };
}

test('segments up to one with PSH become one frame, which asks to be cut as it was', () => {
  const { memory, coalescer, take } = rig();
  assert.deepEqual(
    [take(0xffff_ff00, 1000, 1), take(0x2e8, 1000, 2), take(0x6d0, 10, 3, ACK | PSH)],
    [TAKEN, TAKEN, COMPLETE],
  );
  assert.equal(coalescer.length, HEADERS + 2010);
  const frame = memory.subarray(LARGE + 12);
  assert.equal(frame.readUInt16BE(16), 40 + 2010);
  assert.equal(frame[47], ACK | PSH);
  for (const [at, fill] of [
    [HEADERS, 1],
    [HEADERS + 999, 1],
    [HEADERS + 1000, 2],
    [HEADERS + 2000, 3],
    [HEADERS + 2009, 3],
  ] as const) {
    assert.equal(frame[at], fill, `byte ${at}`);
  }
  // VIRTIO 1.3 §5.1.6: flags, GSO type, header length, segment size, checksum start and offset.
  assert.deepEqual([...memory.subarray(LARGE, LARGE + 10)], [1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0]);
});

test('what is whole by itself, or no TCP over IPv4, is left as it is', () => {
  const { memory, coalescer, take } = rig();
  assert.equal(take(0, 100, 1, ACK | PSH), NOT_A_SEGMENT);
  assert.equal(take(0, 0, 1), NOT_A_SEGMENT, 'an acknowledgement');
  const length = segment(memory, 0, 100, 1);
  memory[12 + 23] = 17;
  assert.equal(coalescer.take(0, length), NOT_A_SEGMENT, 'UDP');
});

test('a frame whose end is missing is given up, and the next one is whole', () => {
  const { coalescer, take } = rig();
  assert.equal(take(0, 1000, 1), TAKEN);
  assert.equal(take(0, 1000, 4), TAKEN, 'the beginning of another frame');
  assert.equal(coalescer.lost, 1);
  assert.equal(take(1000, 20, 5, ACK | PSH), COMPLETE);
  assert.equal(coalescer.length, HEADERS + 1020);
});

test('a frame that no buffer holds is given up', () => {
  const { coalescer, take } = rig();
  for (let i = 0; i < 8; i++) assert.equal(take(1000 * i, 1000, i), TAKEN);
  assert.equal(take(8000, 1000, 8), GIVEN_UP);
  assert.equal(coalescer.lost, 1);
});
