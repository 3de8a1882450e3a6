import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  PCI_BAR0,
  PCI_CAP_ID_EXPRESS,
  PCI_CAP_ID_MSI,
  PCI_CAP_ID_MSIX,
  PCI_CAP_ID_PM,
  PCI_CAP_ID_VENDOR,
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_EXT_CAP_ID_AER,
  PCI_EXT_CAP_ID_SRIOV,
  PCI_INTERRUPT_LINE,
  PCI_ROM_BAR,
  PCI_STATUS,
  PCIE_AER_COMPLETION_TIMEOUT,
  PCIE_AER_CONTROL,
  PCIE_AER_HEADER_LOG,
  PCIE_AER_UNCORRECTABLE_STATUS,
  PCIE_DEVICE_CONTROL,
  PCIE_DEVICE_STATUS,
} from '../spec/pci.ts';
import type { BarDeclaration } from './bars.ts';
import { type PciCapability, PciConfigSpace } from './config-space.ts';
import { FullFunction, TestTransport } from './testing.ts';

const IDENTITY = { vendor: 0x1af4, device: 1, classCode: 0xff0000 };
const LENGTHS = [1, 2, 4] as const;

const capability = (
  id: number,
  bytes: number,
  more: Partial<PciCapability> = {},
): PciCapability => ({
  name: `cap ${id}`,
  id,
  bytes,
  registers: [],
  ...more,
});

const access = fc.record({
  offset: fc.integer({ min: -8, max: 4104 }),
  length: fc.constantFrom(...LENGTHS),
  value: fc.integer({ min: 0, max: 0xffff_ffff }),
});

/** Accesses where there are registers, most of them. */
const registerAccess = fc.oneof(
  access,
  fc.tuple(access, fc.nat(), fc.integer({ min: -3, max: 3 })).map(([one, which, shift]) => {
    const registers = new FullFunction().space.registers;
    const register = registers[which % registers.length];
    return { ...one, offset: (register?.offset ?? 0) + shift };
  }),
);

describe('PciConfigSpace', () => {
  test('any writes keep read-only bits', () => {
    fc.assert(
      fc.property(fc.array(registerAccess, { maxLength: 60 }), (writes) => {
        const fn = new FullFunction();
        const guest = new TestTransport(fn);
        for (const { offset, length, value } of writes) {
          guest.fn.writeConfig(offset, length, value);
        }
        const owned = new Uint8Array(fn.configBytes);
        for (const { name, offset, bytes, reset = 0, rw = 0 } of fn.space.registers) {
          for (let i = 0; i < bytes; i += 1) {
            owned[offset + i] = 1;
            const readOnly = ~(rw >>> (8 * i)) & 0xff;
            assert.equal(
              fn.readConfig(offset + i, 1) & readOnly,
              (reset >>> (8 * i)) & readOnly,
              `${name} byte ${i}`,
            );
          }
        }
        owned.forEach((one, at) => {
          assert.ok(one === 1 || fn.readConfig(at, 1) === 0, `nothing at ${at}`);
        });
      }),
      { numRuns: 150 },
    );
  });

  test('a read of any width is its bytes, ones beyond the end', () => {
    const fn = new FullFunction();
    fc.assert(
      fc.property(access, ({ offset, length }) => {
        let expected = 0;
        for (let i = length - 1; i >= 0; i -= 1) {
          const at = offset + i;
          expected = expected * 256 + (at < 0 || at >= 4096 ? 0xff : fn.readConfig(at, 1));
        }
        assert.equal(fn.readConfig(offset, length), expected);
      }),
    );
  });

  test('a write of any width is the writes of its bytes', () => {
    fc.assert(
      fc.property(fc.array(registerAccess, { maxLength: 20 }), (writes) => {
        const wide = new FullFunction();
        const narrow = new FullFunction();
        for (const { offset, length, value } of writes) {
          wide.writeConfig(offset, length, value);
          for (let i = 0; i < length; i += 1) {
            narrow.writeConfig(offset + i, 1, (value >>> (8 * i)) & 0xff);
          }
        }
        for (let at = 0; at < wide.configBytes; at += 4) {
          assert.equal(narrow.readConfig(at, 4), wide.readConfig(at, 4), `at ${at}`);
        }
      }),
      { numRuns: 100 },
    );
  });

  test('lists lead to every capability', () => {
    const guest = new TestTransport(new FullFunction());
    for (const id of [PCI_CAP_ID_PM, PCI_CAP_ID_MSI, PCI_CAP_ID_EXPRESS, PCI_CAP_ID_MSIX]) {
      assert.ok(guest.find(id) >= 0x40, `capability ${id}`);
    }
    for (const id of [1, 3, 0xd, 0xe, 0xf, 0x10]) {
      assert.ok(guest.find(id, true) >= 0x100, `extended capability ${id}`);
    }
    assert.equal(guest.find(0x42), 0);
    const vendor = guest.find(PCI_CAP_ID_VENDOR);
    guest.fn.writeConfig(vendor + 4, 4, 0xffff_ffff);
    assert.equal(guest.fn.readConfig(vendor + 4, 4), 0x1234_ff78);
  });

  test('BARs answer all ones with their size', () => {
    const guest = new TestTransport(new FullFunction());
    assert.deepEqual(
      [0, 1, 2, 3, 5].map((bar) => guest.size(bar)),
      [4096, 0, 32, 16384, 0],
    );
    assert.equal(guest.fn.readConfig(PCI_BAR0 + 8, 4) & 3, 1);
    assert.equal(guest.fn.readConfig(PCI_BAR0 + 12, 4) & 0xf, 0xc);
    guest.fn.writeConfig(PCI_ROM_BAR, 4, 0xffff_ffff);
    assert.equal(guest.fn.readConfig(PCI_ROM_BAR, 4), 0xffff_f001);
  });

  test('BARs of more than 4 GiB are sized in their upper half', () => {
    const bars: BarDeclaration[] = [{ kind: 'memory64', bytes: 2 ** 34 }];
    const space = new PciConfigSpace({ name: 'big', identity: IDENTITY, bars });
    space.write(PCI_BAR0, 4, 0xffff_ffff);
    space.write(PCI_BAR0 + 4, 4, 0xffff_ffff);
    assert.equal(space.read(PCI_BAR0, 4), 4);
    assert.equal(space.read(PCI_BAR0 + 4, 4), 0xffff_fffc);
  });

  test('addresses are where the guest has put them', () => {
    const fn = new FullFunction();
    const guest = new TestTransport(fn);
    guest.enumerate();
    assert.equal(fn.space.barAddress(0), 0xc000_0000);
    assert.equal(fn.space.barAddress(2), 0x1000);
    assert.equal(fn.space.barAddress(3), 2 ** 40);
    assert.equal(fn.space.romAddress(), -1);
    fn.writeConfig(PCI_ROM_BAR, 4, 0xd000_0001);
    assert.equal(fn.space.romAddress(), 0xd000_0000);
    guest.command(0, PCI_COMMAND_MEMORY);
    assert.equal(fn.space.romAddress(), -1);
  });

  test('a declaration that PCI does not have is refused', () => {
    const make =
      (bars: BarDeclaration[], capabilities: PciCapability[] = [], rom?: Uint8Array) =>
      () =>
        new PciConfigSpace({ name: 'x', identity: IDENTITY, bars, capabilities, rom });
    const refused = { code: 'config' };
    assert.throws(make([{ kind: 'memory32', bytes: 3000 }]), refused);
    assert.throws(make([{ kind: 'memory32', bytes: 8 }]), refused);
    assert.throws(make([{ kind: 'io', bytes: 512 }]), refused);
    assert.throws(make([{ kind: 'io', bytes: 32, prefetchable: true }]), refused);
    assert.throws(
      make([
        { kind: 'memory64', bytes: 64 },
        { kind: 'memory32', bytes: 64 },
      ]),
      refused,
    );
    const area = { offset: 4096, bytes: 4096, fd: 0, fdOffset: 0 };
    assert.throws(make([{ kind: 'memory32', bytes: 4096, areas: [area] }]), refused);
    assert.throws(make([], [], new Uint8Array(3000)), refused);
    assert.throws(make([], [capability(9, 200)]), refused);
    assert.throws(make([], [capability(9, 16), capability(9, 16, { at: 0x44 })]), refused);
    assert.throws(make([], [capability(9, 16, { at: 0x20 })]), refused);
    assert.throws(make([], [capability(1, 16, { version: 1 })]), refused, 'without PCI Express');
    make([{ kind: 'memory32', bytes: 2 ** 31 }], [capability(9, 128)])();
  });

  test('INTERRUPT_LINE is storage, status clears what is written as one', () => {
    const fn = new FullFunction();
    fn.writeConfig(PCI_INTERRUPT_LINE, 1, 0x5a);
    assert.equal(fn.readConfig(PCI_INTERRUPT_LINE, 1), 0x5a);
    fn.space.set(PCI_STATUS, 2, 0x9000, 0xf900);
    fn.writeConfig(PCI_STATUS, 2, 0x1000);
    assert.equal(fn.readConfig(PCI_STATUS, 2), 0x8010);
  });
});

describe('resets', () => {
  /** A function with marks in what resets treat in different ways. */
  function marked(): { fn: FullFunction; guest: TestTransport; express: number; aer: number } {
    const fn = new FullFunction();
    const guest = new TestTransport(fn);
    guest.enumerate();
    const express = guest.find(PCI_CAP_ID_EXPRESS);
    const aer = guest.find(PCI_EXT_CAP_ID_AER, true);
    fn.writeConfig(express + PCIE_DEVICE_CONTROL, 2, 0x0030);
    fn.errors.uncorrectable(PCIE_AER_COMPLETION_TIMEOUT, [1, 2, 3, 4]);
    return { fn, guest, express, aer };
  }

  for (const kind of ['function', 'bus'] as const) {
    test(`a reset of the ${kind} keeps sticky bits and clears the others`, () => {
      const { fn, guest, express, aer } = marked();
      assert.equal(fn.readConfig(express + PCIE_DEVICE_STATUS, 2), 2, 'non-fatal');
      if (kind === 'bus') {
        fn.reset();
      } else {
        fn.writeConfig(express + PCIE_DEVICE_CONTROL, 2, 0x8030);
      }
      assert.deepEqual(fn.resets, [kind]);
      assert.equal(fn.readConfig(PCI_COMMAND, 2), 0);
      assert.equal(fn.space.barAddress(0), 0);
      assert.equal(fn.readConfig(express + PCIE_DEVICE_STATUS, 2), 0);
      const control = fn.readConfig(express + PCIE_DEVICE_CONTROL, 2);
      assert.equal(control, kind === 'bus' ? 0x2810 : 0x2830, 'FLR keeps the payload size');
      const status = fn.readConfig(aer + PCIE_AER_UNCORRECTABLE_STATUS, 4);
      assert.equal(status, PCIE_AER_COMPLETION_TIMEOUT);
      assert.equal(fn.readConfig(aer + PCIE_AER_CONTROL, 4), 14);
      assert.equal(fn.readConfig(aer + PCIE_AER_HEADER_LOG + 12, 4), 4);
      assert.equal(guest.busMaster, false);
    });
  }

  test('the first error stays logged until it is cleared', () => {
    const { fn, aer } = marked();
    fn.errors.uncorrectable(0x1000, [9, 9, 9, 9]);
    assert.equal(fn.readConfig(aer + PCIE_AER_HEADER_LOG, 4), 1);
    fn.writeConfig(aer + PCIE_AER_UNCORRECTABLE_STATUS, 4, 0xffff_ffff);
    assert.equal(fn.readConfig(aer + PCIE_AER_UNCORRECTABLE_STATUS, 4), 0);
    fn.errors.uncorrectable(0x1000, [9, 9, 9, 9]);
    assert.equal(fn.readConfig(aer + PCIE_AER_HEADER_LOG, 4), 9);
  });
});

describe('SR-IOV', () => {
  test('VFs come and go by a callback; their BARs follow the first', () => {
    const fn = new FullFunction();
    const guest = new TestTransport(fn);
    const at = guest.find(PCI_EXT_CAP_ID_SRIOV, true);
    fn.writeConfig(at + 0x24, 4, 0xffff_ffff);
    assert.equal(fn.readConfig(at + 0x24, 4), 0xffff_c00c, '16 KiB');
    fn.writeConfig(at + 0x20, 4, 0x10);
    fn.writeConfig(at + 0x24, 4, 0xffff_ffff);
    assert.equal(fn.readConfig(at + 0x24, 4), 0xffff_000c, 'a page of 64 KiB');
    fn.writeConfig(at + 0x24, 4, 0xd000_0000);
    fn.writeConfig(at + 0x28, 4, 2);
    assert.equal(fn.sriov.barAddress(0, 3), 2 * 2 ** 32 + 0xd003_0000);
    assert.equal(fn.sriov.routingId(0x0100, 2), 0x0184);
    fn.writeConfig(at + 0x10, 2, 5);
    fn.writeConfig(at + 0x08, 2, 0x9);
    assert.deepEqual(fn.vfs, [5]);
    assert.equal(fn.sriov.memoryEnabled, true);
    fn.writeConfig(at + 0x10, 2, 7);
    assert.equal(fn.readConfig(at + 0x10, 2), 5, 'fixed while enabled');
    fn.writeConfig(at + 0x08, 2, 0);
    fn.writeConfig(at + 0x10, 2, 500);
    fn.writeConfig(at + 0x08, 2, 1);
    assert.deepEqual(fn.vfs, [5, 0, 7], 'no more than there are');
    fn.reset();
    assert.deepEqual(fn.vfs, [5, 0, 7, 0]);
    fn.writeConfig(at + 0x10, 2, 3);
    assert.equal(fn.readConfig(at + 0x10, 2), 3, 'writable again');
  });
});

test('command bits that mean nothing here cannot be set', () => {
  const fn = new FullFunction();
  fn.writeConfig(PCI_COMMAND, 2, 0xffff);
  const expected = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | 0x0540;
  assert.equal(fn.readConfig(PCI_COMMAND, 2), expected);
});
