import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  PCI_CAP_ID_EXPRESS,
  PCI_CAP_ID_MSI,
  PCI_CAP_ID_MSIX,
  PCI_CAP_ID_PM,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_STATUS,
  PCI_STATUS_INTERRUPT,
  PCI_VENDOR_ID,
} from '../spec/pci.ts';
import { Msi } from './msi.ts';
import { Msix } from './msix.ts';
import { FullFunction, type FullFunctionOptions, TestTransport } from './testing.ts';

function started(options: FullFunctionOptions = {}) {
  const fn = new FullFunction(options);
  const guest = new TestTransport(fn);
  guest.enumerate();
  return { fn, guest };
}

const interruptStatus = (fn: FullFunction): boolean =>
  (fn.readConfig(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT) !== 0;

describe('BARs', () => {
  test('a BAR answers while it is decoded, with ones else', () => {
    const { fn, guest } = started();
    fn.writeBar(0, 8, 4, 0xdead_beef);
    assert.equal(fn.readBar(0, 8, 4), 0xdead_beef);
    assert.equal(fn.readBar(0, 10, 2), 0xdead);
    assert.equal(fn.readBar(0, 4094, 4), 0xffff_ffff, 'over the end');
    assert.equal(fn.readBar(1, 0, 1), 0xff, 'no BAR');
    assert.equal(fn.readBar(4, 0, 2), 0xffff, 'an upper half');
    guest.command(0, PCI_COMMAND_MEMORY);
    fn.writeBar(0, 8, 4, 1);
    assert.equal(fn.readBar(0, 8, 4), 0xffff_ffff);
    assert.equal(fn.readBar(2, 8, 4), 0xdead_beef, 'I/O is still on');
    guest.command(PCI_COMMAND_MEMORY);
    assert.equal(fn.readBar(0, 8, 4), 0xdead_beef);
  });

  test('no access to any BAR throws', () => {
    const { fn } = started();
    fc.assert(
      fc.property(
        fc.integer({ min: -1, max: 8 }),
        fc.oneof(fc.integer({ min: -8, max: 20_000 }), fc.maxSafeInteger()),
        fc.constantFrom(1, 2, 4),
        fc.integer({ min: 0, max: 0xffff_ffff }),
        (bar, offset, length, value) => {
          fn.writeBar(bar, offset, length, value);
          const read = fn.readBar(bar, offset, length);
          assert.ok(Number.isInteger(read) && read >= 0 && read < 256 ** length);
        },
      ),
    );
  });
});

describe('bus mastering', () => {
  test('transport and device are told once a change', () => {
    const { fn, guest } = started();
    assert.equal(guest.busMaster, true);
    guest.command(PCI_COMMAND_MASTER);
    guest.command(0, PCI_COMMAND_MASTER);
    assert.equal(guest.busMaster, false);
    assert.deepEqual(fn.master, [true, false]);
  });
});

describe('INTx', () => {
  test('the line follows the level where the command register allows', () => {
    const { fn, guest } = started();
    fn.irq.setLevel(true);
    fn.irq.setLevel(true);
    assert.deepEqual([guest.intx, guest.intxChanges, interruptStatus(fn)], [true, 1, true]);
    guest.command(PCI_COMMAND_INTX_DISABLE);
    assert.deepEqual([guest.intx, interruptStatus(fn)], [false, true], 'still pending');
    guest.command(0, PCI_COMMAND_INTX_DISABLE);
    assert.equal(guest.intx, true);
    fn.irq.setLevel(false);
    assert.deepEqual([guest.intx, interruptStatus(fn)], [false, false]);
  });

  test('a reset takes the line back once, though INTx was disabled', () => {
    const { fn, guest } = started();
    fn.irq.setLevel(true);
    guest.command(PCI_COMMAND_INTX_DISABLE);
    const before = guest.intxChanges;
    fn.reset();
    assert.deepEqual([guest.intx, guest.intxChanges], [false, before]);
  });

  test('MSI takes over from the line, and gives it back', () => {
    const { fn, guest } = started();
    const msi = guest.find(PCI_CAP_ID_MSI);
    fn.irq.setLevel(true);
    fn.writeConfig(msi + 2, 2, 1);
    assert.deepEqual([guest.intx, interruptStatus(fn), fn.irq.mode], [false, false, 'msi']);
    fn.irq.signal(0);
    assert.deepEqual(guest.msi, [0]);
    fn.writeConfig(msi + 2, 2, 0);
    assert.equal(guest.intx, true);
    fn.irq.signal(0);
    assert.deepEqual(guest.msi, [0], 'no message by INTx');
  });
});

describe('MSI', () => {
  test('vectors beyond those given are folded, masked ones wait', () => {
    const { fn, guest } = started();
    const msi = guest.find(PCI_CAP_ID_MSI);
    fn.writeConfig(msi + 2, 2, 0x11);
    fn.irq.signal(1);
    fn.irq.signal(3);
    assert.deepEqual(guest.msi, [1, 1], 'two of four given');
    fn.writeConfig(msi + 2, 2, 0x71);
    fn.irq.signal(3);
    assert.deepEqual(guest.msi, [1, 1, 3], 'eight of four given are four');
    fn.writeConfig(msi + 16, 4, 0xffff_ffff);
    assert.equal(fn.readConfig(msi + 16, 4), 0xf);
    fn.irq.signal(2);
    fn.irq.signal(2);
    assert.equal(fn.readConfig(msi + 20, 4), 4);
    fn.writeConfig(msi + 16, 4, 0b1011);
    assert.deepEqual(guest.msi, [1, 1, 3, 2], 'once');
    assert.equal(fn.readConfig(msi + 20, 4), 0);
    guest.command(0, PCI_COMMAND_MASTER);
    fn.irq.signal(2);
    assert.equal(guest.msi.length, 4, 'a message is a write to memory');
  });

  test('a vector that was pending goes to those that are given now', () => {
    const { fn, guest } = started();
    const msi = guest.find(PCI_CAP_ID_MSI);
    fn.writeConfig(msi + 16, 4, 0xf);
    fn.writeConfig(msi + 2, 2, 0x21);
    fn.irq.signal(3);
    fn.writeConfig(msi + 2, 2, 0x11);
    fn.writeConfig(msi + 16, 4, 0);
    assert.deepEqual(guest.msi, [1]);
  });

  test('layouts of 32 and 64 bits with and without masks', () => {
    const bytes = (address64: boolean, masking: boolean) =>
      new Msi({ vectors: 32, address64, masking }).bytes;
    // PCI 3.0 figure 6-9.
    assert.deepEqual(
      [bytes(false, false), bytes(true, false), bytes(false, true), bytes(true, true)],
      [10, 14, 20, 24],
    );
    for (const vectors of [0, 3, 64]) {
      assert.throws(() => new Msi({ vectors }), { code: 'config' });
    }
  });

  test('the message of a vector', () => {
    const { fn, guest } = started();
    const msi = new Msi({ vectors: 1 });
    assert.equal(msi.enabled, false, 'placed nowhere');
    const at = guest.find(PCI_CAP_ID_MSI);
    fn.writeConfig(at + 4, 4, 0xfee0_0003);
    assert.equal(fn.readConfig(at + 4, 4), 0xfee0_0000);
  });
});

describe('MSI-X', () => {
  /** A guest that has written the table, and enabled MSI-X. */
  function withTable() {
    const { fn, guest } = started();
    const at = guest.find(PCI_CAP_ID_MSIX);
    fn.writeConfig(at + 2, 2, 0xc000);
    for (let vector = 0; vector < 5; vector += 1) {
      fn.writeBar(3, 16 * vector, 4, 0xfee0_0000);
      fn.writeBar(3, 16 * vector + 8, 4, 0x40 + vector);
      fn.writeBar(3, 16 * vector + 12, 4, 0);
    }
    fn.writeConfig(at + 2, 2, 0x8000);
    return { fn, guest, at };
  }

  test('the table is in its BAR, masked at first', () => {
    const { fn, guest } = started();
    const at = guest.find(PCI_CAP_ID_MSIX);
    assert.equal(fn.readConfig(at + 2, 2), 4);
    assert.equal(fn.readConfig(at + 4, 4), 3);
    assert.equal(fn.readConfig(at + 8, 4), 0x803);
    assert.equal(fn.readBar(3, 12, 4), 1);
    fn.writeBar(3, 8, 4, 0x1234_5678);
    assert.equal(fn.readBar(3, 8, 4), 0x1234_5678);
    assert.equal(fn.readBar(3, 10, 1), 0x34);
    fn.writeBar(3, 12, 4, 0xffff_fffe);
    assert.equal(fn.readBar(3, 12, 4), 0, 'reserved bits');
    assert.equal(fn.storage[8], 0, 'not the device');
  });

  test('masked vectors are pending, and sent once', () => {
    const { fn, guest, at } = withTable();
    fn.irq.signal(4);
    assert.deepEqual(guest.msix, [4]);
    fn.writeBar(3, 16 * 2 + 12, 4, 1);
    fn.irq.signal(2);
    fn.irq.signal(2);
    assert.equal(fn.readBar(3, 0x800, 4), 4);
    fn.writeBar(3, 0x800, 4, 0);
    assert.equal(fn.readBar(3, 0x800, 4), 4, 'pending bits are read-only');
    fn.writeBar(3, 16 * 2 + 12, 4, 0);
    assert.deepEqual(guest.msix, [4, 2]);
    fn.writeConfig(at + 2, 2, 0xc000);
    fn.irq.signal(0);
    assert.deepEqual(guest.msix, [4, 2]);
    fn.writeConfig(at + 2, 2, 0x8000);
    assert.deepEqual(guest.msix, [4, 2, 0]);
    fn.irq.signal(5);
    assert.equal(guest.msix.length, 3, 'a vector that is not there');
  });

  test('a transport that keeps masks is told all that are enabled', () => {
    const { fn, guest } = started();
    guest.keepsMasks = true;
    fn.irq.signal(1);
    assert.deepEqual(guest.msix, [], 'not enabled');
    fn.writeConfig(guest.find(PCI_CAP_ID_MSIX) + 2, 2, 0x8000);
    fn.irq.signal(1);
    assert.deepEqual(guest.msix, [1]);
  });

  test('a reset masks every vector and forgets what was pending', () => {
    const { fn, guest } = withTable();
    fn.writeBar(3, 12, 4, 1);
    fn.irq.signal(0);
    fn.reset();
    guest.enumerate();
    assert.equal(fn.readBar(3, 16 + 12, 4), 1);
    assert.equal(fn.readBar(3, 0x800, 4), 0);
  });

  test('a table that does not fit is refused', () => {
    assert.throws(() => new Msix({ vectors: 2049, bar: 0 }), { code: 'config' });
    assert.throws(() => new Msix({ vectors: 8, bar: 0, pbaOffset: 64 }), { code: 'config' });
    assert.throws(() => new Msix({ vectors: 8, bar: 6 }), { code: 'config' });
  });
});

describe('power states', () => {
  test('only configuration works outside of D0', () => {
    const { fn, guest } = started();
    const pm = guest.find(PCI_CAP_ID_PM) + 4;
    fn.irq.setLevel(true);
    fn.writeConfig(pm, 2, 3);
    assert.equal(fn.power.state, 3);
    assert.deepEqual([guest.intx, guest.busMaster], [false, false]);
    assert.equal(fn.readBar(0, 0, 4), 0xffff_ffff);
    assert.equal(fn.readConfig(PCI_COMMAND, 2) & 7, 7, 'kept');
    fn.writeConfig(pm, 2, 1);
    assert.equal(fn.readConfig(pm, 2) & 3, 3, 'from D3 to D0 only');
    fn.writeConfig(pm, 2, 0);
    assert.deepEqual([guest.intx, guest.busMaster, fn.resets.length], [true, true, 0]);
    fn.writeConfig(pm, 2, 2);
    assert.equal(fn.readConfig(pm, 2) & 3, 0, 'there is no D2');
    fn.writeConfig(pm, 2, 1);
    assert.equal(fn.power.state, 1);
  });

  test('without No_Soft_Reset the way from D3 is a reset', () => {
    const { fn, guest } = started({ noSoftReset: false });
    const pm = guest.find(PCI_CAP_ID_PM) + 4;
    fn.writeConfig(pm, 2, 3);
    fn.writeConfig(pm, 2, 0);
    assert.deepEqual(fn.resets, ['power']);
    assert.equal(fn.readConfig(PCI_COMMAND, 2), 0);
  });

  test('PME is asserted where it was enabled, and survives a reset', () => {
    const { fn, guest } = started();
    const pm = guest.find(PCI_CAP_ID_PM) + 4;
    fn.writeConfig(pm, 2, 1);
    assert.equal(fn.power.wake(), false, 'not from D1');
    fn.writeConfig(pm, 2, 0x0103);
    assert.equal(fn.power.wake(), true);
    fn.reset();
    assert.equal(fn.readConfig(pm, 2), 0x8108);
    fn.writeConfig(pm, 2, 0x8000);
    assert.equal(fn.readConfig(pm, 2), 0x0008);
  });
});

describe('resets and DMA on its way', () => {
  test('a function-level reset waits, and the function is not there meanwhile', () => {
    const { fn, guest } = started();
    const express = guest.find(PCI_CAP_ID_EXPRESS);
    fn.busy = true;
    fn.writeConfig(express + 8, 2, 0x8000);
    assert.deepEqual(fn.resets, []);
    assert.equal(fn.readConfig(PCI_VENDOR_ID, 4), 0xffff_ffff);
    fn.finish();
    assert.deepEqual(fn.resets, ['function']);
    assert.equal(fn.readConfig(PCI_VENDOR_ID, 4), 0x10fb_8086);
    assert.equal(fn.readConfig(express + 8, 2) & 0x8000, 0, 'reads as zero');
  });

  test('a transport that holds is told when nothing is on its way', () => {
    const { fn } = started();
    let drained = 0;
    fn.onDrained = () => {
      drained += 1;
    };
    assert.equal(fn.hold(), true);
    fn.resume();
    fn.busy = true;
    assert.equal(fn.hold(), false);
    fn.finish();
    assert.deepEqual([drained, fn.resumed], [1, 1]);
    fn.detach();
    assert.deepEqual(fn.resets, ['bus']);
    assert.doesNotThrow(() => new TestTransport(fn));
  });

  test('one transport at a time', () => {
    const { fn } = started();
    assert.throws(() => new TestTransport(fn), { code: 'state' });
  });
});
