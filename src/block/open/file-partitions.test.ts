import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytesOfTable, TABLE_BYTES } from './file-partitions.ts';

interface Entry {
  readonly flag?: number;
  readonly type: number;
  readonly first: number;
  readonly sectors: number;
}

function mbr(...entries: readonly Entry[]): Buffer {
  const start = Buffer.alloc(TABLE_BYTES);
  for (const [index, { flag = 0, type, first, sectors }] of entries.entries()) {
    const at = 446 + index * 16;
    start[at] = flag;
    start[at + 4] = type;
    start.writeUInt32LE(first, at + 8);
    start.writeUInt32LE(sectors, at + 12);
  }
  start.writeUInt16BE(0x55aa, 510);
  return start;
}

function gpt(block: number, copy: bigint): Buffer {
  const start = mbr({ type: 0xee, first: 1, sectors: 0xffff_ffff });
  start.write('EFI PART', block, 'latin1');
  start.writeBigUInt64LE(copy, block + 32);
  return start;
}

test('a master boot record reaches to the end of its last partition', () => {
  const start = mbr(
    { flag: 0x80, type: 0x83, first: 2048, sectors: 4096 },
    { type: 0x82, first: 6144, sectors: 1000 },
    { type: 0, first: 99999, sectors: 99999 },
  );
  assert.equal(bytesOfTable(start), 7144 * 512);
  assert.equal(
    bytesOfTable(mbr({ type: 0x83, first: 0xffff_ffff, sectors: 0xffff_ffff })),
    2 * 0xffff_ffff * 512,
  );
});

test('a GPT reaches to its copy, in blocks of either size', () => {
  assert.equal(bytesOfTable(gpt(512, 20_479n)), 20_480 * 512);
  assert.equal(bytesOfTable(gpt(4096, 2559n)), 2560 * 4096);
  assert.equal(bytesOfTable(gpt(512, 2n ** 33n)), (2 ** 33 + 1) * 512);
});

test('what is no partition table says nothing', () => {
  assert.equal(bytesOfTable(Buffer.alloc(TABLE_BYTES)), 0);
  assert.equal(bytesOfTable(Buffer.alloc(0)), 0);
  assert.equal(bytesOfTable(mbr()), 0);
  // A boot sector of FAT: its code lies where the entries would be.
  const boot = mbr({ flag: 0xfa, type: 0x31, first: 0x1234_5678, sectors: 0x1234_5678 });
  assert.equal(bytesOfTable(boot), 0);
  assert.equal(bytesOfTable(mbr({ type: 0xee, first: 1, sectors: 0xffff_ffff })), 0);
});
