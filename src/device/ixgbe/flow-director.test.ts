/** Perfect match filters of the flow director: what they compare, and under which masks (§7.1.2.7). */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  IXGBE_FDIRCMD_ADD,
  IXGBE_FDIRCMD_DROP,
  IXGBE_FDIRCMD_L4_SHIFT,
  IXGBE_FDIRCMD_L4_TCP,
  IXGBE_FDIRCMD_L4_UDP,
  IXGBE_FDIRCMD_QUERY,
  IXGBE_FDIRCMD_QUEUE_SHIFT,
  IXGBE_FDIRCMD_REMOVE,
  IXGBE_FDIRCMD_VALID,
  IXGBE_FDIRCTRL_FLEX_SHIFT,
  IXGBE_FDIRCTRL_INIT_DONE,
  IXGBE_FDIRCTRL_PERFECT,
  IXGBE_FDIRM_FLEX,
  IXGBE_FDIRM_L4,
  IXGBE_FDIRM_VLAN_ID,
  IXGBE_FDIRM_VLAN_PRIORITY,
} from '../../spec/ixgbe.ts';
import { DROPPED_FLOW, FlowDirector, NO_FLOW } from './flow-director.ts';
import { R, REGISTER_WORDS } from './registers.ts';

const TCP = 6;
const UDP = 17;
const NO_VLAN = IXGBE_FDIRM_VLAN_ID | IXGBE_FDIRM_VLAN_PRIORITY;
const TYPES = { [TCP]: IXGBE_FDIRCMD_L4_TCP, [UDP]: IXGBE_FDIRCMD_L4_UDP } as const;

class Bench {
  readonly words = new Uint32Array(REGISTER_WORDS);
  readonly flows: FlowDirector;

  constructor(mask = NO_VLAN | IXGBE_FDIRM_FLEX, flex = 6, keys?: Uint32Array<ArrayBuffer>) {
    this.flows = new FlowDirector(this.words, keys);
    this.flows.control(IXGBE_FDIRCTRL_PERFECT | (flex << IXGBE_FDIRCTRL_FLEX_SHIFT));
    this.mask(R.FDIRM, mask);
  }

  mask(index: number, value: number): void {
    this.words[index] = value;
    this.flows.update();
  }

  /** A filter of 10.0.0.1:1000 to 10.0.0.2:2000. */
  add(
    id: number,
    queue: number,
    options: { protocol?: 6 | 17; more?: number; tail?: number } = {},
  ): void {
    const { protocol = TCP, more = 0, tail = 0 } = options;
    this.words[R.FDIRHASH] = id << 16;
    this.words[R.FDIRIPSA] = Buffer.from([10, 0, 0, 1]).readUInt32LE();
    this.words[R.FDIRIPDA] = Buffer.from([10, 0, 0, 2]).readUInt32LE();
    this.words[R.FDIRPORT] = 1000 | (2000 << 16);
    this.words[R.FDIRVLAN] = tail;
    const type = TYPES[protocol] << IXGBE_FDIRCMD_L4_SHIFT;
    this.flows.command(IXGBE_FDIRCMD_ADD | type | (queue << IXGBE_FDIRCMD_QUEUE_SHIFT) | more);
  }

  match(options: Partial<Packet> = {}, tci = 0): number {
    const bytes = packet(options);
    return this.flows.match(bytes, 0, bytes.length, tci);
  }
}

interface Packet {
  readonly protocol: number;
  readonly from: number;
  readonly to: number;
  readonly source: number;
  readonly tag: number;
  readonly fragment: number;
}

function packet({
  protocol = TCP,
  from = 1000,
  to = 2000,
  source = 1,
  tag,
  fragment = 0,
}: Partial<Packet>): Buffer {
  const ip = Buffer.alloc(24);
  ip[0] = 0x45;
  ip.writeUInt16BE(fragment, 6);
  ip[9] = protocol;
  ip.set([10, 0, 0, source, 10, 0, 0, 2], 12);
  ip.writeUInt16BE(from, 20);
  ip.writeUInt16BE(to, 22);
  const type = [...(tag === undefined ? [] : [0x81, 0, tag >>> 8, tag & 0xff]), 8, 0];
  return Buffer.concat([Buffer.alloc(12), Buffer.from(type), ip]);
}

describe('flow director', () => {
  test('compares addresses, ports and protocol', () => {
    const b = new Bench();
    b.add(1, 9);
    assert.equal(b.match(), 9);
    assert.equal(b.match({ source: 3 }), NO_FLOW);
    assert.equal(b.match({ from: 1001 }), NO_FLOW);
    assert.equal(b.match({ to: 2001 }), NO_FLOW);
    assert.equal(b.match({ protocol: UDP }), NO_FLOW);
    assert.equal(b.match({ fragment: 0x2000 }), NO_FLOW);
    assert.equal(b.words[R.FDIRMATCH], 1);
    assert.equal(b.words[R.FDIRMISS], 5);
  });

  test('compares what the masks leave', () => {
    const b = new Bench(NO_VLAN | IXGBE_FDIRM_FLEX);
    b.add(1, 9);
    b.mask(R.FDIRSIP4M, 0xffff_ffff);
    assert.equal(b.match({ source: 77 }), 9);
    // Of the source port all bits, of the destination's the upper four: each in reverse order.
    b.mask(R.FDIRTCPM, 0x000f_ffff);
    assert.equal(b.match({ from: 5 }), 9);
    assert.equal(b.match({ to: 2000 ^ 0xf000 }), 9);
    assert.equal(b.match({ to: 2001 }), NO_FLOW);
    b.mask(R.FDIRM, NO_VLAN | IXGBE_FDIRM_FLEX | IXGBE_FDIRM_L4);
    b.mask(R.FDIRTCPM, 0xffff_ffff);
    b.mask(R.FDIRUDPM, 0xffff_ffff);
    assert.equal(b.match({ protocol: UDP }), 9);
  });

  test('compares tags, beside the frame and in it', () => {
    const b = new Bench(IXGBE_FDIRM_FLEX);
    b.add(1, 9, { tail: 0x6005 });
    assert.equal(b.match(), NO_FLOW);
    assert.equal(b.match({}, 0x6005), 9);
    assert.equal(b.match({ tag: 0x6005 }), 9);
    assert.equal(b.match({ tag: 0x2005 }), NO_FLOW);
    b.mask(R.FDIRM, IXGBE_FDIRM_FLEX | IXGBE_FDIRM_VLAN_PRIORITY);
    assert.equal(b.match({ tag: 0x2005 }), 9);
    assert.equal(b.match({ tag: 0x2006 }), NO_FLOW);
  });

  test('compares two bytes of any place', () => {
    const b = new Bench(NO_VLAN, 12);
    b.add(1, 9, { tail: 0x000a_0000 });
    // Bytes 24 and 25: behind TTL and protocol of this header is its sum, which is 0 here.
    assert.equal(b.match(), NO_FLOW);
    b.add(1, 9, { tail: 0 });
    assert.equal(b.match(), 9);
  });

  test('filters are replaced, asked for, removed, and forgotten', () => {
    const b = new Bench();
    b.add(1, 9);
    b.add(1, 10);
    assert.equal(b.match(), 10);
    b.flows.command(IXGBE_FDIRCMD_QUERY);
    assert.equal(b.words[R.FDIRCMD], IXGBE_FDIRCMD_VALID);
    b.flows.command(IXGBE_FDIRCMD_REMOVE);
    assert.equal(b.flows.any, false);
    b.flows.command(IXGBE_FDIRCMD_QUERY);
    assert.equal(b.words[R.FDIRCMD], 0);
    b.add(2, 11, { more: IXGBE_FDIRCMD_DROP });
    assert.equal(b.match(), DROPPED_FLOW);
    b.flows.control(IXGBE_FDIRCTRL_PERFECT);
    assert.equal(b.words[R.FDIRCTRL], IXGBE_FDIRCTRL_PERFECT | IXGBE_FDIRCTRL_INIT_DONE);
    assert.equal(b.match(), NO_FLOW);
  });

  test('signature filters hold nothing, and there is an end of filters', () => {
    const b = new Bench();
    b.flows.control(0);
    b.add(1, 9);
    assert.equal(b.flows.any, false);
    b.flows.control(IXGBE_FDIRCTRL_PERFECT);
    for (let id = 0; id < 3000; id++) b.add(id, id & 127);
    assert.equal(b.words[R.FDIRFREE], 0);
    assert.equal(b.match(), 0, 'the first of those that are alike');
  });

  test('many filters find their frames', () => {
    const b = new Bench();
    for (let id = 0; id < 2000; id++) {
      b.words[R.FDIRHASH] = id;
      b.words[R.FDIRIPSA] = Buffer.from([10, 0, 0, 1]).readUInt32LE();
      b.words[R.FDIRIPDA] = Buffer.from([10, 0, 0, 2]).readUInt32LE();
      b.words[R.FDIRPORT] = (3000 + id) | (2000 << 16);
      b.flows.command(
        IXGBE_FDIRCMD_ADD |
          (IXGBE_FDIRCMD_L4_TCP << IXGBE_FDIRCMD_L4_SHIFT) |
          ((id & 127) << IXGBE_FDIRCMD_QUEUE_SHIFT),
      );
    }
    for (let id = 0; id < 2000; id += 37) assert.equal(b.match({ from: 3000 + id }), id & 127);
    assert.equal(b.match({ from: 2999 }), NO_FLOW);
  });

  test('filters that fall on one place of the table are told apart', () => {
    // No guest can have them do so: the keys are not for it to know.
    const b = new Bench(NO_VLAN | IXGBE_FDIRM_FLEX, 6, new Uint32Array(10));
    for (let id = 0; id < 50; id++) {
      b.words[R.FDIRHASH] = id;
      b.words[R.FDIRIPSA] = Buffer.from([10, 0, 0, 1]).readUInt32LE();
      b.words[R.FDIRIPDA] = Buffer.from([10, 0, 0, 2]).readUInt32LE();
      b.words[R.FDIRPORT] = (3000 + id) | (2000 << 16);
      b.flows.command(
        IXGBE_FDIRCMD_ADD |
          (IXGBE_FDIRCMD_L4_TCP << IXGBE_FDIRCMD_L4_SHIFT) |
          (id << IXGBE_FDIRCMD_QUEUE_SHIFT),
      );
    }
    for (let id = 0; id < 50; id++) assert.equal(b.match({ from: 3000 + id }), id);
    assert.equal(b.match({ from: 2999 }), NO_FLOW);
  });

  test('short frames and other protocols match nothing', () => {
    const b = new Bench();
    b.add(1, 9);
    const whole = packet({});
    for (let length = 0; length < whole.length; length++) {
      assert.equal(b.flows.match(whole, 0, length, 0), NO_FLOW, `${length} bytes`);
    }
    whole.writeUInt16BE(0x86dd, 12);
    assert.equal(b.flows.match(whole, 0, whole.length, 0), NO_FLOW);
  });
});
