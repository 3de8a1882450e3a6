import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { MiB } from '../../base/bits.ts';
import { Arena } from '../../memory/arena.ts';
import { parseMac } from '../../net/mac.ts';
import { GuestRam } from './guest-ram.ts';
import {
  buildFrame,
  FrameCheck,
  flowOf,
  hasGoodMetadata,
  MAX_FLOWS,
  MAX_TEST_FRAME,
  MIN_TEST_FRAME,
  stamp,
  stampAt,
  stampOf,
  swapAddresses,
} from './test-frame.ts';

const SIZE = 2 * MiB;
const arena = Arena.create();
const arenaAddress = arena.allocate(SIZE);
after(() => arena.unmap(arenaAddress, SIZE));
const ram = new GuestRam({ arena, arenaAddress, guestAddress: 0, size: SIZE });
const MTU = 1500;
const AT = 64;
const source = parseMac('52:54:00:00:00:01');
const destination = parseMac('52:54:00:00:00:02');

function put(flow: number, length: number, seed: number, sequence: number): void {
  const frame = { source, destination, flow, length, mtu: MTU, seed };
  const hash = buildFrame(ram, AT, frame);
  stamp(ram.u32, (AT + stampAt(length, MTU)) >>> 2, hash, sequence);
}

function isWhole(flow: number, length: number, cut: number): boolean {
  const check = new FrameCheck();
  if (cut === 0) check.begin(ram, AT, length, flow, length);
  else {
    // The rest lies elsewhere, as in another buffer.
    const elsewhere = 1 * MiB;
    ram.u8.copyWithin(elsewhere, AT + 12 + cut, AT + 12 + length);
    ram.u8.fill(0, AT + 12 + cut, AT + 12 + length);
    check.begin(ram, AT, cut, flow, length);
    check.continue(ram, elsewhere, length - cut);
  }
  return check.end();
}

const lengths = fc.oneof(
  fc.integer({ min: MIN_TEST_FRAME, max: 1514 }),
  fc.integer({ min: 1515, max: MAX_TEST_FRAME }),
  fc.constantFrom(MIN_TEST_FRAME, 60, 64, 1514, 1515, 65000, MAX_TEST_FRAME),
);
const flows = fc.nat(MAX_FLOWS - 1);
const sequences = fc.nat(0xffff_ffff);

describe('test frames', () => {
  it('are recognised, with their flow and sequence, and are whole', () => {
    fc.assert(
      fc.property(flows, lengths, fc.nat(300), sequences, (flow, length, seed, sequence) => {
        put(flow, length, seed, sequence);
        assert.equal(flowOf(ram, AT, length), flow);
        assert.equal(ram.u32[stampOf(ram, AT)], sequence);
        assert.ok(hasGoodMetadata(ram, AT, length, MTU));
        assert.ok(isWhole(flow, length, 0));
      }),
      { numRuns: 60 },
    );
  });

  it('are whole in pieces as well', () => {
    fc.assert(
      fc.property(lengths, fc.integer({ min: 24, max: 400 }), (length, words) => {
        const cut = 4 * words;
        fc.pre(cut < length);
        put(1, length, 2, 3);
        assert.ok(isWhole(1, length, cut));
      }),
      { numRuns: 60 },
    );
  });

  it('show every changed bit from the stamp on, and another length', () => {
    fc.assert(
      fc.property(lengths, fc.nat(), fc.nat(7), (length, where, bit) => {
        put(9, length, 4, 1000);
        const from = AT + stampAt(length, MTU);
        const at = from + (where % (AT + 12 + length - from));
        ram.u8[at] = (ram.u8[at] as number) ^ (1 << bit);
        assert.ok(!isWhole(9, length, 0));
        ram.u8[at] = (ram.u8[at] as number) ^ (1 << bit);
        assert.ok(isWhole(9, length, 0));
        const check = new FrameCheck();
        check.begin(ram, AT, length, 9, length + 1);
        assert.ok(!check.end());
      }),
      { numRuns: 60 },
    );
  });

  it('carry a correct IPv4 header and, above the MTU, what segmentation needs', () => {
    const sum = (from: number, bytes: number): number => {
      let total = 0;
      for (let i = from; i < from + bytes; i += 2) {
        total += ((ram.u8[i] as number) << 8) | (ram.u8[i + 1] as number);
      }
      while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
      return total;
    };
    for (const length of [60, 1514, 1515, 65000]) {
      put(5, length, 0, 0);
      const ip = AT + 12 + 14;
      assert.equal(sum(ip, 20), 0xffff);
      assert.equal(((ram.u8[ip + 2] as number) << 8) | (ram.u8[ip + 3] as number), length - 14);
      const header = Buffer.from(ram.u8.slice(AT, AT + 12));
      if (length <= 1514) {
        assert.deepEqual(header, Buffer.alloc(12));
      } else {
        // flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
        assert.deepEqual(
          [header[0], header[1], ...[2, 4, 6, 8].map((at) => header.readUInt16LE(at))],
          [1, 1, 54, 1460, 34, 16],
        );
        // With the pseudo-header's sum in its place, the rest adds up to the TCP checksum.
        const pseudo = sum(ip + 12, 8) + 6 + (length - 34);
        const folded = (pseudo & 0xffff) + (pseudo >>> 16);
        const field = ip + 20 + 16;
        assert.equal(((ram.u8[field] as number) << 8) | (ram.u8[field + 1] as number), folded);
      }
    }
  });

  it('are not what others send', () => {
    put(1, 100, 0, 0);
    assert.equal(flowOf(ram, AT, MIN_TEST_FRAME - 1), -1);
    for (const at of [12, 13, 36, 37]) {
      put(1, 100, 0, 0);
      ram.u8[AT + 12 + at] = (ram.u8[AT + 12 + at] as number) ^ 0x40;
      assert.equal(flowOf(ram, AT, 100), -1);
    }
  });

  it('refuse lengths and flows that do not fit', () => {
    for (const length of [MIN_TEST_FRAME - 1, MAX_TEST_FRAME + 1, 100.5]) {
      assert.throws(() => put(0, length, 0, 0), { code: 'config' });
    }
    assert.throws(() => put(MAX_FLOWS, 100, 0, 0), { code: 'config' });
  });

  it('go back where they came from', () => {
    put(0, 100, 0, 0);
    swapAddresses(ram, AT);
    assert.deepEqual(ram.u8.slice(AT + 12, AT + 18), source);
    assert.deepEqual(ram.u8.slice(AT + 18, AT + 24), destination);
  });
});
