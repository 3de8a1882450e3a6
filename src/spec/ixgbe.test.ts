/** The table of registers: no two at one place, and what drivers rely on is where they look for it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  IXGBE_ALIASES,
  IXGBE_QUEUES,
  IXGBE_REGISTER_BYTES,
  IXGBE_REGISTERS,
  IXGBE_RX_QUEUE_REGISTERS,
  IXGBE_TX_QUEUE_REGISTERS,
  type IxgbeRegister,
  ixgbeRxQueue,
  ixgbeTxQueue,
} from './ixgbe.ts';

/** All words of the BAR, and the declaration that each belongs to. */
function places(): Map<number, { name: string; register: IxgbeRegister }> {
  const words = new Map<number, { name: string; register: IxgbeRegister }>();
  const put = (name: string, register: IxgbeRegister, base: number): void => {
    for (let i = 0; i < register.count; i++) {
      const at = base + register.offset + i * register.stride;
      const other = words.get(at);
      assert.equal(other, undefined, `${name} and ${other?.name} at 0x${at.toString(16)}`);
      words.set(at, { name, register });
    }
  };
  for (const [name, register] of Object.entries(IXGBE_REGISTERS)) put(name, register, 0);
  for (let queue = 0; queue < IXGBE_QUEUES; queue++) {
    for (const [name, register] of Object.entries(IXGBE_RX_QUEUE_REGISTERS)) {
      put(`${name}(${queue})`, register, ixgbeRxQueue(queue));
    }
    for (const [name, register] of Object.entries(IXGBE_TX_QUEUE_REGISTERS)) {
      put(`${name}(${queue})`, register, ixgbeTxQueue(queue));
    }
  }
  return words;
}

describe('registers of the 82599', () => {
  test('have places of their own in the BAR', () => {
    for (const at of places().keys()) {
      assert.equal(at % 4, 0);
      assert.ok(at < IXGBE_REGISTER_BYTES);
    }
  });

  test('have second addresses that are nothing else and lead to registers', () => {
    const words = places();
    for (const { name, at, stride, count, to, toStride } of IXGBE_ALIASES) {
      for (let i = 0; i < count; i++) {
        assert.equal(words.get(at + i * stride), undefined, `${name} at ${at + i * stride}`);
        const target = words.get(to + i * toStride)?.name.replace(/\(.*/, '') ?? 'nothing';
        assert.ok(name.includes(target), `${name} leads to ${target}`);
      }
    }
  });

  test('keep of the patterns of ethtool -t what the driver expects', () => {
    const words = places();
    const alias = (at: number): number => {
      for (const { at: from, stride, count, to, toStride } of IXGBE_ALIASES) {
        const index = (at - from) / stride;
        if (Number.isInteger(index) && index >= 0 && index < count) return to + index * toStride;
      }
      return at;
    };
    // Offset, number, distance, bits that are written, bits that are compared.
    const rows: readonly (readonly [number, number, number, number, number])[] = [
      [0x03220, 1, 0, 0x8007fff0, 0x8007fff0],
      [0x03260, 1, 0, 0x8007fff0, 0x8007fff0],
      [0x03008, 1, 0, 0xffffffff, 0xffffffff],
      [0x01000, 4, 0x40, 0xffffff80, 0xffffff80],
      [0x01004, 4, 0x40, 0xffffffff, 0xffffffff],
      [0x01008, 4, 0x40, 0x000fffff, 0x000fff80],
      [0x01018, 4, 0x40, 0x0000ffff, 0x0000ffff],
      [0x03200, 1, 0, 0xffffffff, 0xffffffff],
      [0x06000, 4, 0x40, 0xffffffff, 0xffffff80],
      [0x06004, 4, 0x40, 0xffffffff, 0xffffffff],
      [0x06008, 4, 0x40, 0x000fff80, 0x000fff80],
      [0x05400, 16, 8, 0xffffffff, 0xffffffff],
      [0x05404, 16, 8, 0x800cffff, 0x8001ffff],
      [0x05200, 128, 4, 0xffffffff, 0xffffffff],
    ];
    for (const [offset, count, distance, written, compared] of rows) {
      for (let i = 0; i < count; i++) {
        const at = alias(offset + i * distance);
        const mask = words.get(at)?.register.mask ?? 0;
        const kept = (written & mask) >>> 0;
        assert.equal(kept, (written & compared) >>> 0, `0x${at.toString(16)}`);
      }
    }
  });

  test('of queues 64 and up are in a second bank', () => {
    assert.equal(ixgbeRxQueue(63), 0x01fc0);
    assert.equal(ixgbeRxQueue(64), 0x0d000);
    assert.equal(ixgbeTxQueue(127), 0x07fc0);
  });
});
