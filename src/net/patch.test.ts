import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Arena } from '../memory/arena.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';
import type { Burst } from './burst.ts';
import { createDataPath, type DataPath } from './data-path.ts';
import { parseMac } from './mac.ts';
import { createPatch } from './patch.ts';
import { PortPolicy, type PortPolicyOptions } from './policy.ts';
import { newPortCounters, type Port } from './port.ts';
import { Switch } from './switch.ts';

const path: DataPath = createDataPath(Arena.create(), new PollLoop());

const A = '52:54:00:00:00:0a';
const B = '52:54:00:00:00:0b';
const ALL = 'ff:ff:ff:ff:ff:ff';

/** A guest that keeps the frames it gets. */
class Sink implements Port {
  readonly name: string;
  readonly counters = newPortCounters();
  readonly offloads = 0;
  readonly got: string[] = [];
  readonly #pending: { at: number; length: number }[] = [];

  constructor(name: string) {
    this.name = name;
  }

  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    for (let i = 0; i < count; i++) {
      const slot = frames[i] as number;
      const header = tagged ? burst.tag(slot) : (burst.headerAt[slot] as number);
      const headerLength = (burst.headerLength[slot] as number) + (tagged ? 4 : 0);
      const rest = (burst.chains.total[slot] as number) - (burst.skip[slot] as number);
      const at = path.arena.allocate(headerLength + rest);
      burst.copies.push(at, header, headerLength);
      burst.copyFromChain(slot, burst.skip[slot] as number, rest, at + headerLength);
      this.#pending.push({ at, length: headerLength + rest });
    }
  }

  flush(): void {
    for (const { at, length } of this.#pending.splice(0)) {
      const bytes = Buffer.from(path.arena.bytes.slice(at + NET_HEADER_BYTES, at + length));
      this.got.push(bytes.toString('hex'));
      path.arena.unmap(at, length);
    }
  }
}

function frame(to: string, from: string, bytes: number, vlan?: number): Buffer {
  const tag = vlan === undefined ? [] : [0x81, 0, vlan >> 8, vlan & 0xff];
  const head = Buffer.from([...parseMac(to), ...parseMac(from), ...tag, 0x88, 0xb5]);
  return Buffer.concat([head, Buffer.from(Array.from({ length: bytes }, (_, i) => i & 0xff))]);
}

/** Sends frames in one burst, each in pieces of at most `piece` bytes. */
function send(lan: Switch, port: Port, frames: readonly Buffer[], piece = 1e6): void {
  const { burst, arena } = path;
  const room = 16384;
  const at = arena.allocate(frames.length * room);
  burst.clear();
  for (const [index, bytes] of frames.entries()) {
    const start = at + index * room;
    const total = NET_HEADER_BYTES + bytes.length;
    arena.bytes.fill(0, start, start + NET_HEADER_BYTES);
    arena.bytes.set(bytes, start + NET_HEADER_BYTES);
    const slot = burst.chains.add(start, Math.min(total, piece));
    burst.chains.total[slot] = total;
    burst.chains.moreStart[slot] = burst.chains.moreCount;
    for (let from = piece; from < total; from += piece) {
      burst.chains.moreAddress[burst.chains.moreCount] = start + from;
      burst.chains.moreLength[burst.chains.moreCount++] = Math.min(piece, total - from);
      burst.chains.more[slot] = (burst.chains.more[slot] as number) + 1;
      burst.chains.shaped = true;
    }
  }
  burst.sourceHeaderBytes = NET_HEADER_BYTES;
  burst.gather();
  lan.forward(port, burst);
  lan.publish();
  arena.unmap(at, frames.length * room);
}

function plug(lan: Switch, port: Port, options: PortPolicyOptions = {}): void {
  lan.addPort(port, new PortPolicy(options, 0));
}

/** Guest a on switch `left`, guest b on switch `right`, a wire between. */
function pair(wire: PortPolicyOptions = {}, guest: PortPolicyOptions = {}) {
  const left = new Switch('left', path);
  const right = new Switch('right', path);
  const a = new Sink('a');
  const b = new Sink('b');
  const [near, far] = createPatch('left/wire', 'left/wire:right', path);
  plug(left, a, guest);
  plug(right, b, guest);
  plug(left, near, wire);
  plug(right, far, wire);
  near.owner = left;
  far.owner = right;
  return { left, right, a, b, near, far };
}

test('frames cross the wire both ways, in order, whole, also in pieces', () => {
  const { left, right, a, b, near, far } = pair();
  const there = [frame(B, A, 46), frame(ALL, A, 1500), frame(B, A, 9000), frame(B, A, 0)];
  send(left, a, there, 700);
  assert.deepEqual(
    b.got,
    there.map((bytes) => bytes.toString('hex')),
  );
  const back = [frame(A, B, 100)];
  send(right, b, back);
  assert.deepEqual(
    a.got,
    back.map((bytes) => bytes.toString('hex')),
  );
  const bytes = there.reduce((sum, { length }) => sum + length, 0);
  assert.equal(near.counters.snapshot().rx_frames, 4);
  assert.equal(near.counters.snapshot().rx_bytes, bytes);
  assert.equal(far.counters.snapshot().tx_frames, 4);
  assert.equal(far.counters.snapshot().tx_bytes, bytes);
});

test('a frame that is flooded to a guest and to the wire reaches both unharmed', () => {
  const { left, a, b } = pair();
  const other = new Sink('other');
  plug(left, other);
  const bytes = frame(ALL, A, 1000);
  send(left, a, [bytes, bytes]);
  assert.deepEqual(other.got, [bytes.toString('hex'), bytes.toString('hex')]);
  assert.deepEqual(b.got, other.got);
});

test('VLANs keep their tags on a trunk', () => {
  const { left, a, b } = pair({ trunk: [10, 20] }, { vlan: 10 });
  const bytes = frame(ALL, A, 60);
  send(left, a, [bytes]);
  assert.deepEqual(b.got, [bytes.toString('hex')]);
});

test('a tag that the guest sent arrives as it was', () => {
  const { left, a, b } = pair();
  const bytes = frame(ALL, A, 60, 300);
  send(left, a, [bytes]);
  assert.deepEqual(b.got, [bytes.toString('hex')]);
});

test('a wire without a far switch drops and counts', () => {
  const left = new Switch('left', path);
  const a = new Sink('a');
  const [near] = createPatch('left/wire', 'far', path);
  plug(left, a);
  plug(left, near);
  send(left, a, [frame(ALL, A, 60)]);
  assert.equal(near.counters.snapshot().rx_drop_link_down, 1);
});
