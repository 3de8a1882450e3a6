import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { BACKLOG_BYTES, BACKLOG_FRAMES, ReceiveBacklog } from './receive-backlog.ts';

const arena = Arena.create();
const path = createDataPath(arena, new PollLoop());
const source = arena.allocate(BACKLOG_BYTES);
const { bytes } = arena;
for (let i = 0; i < BACKLOG_BYTES; i += 4) arena.view.setUint32(source + i, i * 2654435761, true);

/** Has the backlog hold `length` bytes from `from` on of the source: 60 of them as header, the rest in two pieces. */
function hold(backlog: ReceiveBacklog, from: number, length: number): boolean {
  const { burst } = path;
  burst.clear();
  const header = Math.min(60, length);
  const half = (length - header) >>> 1;
  burst.chains.add(source + from, header + half);
  burst.chains.total[0] = length;
  burst.chains.more[0] = 1;
  burst.chains.moreStart[0] = 0;
  burst.chains.moreAddress[0] = source + from + header + half;
  burst.chains.moreLength[0] = length - header - half;
  burst.skip[0] = header;
  const isHeld = backlog.hold(burst, 0, source + from, header);
  burst.copies.flush();
  return isHeld;
}

function take(backlog: ReceiveBacklog): Buffer {
  const { first, firstLength } = backlog;
  const frame = Buffer.from(bytes.slice(first, first + firstLength));
  backlog.shift();
  return frame;
}

test('frames come out whole and in order, whatever went in and out before', () => {
  const step = fc.record({
    takes: fc.nat(20),
    lengths: fc.array(fc.integer({ min: 60, max: 65_562 }), { maxLength: 30 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const backlog = new ReceiveBacklog(path);
      const model: { from: number; length: number }[] = [];
      let from = 0;
      for (const { takes, lengths } of steps) {
        for (const length of lengths) {
          from = (from + 4099) % (BACKLOG_BYTES - 70_000);
          const waiting = model.reduce((sum, frame) => sum + frame.length, 0);
          const isHeld = hold(backlog, from, length);
          if (isHeld) model.push({ from, length });
          // In one piece, so that up to a frame at the end and one before the first stay free.
          else assert.ok(waiting + 2 * 65_562 + length > BACKLOG_BYTES, `${waiting} bytes wait`);
          assert.equal(backlog.count, model.length);
        }
        for (const { from: at, length } of model.splice(0, takes)) {
          const expected = bytes.slice(source + at, source + at + length);
          assert.equal(Buffer.compare(take(backlog), expected), 0);
        }
      }
      backlog.release();
      assert.equal(backlog.count, 0);
    }),
    { numRuns: 60 },
  );
});

test('its memory is used to the last byte, and none is used twice', () => {
  const backlog = new ReceiveBacklog(path);
  const length = 65_536;
  const frames = BACKLOG_BYTES / length;
  const expect = (from: number): void => {
    const expected = bytes.slice(source + from, source + from + length);
    assert.equal(Buffer.compare(take(backlog), expected), 0);
  };
  for (let i = 0; i < frames; i++) assert.ok(hold(backlog, i, length));
  // Behind the end, then at the beginning, then before the first that waits.
  for (let i = frames; i < 2 * frames; i++) {
    assert.equal(hold(backlog, 0, 1), false, 'it is full');
    expect(i - frames);
    assert.equal(hold(backlog, 0, length + 1), false, 'one byte too many');
    assert.ok(hold(backlog, i, length));
  }
  for (let i = frames; i < 2 * frames; i++) expect(i);
  backlog.release();
});

test('no more frames wait than are counted', () => {
  const backlog = new ReceiveBacklog(path);
  for (let i = 0; i < BACKLOG_FRAMES; i++) assert.ok(hold(backlog, i, 64));
  assert.equal(hold(backlog, 0, 64), false);
  for (let i = 0; i < BACKLOG_FRAMES; i++) {
    assert.equal(Buffer.compare(take(backlog), bytes.slice(source + i, source + i + 64)), 0);
  }
  assert.equal(backlog.count, 0);
  backlog.release();
});
