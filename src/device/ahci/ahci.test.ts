import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../../base/errors.ts';
import { silentLogger } from '../../base/log.ts';
import { testLane } from '../../block/testing-client.ts';
import * as ahci from '../../spec/ahci.ts';
import * as ata from '../../spec/ata.ts';
import {
  PCI_AF_CAP_FLR,
  PCI_AF_CAPABILITIES,
  PCI_AF_CONTROL,
  PCI_AF_CONTROL_FLR,
  PCI_CAP_ID_AF,
  PCI_CLASS_CODE,
  PCI_COMMAND,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_VENDOR_ID,
} from '../../spec/pci.ts';
import { FakeDisk } from '../virtio-blk/testing.ts';
import { Ahci } from './ahci.ts';
import { AtaDisk } from './ata-disk.ts';
import { AhciGuest, FATAL, MEMORY_IOVA, pattern } from './testing.ts';

const identity = { serial: 'S', model: 'Sluice disk', firmware: '1' };

function guestWith(t: { after(f: () => void): void }) {
  const disk = new FakeDisk({ bytes: 2 * 1024 * 1024 });
  disk.content.set(pattern(disk.content.length, 0));
  const drive = new AtaDisk({ disk, identity, now: () => 0 });
  const guest = new AhciGuest(drive);
  t.after(() => {
    disk.choose = (pending) => pending;
    guest.close();
    assert.ok(disk.closed);
  });
  return { guest, disk, drive };
}

const READ = { command: ata.ATA_READ_DMA_EXT, lba: 3, count: 16, bytes: 8192 };
const expected = (): Buffer => pattern(2 * 1024 * 1024, 0).subarray(3 * 512, 3 * 512 + 8192);

test('is the controller that QEMU shows', (t) => {
  const { guest } = guestWith(t);
  assert.equal(guest.controller.readConfig(PCI_VENDOR_ID, 4), 0x2922_8086);
  assert.equal(guest.controller.readConfig(PCI_CLASS_CODE, 2), 0x0601);
  assert.equal(guest.read(ahci.AHCI_VS), 0x10301);
  assert.equal(guest.read(ahci.AHCI_PI), 0x3f);
  assert.equal(guest.read(ahci.AHCI_CAP) & 0x1f, 5);
  assert.equal((guest.read(ahci.AHCI_CAP) >> 8) & 0x1f, 31);
  assert.equal(guest.read(ahci.AHCI_CAP) & ahci.AHCI_CAP_STAGGERED_SPIN_UP, 0);
  for (const offset of [ahci.AHCI_CCC_CTL, ahci.AHCI_BOHC, ahci.AHCI_CAP2, 0x2c, 0xf00]) {
    assert.equal(guest.read(offset), 0);
  }
});

test('the signature waits for a place to be put', (t) => {
  const { guest } = guestWith(t);
  assert.equal(guest.port(ahci.PX_TFD), ata.STATUS_BSY);
  assert.equal(guest.port(ahci.PX_SIG), 0xffff_ffff);
  assert.equal(guest.port(ahci.PX_SSTS), 0x133);
  guest.start();
  assert.equal(guest.port(ahci.PX_SIG), 0x101);
  assert.equal(guest.port(ahci.PX_TFD), 0x150);
  assert.equal(guest.received(0x40, 20)[0], ata.FIS_D2H);
  assert.equal(guest.received(0x40, 20)[12], 1);
  // An empty port.
  assert.equal(guest.read(0x180 + ahci.PX_SSTS), 0);
  assert.equal(guest.read(0x180 + ahci.PX_TFD), 0x7f);
});

test('a software reset by two FISes ends with the signature', (t) => {
  const { guest } = guestWith(t);
  guest.start();
  guest.setPort(ahci.PX_CMD, guest.port(ahci.PX_CMD) | ahci.PX_CMD_CLO);
  const flags = ahci.AHCI_HEADER_RESET | ahci.AHCI_HEADER_CLEAR_BUSY;
  guest.prepare(0, { command: 0, control: ata.CONTROL_SRST, flags });
  guest.issue(1);
  guest.until('the first FIS', () => guest.port(ahci.PX_CI) === 0);
  guest.received(0x40, 20).fill(0);
  guest.prepare(0, { command: 0, control: 0 });
  guest.issue(1);
  guest.until('the second', () => guest.port(ahci.PX_CI) === 0);
  assert.equal(guest.received(0x40, 20)[0], ata.FIS_D2H);
  assert.equal(guest.port(ahci.PX_IS), 0);
  assert.ok(guest.succeed(READ).equals(expected()));
});

test('parts of registers can be written, and ones act only where they are', (t) => {
  const { guest } = guestWith(t);
  guest.start();
  const bar = (offset: number, length: number): number =>
    guest.controller.readBar(ahci.AHCI_BAR, ahci.AHCI_PORTS + offset, length);
  guest.setPort(ahci.PX_IE, 0);
  guest.controller.writeBar(ahci.AHCI_BAR, ahci.AHCI_PORTS + ahci.PX_IE + 3, 1, 0x40);
  assert.equal(guest.port(ahci.PX_IE), 0x4000_0000);
  assert.equal(bar(ahci.PX_IE + 2, 2), 0x4000);
  // Over the border of two registers.
  guest.setPort(ahci.PX_IE, 0x7dc0_007f);
  assert.equal(bar(ahci.PX_IE + 3, 2), ((guest.port(ahci.PX_CMD) & 0xff) << 8) | 0x7d);
  guest.run({ command: ata.ATA_NOP });
  guest.prepare(0, { command: ata.ATA_NOP });
  guest.recover();
  guest.issue(1);
  guest.until('the error', () => (guest.port(ahci.PX_IS) & ahci.PX_IS_TFES) !== 0);
  guest.controller.writeBar(ahci.AHCI_BAR, ahci.AHCI_PORTS + ahci.PX_IS, 1, 0xff);
  assert.equal(guest.port(ahci.PX_IS), ahci.PX_IS_TFES);
});

test('the line follows IS; what is still pending sets its bit again', (t) => {
  const { guest } = guestWith(t);
  guest.start();
  assert.equal(guest.intx, false);
  guest.prepare(0, READ);
  guest.issue(1);
  guest.until('the line', () => guest.intx);
  guest.write(ahci.AHCI_IS, 1);
  assert.equal(guest.intx, true, 'PxIS is not clear');
  guest.write(ahci.AHCI_GHC, 0);
  assert.equal(guest.intx, false);
  guest.write(ahci.AHCI_GHC, ahci.AHCI_GHC_INTERRUPT_ENABLE);
  assert.equal(guest.intx, true);
  guest.acknowledge();
  assert.equal(guest.intx, false);
});

test('MSI: a message each time a bit of IS is set', (t) => {
  const { guest } = guestWith(t);
  guest.start();
  let at = guest.controller.readConfig(0x34, 1);
  while (guest.controller.readConfig(at, 1) !== 5) at = guest.controller.readConfig(at + 1, 1);
  guest.controller.writeConfig(at + 2, 2, 1);
  guest.succeed(READ);
  guest.succeed(READ);
  assert.deepEqual(guest.messages, [0, 0]);
  assert.equal(guest.intx, false);
});

test('a drive can be taken out and put in while the guest runs', (t) => {
  const { guest, disk, drive } = guestWith(t);
  guest.start();
  disk.choose = () => [];
  guest.prepare(0, READ);
  guest.issue(1);
  guest.turn();
  let removed = false;
  guest.controller.remove(0, () => {
    removed = true;
  });
  assert.equal(guest.port(ahci.PX_SSTS) & 0xf, 0);
  assert.notEqual(guest.port(ahci.PX_IS) & ahci.PX_IS_PRCS, 0);
  guest.turn();
  assert.equal(removed, false, 'a request is on its way');
  assert.throws(() => guest.controller.insert(0, drive), SluiceError);
  disk.choose = (pending) => pending;
  guest.until('the drive', () => removed);
  assert.ok(disk.closed);
  guest.acknowledge();
  guest.setPort(ahci.PX_SERR, 0xffff_ffff);
  assert.equal(guest.port(ahci.PX_IS) & ahci.PX_IS_PRCS, 0);
  disk.closed = false;
  guest.controller.insert(0, drive);
  const both = ahci.PX_IS_PCS | ahci.PX_IS_PRCS;
  assert.equal(guest.port(ahci.PX_IS) & both, both);
  assert.ok(guest.intx);
  guest.hardReset();
  assert.ok(guest.succeed(READ).equals(expected()));
});

test('CR, a reset and a COMRESET wait for the disk', (t) => {
  const { guest, disk } = guestWith(t);
  guest.start();
  const begin = (): void => {
    disk.choose = () => [];
    guest.queue(4, false, 3, 16);
    guest.turn();
    guest.turn();
    assert.equal(disk.pendingSlots.length, 1);
  };
  begin();
  guest.setPort(ahci.PX_CMD, guest.port(ahci.PX_CMD) & ~ahci.PX_CMD_ST);
  assert.equal(guest.port(ahci.PX_SACT), 0);
  guest.turn();
  assert.notEqual(guest.port(ahci.PX_CMD) & ahci.PX_CMD_CR, 0);
  disk.choose = (pending) => pending;
  guest.turn();
  assert.equal(guest.port(ahci.PX_CMD) & ahci.PX_CMD_CR, 0);
  guest.startEngine();
  begin();
  guest.setPort(ahci.PX_SCTL, 0x301);
  guest.setPort(ahci.PX_SCTL, 0x300);
  guest.turn();
  assert.equal(guest.port(ahci.PX_TFD) & 0xff, ata.STATUS_BSY);
  disk.choose = (pending) => pending;
  guest.turn();
  assert.equal(guest.port(ahci.PX_TFD) & 0xff, 0x50);
  guest.hardReset();
  begin();
  guest.write(ahci.AHCI_GHC, ahci.AHCI_GHC_RESET);
  guest.turn();
  assert.equal(guest.read(ahci.AHCI_GHC) & 1, 1);
  disk.choose = (pending) => pending;
  guest.turn();
  assert.equal(guest.read(ahci.AHCI_GHC), 0x8000_0000);
  guest.start();
  assert.ok(guest.succeed(READ).equals(expected()));
});

test('a function-level reset waits for the disk too, and nothing answers meanwhile', (t) => {
  const { guest, disk } = guestWith(t);
  const { controller } = guest;
  guest.start();
  disk.choose = () => [];
  guest.queue(4, false, 3, 16);
  guest.turn();
  const at = guest.function.capability(PCI_CAP_ID_AF);
  assert.notEqual(at, 0);
  assert.equal(controller.readConfig(at + PCI_AF_CAPABILITIES, 1) & PCI_AF_CAP_FLR, PCI_AF_CAP_FLR);
  controller.writeConfig(at + PCI_AF_CONTROL, 1, PCI_AF_CONTROL_FLR);
  guest.turn();
  assert.equal(controller.readConfig(PCI_COMMAND, 2), 0xffff);
  disk.choose = (pending) => pending;
  guest.turn();
  assert.equal(controller.readConfig(PCI_COMMAND, 2), 0);
  controller.writeConfig(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  assert.equal(guest.port(ahci.PX_SACT), 0);
  assert.equal(guest.port(ahci.PX_CLB), 0);
  guest.start();
  assert.ok(guest.succeed(READ).equals(expected()));
});

test('a hold stops commands between two DMAs, and resume goes on', (t) => {
  const { guest, disk } = guestWith(t);
  guest.start();
  disk.choose = () => [];
  guest.prepare(0, READ);
  guest.issue(1);
  guest.turn();
  let drained = 0;
  guest.controller.onDrained = () => drained++;
  assert.equal(guest.controller.hold(), false);
  disk.choose = (pending) => pending;
  guest.turn();
  assert.equal(drained, 1);
  assert.equal(guest.port(ahci.PX_CI), 1);
  assert.equal(guest.controller.hold(), true);
  guest.controller.resume();
  guest.until('the command', () => guest.port(ahci.PX_CI) === 0);
});

test('far memory, small pages, and both ends of requests', (t) => {
  const { guest } = guestWith(t);
  const lengths = [2, 1022, 4096, 3072];
  for (const mode of ['paged', 'far'] as const) {
    guest.space[mode] = true;
    guest.space.generation++;
    guest.start();
    assert.ok(guest.succeed({ ...READ, pieces: lengths }, 2).equals(expected()), mode);
    const data = pattern(160 * 1024, 77);
    const range = { lba: 1000, count: 320 };
    guest.succeed({ ...range, command: ata.ATA_WRITE_DMA_EXT, data });
    const read = { ...range, command: ata.ATA_READ_DMA_EXT, bytes: data.length };
    assert.ok(guest.succeed(read, 1).equals(data), mode);
    guest.succeed({ ...range, command: ata.ATA_WRITE_DMA_EXT, data: Buffer.alloc(data.length) });
    // Queued commands share the one buffer.
    for (let i = 0; i < 8; i++) guest.queue(i, true, i * 8, 8, pattern(4096, i + 1));
    guest.until('the tags', () => guest.port(ahci.PX_SACT) === 0);
    for (let i = 0; i < 8; i++) guest.queue(i, false, i * 8, 8);
    guest.until('the tags', () => guest.port(ahci.PX_SACT) === 0);
    for (let i = 0; i < 8; i++) {
      const found = guest.space.memory(guest.data(i), 4096);
      assert.ok(found.equals(pattern(4096, i + 1)), `${mode} ${i}`);
    }
    guest.acknowledge();
    guest.succeed({ command: ata.ATA_WRITE_DMA_EXT, count: 64, data: pattern(32768, 0) });
  }
});

test('a table of 600 entries is read in windows', (t) => {
  const { guest } = guestWith(t);
  guest.start();
  const pieces = new Array(600).fill(64);
  const data = guest.succeed({ ...READ, lba: 0, count: 75, bytes: 38400, pieces });
  assert.ok(data.equals(pattern(2 * 1024 * 1024, 0).subarray(0, 38400)));
});

test('a table that is too short is an overflow; a bad pointer is a host bus error', (t) => {
  const { guest } = guestWith(t);
  guest.start();
  const short = guest.run({ ...READ, pieces: [4096] });
  assert.equal(short.interrupts & FATAL, ahci.PX_IS_OFS);
  guest.hardReset();
  guest.prepare(0, READ);
  guest.table(0).writeBigUInt64LE(0x10n, ahci.AHCI_TABLE_PRDT);
  guest.issue(1);
  guest.until('the error', () => (guest.port(ahci.PX_IS) & FATAL) !== 0);
  assert.equal(guest.port(ahci.PX_IS) & FATAL, ahci.PX_IS_HBFS);
  assert.equal(guest.space.faults.length, 1);
  guest.hardReset();
  guest.prepare(0, READ);
  guest.header(0).writeBigUInt64LE(2n ** 63n, 8);
  guest.issue(1);
  guest.until('the error', () => (guest.port(ahci.PX_IS) & FATAL) !== 0);
  guest.hardReset();
  assert.ok(guest.succeed(READ).equals(expected()));
});

test('a DMA by message that is refused is a host bus error', (t) => {
  const { guest } = guestWith(t);
  guest.start();
  guest.space.far = true;
  guest.prepare(0, READ);
  guest.issue(1);
  guest.controller.poll();
  assert.equal(guest.space.complete(false), 1);
  assert.equal(guest.port(ahci.PX_IS), ahci.PX_IS_HBFS);
  guest.hardReset();
});

test('any access to any register does no harm', (t) => {
  const { guest } = guestWith(t);
  const offsets = fc.oneof(
    fc.nat(8191),
    fc.nat(0x2c),
    fc.nat(0x7f).map((at) => at + ahci.AHCI_PORTS),
  );
  const step = fc.record({
    offset: offsets,
    length: fc.constantFrom(1, 2, 4),
    value: fc.oneof(fc.nat(0xff), fc.integer({ min: 0, max: 0xffff_ffff })),
    write: fc.boolean(),
  });
  const steps = fc.array(step, { maxLength: 60 });
  fc.assert(
    fc.property(steps, (list) => {
      for (const { offset, length, value, write } of list) {
        if (write) {
          const kept = 2 ** (8 * length) - 1;
          guest.controller.writeBar(ahci.AHCI_BAR, offset, length, value % (kept + 1));
        } else {
          const found = guest.controller.readBar(ahci.AHCI_BAR, offset, length);
          assert.ok(Number.isInteger(found) && found >= 0 && found < 2 ** (8 * length));
        }
        guest.turn();
      }
    }),
    { numRuns: 150 },
  );
  guest.start();
  guest.space.memory(guest.data(0), 8192).fill(0);
  assert.ok(guest.succeed(READ).length === 8192);
});

test('any command, with any table, is ended or stops its port, and no more', (t) => {
  const { guest, disk } = guestWith(t);
  const words = fc.uint8Array({ minLength: 64, maxLength: 64 });
  const shape = fc.record({
    fis: words,
    command: fc.constantFrom(
      ...Object.entries(ata).flatMap(([name, value]) =>
        name.startsWith('ATA_') ? [value as number] : [],
      ),
    ),
    plain: fc.boolean(),
    prds: fc.array(fc.record({ at: fc.nat(0x40_0000), bytes: fc.nat(0x2_0000) }), { maxLength: 6 }),
    far: fc.boolean(),
    fails: fc.boolean(),
    order: fc.nat(3),
  });
  fc.assert(
    fc.property(fc.array(shape, { maxLength: 6 }), (commands) => {
      disk.choose = (pending) => pending.filter((_, i) => i % 2 === 0);
      guest.space.far = false;
      guest.start();
      for (const [slot, one] of commands.entries()) {
        disk.result = () => (one.fails ? -5 : undefined);
        const table = guest.table(slot);
        table.set(one.fis);
        table[0] = ata.FIS_H2D;
        table[1] = ata.H2D_FLAG_COMMAND;
        table[2] = one.command;
        // Within the disk, more often than not.
        if (one.plain) table.fill(0, 5, 12);
        if (one.plain) table[13] = 0;
        for (const [i, { at, bytes }] of one.prds.entries()) {
          const entry = ahci.AHCI_TABLE_PRDT + i * 16;
          table.writeBigUInt64LE(BigInt(MEMORY_IOVA + 0x10_0000 + at), entry);
          table.writeUInt32LE(bytes, entry + 12);
        }
        guest.prepareHeader(slot, one.prds.length);
        guest.space.far = one.far;
        guest.space.generation++;
        guest.setPort(ahci.PX_SACT, 1 << slot);
        guest.issue(1 << slot);
        for (let i = 0; i < one.order; i++) guest.turn();
      }
      for (let i = 0; i < 50; i++) guest.turn();
      disk.result = () => undefined;
      disk.choose = (pending) => pending;
    }),
    { numRuns: 150 },
  );
  guest.space.far = false;
  guest.start();
  assert.equal(guest.run(READ).status, 0x50);
});

test('what cannot be is refused', () => {
  const { arena, loop } = testLane();
  const make = (ports: number) => new Ahci({ name: 'x', ports, arena, loop, log: silentLogger });
  for (const ports of [0, 33, 1.5]) assert.throws(() => make(ports), SluiceError);
  const controller = make(1);
  assert.throws(() => controller.remove(0, () => undefined), SluiceError);
  assert.equal(controller.readConfig(PCI_COMMAND, 2), 0);
  assert.equal(controller.readBar(ahci.AHCI_BAR, 0, 4), 0xffff_ffff);
  controller.close();
});

test('a port without a drive keeps no lane awake, whatever it was told', (t) => {
  const { guest } = guestWith(t);
  const empty = ahci.AHCI_PORTS + ahci.AHCI_PORT_BYTES;
  guest.write(empty + ahci.PX_CMD, ahci.PX_CMD_CLO);
  guest.write(empty + ahci.PX_CMD, ahci.PX_CMD_FRE | ahci.PX_CMD_ST);
  guest.write(empty + ahci.PX_CI, 1);
  assert.equal(guest.controller.poll(), 0);
  assert.equal(guest.controller.arm(), false);
});
