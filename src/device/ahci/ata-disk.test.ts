import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Disk } from '../../block/disk.ts';
import type { FaultRule } from '../../block/fault-plan.ts';
import { FaultyDisk } from '../../block/faults.ts';
import { MemoryDisk } from '../../block/memory.ts';
import { testLane } from '../../block/testing-client.ts';
import * as ahci from '../../spec/ahci.ts';
import * as ata from '../../spec/ata.ts';
import { AtaDisk } from './ata-disk.ts';
import { AhciGuest, pattern } from './testing.ts';

const BYTES = 4 * 1024 * 1024;
const SECTORS = BYTES / 512;

function guestWith(t: { after(f: () => void): void }, rules: readonly FaultRule[] = []) {
  const memory = new MemoryDisk({ kind: 'memory', name: 'm', bytes: BYTES }, testLane());
  const disk: Disk = rules.length === 0 ? memory : new FaultyDisk(memory, { rules });
  let now = 0;
  const drive = new AtaDisk({
    disk,
    identity: { serial: 'SN 17', model: 'Sluice disk', firmware: '1.0' },
    now: () => now,
  });
  const guest = new AhciGuest(drive);
  t.after(() => {
    guest.close();
    disk.close();
  });
  guest.start();
  const later = (hours: number): void => {
    now += hours * 3600e9;
  };
  return { guest, drive, later };
}

function ataString(data: Buffer, word: number, words: number): string {
  return Buffer.from(data.subarray(word * 2, (word + words) * 2))
    .swap16()
    .toString('latin1')
    .trim();
}

test('IDENTIFY DEVICE tells what Linux wants to know', (t) => {
  const { guest } = guestWith(t);
  const result = guest.run({ command: ata.ATA_IDENTIFY_DEVICE, bytes: 512 });
  const { data } = result;
  const word = (index: number): number => data.readUInt16LE(index * 2);
  assert.equal(result.interrupts, ahci.PX_IS_PSS);
  assert.equal(result.bytes, 512);
  assert.equal(ataString(data, 10, 10), 'SN 17');
  assert.equal(ataString(data, 27, 20), 'Sluice disk');
  assert.equal(data.readUInt32LE(120), SECTORS);
  assert.equal(data.readBigUInt64LE(200), BigInt(SECTORS));
  assert.equal(word(75), 31);
  assert.notEqual(word(76) & 0x100, 0);
  assert.equal(word(83) >> 14, 1);
  assert.equal(word(169), 1);
  assert.equal(word(88), 0x407f);
  assert.equal(data.reduce((sum, byte) => sum + byte, 0) & 0xff, 0);
  // PIO Setup FIS: its E_STATUS is what libata takes for the result.
  assert.equal(guest.received(0x20, 20)[0], ata.FIS_PIO_SETUP);
  assert.equal(guest.received(0x20, 20)[15], 0x50);
  assert.equal(guest.received(0x20, 20).readUInt16LE(16), 512);
});

test('what DMA and PIO write, both read', (t) => {
  const { guest } = guestWith(t);
  const data = pattern(64 * 512, 3);
  const writes = [
    [ata.ATA_WRITE_DMA_EXT, ata.ATA_READ_SECTORS_EXT],
    [ata.ATA_WRITE_DMA, ata.ATA_READ_SECTORS],
    [ata.ATA_WRITE_SECTORS, ata.ATA_READ_DMA],
    [ata.ATA_WRITE_SECTORS_EXT, ata.ATA_READ_DMA_EXT],
    [ata.ATA_WRITE_DMA_FUA_EXT, ata.ATA_READ_DMA_EXT],
  ] as const;
  for (const [i, [write, read]] of writes.entries()) {
    const lba = 100 + i * 64;
    const pieces = [2, 510, 4096, 64 * 512 - 4608];
    const wrote = guest.run({ command: write, lba, count: 64, data, pieces });
    assert.equal(wrote.status, 0x50);
    assert.equal(wrote.interrupts, ahci.PX_IS_DHRS);
    const found = guest.run({ command: read, lba, count: 64, bytes: data.length }, 1);
    assert.equal(found.status, 0x50);
    assert.equal(found.bytes, data.length);
    assert.ok(found.data.equals(data), `command ${read.toString(16)}`);
  }
});

test('READ and WRITE MULTIPLE wait for SET MULTIPLE MODE', (t) => {
  const { guest } = guestWith(t);
  const read = { command: ata.ATA_READ_MULTIPLE, count: 8, bytes: 4096 };
  assert.equal(guest.run(read).error, ata.ERROR_ABRT);
  guest.recover();
  assert.equal(guest.run({ command: ata.ATA_SET_MULTIPLE_MODE, count: 3 }).error, ata.ERROR_ABRT);
  guest.recover();
  guest.succeed({ command: ata.ATA_SET_MULTIPLE_MODE, count: 8 });
  guest.succeed({ command: ata.ATA_WRITE_MULTIPLE, count: 8, data: pattern(4096, 1) });
  assert.ok(guest.succeed(read).equals(pattern(4096, 1)));
  assert.equal(guest.received(0x20, 20).readUInt16LE(16), 4096);
});

test('a BIOS reads by cylinder, head and sector', (t) => {
  const { guest } = guestWith(t);
  guest.succeed({ command: ata.ATA_WRITE_DMA_EXT, lba: 63 + 4, count: 1, data: pattern(512, 9) });
  // Head 1, sector 5 of cylinder 0.
  const data = guest.succeed({
    command: ata.ATA_READ_SECTORS,
    device: 0xa1,
    lba: 5,
    count: 1,
    bytes: 512,
  });
  assert.ok(data.equals(pattern(512, 9)));
});

test('32 queued commands are done, told by Set Device Bits', (t) => {
  const { guest } = guestWith(t);
  for (let i = 0; i < 32; i++) guest.queue(i, true, i * 8, 8, pattern(4096, i));
  guest.until('the tags', () => guest.port(ahci.PX_SACT) === 0);
  assert.equal(guest.port(ahci.PX_CI), 0);
  assert.equal(guest.acknowledge(), ahci.PX_IS_SDBS);
  assert.equal(guest.received(0x58, 8)[0], ata.FIS_SET_DEVICE_BITS);
  for (let i = 31; i >= 0; i--) guest.queue(i, false, i * 8, 8);
  guest.until('the tags', () => guest.port(ahci.PX_SACT) === 0);
  for (let i = 0; i < 32; i++) {
    const data = guest.space.memory(guest.data(i), 4096);
    assert.ok(data.equals(pattern(4096, i)), `slot ${i}`);
  }
  assert.equal(guest.port(ahci.PX_TFD), 0x50);
  const { queued_commands } = guest.controller.counterBlock.snapshot();
  assert.equal(queued_commands, 64);
});

test('a bad sector is UNC, and the port stands still until ST was off', (t) => {
  const { guest } = guestWith(t, [{ fault: 'error', on: ['read'], from: 100, to: 101 }]);
  const bad = { command: ata.ATA_READ_DMA_EXT, lba: 96, count: 8, bytes: 4096 };
  const result = guest.run(bad, 5);
  assert.equal(result.status, 0x51);
  assert.equal(result.error, ata.ERROR_UNC);
  assert.equal(result.interrupts, ahci.PX_IS_DHRS | ahci.PX_IS_TFES);
  // PxCI and CCS tell which command failed.
  assert.equal(guest.port(ahci.PX_CI), 1 << 5);
  assert.equal((guest.port(ahci.PX_CMD) >> 8) & 31, 5);
  const fis = guest.received(0x40, 20);
  assert.deepEqual([fis[2], fis[3], fis[4]], [0x51, ata.ERROR_UNC, 96]);
  guest.prepare(6, { command: ata.ATA_READ_DMA_EXT, lba: 0, count: 8, bytes: 4096 });
  guest.issue(1 << 6);
  for (let i = 0; i < 10; i++) guest.turn();
  assert.equal(guest.port(ahci.PX_CI), (1 << 5) | (1 << 6));
  guest.recover();
  assert.equal(guest.port(ahci.PX_CI), 0);
  guest.succeed({ command: ata.ATA_READ_DMA_EXT, lba: 0, count: 8, bytes: 4096 });
});

test('ranges beyond the end are IDNF, unknown commands ABRT', (t) => {
  const { guest } = guestWith(t);
  const beyond = { command: ata.ATA_READ_DMA_EXT, lba: SECTORS - 1, count: 2, bytes: 1024 };
  assert.equal(guest.run(beyond).error, ata.ERROR_IDNF);
  guest.recover();
  for (const command of [ata.ATA_NOP, 0xff, ata.ATA_IDENTIFY_PACKET_DEVICE, ata.ATA_PACKET]) {
    const result = guest.run({ command });
    assert.deepEqual([result.status, result.error], [0x51, ata.ERROR_ABRT]);
    guest.recover();
  }
});

test('a queued command that fails freezes the drive until READ LOG', (t) => {
  const { guest } = guestWith(t, [{ fault: 'error', on: ['read'], from: 100, to: 101 }]);
  guest.queue(3, false, 0, 8);
  guest.queue(9, false, 96, 8);
  guest.queue(12, false, 8, 8);
  guest.until('the error', () => (guest.port(ahci.PX_IS) & ahci.PX_IS_TFES) !== 0);
  const interrupts = guest.port(ahci.PX_IS);
  assert.equal(interrupts, ahci.PX_IS_TFES | ahci.PX_IS_SDBS);
  assert.equal(guest.port(ahci.PX_TFD), (ata.ERROR_UNC << 8) | 0x51);
  assert.notEqual(guest.port(ahci.PX_SACT) & (1 << 9), 0);
  guest.recover();
  assert.equal(guest.port(ahci.PX_SACT), 0);
  const read = { command: ata.ATA_READ_DMA_EXT, lba: 0, count: 8, bytes: 4096 };
  assert.equal(guest.run(read).error, ata.ERROR_ABRT, 'refused while frozen');
  guest.recover();
  const log = guest.succeed({
    command: ata.ATA_READ_LOG_EXT,
    lba: ata.LOG_NCQ_ERROR,
    count: 1,
    bytes: 512,
  });
  assert.deepEqual([log[0], log[2], log[3], log[4]], [9, 0x51, ata.ERROR_UNC, 96]);
  assert.equal(log.reduce((sum, byte) => sum + byte, 0) & 0xff, 0);
  guest.succeed(read);
  guest.queue(9, false, 0, 8);
  guest.until('the tag', () => guest.port(ahci.PX_SACT) === 0);
});

test('FLUSH that fails is ABRT', (t) => {
  const { guest } = guestWith(t, [{ fault: 'error', on: ['flush'], every: 2 }]);
  guest.succeed({ command: ata.ATA_FLUSH_CACHE_EXT });
  assert.equal(guest.run({ command: ata.ATA_FLUSH_CACHE }).error, ata.ERROR_ABRT);
});

test('TRIM forgets what its list says, and nothing if a range is bad', (t) => {
  const { guest } = guestWith(t);
  const lba = 64;
  const data = pattern(16 * 512, 5);
  guest.succeed({ command: ata.ATA_WRITE_DMA_EXT, lba, count: 16, data });
  const list = Buffer.alloc(512);
  list.writeUIntLE(lba, 0, 6);
  list.writeUInt16LE(8, 6);
  list.writeUIntLE(SECTORS, 16, 6);
  list.writeUInt16LE(1, 22);
  const trim = {
    command: ata.ATA_DATA_SET_MANAGEMENT,
    features: ata.DSM_TRIM,
    count: 1,
    data: list,
  };
  const read = { command: ata.ATA_READ_DMA_EXT, lba, count: 16, bytes: 16 * 512 };
  assert.equal(guest.run(trim).error, ata.ERROR_IDNF);
  guest.recover();
  assert.ok(guest.succeed(read).equals(data));
  list.fill(0, 16);
  guest.succeed(trim);
  const found = guest.succeed(read);
  assert.ok(found.subarray(0, 4096).every((byte) => byte === 0));
  assert.ok(found.subarray(4096).equals(data.subarray(4096)));
});

test('SMART: data, status, self-test and its log', (t) => {
  const { guest, later } = guestWith(t, [{ fault: 'error', on: ['read'], from: 7000, to: 7001 }]);
  const smart = (features: number, lba = 0) => ({
    command: ata.ATA_SMART,
    features,
    lba: ata.SMART_KEY * 256 + lba,
    count: 1,
  });
  later(5);
  guest.succeed({ command: ata.ATA_WRITE_DMA_EXT, count: 2, data: pattern(1024, 1) });
  const page = guest.succeed({ ...smart(ata.SMART_READ_DATA), bytes: 512 });
  assert.deepEqual([page[2], page.readUInt32LE(7)], [9, 5], 'power-on hours');
  assert.deepEqual([page[26], page.readUInt32LE(31)], [241, 2], 'sectors written');
  guest.succeed(smart(ata.SMART_RETURN_STATUS));
  const fis = guest.received(0x40, 20);
  assert.deepEqual([fis[5], fis[6]], [0x4f, 0xc2]);
  guest.succeed(smart(ata.SMART_EXECUTE_OFFLINE, ata.SMART_TEST_EXTENDED));
  const log = () =>
    guest.succeed({ ...smart(ata.SMART_READ_LOG, ata.LOG_SMART_SELF_TEST), bytes: 512 });
  guest.until('the self-test', () => log()[508] === 1);
  const entry = log();
  assert.deepEqual([entry[2], entry[3]], [ata.SMART_TEST_EXTENDED, 0x70], 'a read failed');
  guest.succeed(smart(ata.SMART_DISABLE));
  assert.equal(guest.run(smart(ata.SMART_READ_DATA)).error, ata.ERROR_ABRT);
});

test('features and power modes are what was set', (t) => {
  const { guest } = guestWith(t);
  const words = (): Buffer => guest.succeed({ command: ata.ATA_IDENTIFY_DEVICE, bytes: 512 });
  const set = (features: number, count = 0): Buffer =>
    guest.succeed({ command: ata.ATA_SET_FEATURES, features, count });
  assert.equal(words().readUInt16LE(170) & 0x20, 0x20);
  set(ata.FEATURE_DISABLE_WRITE_CACHE);
  assert.equal(words().readUInt16LE(170) & 0x20, 0);
  set(ata.FEATURE_TRANSFER_MODE, ata.MODE_UDMA | 5);
  assert.equal(words().readUInt16LE(176), 0x207f);
  const mode = (): number => {
    guest.succeed({ command: ata.ATA_CHECK_POWER_MODE });
    return guest.received(0x40, 20)[12] as number;
  };
  assert.equal(mode(), 0xff);
  guest.succeed({ command: ata.ATA_STANDBY_IMMEDIATE });
  assert.equal(mode(), 0);
  guest.succeed({ command: ata.ATA_READ_DMA_EXT, count: 1, bytes: 512 });
  assert.equal(mode(), 0xff);
  set(ata.FEATURE_ENABLE_WRITE_CACHE);
});

test('READ VERIFY reads, and moves nothing', (t) => {
  const { guest } = guestWith(t, [{ fault: 'error', on: ['read'], from: 5000, to: 5001 }]);
  const before = guest.succeed({ command: ata.ATA_READ_VERIFY_EXT, count: 4096, bytes: 0 });
  assert.equal(before[0], 0);
  const bad = guest.run({ command: ata.ATA_READ_VERIFY_EXT, lba: 4000, count: 2000 });
  assert.equal(bad.error, ata.ERROR_UNC);
});
