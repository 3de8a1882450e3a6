/**
 * What the main thread does for an NBD disk: names to addresses, and a first handshake that tells the
 * disk's size and what the server can. It uses Node's event loop, and no lane.
 */
import { lookup } from 'node:dns/promises';
import { createConnection } from 'node:net';
import { SluiceError } from '../../base/errors.ts';
import { type Logger, silentLogger } from '../../base/log.ts';
import { inetAddress, type StreamAddress, unixAddress } from '../../os/stream-socket.ts';
import { NBD_FLAG_CAN_MULTI_CONN, NBD_FLAG_READ_ONLY } from '../../spec/nbd.ts';
import type { NbdExport } from '../nbd/codec.ts';
import type { AfterLoss, NbdDiskDescription } from '../nbd/description.ts';
import { diskInfoOf } from '../nbd/disk-info.ts';
import { NbdNegotiation } from '../nbd/negotiation.ts';
import { formatNbdTarget, type NbdTarget, parseNbdUri } from '../nbd/uri.ts';

export const DEFAULT_RECONNECT_MS = 30_000;
export const DEFAULT_REPLY_MS = 30_000;
const DEFAULT_RETRY_MS = 100;
const DEFAULT_CONNECT_MS = 10_000;
/** Most connections to one server. */
export const MAX_CONNECTIONS = 16;

export interface NbdDiskOptions {
  /** The disk's name, for messages. */
  readonly name: string;
  /** `nbd://HOST[:PORT]/EXPORT` or `nbd+unix:///EXPORT?socket=PATH`. */
  readonly uri: string;
  readonly readonly?: boolean;
  /** Connections, if the server allows several: 1 to 16, default 1. */
  readonly connections?: number;
  /**
   * How long requests wait for a server that is gone, in ms, before they fail with EIO; 0: they fail at
   * once; Infinity: for ever. Default 30 s, what Linux grants a request to a SCSI disk.
   */
  readonly reconnectMs?: number;
  /** Pause before a second attempt to connect, in ms; it doubles with each, up to 5 s. Default 100. */
  readonly retryMs?: number;
  /** How long a connection with requests may be silent, in ms, before it is made anew. Default 30 s. */
  readonly replyMs?: number;
  /** See {@link AfterLoss}; default `trust`. */
  readonly afterLoss?: AfterLoss;
  /** How long the first connection may take, in ms. Default 10 s. */
  readonly connectMs?: number;
  readonly log?: Logger;
}

interface Endpoint {
  readonly address: StreamAddress;
  readonly connect: { readonly path: string } | { readonly host: string; readonly port: number };
}

/** Where a target is to be reached. @throws SluiceError `not-found` for an unknown host */
async function endpointsOf(target: NbdTarget): Promise<readonly Endpoint[]> {
  if ('socket' in target) {
    return [{ address: unixAddress(target.socket), connect: { path: target.socket } }];
  }
  const { host, port } = target;
  try {
    const found = await lookup(host, { all: true });
    return found.map(({ address }) => ({
      address: inetAddress(address, port),
      connect: { host: address, port },
    }));
  } catch (cause) {
    if (cause instanceof SluiceError) throw cause;
    const { code = 'error' } = cause as NodeJS.ErrnoException;
    throw new SluiceError('not-found', `${code}: host ${host}`, {
      cause,
      remedy: 'check the name, or write the address',
    });
  }
}

/** Asks one server about an export. */
function ask(endpoint: Endpoint, name: string, timeoutMs: number): Promise<NbdExport> {
  const { text } = endpoint.address;
  const { promise, resolve, reject } = Promise.withResolvers<NbdExport>();
  const negotiation = new NbdNegotiation(name, 'info');
  const socket = createConnection(endpoint.connect);
  const timer = setTimeout(() => {
    reject(new SluiceError('state', `${text}: no answer in ${timeoutMs / 1000} s`));
    socket.destroy();
  }, timeoutMs);
  socket.on('data', (bytes: Buffer) => {
    try {
      negotiation.push(bytes);
      socket.write(negotiation.take());
      const { result } = negotiation;
      if (result === undefined) return;
      resolve(result);
      socket.end(negotiation.goodbye());
    } catch (error) {
      reject(error);
      socket.destroy();
    }
  });
  const cutOff = (cause?: Error): SluiceError =>
    new SluiceError('protocol', `${text}: the server closed during the handshake`, { cause });
  socket.on('error', (cause: NodeJS.ErrnoException) => {
    if (cause.code === 'EPIPE' || cause.code === 'ECONNRESET') {
      reject(cutOff(cause));
      return;
    }
    const missing = cause.code === 'ECONNREFUSED' || cause.code === 'ENOENT';
    reject(
      new SluiceError(missing ? 'not-found' : 'state', `${cause.code ?? 'error'}: ${text}`, {
        cause,
        ...(missing ? { remedy: 'start the NBD server first' } : {}),
      }),
    );
  });
  socket.on('close', () => {
    clearTimeout(timer);
    reject(cutOff());
  });
  return promise;
}

/** The first endpoint that answers decides; of errors, the first one's is told. */
async function askAll(
  endpoints: readonly Endpoint[],
  name: string,
  timeoutMs: number,
): Promise<NbdExport> {
  let first: unknown;
  for (const endpoint of endpoints) {
    try {
      return await ask(endpoint, name, timeoutMs);
    } catch (error) {
      first ??= error;
    }
  }
  throw first;
}

/**
 * Finds an export and describes it for the lane that is to use it.
 * @throws SluiceError `config` for a URI or option that is wrong, `not-found` if there is no such host,
 * server or export, `unsupported` (TLS, a size that no disk has), `state` if it does not answer or
 * may only be read, `protocol` if it is no NBD server
 */
export async function openNbdDisk(options: NbdDiskOptions): Promise<NbdDiskDescription> {
  const { name, readonly = false, connections = 1 } = options;
  const log = options.log ?? silentLogger;
  if (!Number.isInteger(connections) || connections < 1 || connections > MAX_CONNECTIONS) {
    throw new SluiceError('config', `disk ${name}: ${connections} connections`, {
      remedy: `write a number from 1 to ${MAX_CONNECTIONS}`,
    });
  }
  const target = parseNbdUri(options.uri);
  const uri = formatNbdTarget(target);
  let endpoints: readonly Endpoint[];
  let found: NbdExport;
  try {
    endpoints = await endpointsOf(target);
    found = await askAll(endpoints, target.export, options.connectMs ?? DEFAULT_CONNECT_MS);
  } catch (cause) {
    if (!(cause instanceof SluiceError)) throw cause;
    const { remedy } = cause;
    throw new SluiceError(cause.code, `disk ${name}, ${uri}: ${cause.message}`, {
      cause,
      ...(remedy === undefined ? {} : { remedy }),
    });
  }
  if (!readonly && (found.flags & NBD_FLAG_READ_ONLY) !== 0) {
    throw new SluiceError('state', `disk ${name}, ${uri}: the export can only be read`, {
      remedy: 'add readonly: true to the disk, or let the server export it for writing',
    });
  }
  diskInfoOf(name, found, readonly);
  const allowed = (found.flags & NBD_FLAG_CAN_MULTI_CONN) === 0 ? 1 : connections;
  if (allowed < connections) {
    log.warn('the NBD server allows one connection only', { disk: name, server: uri });
  }
  return {
    kind: 'nbd',
    name,
    uri,
    addresses: endpoints.map(({ address }) => address),
    exportName: target.export,
    export: found,
    readonly,
    connections: allowed,
    retryMs: options.retryMs ?? DEFAULT_RETRY_MS,
    reconnectMs: options.reconnectMs ?? DEFAULT_RECONNECT_MS,
    replyMs: options.replyMs ?? DEFAULT_REPLY_MS,
    afterLoss: options.afterLoss ?? 'trust',
  };
}
