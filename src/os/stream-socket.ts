/**
 * The client's end of stream sockets, TCP and Unix, without an event loop: every call returns at
 * once, and data moves straight from and into the memory that a list names (tcp(7), unix(7)).
 */
import { isIPv4, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { SluiceError } from '../base/errors.ts';
import { closeFd } from './fd.ts';
import type { IoQueue } from './io-queue.ts';
import { check, EAGAIN, EINTR, EPIPE, errno, errnoName, libc } from './libc.ts';
import { socketAddress } from './unix-socket.ts';

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const SO_KEEPALIVE = 9;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_USER_TIMEOUT = 18;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const EINPROGRESS = 115;

/** Idle seconds before a TCP connection is probed, and between probes. */
const KEEPALIVE_S = 10;

/** Where to connect to: can be posted. */
export interface StreamAddress {
  /** struct sockaddr_un, sockaddr_in or sockaddr_in6. */
  readonly bytes: Uint8Array;
  /** For messages: `127.0.0.1:10809`, `/run/disk.sock`. */
  readonly text: string;
}

/** @throws SluiceError `config` for a path that is too long */
export function unixAddress(path: string): StreamAddress {
  return { bytes: socketAddress(path), text: path };
}

/**
 * The address of a port of a host.
 * @param host an IPv4 or IPv6 address, the latter with `%SCOPE` where it needs one
 * @throws SluiceError `config` if it is neither
 */
export function inetAddress(host: string, port: number): StreamAddress {
  if (isIPv4(host)) {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, AF_INET, true);
    view.setUint16(2, port);
    bytes.set(host.split('.').map(Number), 4);
    return { bytes, text: `${host}:${port}` };
  }
  if (!isIPv6(host)) throw new SluiceError('config', `${host} is no IP address`);
  const bytes = new Uint8Array(28);
  const view = new DataView(bytes.buffer);
  const [address = '', scope] = host.split('%');
  view.setUint16(0, AF_INET6, true);
  view.setUint16(2, port);
  bytes.set(ipv6Bytes(address), 8);
  view.setUint32(24, scope === undefined ? 0 : scopeId(scope), true);
  return { bytes, text: `[${host}]:${port}` };
}

/** The 16 bytes of a valid IPv6 address (RFC 4291 §2.2). */
function ipv6Bytes(text: string): Uint8Array {
  const groups = (part: string): number[] =>
    part === ''
      ? []
      : part.split(':').flatMap((group) => {
          if (!group.includes('.')) return [Number.parseInt(group, 16)];
          const [a = 0, b = 0, c = 0, d = 0] = group.split('.').map(Number);
          return [a * 256 + b, c * 256 + d];
        });
  const [before = '', after] = text.split('::');
  const left = groups(before);
  const right = after === undefined ? [] : groups(after);
  const zeroes = new Array<number>(8 - left.length - right.length).fill(0);
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  for (const [index, group] of [...left, ...zeroes, ...right].entries()) {
    view.setUint16(index * 2, group);
  }
  return bytes;
}

function scopeId(scope: string): number {
  const number = Number(scope);
  if (Number.isInteger(number) && number >= 0) return number;
  const found = networkInterfaces()[scope]?.find((entry) => entry.family === 'IPv6');
  if (found?.family !== 'IPv6') {
    throw new SluiceError(
      'config',
      `no network interface ${scope} with IPv6 (scope of an address)`,
    );
  }
  return found.scopeid;
}

/** A connection in the making, then made. */
export class StreamSocket {
  readonly fd: number;
  /** The errno that ended the connection; 0: the peer closed it. */
  error = 0;
  #open = true;

  /**
   * Begins to connect. Once the descriptor is writable {@link connected} tells how it went.
   * @param silenceMs how long sent data may stay unacknowledged before TCP gives up
   * @throws SluiceError `system` if it fails at once
   */
  constructor(address: StreamAddress, silenceMs: number) {
    const family = new DataView(address.bytes.buffer, address.bytes.byteOffset).getUint16(0, true);
    const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    this.fd = check(libc.socket(family, type, 0), 'socket', address.text);
    try {
      if (family !== AF_UNIX) {
        this.#option(IPPROTO_TCP, TCP_NODELAY, 1);
        this.#option(SOL_SOCKET, SO_KEEPALIVE, 1);
        this.#option(IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S);
        this.#option(IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_S);
        this.#option(IPPROTO_TCP, TCP_USER_TIMEOUT, silenceMs);
      }
      const result = libc.connect(this.fd, address.bytes, address.bytes.length);
      if (result === -1 && errno[0] !== EINPROGRESS) check(result, 'connect', address.text);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** After the descriptor became writable: true if connected, else false and `error` says why. */
  connected(): boolean {
    const value = new Int32Array(1);
    check(
      libc.getsockopt(this.fd, SOL_SOCKET, SO_ERROR, value, new Uint32Array([4])),
      'getsockopt',
      `fd ${this.fd}`,
    );
    this.error = value[0] as number;
    return this.error === 0;
  }

  /** Sends from the front of the list; bytes taken, 0: would block, -1: the peer has gone. */
  send(list: IoQueue): number {
    list.prepare();
    const sent = libc.sendmsg(this.fd, list.message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent === -1 ? this.#failed(errno[0]) : sent;
  }

  /** Receives into the front of the list; bytes received, 0: nothing there yet, -1: the peer has gone. */
  receive(list: IoQueue): number {
    list.prepare();
    const received = libc.recvmsg(this.fd, list.message, MSG_DONTWAIT);
    if (received > 0) return received;
    if (received === -1) return this.#failed(errno[0]);
    this.error = 0;
    return -1;
  }

  /** Why the connection ended. */
  get reason(): string {
    if (this.error === 0) return 'the server closed the connection';
    return this.error === EPIPE ? 'the server has gone' : errnoName(this.error);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeFd(this.fd);
  }

  #failed(number: number): number {
    if (number === EAGAIN || number === EINTR) return 0;
    this.error = number;
    return -1;
  }

  #option(level: number, option: number, value: number): void {
    const bytes = new Int32Array([value]);
    check(libc.setsockopt(this.fd, level, option, bytes, 4), 'setsockopt', `fd ${this.fd}`);
  }
}
