/** Filters that choose a queue: what they match, and which of several goes first (§7.1.2.3 to §7.1.2.5). */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  IXGBE_ETQF_ENABLE,
  IXGBE_ETQS_IMMEDIATE,
  IXGBE_ETQS_QUEUE_ENABLE,
  IXGBE_ETQS_QUEUE_SHIFT,
  IXGBE_FTQF_ANY_DESTINATION,
  IXGBE_FTQF_ANY_DESTINATION_PORT,
  IXGBE_FTQF_ANY_PROTOCOL,
  IXGBE_FTQF_ANY_SOURCE,
  IXGBE_FTQF_ANY_SOURCE_PORT,
  IXGBE_FTQF_ENABLE,
  IXGBE_FTQF_PRIORITY_SHIFT,
  IXGBE_FTQF_TCP,
  IXGBE_FTQF_UDP,
  IXGBE_L34TIMIR_IMMEDIATE,
  IXGBE_L34TIMIR_QUEUE_SHIFT,
  IXGBE_SYNQF_ENABLE,
  IXGBE_SYNQF_PRIORITY,
  IXGBE_SYNQF_QUEUE_SHIFT,
} from '../../spec/ixgbe.ts';
import { IMMEDIATE, NO_QUEUE, QueueFilters } from './queue-filters.ts';
import { R, REGISTER_WORDS } from './registers.ts';

const TCP = 6;
const UDP = 17;
const SYN = 0x02;
const ACK = 0x10;
const ANY =
  IXGBE_FTQF_ANY_SOURCE |
  IXGBE_FTQF_ANY_DESTINATION |
  IXGBE_FTQF_ANY_SOURCE_PORT |
  IXGBE_FTQF_ANY_DESTINATION_PORT |
  IXGBE_FTQF_ANY_PROTOCOL;

class Bench {
  readonly words = new Uint32Array(REGISTER_WORDS);
  readonly filters = new QueueFilters(this.words);

  set(index: number, value: number): void {
    this.words[index] = value;
    this.filters.update();
  }

  /** A 5-tuple filter of 10.0.0.1:1000 to 10.0.0.2:2000, but for what `control` leaves out. */
  tuple(filter: number, queue: number, control: number, action = 0): void {
    this.words[R.SAQF + filter] = Buffer.from([10, 0, 0, 1]).readUInt32LE();
    this.words[R.DAQF + filter] = Buffer.from([10, 0, 0, 2]).readUInt32LE();
    this.words[R.SDPQF + filter] = ports(1000, 2000).readUInt32LE();
    this.words[R.L34TIMIR + filter] = (queue << IXGBE_L34TIMIR_QUEUE_SHIFT) | action;
    this.set(R.FTQF + filter, IXGBE_FTQF_ENABLE | control);
  }

  match(frame: Buffer): number {
    return this.filters.match(frame, 0, frame.length);
  }
}

function ports(from: number, to: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt16BE(from, 0);
  bytes.writeUInt16BE(to, 2);
  return bytes;
}

interface Packet {
  readonly protocol?: number;
  readonly from?: number;
  readonly to?: number;
  readonly source?: number;
  readonly flags?: number;
  /** Flags and offset of IPv4. */
  readonly fragment?: number;
  readonly tag?: boolean;
}

function packet(options: Packet = {}): Buffer {
  const { protocol = TCP, from = 1000, to = 2000, source = 1, flags = 0, fragment = 0 } = options;
  const ip = Buffer.alloc(20);
  ip[0] = 0x45;
  ip.writeUInt16BE(fragment, 6);
  ip[9] = protocol;
  ip.set([10, 0, 0, source, 10, 0, 0, 2], 12);
  const transport = Buffer.alloc(20);
  transport.set(ports(from, to));
  transport[13] = flags;
  const type = [...(options.tag === true ? [0x81, 0, 0, 5] : []), 8, 0];
  return Buffer.concat([Buffer.alloc(12), Buffer.from(type), ip, transport]);
}

describe('5-tuple filters', () => {
  test('compare addresses, ports and protocol', () => {
    const b = new Bench();
    b.tuple(3, 17, IXGBE_FTQF_TCP);
    assert.equal(b.match(packet()), 17);
    assert.equal(b.match(packet({ tag: true })), 17);
    assert.equal(b.match(packet({ protocol: UDP })), NO_QUEUE);
    assert.equal(b.match(packet({ from: 1001 })), NO_QUEUE);
    assert.equal(b.match(packet({ to: 2001 })), NO_QUEUE);
    assert.equal(b.match(packet({ source: 3 })), NO_QUEUE);
    assert.equal(b.match(packet({ fragment: 0x2000 })), NO_QUEUE, 'a fragment has no ports');
  });

  test('leave out what the mask says', () => {
    const b = new Bench();
    b.tuple(0, 1, ANY & ~IXGBE_FTQF_ANY_DESTINATION_PORT);
    assert.equal(b.match(packet({ protocol: UDP, from: 7, source: 9 })), 1);
    assert.equal(b.match(packet({ to: 80 })), NO_QUEUE);
    b.tuple(0, 1, ANY & ~IXGBE_FTQF_ANY_SOURCE);
    assert.equal(b.match(packet({ fragment: 0x2000 })), 1);
    assert.equal(b.match(packet({ source: 9 })), NO_QUEUE);
    b.tuple(0, 1, (ANY & ~IXGBE_FTQF_ANY_PROTOCOL) | IXGBE_FTQF_UDP);
    assert.equal(b.match(packet({ protocol: UDP })), 1);
    assert.equal(b.match(packet()), NO_QUEUE);
  });

  test('go by priority, then by number', () => {
    const b = new Bench();
    b.tuple(5, 5, ANY | (1 << IXGBE_FTQF_PRIORITY_SHIFT));
    b.tuple(7, 7, ANY | (1 << IXGBE_FTQF_PRIORITY_SHIFT));
    assert.equal(b.match(packet()), 5);
    b.tuple(9, 9, ANY | (6 << IXGBE_FTQF_PRIORITY_SHIFT));
    assert.equal(b.match(packet()), 9);
    b.set(R.FTQF + 9, ANY);
    assert.equal(b.match(packet()), 5, 'not enabled');
  });

  test('may ask for an interrupt at once', () => {
    const b = new Bench();
    b.tuple(0, 127, ANY, IXGBE_L34TIMIR_IMMEDIATE);
    assert.equal(b.match(packet()), 127 | IMMEDIATE);
  });

  test('are of no use for other frames, and short ones', () => {
    const b = new Bench();
    b.tuple(0, 1, ANY);
    assert.equal(b.match(Buffer.from([...Buffer.alloc(12), 0x86, 0xdd, ...Buffer.alloc(40)])), -1);
    for (let length = 0; length < 34; length++) {
      assert.equal(b.match(packet().subarray(0, length)), NO_QUEUE);
    }
  });
});

describe('EtherType filters', () => {
  test('match the type behind tags, where they have a queue', () => {
    const b = new Bench();
    b.words[R.ETQS + 2] = IXGBE_ETQS_QUEUE_ENABLE | (33 << IXGBE_ETQS_QUEUE_SHIFT);
    b.set(R.ETQF + 2, IXGBE_ETQF_ENABLE | 0x0800);
    assert.equal(b.match(packet()), 33);
    assert.equal(b.match(packet({ tag: true })), 33);
    b.set(
      R.ETQS + 2,
      IXGBE_ETQS_QUEUE_ENABLE | IXGBE_ETQS_IMMEDIATE | (33 << IXGBE_ETQS_QUEUE_SHIFT),
    );
    assert.equal(b.match(packet()), 33 | IMMEDIATE);
    b.set(R.ETQS + 2, 33 << IXGBE_ETQS_QUEUE_SHIFT);
    assert.equal(b.filters.any, false);
  });
});

describe('the SYN filter', () => {
  test('matches TCP that opens a connection', () => {
    const b = new Bench();
    b.set(R.SYNQF, IXGBE_SYNQF_ENABLE | (4 << IXGBE_SYNQF_QUEUE_SHIFT));
    assert.equal(b.match(packet({ flags: SYN })), 4);
    assert.equal(b.match(packet({ flags: SYN | ACK })), NO_QUEUE);
    assert.equal(b.match(packet({ flags: ACK })), NO_QUEUE);
    assert.equal(b.match(packet({ flags: SYN, protocol: UDP })), NO_QUEUE);
  });

  test('goes before 5-tuples, or behind them', () => {
    const b = new Bench();
    b.tuple(0, 9, ANY);
    b.set(R.SYNQF, IXGBE_SYNQF_ENABLE | (4 << IXGBE_SYNQF_QUEUE_SHIFT));
    assert.equal(b.match(packet({ flags: SYN })), 9);
    b.set(R.SYNQF, IXGBE_SYNQF_PRIORITY | IXGBE_SYNQF_ENABLE | (4 << IXGBE_SYNQF_QUEUE_SHIFT));
    assert.equal(b.match(packet({ flags: SYN })), 4);
    assert.equal(b.match(packet()), 9);
  });
});

test('nothing matches while nothing is enabled', () => {
  const b = new Bench();
  b.filters.update();
  assert.equal(b.filters.any, false);
  assert.equal(b.match(packet({ flags: SYN })), NO_QUEUE);
});
