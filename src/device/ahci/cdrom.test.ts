import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as ahci from '../../spec/ahci.ts';
import * as ata from '../../spec/ata.ts';
import { FakeDisk } from '../virtio-blk/testing.ts';
import { Cdrom } from './cdrom.ts';
import { AhciGuest, pattern, type TestResult } from './testing.ts';

const BLOCKS = 100;
const identity = { serial: 'CD', model: 'Sluice cdrom drive', firmware: '1.0' };

function guestWith(t: { after(f: () => void): void }, isEmpty = false) {
  // Not a whole number of blocks: what is left over is no block.
  const disk = new FakeDisk({ bytes: BLOCKS * 2048 + 512, readonly: true });
  disk.content.set(pattern(disk.content.length, 2));
  const guest = new AhciGuest(new Cdrom({ disk: isEmpty ? undefined : disk, identity }));
  t.after(() => guest.close());
  guest.start();
  const packet = (bytes: readonly number[], length = 0, dma = true): TestResult => {
    const result = guest.run({
      command: ata.ATA_PACKET,
      features: dma ? ata.PACKET_DMA : 0,
      lba: 0xfffe00,
      packet: [...bytes, ...new Array(12 - bytes.length).fill(0)],
      bytes: length,
    });
    if ((result.status & ata.STATUS_ERR) !== 0) guest.recover();
    return result;
  };
  const sense = (): readonly number[] => {
    const { data } = packet([ata.SCSI_REQUEST_SENSE, 0, 0, 0, 18], 18);
    return [data[2] as number, data.readUInt16BE(12)];
  };
  const ready = (): void => {
    assert.equal(packet([ata.SCSI_TEST_UNIT_READY]).error >> 4, ata.SENSE_UNIT_ATTENTION);
    assert.deepEqual(sense(), [ata.SENSE_UNIT_ATTENTION, ata.ASC_RESET]);
  };
  return { guest, disk, packet, sense, ready };
}

test('tells that it is a cdrom', (t) => {
  const { guest, packet } = guestWith(t);
  assert.equal(guest.port(ahci.PX_SIG), ata.SIGNATURE_ATAPI);
  const page = guest.succeed({ command: ata.ATA_IDENTIFY_PACKET_DEVICE, bytes: 512 });
  assert.equal(page.readUInt16LE(0), 0x85c0);
  assert.equal(page.reduce((sum, byte) => sum + byte, 0) & 0xff, 0);
  assert.equal(guest.run({ command: ata.ATA_IDENTIFY_DEVICE, bytes: 512 }).error, ata.ERROR_ABRT);
  const fis = guest.received(0x40, 20);
  assert.deepEqual([fis[12], fis[5], fis[6]], [1, 0x14, 0xeb]);
  guest.recover();
  // INQUIRY is answered even before the reset is told.
  const { data, bytes } = packet([ata.SCSI_INQUIRY, 0, 0, 0, 36], 36);
  assert.equal(bytes, 36);
  assert.equal(data[0], 5);
  assert.equal(data.toString('latin1', 8, 32), 'Sluice  cdrom drive     ');
});

test('tells of a reset once, then reads by 10 and 12, by DMA and PIO', (t) => {
  const { disk, packet, ready } = guestWith(t);
  ready();
  assert.equal(packet([ata.SCSI_TEST_UNIT_READY]).status, 0x50);
  const { data } = packet([ata.SCSI_READ_CAPACITY], 8);
  assert.deepEqual([data.readUInt32BE(0), data.readUInt32BE(4)], [BLOCKS - 1, 2048]);
  const wanted = disk.content.subarray(7 * 2048, 10 * 2048);
  const ten = packet([ata.SCSI_READ_10, 0, 0, 0, 0, 7, 0, 0, 3], 6144);
  assert.ok(ten.data.equals(wanted));
  assert.equal(ten.interrupts, ahci.PX_IS_DHRS);
  const twelve = packet([ata.SCSI_READ_12, 0, 0, 0, 0, 7, 0, 0, 0, 3], 6144, false);
  assert.ok(twelve.data.equals(wanted));
  assert.equal(packet([ata.SCSI_READ_10]).status, 0x50);
});

test('senses what went wrong', (t) => {
  const { disk, packet, sense, ready } = guestWith(t);
  ready();
  const beyond = packet([ata.SCSI_READ_10, 0, 0, 0, 0, BLOCKS - 1, 0, 0, 2], 4096);
  assert.equal(beyond.error, (ata.SENSE_ILLEGAL_REQUEST << 4) | ata.ERROR_ABRT);
  assert.deepEqual(sense(), [ata.SENSE_ILLEGAL_REQUEST, ata.ASC_LBA_RANGE]);
  assert.deepEqual(sense(), [0, 0]);
  packet([0xff]);
  assert.deepEqual(sense(), [ata.SENSE_ILLEGAL_REQUEST, ata.ASC_INVALID_COMMAND]);
  disk.result = () => -5;
  assert.equal(packet([ata.SCSI_READ_10, 0, 0, 0, 0, 1, 0, 0, 1], 2048).error >> 4, 3);
  assert.deepEqual(sense(), [ata.SENSE_MEDIUM_ERROR, ata.ASC_UNRECOVERED_READ]);
});

test('an empty drive has no medium', (t) => {
  const { packet, sense, ready } = guestWith(t, true);
  ready();
  assert.equal(packet([ata.SCSI_READ_CAPACITY], 8).error >> 4, ata.SENSE_NOT_READY);
  assert.deepEqual(sense(), [ata.SENSE_NOT_READY, ata.ASC_NO_MEDIUM_CLOSED]);
});

test('contents, modes, features and events', (t) => {
  const { packet, ready } = guestWith(t);
  ready();
  const toc = packet([ata.MMC_READ_TOC, 0, 0, 0, 0, 0, 0, 0, 20], 20).data;
  assert.deepEqual([toc.readUInt16BE(0), toc[6], toc[14]], [18, 1, 0xaa]);
  assert.equal(toc.readUInt32BE(16), BLOCKS);
  const time = packet([ata.MMC_READ_TOC, 2, 0, 0, 0, 0, 0xaa, 0, 12], 12).data;
  // 100 frames behind 2 s are 3 s and 25 frames.
  assert.deepEqual([...time.subarray(8, 12)], [0, 0, 3, 25]);
  const modes = packet([ata.SCSI_MODE_SENSE_10, 0, 0x2a, 0, 0, 0, 0, 0, 28], 28).data;
  assert.deepEqual([modes.readUInt16BE(0), modes[8], modes[14]], [26, 0x2a, 0x29]);
  assert.equal(packet([ata.SCSI_MODE_SENSE_6, 0, 0x05, 0, 28], 28).status, 0x51);
  const features = packet([ata.MMC_GET_CONFIGURATION, 0, 0, 0, 0, 0, 0, 0, 8], 8).data;
  assert.equal(features.readUInt16BE(6), 8);
  const event = (): readonly number[] => [
    ...packet([ata.MMC_GET_EVENT_STATUS, 1, 0, 0, 0x10, 0, 0, 0, 8], 8).data.subarray(2, 6),
  ];
  assert.deepEqual(event(), [4, 0x10, 2, 2], 'a new medium');
  assert.deepEqual(event(), [4, 0x10, 0, 2]);
});

test('the tray opens unless it is locked', (t) => {
  const { packet, sense, ready } = guestWith(t);
  ready();
  packet([ata.SCSI_PREVENT_ALLOW, 0, 0, 0, 1]);
  const eject = [ata.SCSI_START_STOP_UNIT, 0, 0, 0, 2];
  packet(eject);
  assert.deepEqual(sense(), [ata.SENSE_ILLEGAL_REQUEST, ata.ASC_REMOVAL_PREVENTED]);
  packet([ata.SCSI_PREVENT_ALLOW]);
  assert.equal(packet(eject).status, 0x50);
  packet([ata.SCSI_TEST_UNIT_READY]);
  assert.deepEqual(sense(), [ata.SENSE_NOT_READY, ata.ASC_NO_MEDIUM_OPEN]);
  packet([ata.SCSI_START_STOP_UNIT, 0, 0, 0, 3]);
  packet([ata.SCSI_TEST_UNIT_READY]);
  assert.deepEqual(sense(), [ata.SENSE_UNIT_ATTENTION, ata.ASC_MEDIUM_CHANGED]);
  assert.equal(packet([ata.SCSI_TEST_UNIT_READY]).status, 0x50);
});
