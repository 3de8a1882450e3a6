import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../base/errors.ts';
import { IoQueue } from './io-queue.ts';
import { pinned } from './libc.ts';
import { inetAddress, unixAddress } from './stream-socket.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('socket addresses', () => {
  it('are those of the kernel', () => {
    // sockaddr_in: family, port, address, padding.
    assert.equal(hex(inetAddress('10.1.2.255', 10809).bytes), `02002a390a0102ff${'00'.repeat(8)}`);
    // sockaddr_in6: family, port, flow, address, scope.
    const of = (address: string, scope = '00000000'): string =>
      `0a002a3900000000${address}${scope}`;
    for (const [text, bytes, scope] of [
      ['::', '00'.repeat(16)],
      ['::1', `${'00'.repeat(15)}01`],
      ['2001:db8::ff00:42:8329', '20010db8000000000000ff0000428329'],
      ['1:2:3:4:5:6:7:8', '00010002000300040005000600070008'],
      ['fe80::', `fe80${'00'.repeat(14)}`],
      ['::ffff:192.168.0.1', `${'00'.repeat(10)}ffffc0a80001`],
      ['fe80::1%3', `fe80${'00'.repeat(13)}01`, '03000000'],
    ] as const) {
      assert.equal(hex(inetAddress(text, 10809).bytes), of(bytes, scope), text);
    }
    assert.equal(inetAddress('::1', 5).text, '[::1]:5');
    assert.equal(hex(unixAddress('/a').bytes), '01002f6100');
  });

  it('are refused when they are none', () => {
    for (const make of [
      () => inetAddress('localhost', 1),
      () => inetAddress('1.2.3', 1),
      () => inetAddress('fe80::1%nosuchinterface', 1),
      () => unixAddress('x'.repeat(108)),
    ]) {
      assert.throws(make, (error) => error instanceof SluiceError && error.code === 'config');
    }
  });
});

describe('IoQueue', () => {
  it('is worked through from its front, whatever is taken at once', () => {
    const ranges = fc.array(fc.tuple(fc.nat(1e6), fc.integer({ min: 1, max: 50 })), {
      minLength: 1,
      maxLength: 20,
    });
    fc.assert(
      fc.property(ranges, fc.array(fc.integer({ min: 1, max: 70 })), (list, bites) => {
        const queue = new IoQueue(pinned(8).address, 20);
        const expected = list.flatMap(([address, length]) =>
          Array.from({ length }, (_, i) => address + i),
        );
        for (const [address, length] of list) queue.add(address, length);
        for (const bite of [...bites, expected.length]) {
          const left: number[] = [];
          for (let i = queue.head; i < queue.tail; i++) {
            const address = queue.address[i] as number;
            for (let k = 0; k < (queue.length[i] as number); k++) left.push(address + k);
          }
          assert.deepEqual(left, expected);
          const bytes = Math.min(bite, expected.length);
          queue.consume(bytes);
          expected.splice(0, bytes);
        }
        assert.ok(queue.empty);
        assert.equal(queue.room, 20, 'an empty queue begins anew');
      }),
    );
  });
});
