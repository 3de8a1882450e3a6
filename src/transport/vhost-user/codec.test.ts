import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../../base/errors.ts';
import * as vu from '../../spec/vhost-user.ts';
import {
  decodeHeader,
  decodeRequest,
  encodeMessage,
  encodeRequest,
  type FrontEndMessage,
  MAX_PAYLOAD_BYTES,
  MAX_TABLE_REGIONS,
  requestName,
} from './codec.ts';

const u8 = fc.integer({ min: 0, max: 0xff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const u64 = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn });
const exact = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const region = fc.record(
  {
    guestAddress: exact,
    size: exact,
    userAddress: exact,
    mmapOffset: exact,
  },
  { noNullPrototype: true },
);

const message: fc.Arbitrary<FrontEndMessage> = fc.oneof(
  fc.record({
    request: fc.constantFrom(
      vu.VHOST_USER_GET_FEATURES,
      vu.VHOST_USER_SET_OWNER,
      vu.VHOST_USER_SET_LOG_FD,
      vu.VHOST_USER_GET_STATUS,
    ),
  }),
  fc.record({
    request: fc.constantFrom(
      vu.VHOST_USER_SET_FEATURES,
      vu.VHOST_USER_SET_PROTOCOL_FEATURES,
      vu.VHOST_USER_SEND_RARP,
      vu.VHOST_USER_SET_STATUS,
    ),
    value: u64,
  }),
  fc.record({
    request: fc.constantFrom(
      vu.VHOST_USER_SET_VRING_KICK,
      vu.VHOST_USER_SET_VRING_CALL,
      vu.VHOST_USER_SET_VRING_ERR,
    ),
    index: u8,
    hasFd: fc.boolean(),
  }),
  fc.record({
    request: fc.constantFrom(
      vu.VHOST_USER_SET_VRING_NUM,
      vu.VHOST_USER_SET_VRING_BASE,
      vu.VHOST_USER_GET_VRING_BASE,
      vu.VHOST_USER_SET_VRING_ENABLE,
    ),
    index: u32,
    num: u32,
  }),
  fc
    .record({
      request: fc.constant(vu.VHOST_USER_SET_VRING_ADDR),
      index: u32,
      flags: u32,
      descriptor: exact,
      used: exact,
      available: exact,
      log: exact,
    })
    .map((fields) => ({ ...fields, log: (fields.flags & 1) === 0 ? 0 : fields.log })),
  fc.record({
    request: fc.constant(vu.VHOST_USER_SET_MEM_TABLE),
    regions: fc.array(region, { maxLength: MAX_TABLE_REGIONS }),
  }),
  fc.record({
    request: fc.constantFrom(vu.VHOST_USER_ADD_MEM_REG, vu.VHOST_USER_REM_MEM_REG),
    region,
  }),
  fc.record({ request: fc.constant(vu.VHOST_USER_SET_LOG_BASE), size: exact, offset: exact }),
  fc
    .record({
      request: fc.constantFrom(vu.VHOST_USER_GET_CONFIG, vu.VHOST_USER_SET_CONFIG),
      flags: u32,
      contents: fc.uint8Array({ minLength: 1, maxLength: vu.MAX_CONFIG_BYTES }),
    })
    .chain((fields) =>
      fc
        .integer({ min: 0, max: vu.MAX_CONFIG_BYTES - fields.contents.length })
        .map((offset) => ({ ...fields, offset })),
    ),
  fc.record({
    request: fc.constantFrom(vu.VHOST_USER_GET_INFLIGHT_FD, vu.VHOST_USER_SET_INFLIGHT_FD),
    mmapSize: exact,
    mmapOffset: exact,
    queues: u16,
    queueSize: u16,
    padded: fc.boolean(),
  }),
);

/** How many descriptors a message must bring. */
function fdsOf(m: FrontEndMessage): number {
  if ('hasFd' in m) return m.hasFd ? 1 : 0;
  if ('regions' in m) return m.regions.length;
  return m.request === vu.VHOST_USER_SET_LOG_FD ||
    m.request === vu.VHOST_USER_SET_LOG_BASE ||
    m.request === vu.VHOST_USER_SET_INFLIGHT_FD ||
    m.request === vu.VHOST_USER_ADD_MEM_REG
    ? 1
    : 0;
}

function isTyped(error: unknown): boolean {
  return (
    error instanceof SluiceError && (error.code === 'protocol' || error.code === 'unsupported')
  );
}

describe('vhost-user codec', () => {
  test('test_round_trip', () => {
    fc.assert(
      fc.property(message, (m) => {
        assert.deepEqual(decodeRequest(m.request, encodeRequest(m), fdsOf(m)), { ...m });
      }),
    );
  });

  test('test_wrong_fd_count_is_refused', () => {
    fc.assert(
      fc.property(message, fc.integer({ min: 1, max: 9 }), (m, surplus) => {
        // A removal may bring one descriptor, for compatibility.
        const fds = fdsOf(m) + surplus + (m.request === vu.VHOST_USER_REM_MEM_REG ? 1 : 0);
        assert.throws(() => decodeRequest(m.request, encodeRequest(m), fds), isTyped);
      }),
    );
  });

  test('test_wrong_size_is_refused', () => {
    fc.assert(
      fc.property(message, fc.integer({ min: 1, max: 40 }), (m, change) => {
        const payload = encodeRequest(m);
        const shorter = payload.subarray(0, Math.max(0, payload.length - change));
        if (shorter.length === payload.length) return;
        // An in-flight description comes in two sizes, a descriptor's u64 may be left out.
        if ('mmapSize' in m || m.request === vu.VHOST_USER_SET_LOG_FD) return;
        assert.throws(() => decodeRequest(m.request, shorter, fdsOf(m)), isTyped);
      }),
    );
  });

  test('test_arbitrary_bytes_give_a_message_or_a_typed_error', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 60 }),
        fc.uint8Array({ maxLength: 300 }),
        fc.integer({ min: 0, max: 10 }),
        (request, payload, fds) => {
          try {
            assert.equal(decodeRequest(request, payload, fds).request, request);
          } catch (error) {
            assert.ok(isTyped(error), String(error));
            assert.match((error as Error).message, /^(request \d+|[A-Z_]+)[: ]/);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  test('test_arbitrary_headers', () => {
    fc.assert(
      fc.property(u32, u32, u32, (request, flags, size) => {
        const header = encodeMessage(request, 0, new Uint8Array(0));
        const view = new DataView(header.buffer);
        view.setUint32(4, flags, true);
        view.setUint32(8, size, true);
        const good = (flags & 3) === 1 && size <= MAX_PAYLOAD_BYTES;
        if (good) assert.deepEqual(decodeHeader(header, requestName), { request, flags, size });
        else assert.throws(() => decodeHeader(header, requestName), isTyped);
      }),
    );
  });

  test('test_log_address_matters_only_with_its_flag', () => {
    const request: typeof vu.VHOST_USER_SET_VRING_ADDR = vu.VHOST_USER_SET_VRING_ADDR;
    const fields = { request, index: 0, descriptor: 4096, used: 8192, available: 12_288, log: 0 };
    const withLog = (flags: number): Uint8Array => {
      const payload = encodeRequest({ ...fields, flags });
      // User-Mode Linux sends -1 for none.
      new DataView(payload.buffer, payload.byteOffset).setBigUint64(
        32,
        0xffff_ffff_ffff_ffffn,
        true,
      );
      return payload;
    };
    assert.deepEqual(decodeRequest(request, withLog(0), 0), { ...fields, flags: 0 });
    assert.throws(() => decodeRequest(request, withLog(1 << vu.VHOST_VRING_F_LOG), 0), {
      code: 'protocol',
      message: 'SET_VRING_ADDR: log address 0xffffffffffffffff is out of range',
    });
  });

  test('test_oversized_payload_is_refused_by_its_header', () => {
    const header = encodeMessage(vu.VHOST_USER_SET_MEM_TABLE, 0, new Uint8Array(0));
    new DataView(header.buffer).setUint32(8, MAX_PAYLOAD_BYTES + 1, true);
    assert.throws(() => decodeHeader(header, requestName), {
      code: 'protocol',
      message: 'SET_MEM_TABLE: 4097 bytes of payload, at most 4096 are accepted',
    });
  });

  test('test_linux_memory_table_with_room_for_two_regions', () => {
    // virtio_uml sends 72 bytes, with one region filled in.
    const one = { guestAddress: 4096, size: 8192, userAddress: 4096, mmapOffset: 4096 };
    const m = { request: vu.VHOST_USER_SET_MEM_TABLE, regions: [one] } as const;
    const payload = new Uint8Array(72);
    payload.set(encodeRequest(m));
    assert.deepEqual(decodeRequest(m.request, payload, 1), m);
  });

  test('test_addresses_beyond_exact_numbers_are_refused', () => {
    const payload = new Uint8Array(vu.VRING_ADDRESS_BYTES);
    new DataView(payload.buffer).setBigUint64(8, 0x20_0000_0000_0001n, true);
    assert.throws(() => decodeRequest(vu.VHOST_USER_SET_VRING_ADDR, payload, 0), {
      message: 'SET_VRING_ADDR: descriptor address 0x20000000000001 is out of range',
    });
  });

  test('test_unknown_request_is_named_by_number', () => {
    assert.throws(() => decodeRequest(77, new Uint8Array(0), 0), {
      code: 'unsupported',
      message: 'request 77 is not supported',
    });
  });
});
