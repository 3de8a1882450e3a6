import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import { Arena } from '../memory/arena.ts';
import { monotonicNs } from '../os/clock.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { CapturePort, CaptureTap } from './capture.ts';
import { CaptureRing } from './capture-ring.ts';
import { openCaptureOutput, writeCapture } from './capture-writer.ts';
import { createDataPath } from './data-path.ts';
import { type CapturedPacket, type ParsedCapture, parseCapture } from './testing-pcapng.ts';

const path = createDataPath(Arena.create(), new PollLoop());
const { arena, burst } = path;
const memory = arena.allocate(1 << 20);

/** Puts frames into the burst, each in two pieces, and gathers their headers. */
function fill(frames: readonly Uint8Array[]): Uint8Array {
  burst.clear();
  burst.sourceHeaderBytes = 12;
  const { chains } = burst;
  let at = memory;
  for (const frame of frames) {
    const first = 12 + (frame.length >> 1);
    arena.bytes.set(frame, at + 12);
    arena.bytes.copyWithin(at + first + 5, at + first, at + 12 + frame.length);
    const slot = chains.add(at, first);
    chains.total[slot] = 12 + frame.length;
    chains.more[slot] = 1;
    chains.shaped = true;
    chains.moreStart[slot] = chains.moreCount;
    chains.moreAddress[chains.moreCount] = at + first + 5;
    chains.moreLength[chains.moreCount++] = 12 + frame.length - first;
    at += frame.length + 100;
  }
  burst.gather();
  return Uint8Array.from(frames.keys());
}

/** What a writer writes until the ring is closed. */
async function written(
  ring: CaptureRing,
  interfaces: readonly string[],
): Promise<{ capture: ParsedCapture; bytes: Buffer }> {
  const output = new PassThrough();
  const chunks: Buffer[] = [];
  output.on('data', (chunk: Buffer) => chunks.push(chunk));
  await writeCapture({ ring, interfaces, output });
  const bytes = Buffer.concat(chunks);
  return { capture: parseCapture(bytes), bytes };
}

const frameArbitrary = fc.uint8Array({ minLength: 14, maxLength: 3000 });

test('frames come out as they went in, cut to the snap length', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(frameArbitrary, { maxLength: 20 }),
      fc.constantFrom(20, 52, 100, 262_144),
      fc.boolean(),
      async (frames, snapLength, sent) => {
        const ring = CaptureRing.create(1 << 20);
        const now = monotonicNs();
        new CaptureTap(ring, 0, snapLength).frames(burst, fill(frames), frames.length, sent, now);
        ring.close();
        const { capture } = await written(ring, ['web/net0']);
        assert.deepEqual(
          capture.packets.map(({ data, original, direction }) => ({ data, original, direction })),
          frames.map((frame) => ({
            data: frame.slice(0, snapLength),
            original: frame.length,
            direction: sent ? 2 : 1,
          })),
        );
        assert.deepEqual(capture.statistics, [{ received: BigInt(frames.length), dropped: 0n }]);
      },
    ),
    { numRuns: 50 },
  );
});

test('interfaces are named, times are wall-clock times in ns', async () => {
  const ring = CaptureRing.create();
  const list = fill([new Uint8Array(60)]);
  const now = monotonicNs();
  new CaptureTap(ring, 1).frames(burst, list, 1, true, now);
  new CaptureTap(ring, 0).frames(burst, list, 1, false, now + 1_000_000_000);
  ring.close();
  const { capture } = await written(ring, ['web/net0', 'db/net0']);
  assert.deepEqual(capture.interfaces, [
    { name: 'web/net0', snapLength: 262_144, resolution: 9, link: 1 },
    { name: 'db/net0', snapLength: 262_144, resolution: 9, link: 1 },
  ]);
  const [first, second] = capture.packets as [CapturedPacket, CapturedPacket];
  assert.deepEqual([first.interface, second.interface], [1, 0]);
  assert.equal(second.time - first.time, 1_000_000_000n);
  const today = BigInt(Date.now()) * 1_000_000n;
  assert.ok(first.time > today - 3_600_000_000_000n && first.time <= today);
});

test('frames of a VLAN are shown with their tag', async () => {
  const ring = CaptureRing.create();
  const frame = Uint8Array.from({ length: 80 }, (_, i) => i);
  const list = fill([frame]);
  burst.tci[0] = 0xa00a;
  new CaptureTap(ring).frames(burst, list, 1, true, 0);
  ring.close();
  const { capture } = await written(ring, ['a']);
  const expected = [...frame.slice(0, 12), 0x81, 0, 0xa0, 0x0a, ...frame.slice(12)];
  assert.deepEqual([...(capture.packets[0]?.data ?? [])], expected);
  assert.equal(capture.packets[0]?.original, 84);
});

test('a full ring drops and counts, and takes frames again when it was read', async () => {
  const ring = CaptureRing.create(4096);
  const tap = new CaptureTap(ring);
  // Three records of 1224 bytes fit; for a fourth the ring has to begin anew.
  const list = fill([new Uint8Array(1200)]);
  for (let i = 0; i < 10; i++) tap.frames(burst, list, 1, true, i);
  assert.deepEqual([ring.seen, ring.dropped], [10, 7]);
  assert.equal(ring.read()?.time, 0);
  ring.release();
  tap.frames(burst, list, 1, true, 99);
  tap.frames(burst, list, 1, true, 100);
  assert.deepEqual([ring.seen, ring.dropped], [12, 8]);
  ring.close();
  const { capture } = await written(ring, ['a']);
  assert.equal(capture.packets.length, 3);
  assert.deepEqual(capture.statistics, [{ received: 12n, dropped: 8n }]);
});

test('the ring agrees with a queue, whatever the sizes', () => {
  const step = fc.oneof(fc.integer({ min: 0, max: 1500 }), fc.constant('read' as const));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (run) => {
      const ring = CaptureRing.create(8192);
      const model: Uint8Array[] = [];
      let next = 0;
      for (const action of run) {
        if (action === 'read') {
          const record = ring.read();
          assert.deepEqual(record && Uint8Array.from(record.data), model.shift());
          if (record !== undefined) ring.release();
          continue;
        }
        const data = Uint8Array.from({ length: action }, () => next++ & 0xff);
        const at = ring.reserve(action, action, 0, false, 0);
        if (at < 0) {
          assert.ok(model.length > 0, 'an empty ring takes any frame of this size');
          continue;
        }
        assert.equal(at % 8, 0);
        ring.bytes.set(data, at);
        ring.commit();
        model.push(data);
      }
    }),
  );
});

test('a frame larger than the ring is dropped', () => {
  const ring = CaptureRing.create(4096);
  assert.equal(ring.reserve(5000, 5000, 0, false, 0), -1);
  assert.equal(ring.dropped, 1);
});

test('a capture port takes frames as a wire does', async () => {
  const ring = CaptureRing.create(4096);
  const port = new CapturePort('lan/wire', path, ring);
  const list = fill([new Uint8Array(100), new Uint8Array(5000)]);
  port.deliver(burst, list, 2, false);
  burst.tci[0] = 7;
  port.deliver(burst, list, 1, true);
  port.flush();
  const counters = port.counters.snapshot();
  assert.deepEqual(
    [counters.rx_frames, counters.rx_bytes, counters.rx_drop_no_buffer],
    [2, 204, 1],
  );
  ring.close();
  const { capture } = await written(ring, ['lan/wire']);
  assert.deepEqual(
    capture.packets.map(({ data, direction }) => [data.length, direction]),
    [
      [100, 1],
      [104, 1],
    ],
  );
});

test('a writer that sleeps is woken by a lane of another thread', async () => {
  const ring = CaptureRing.create(1 << 16);
  const lane = `
    const { workerData } = require('node:worker_threads');
    import(workerData.module).then(({ CaptureRing }) => {
      const ring = new CaptureRing(workerData.shared);
      for (let i = 0; i < 20000; i++) {
        let at;
        do at = ring.reserve(60 + (i % 40), 100, 0, true, i); while (at < 0);
        ring.bytes.fill(i, at, at + 60 + (i % 40));
        ring.commit();
        ring.notify();
      }
      ring.close();
    });
  `;
  const worker = new Worker(lane, {
    eval: true,
    workerData: {
      shared: ring.shared,
      module: new URL('./capture-ring.ts', import.meta.url).href,
    },
  });
  const { capture } = await written(ring, ['a']);
  await worker.terminate();
  assert.equal(capture.packets.length, 20_000);
  for (const [i, { data }] of capture.packets.entries()) {
    assert.equal(data.length, 60 + (i % 40));
    assert.ok(data.every((byte) => byte === (i & 0xff)));
  }
});

test('an output that fails ends the capture with its reason', async () => {
  const ring = CaptureRing.create();
  const output = new Writable({
    highWaterMark: 1,
    write: (_chunk, _encoding, done) => done(new Error('no space')),
  });
  await assert.rejects(
    writeCapture({ ring, interfaces: ['a'], output }),
    (error) => error instanceof SluiceError && /no space/.test(error.message),
  );
  assert.equal(ring.closed, true);
});

test('a reader that goes away ends the capture', async () => {
  const ring = CaptureRing.create();
  const output = new PassThrough();
  const capture = writeCapture({ ring, interfaces: ['a'], output });
  output.destroy();
  await assert.rejects(capture, SluiceError);
  assert.equal(ring.closed, true);
});

test('a file that cannot be written is named', async () => {
  await assert.rejects(
    openCaptureOutput('/nowhere/at/all.pcapng'),
    (error) => error instanceof SluiceError && /ENOENT: .*\/nowhere\/at/.test(error.message),
  );
});

const tcpdump = spawnSync('tcpdump', ['--version']).status === 0;

test('tcpdump reads the file', { skip: tcpdump ? false : 'needs tcpdump' }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-capture-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'x.pcapng');
  // ARP: who has 10.0.0.2, tell 10.0.0.1
  const arp = Uint8Array.from([
    ...[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
    ...[2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2],
  ]);
  const ring = CaptureRing.create();
  new CaptureTap(ring).frames(burst, fill([arp]), 1, true, monotonicNs());
  ring.close();
  const output = await openCaptureOutput(file);
  assert.deepEqual(await writeCapture({ ring, interfaces: ['web/net0'], output }), {
    frames: 1,
    dropped: 0,
  });
  assert.equal(parseCapture(readFileSync(file)).packets.length, 1);
  // As root it would change to a user of its own, who may not read the file.
  const user = userInfo().username;
  const text = execFileSync('tcpdump', ['-Z', user, '-nr', file], {
    encoding: 'utf8',
    stdio: 'pipe',
  });
  assert.match(text, /who-has 10\.0\.0\.2 tell 10\.0\.0\.1/);
});
