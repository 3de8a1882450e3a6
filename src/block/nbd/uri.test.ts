import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { SluiceError } from '../../base/errors.ts';
import { formatNbdTarget, parseNbdUri } from './uri.ts';

describe('parseNbdUri', () => {
  // The examples of doc/uri.md, then others.
  for (const [uri, expected] of [
    ['nbd://example.com/disk', { host: 'example.com', port: 10809, export: 'disk' }],
    ['nbd+unix:///disk?socket=sock', { socket: 'sock', export: 'disk' }],
    ['nbd://example.com/', { host: 'example.com', port: 10809, export: '' }],
    ['nbd://example.com', { host: 'example.com', port: 10809, export: '' }],
    ['nbd://example.com//disk', { host: 'example.com', port: 10809, export: '/disk' }],
    [
      'nbd://example.com/hello%20world',
      { host: 'example.com', port: 10809, export: 'hello world' },
    ],
    ['nbd://[fe80::1]:77/a', { host: 'fe80::1', port: 77, export: 'a' }],
    ['nbd:///x', { host: 'localhost', port: 10809, export: 'x' }],
    ['nbd+unix:///?socket=/run/a+b.sock', { socket: '/run/a+b.sock', export: '' }],
    ['nbd+unix:///?socket=/run/a%20b=c', { socket: '/run/a b=c', export: '' }],
  ] as const) {
    it(uri, () => assert.deepEqual(parseNbdUri(uri), expected));
  }

  for (const [uri, code, message] of [
    ['nbds://example.com/disk', 'unsupported', /TLS/],
    ['nbds+unix:///x?socket=y', 'unsupported', /TLS/],
    ['nbd://example.com/disk?tls-type=psk', 'unsupported', /TLS/],
    ['http://example.com/disk', 'config', /not understood/],
    ['/dev/sda', 'config', /not understood/],
    ['nbd://example.com:99999/x', 'config', /not understood/],
    ['nbd://example.com:0/x', 'config', /no port 0/],
    ['nbd://user@example.com/x', 'config', /user name/],
    ['nbd://example.com/x?socket=y', 'config', /unknown parameter socket/],
    ['nbd+unix:///x', 'config', /no socket/],
    ['nbd+unix://host/x?socket=y', 'config', /a host and/],
    ['nbd+unix:///x?socket=%00abstract', 'config', /without a path/],
    ['nbd://h/x#y', 'config', /fragment/],
    ['nbd://h/%00', 'config', /zero byte/],
    ['nbd://h/%ff', 'config', /not UTF-8/],
    [`nbd://h/${'x'.repeat(4097)}`, 'config', /more than 4096/],
  ] as const) {
    it(`refuses ${uri.slice(0, 50)}`, () => {
      assert.throws(
        () => parseNbdUri(uri),
        (error) =>
          error instanceof SluiceError && error.code === code && message.test(error.message),
      );
    });
  }

  it('understands what formatNbdTarget writes', () => {
    const text = fc.string({
      minLength: 1,
      maxLength: 30,
      unit: fc.constantFrom(...'aZ9 +&=#?%/é'),
    });
    fc.assert(
      fc.property(text, text, (socket, name) => {
        const target = { socket, export: name };
        assert.deepEqual(parseNbdUri(formatNbdTarget(target)), target);
      }),
    );
  });
});
