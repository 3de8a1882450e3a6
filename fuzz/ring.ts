/**
 * What the two ring targets share: a device's side of a ring over memory that a hostile driver
 * writes, and everything that must hold whatever it writes.
 *
 * Allowed are answers and {@link RingError}s. After an error the device is broken; it may be looked
 * at again (a lane that still has work queued does), but nothing outside the guest's memory may be
 * named or written.
 */
import assert from 'node:assert/strict';
import { type Direction, RingError } from '../src/ring/device-queue.ts';
import { checkBatch, MockDriver, type RawDescriptor } from '../src/ring/mock-driver.ts';
import { RingPair } from '../src/ring/ring-pair.ts';
import {
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from '../src/spec/virtio.ts';
import type { Random } from './random.ts';

/** Memory on both sides of the guest's: nothing may change there. */
const CANARY_BYTES = 4096;
const CANARY = 0xa5;

const STEPS = 60;

interface Hostile {
  readonly random: Random;
  readonly driver: MockDriver;
  readonly pair: RingPair;
}

/** An address that is good, nearly good, or anything. */
function address({ random, pair }: Hostile): bigint {
  const { buffers, border, end, layout } = pair;
  const near = BigInt(
    random.pick([buffers, border, end, layout.descriptor, layout.device, buffers + 4096]),
  );
  return random.pick<() => bigint>([
    () => BigInt(buffers + random.below(end - buffers)),
    () => near + BigInt(random.below(64) - 32),
    () => near,
    () => BigInt(random.nasty(32)) * 2n ** 32n + BigInt(random.nasty(32)),
  ])();
}

function descriptor(hostile: Hostile): RawDescriptor {
  const { random, pair } = hostile;
  const known = [VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE, VIRTQ_DESC_F_INDIRECT];
  let flags = 0;
  for (const flag of known) if (random.oneIn(3)) flags |= flag;
  if (random.oneIn(20)) flags = random.nasty(16);
  return {
    address: address(hostile),
    length: random.oneIn(2) ? 1 + random.below(2000) : random.nasty(32),
    flags,
    link: random.oneIn(4) ? random.nasty(16) : random.below(pair.layout.size),
  };
}

/** A chain that a well-behaved driver might make, so that the ring is not broken at once. */
function goodChain({ random, pair }: Hostile, direction: Direction, head: number): RawDescriptor[] {
  const { buffers, end, layout } = pair;
  const count = 1 + random.below(Math.min(4, layout.size));
  const readable =
    direction === 'readable' ? count : direction === 'writable' ? 0 : random.below(count + 1);
  return Array.from({ length: count }, (_, i) => {
    const length = 1 + random.below(3000);
    return {
      address: buffers + random.below(end - buffers - length),
      length,
      flags: (i < count - 1 ? VIRTQ_DESC_F_NEXT : 0) | (i >= readable ? VIRTQ_DESC_F_WRITE : 0),
      link: layout.packed ? random.below(layout.size) : (head + i + 1) % layout.size,
    };
  });
}

function hostileStep(hostile: Hostile, direction: Direction): void {
  const { random, driver, pair } = hostile;
  const { layout } = pair;
  const head = driver.idx % layout.size;
  switch (random.below(8)) {
    case 0:
    case 1:
    case 2:
    case 3:
      driver.offer(...goodChain(hostile, direction, head));
      break;
    case 4:
      driver.offer(
        ...Array.from({ length: 1 + random.below(layout.size) }, () => descriptor(hostile)),
      );
      break;
    case 5: {
      // An indirect table, well placed, with anything in it.
      const table = random.pick([pair.buffers, pair.border, pair.end - 64]);
      for (let i = 0; i < 4; i++) driver.write(table, i, descriptor(hostile));
      driver.offer({
        address: table,
        length: random.oneIn(4) ? random.nasty(10) : 16 * (1 + random.below(4)),
        flags: VIRTQ_DESC_F_INDIRECT,
        link: random.below(layout.size),
      });
      break;
    }
    case 6:
      // Any word of the ring's own areas.
      driver.poke(layout.descriptor + 4 * random.below(layout.bytes / 4), random.nasty(32));
      break;
    default:
      if (!layout.packed) {
        if (random.oneIn(2)) driver.setIdx(random.nasty(16));
        else driver.offerHead(random.nasty(16));
      }
  }
}

/** What a device does in a turn. False once the ring is broken. */
function deviceStep({ random, driver, pair }: Hostile, inOrder: boolean): boolean {
  const { device } = pair;
  const { batch } = driver;
  try {
    const count = driver.collect(1 + random.below(64));
    assert.equal(batch.count, count);
    checkBatch(pair, batch);
    if (random.oneIn(5)) device.rewind(batch, random.below(count + 1));
    const slots = Array.from({ length: batch.count }, (_, i) => i);
    if (!inOrder && random.oneIn(3)) slots.reverse();
    const how = random.below(3);
    if (how === 0) {
      device.completeRange(batch, 0, batch.count);
    } else if (how === 1) {
      for (const slot of slots) device.complete(batch, slot, random.below(1000));
    } else {
      for (const slot of slots) batch.written[slot] = random.below(1000);
      device.completeWritten(batch, 0, batch.count);
    }
    device.publish();
    if (random.oneIn(4)) {
      if (device.enableKicks() || random.oneIn(2)) device.disableKicks();
    }
    return true;
  } catch (error) {
    if (!(error instanceof RingError)) throw error;
    checkBatch(pair, batch);
    return false;
  }
}

/** One life of a ring. */
export function fuzzRing(random: Random, packed: boolean): void {
  const direction = random.pick<Direction>(['readable', 'writable', 'both']);
  const inOrder = random.oneIn(2);
  const pair = new RingPair({
    packed,
    size: packed ? 1 + random.below(70) : 2 ** random.below(8),
    direction,
    inOrder,
    eventIdx: random.oneIn(2),
    indirect: random.oneIn(2),
    indirectLength: 4,
    windowed: random.oneIn(2),
  });
  const { arena } = pair;
  const canary = arena.allocate(CANARY_BYTES);
  arena.bytes.fill(CANARY, canary, canary + CANARY_BYTES);
  try {
    const hostile = { random, pair, driver: new MockDriver(pair) };
    let errors = 0;
    for (let step = 0; step < STEPS && errors < 3; step++) {
      for (let i = random.below(6); i >= 0; i--) hostileStep(hostile, direction);
      if (!deviceStep(hostile, inOrder)) errors++;
    }
    const after = arena.bytes.subarray(canary, canary + CANARY_BYTES);
    assert.ok(
      after.every((byte) => byte === CANARY),
      'memory outside the guest was written',
    );
  } finally {
    arena.unmap(canary, CANARY_BYTES);
    pair.release();
  }
}
