import assert from 'node:assert/strict';
import test from 'node:test';
import * as blk from './virtio-blk.ts';

/** Checks that fields lie one behind the other without gaps and end at `bytes`. */
function assertLayout(
  fields: readonly (readonly [offset: number, bytes: number])[],
  bytes: number,
): void {
  let next = 0;
  for (const [offset, length] of fields) {
    assert.equal(offset, next);
    next += length;
  }
  assert.equal(next, bytes);
}

test('virtio_blk_config has the layout of §5.2.4', () => {
  assertLayout(
    [
      [blk.BLK_CONFIG_CAPACITY, 8],
      [blk.BLK_CONFIG_SIZE_MAX, 4],
      [blk.BLK_CONFIG_SEG_MAX, 4],
      [blk.BLK_CONFIG_GEOMETRY, 4],
      [blk.BLK_CONFIG_BLK_SIZE, 4],
      [blk.BLK_CONFIG_PHYSICAL_BLOCK_EXP, 1],
      [blk.BLK_CONFIG_ALIGNMENT_OFFSET, 1],
      [blk.BLK_CONFIG_MIN_IO_SIZE, 2],
      [blk.BLK_CONFIG_OPT_IO_SIZE, 4],
      [blk.BLK_CONFIG_WRITEBACK, 1],
      [blk.BLK_CONFIG_UNUSED0, 1],
      [blk.BLK_CONFIG_NUM_QUEUES, 2],
      [blk.BLK_CONFIG_MAX_DISCARD_SECTORS, 4],
      [blk.BLK_CONFIG_MAX_DISCARD_SEG, 4],
      [blk.BLK_CONFIG_DISCARD_SECTOR_ALIGNMENT, 4],
      [blk.BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS, 4],
      [blk.BLK_CONFIG_MAX_WRITE_ZEROES_SEG, 4],
      [blk.BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP, 1],
      [blk.BLK_CONFIG_UNUSED1, 3],
      [blk.BLK_CONFIG_MAX_SECURE_ERASE_SECTORS, 4],
      [blk.BLK_CONFIG_MAX_SECURE_ERASE_SEG, 4],
      [blk.BLK_CONFIG_SECURE_ERASE_SECTOR_ALIGNMENT, 4],
      [blk.BLK_CONFIG_ZONED, 24],
    ],
    blk.BLK_CONFIG_BYTES,
  );
});

test('the header of virtio_blk_req has the layout of §5.2.6', () => {
  assertLayout(
    [
      [blk.BLK_HEADER_TYPE, 4],
      [blk.BLK_HEADER_RESERVED, 4],
      [blk.BLK_HEADER_SECTOR, 8],
    ],
    blk.BLK_HEADER_BYTES,
  );
});

test('ranges of discard and write zeroes have the layout of §5.2.6', () => {
  assertLayout(
    [
      [blk.BLK_RANGE_SECTOR, 8],
      [blk.BLK_RANGE_NUM_SECTORS, 4],
      [blk.BLK_RANGE_FLAGS, 4],
    ],
    blk.BLK_RANGE_BYTES,
  );
});

test('virtio_blk_lifetime has the layout of §5.2.6', () => {
  assertLayout(
    [
      [blk.BLK_LIFETIME_PRE_EOL, 2],
      [blk.BLK_LIFETIME_TYPE_A, 2],
      [blk.BLK_LIFETIME_TYPE_B, 2],
    ],
    blk.BLK_LIFETIME_BYTES,
  );
});

test('feature bits, types and states are distinct', () => {
  for (const prefix of ['VIRTIO_BLK_F_', 'VIRTIO_BLK_T_', 'VIRTIO_BLK_S_']) {
    const values = Object.entries(blk)
      .filter(([name]) => name.startsWith(prefix))
      .map(([, value]) => value as number);
    assert.ok(values.length >= 3);
    assert.equal(new Set(values).size, values.length, prefix);
  }
});
