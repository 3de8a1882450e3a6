/** NBD URIs (NetworkBlockDevice/nbd, doc/uri.md), without TLS. */
import { SluiceError } from '../../base/errors.ts';
import { MAX_STRING_BYTES, NBD_PORT } from '../../spec/nbd.ts';

/** What a URI names. */
export type NbdTarget = { readonly export: string } & (
  | { readonly host: string; readonly port: number }
  | { readonly socket: string }
);

function wrong(uri: string, what: string, remedy?: string): SluiceError {
  return new SluiceError(
    'config',
    `NBD URI ${uri}: ${what}`,
    remedy === undefined ? {} : { remedy },
  );
}

/**
 * `nbd://HOST[:PORT][/EXPORT]` or `nbd+unix:///[EXPORT]?socket=PATH`.
 * @throws SluiceError `config` for anything else, `unsupported` for TLS
 */
export function parseNbdUri(uri: string): NbdTarget {
  const scheme = /^([a-z+]+):\/\//i.exec(uri)?.[1]?.toLowerCase();
  if (scheme === 'nbds' || scheme === 'nbds+unix') {
    throw new SluiceError('unsupported', `NBD URI ${uri}: TLS is not supported`, {
      remedy: 'use nbd:// or nbd+unix://, through a tunnel if need be',
    });
  }
  const parsed = URL.canParse(uri) ? new URL(uri) : undefined;
  if (parsed === undefined || (scheme !== 'nbd' && scheme !== 'nbd+unix')) {
    throw wrong(
      uri,
      'not understood',
      'write nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH',
    );
  }
  const name = exportOf(uri, parsed);
  const parameters = parametersOf(uri, parsed);
  for (const key of parameters.keys()) {
    if (scheme === 'nbd+unix' && key === 'socket') continue;
    if (key.startsWith('tls-')) {
      throw new SluiceError('unsupported', `NBD URI ${uri}: TLS is not supported (${key})`);
    }
    throw wrong(uri, `unknown parameter ${key}`);
  }
  if (parsed.username !== '' || parsed.password !== '') {
    throw wrong(uri, 'a user name is for TLS, which is not supported');
  }
  if (scheme === 'nbd') {
    const host = decode(uri, parsed.hostname).replace(/^\[(.*)\]$/, '$1');
    if (parsed.port === '0') throw wrong(uri, 'there is no port 0');
    return {
      host: host === '' ? 'localhost' : host,
      port: parsed.port === '' ? NBD_PORT : Number(parsed.port),
      export: name,
    };
  }
  if (parsed.host !== '') {
    throw wrong(uri, 'a host and a Unix socket', 'write nbd+unix:///EXPORT?socket=PATH');
  }
  const socket = parameters.get('socket') ?? '';
  if (socket === '') {
    throw wrong(uri, 'no socket', 'write nbd+unix:///EXPORT?socket=PATH');
  }
  if (socket.includes('\0')) throw wrong(uri, 'sockets without a path are not supported');
  return { socket, export: name };
}

function decode(uri: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new SluiceError('config', `NBD URI ${uri}: ${text} is not UTF-8`, { cause });
  }
}

/** The query's parameters. Not URLSearchParams, which follows HTML's forms: there + is a blank. */
function parametersOf(uri: string, parsed: URL): Map<string, string> {
  const pairs = parsed.search
    .replace(/^\?/, '')
    .split('&')
    .filter((pair) => pair !== '');
  return new Map(
    pairs.map((pair) => {
      const [key = '', ...value] = pair.split('=');
      return [decode(uri, key), decode(uri, value.join('='))];
    }),
  );
}

function exportOf(uri: string, parsed: URL): string {
  if (parsed.hash !== '') throw wrong(uri, 'a fragment', 'write # in an export name as %23');
  const name = decode(uri, parsed.pathname.replace(/^\//, ''));
  if (name.includes('\0')) throw wrong(uri, 'an export name with a zero byte');
  if (Buffer.byteLength(name) > MAX_STRING_BYTES) {
    throw wrong(uri, `an export name of more than ${MAX_STRING_BYTES} bytes`);
  }
  return name;
}

/** A target as text, for messages. */
export function formatNbdTarget(target: NbdTarget): string {
  const name = encodeURIComponent(target.export);
  if ('socket' in target) {
    return `nbd+unix:///${name}?socket=${target.socket.split('/').map(encodeURIComponent).join('/')}`;
  }
  const host = target.host.includes(':') ? `[${target.host}]` : target.host;
  return `nbd://${host}:${target.port}/${name}`;
}
