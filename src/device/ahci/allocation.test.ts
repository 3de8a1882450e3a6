import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getHeapStatistics } from 'node:v8';
import { MemoryDisk } from '../../block/memory.ts';
import { testLane } from '../../block/testing-client.ts';
import { DMA_DONE } from '../../memory/dma.ts';
import * as ahci from '../../spec/ahci.ts';
import { AtaDisk } from './ata-disk.ts';
import { AhciGuest, MEMORY_IOVA } from './testing.ts';

const TURNS = 1500;
const SLOTS = 32;
/** Addresses may become numbers on the heap where they cross calls; V8 counts its own memory too. */
const MOST_BYTES_A_COMMAND = 64;

test('queued commands leave next to nothing on the heap', (t) => {
  const { arena } = testLane();
  const disk = new MemoryDisk({ kind: 'memory', name: 'm', bytes: 1024 * 1024 }, testLane());
  const identity = { serial: 'S', model: 'M', firmware: '1' };
  const guest = new AhciGuest(new AtaDisk({ disk, identity, now: () => 0 }));
  t.after(() => {
    guest.close();
    disk.close();
  });
  guest.start();
  // Copies without the closures of the test's own memory.
  const { space } = guest;
  const { bytes } = arena;
  space.read = (iova, length, to) => {
    const at = space.at + iova - MEMORY_IOVA;
    bytes.copyWithin(to, at, at + length);
    return DMA_DONE;
  };
  for (let i = 0; i < SLOTS; i++) guest.queue(i, false, i * 8, 8);
  guest.until('the tags', () => guest.port(ahci.PX_SACT) === 0);
  const port = (offset: number, value: number): void =>
    guest.controller.writeBar(ahci.AHCI_BAR, ahci.AHCI_PORTS + offset, 4, value);
  const round = (): void => {
    port(ahci.PX_SACT, 0xffff_ffff);
    port(ahci.PX_CI, 0xffff_ffff);
    for (let i = 0; i < 4; i++) guest.controller.poll();
    port(ahci.PX_IS, 0xffff_ffff);
  };
  for (let i = 0; i < TURNS; i++) round();
  const before = getHeapStatistics().total_allocated_bytes;
  for (let i = 0; i < TURNS; i++) round();
  const used = getHeapStatistics().total_allocated_bytes - before;
  assert.equal(guest.port(ahci.PX_SACT), 0);
  const each = used / (TURNS * SLOTS);
  t.diagnostic(`${each.toFixed(1)} bytes a command`);
  assert.ok(each < MOST_BYTES_A_COMMAND, `${each} bytes a command`);
});
