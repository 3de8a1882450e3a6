import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as spec from './vhost-user.ts';

function constants(prefix: string, without: string): [string, number][] {
  return Object.entries(spec).filter(
    (entry): entry is [string, number] =>
      entry[0].startsWith(prefix) &&
      (without === '' || !entry[0].startsWith(without)) &&
      typeof entry[1] === 'number',
  );
}

test('test_request_names_match_ids', () => {
  for (const [name, id] of constants('VHOST_USER_', 'VHOST_USER_BACKEND_')) {
    if (/^VHOST_USER_(PROTOCOL_F_|F_)/.test(name)) continue;
    assert.equal(spec.FRONT_END_REQUESTS[id], name.slice('VHOST_USER_'.length));
  }
  assert.equal(spec.FRONT_END_REQUESTS.length, spec.VHOST_USER_CHECK_DEVICE_STATE + 1);
});

test('test_backend_request_names_match_ids', () => {
  const all = constants('VHOST_USER_BACKEND_', '');
  assert.equal(all.length, spec.BACK_END_REQUESTS.length - 1);
  for (const [name, id] of all) {
    assert.equal(spec.BACK_END_REQUESTS[id], name.slice('VHOST_USER_'.length));
  }
});

test('test_protocol_feature_names_match_bits', () => {
  const all = constants('VHOST_USER_PROTOCOL_F_', '');
  assert.equal(all.length, spec.PROTOCOL_FEATURES.length);
  for (const [name, bit] of all) {
    assert.equal(spec.PROTOCOL_FEATURES[bit], name.slice('VHOST_USER_PROTOCOL_F_'.length));
  }
});

test('test_payload_sizes', () => {
  // Sizes of the C structures of QEMU's hw/virtio/vhost-user.c on a 64-bit machine.
  assert.equal(spec.HEADER_BYTES, 3 * 4);
  assert.equal(spec.VRING_STATE_BYTES, 2 * 4);
  assert.equal(spec.VRING_ADDRESS_BYTES, 2 * 4 + 4 * 8);
  assert.equal(spec.REGION_BYTES, 4 * 8);
  assert.equal(spec.SINGLE_REGION_BYTES, 5 * 8);
  assert.equal(spec.LOG_BYTES, 2 * 8);
  assert.equal(spec.CONFIG_BYTES + spec.MAX_CONFIG_BYTES, 268);
  assert.equal(spec.INFLIGHT_BYTES, 2 * 8 + 2 * 2);
  assert.equal(spec.INFLIGHT_PADDED_BYTES, 24);
});

test('test_inflight_layouts', () => {
  const { INFLIGHT_SPLIT: split, INFLIGHT_PACKED: packed } = spec;
  assert.equal(split.headerBytes, 8 + 4 * 2);
  assert.equal(split.entryBytes, 1 + 5 + 2 + 8);
  assert.equal(split.entry.counter, 1 + 5 + 2);
  assert.equal(packed.headerBytes, 8 + 6 * 2 + 2 * 1 + 7 + 3);
  assert.equal(packed.entryBytes, 1 + 1 + 3 * 2 + 8 + 2 * 2 + 4 + 8);
  assert.equal(packed.entry.addr + 8, packed.entryBytes);
});
