/**
 * Unix stream sockets that carry file descriptors (unix(7), cmsg(3)), without an event loop:
 * every call returns at once.
 */
import {
  chmodSync,
  chownSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  unlinkSync,
} from 'node:fs';
import { SluiceError, SystemError } from '../base/errors.ts';
import { closeFd } from './fd.ts';
import {
  check,
  EAGAIN,
  ECONNRESET,
  EINTR,
  EPIPE,
  errno,
  libc,
  pinned,
  systemError,
} from './libc.ts';

const { O_NOFOLLOW } = constants;
/** open(2): the file as such, not its content. Node has no name for it. */
const O_PATH = 0o10000000;

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const ECONNREFUSED = 111;

/** sun_path holds 108 bytes, the terminating zero among them (unix(7)). */
export const MAX_SOCKET_PATH = 107;

/** The most descriptors that one message can carry (SCM_MAX_FD, net/scm.h). */
export const SCM_MAX_FD = 253;

// struct msghdr, iovec, cmsghdr on a 64-bit Linux: offsets in bytes.
const MSGHDR_BYTES = 56;
const CMSGHDR_BYTES = 16;
const IOV_AT = MSGHDR_BYTES;
/** msg_controllen and msg_flags. */
const CONTROL_LENGTH_AT = 40;
const FLAGS_AT = 48;
const CONTROL_AT = 80;
const CONTROL_BYTES = CMSGHDR_BYTES + SCM_MAX_FD * 4 + 4;

/**
 * struct sockaddr_un of a path (unix(7)).
 * @throws SluiceError `config` for a path that is too long
 */
export function socketAddress(path: string): Uint8Array {
  const bytes = Buffer.from(path, 'utf8');
  if (bytes.length > MAX_SOCKET_PATH) {
    throw new SluiceError('config', `socket path ${path} has ${bytes.length} bytes`, {
      remedy: `a socket path may have ${MAX_SOCKET_PATH} bytes at most: choose a shorter run directory`,
    });
  }
  const address = new Uint8Array(2 + bytes.length + 1);
  address[0] = AF_UNIX;
  address.set(bytes, 2);
  return address;
}

function streamSocket(): number {
  return check(libc.socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket', '');
}

/** Who may connect to a listening socket. */
export interface SocketAccess {
  /** Permission bits, such as 0o660. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

/** A listening socket: `accept` gives connections while there are some. */
export class UnixListener {
  readonly path: string;
  readonly fd: number;
  readonly #inode: bigint;

  /**
   * Binds and listens. A socket file that nobody listens on any more is replaced; one that a
   * living process serves, or a file of another kind, is an error.
   */
  constructor(path: string, access: SocketAccess = {}) {
    this.path = path;
    const address = socketAddress(path);
    removeStaleSocket(path);
    const fd = streamSocket();
    try {
      check(libc.bind(fd, address, address.length), 'bind', path);
      setAccess(path, access);
      check(libc.listen(fd, 16), 'listen', path);
      this.#inode = lstatSync(path, { bigint: true }).ino;
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    this.fd = fd;
  }

  /** The next connection, or undefined when none waits. */
  accept(): UnixConnection | undefined {
    const fd = libc.accept4(this.fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd !== -1) return new UnixConnection(fd);
    const number = errno[0];
    if (number === EAGAIN || number === EINTR || number === 103 /* ECONNABORTED */)
      return undefined;
    throw systemError('accept4', this.path);
  }

  /** Stops listening and removes the socket file, if it is still ours. */
  close(): void {
    closeFd(this.fd);
    const now = lstatSync(this.path, { bigint: true, throwIfNoEntry: false });
    if (now?.ino === this.#inode) unlinkSync(this.path);
  }
}

/**
 * Gives a socket file its mode and owner. Through a descriptor of the file itself: the directory may
 * belong to another user, who could put a link in the socket's place.
 */
function setAccess(path: string, { mode, uid, gid }: SocketAccess): void {
  const fd = openSync(path, O_PATH | O_NOFOLLOW);
  try {
    const self = `/proc/self/fd/${fd}`;
    const now = fstatSync(fd);
    if (!now.isSocket()) {
      throw new SluiceError('state', `${path} was replaced while it was made`, {
        remedy: 'find out who else writes to this directory',
      });
    }
    if (mode !== undefined) chmodSync(self, mode);
    if (uid !== undefined || gid !== undefined) chownSync(self, uid ?? now.uid, gid ?? now.gid);
  } finally {
    closeFd(fd);
  }
}

function removeStaleSocket(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new SluiceError('config', `${path} exists and is not a socket`, {
      remedy: 'move it away',
    });
  }
  const probe = streamSocket();
  try {
    const address = socketAddress(path);
    const refused =
      libc.connect(probe, address, address.length) === -1 && errno[0] === ECONNREFUSED;
    if (!refused) {
      throw new SluiceError('state', `socket ${path} is in use by another process`, {
        remedy: 'stop that process, or choose another run directory',
      });
    }
  } finally {
    closeFd(probe);
  }
  unlinkSync(path);
}

/** Connects to a listening socket. Fails at once if nobody listens. */
export function connectUnix(path: string): UnixConnection {
  const address = socketAddress(path);
  const fd = streamSocket();
  if (libc.connect(fd, address, address.length) === -1) {
    const error = systemError('connect', path);
    closeFd(fd);
    throw error;
  }
  return new UnixConnection(fd);
}

/** Two connected sockets. */
export function unixSocketPair(): [UnixConnection, UnixConnection] {
  const ends = new Int32Array(2);
  const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  check(libc.socketpair(AF_UNIX, type, 0, ends), 'socketpair', '');
  return [new UnixConnection(ends[0] as number), new UnixConnection(ends[1] as number)];
}

/**
 * True for one of a pair of unix sockets that {@link unixSocketPair} makes: neither end has a name, its
 * address is a family alone (unix(7)). No connection to or from a listening socket is such.
 */
export function isUnnamedSocket(fd: number): boolean {
  return (['getsockname', 'getpeername'] as const).every((call) => {
    const address = new Uint8Array(2 + MAX_SOCKET_PATH + 1);
    const length = new Uint32Array([address.length]);
    return libc[call](fd, address, length) === 0 && address[0] === AF_UNIX && length[0] === 2;
  });
}

/** What one receive gave: good until the next, which may use the same object. */
export interface Received {
  /** Bytes read into the caller's buffer; 0: nothing there yet; -1: the peer has gone. */
  readonly bytes: number;
  /** Descriptors that came along; the caller owns them, whatever it makes of the bytes. */
  readonly fds: readonly number[];
  /** More descriptors were sent than a message may carry; the kernel closed the rest. */
  readonly truncated: boolean;
}

const NO_FDS: readonly number[] = [];
const NOTHING: Received = { bytes: 0, fds: NO_FDS, truncated: false };
const GONE: Received = { bytes: -1, fds: NO_FDS, truncated: false };

/** One end of a connected stream socket. */
export class UnixConnection {
  readonly fd: number;
  #open = true;
  readonly #message = pinned(CONTROL_AT + CONTROL_BYTES);
  readonly #view = new DataView(this.#message.buffer);
  /** What iov_base holds: written on changes only. */
  #address = 0n;
  /** What a receive without descriptors returns: one object for all of them. */
  readonly #plain = { bytes: 0, fds: NO_FDS, truncated: false };

  constructor(fd: number) {
    this.fd = fd;
    const base = this.#message.address;
    this.#view.setBigUint64(16, base + BigInt(IOV_AT), true); // msg_iov
    this.#view.setBigUint64(24, 1n, true); // msg_iovlen
    this.#view.setBigUint64(32, base + BigInt(CONTROL_AT), true); // msg_control
  }

  /** Reads up to `length` bytes into memory at `address` (which must not move), with descriptors. */
  receive(address: bigint, length: number): Received {
    this.#prepare(address, length, CONTROL_BYTES);
    const bytes = libc.recvmsg(this.fd, this.#message.address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (bytes === -1) {
      const number = errno[0];
      if (number === EAGAIN || number === EINTR) return NOTHING;
      if (number === ECONNRESET) return GONE;
      throw systemError('recvmsg', `fd ${this.fd}`);
    }
    if (this.#view.getUint32(CONTROL_LENGTH_AT, true) === 0) {
      if (bytes === 0 && length > 0) return GONE;
      const plain = this.#plain;
      plain.bytes = bytes;
      plain.truncated = this.#truncated;
      return plain;
    }
    return { bytes, fds: this.#receivedFds(), truncated: this.#truncated };
  }

  /**
   * Sends bytes at `address`, with descriptors attached to the first of them. Returns how many
   * bytes the kernel took: 0 when the peer's buffer is full, -1 when the peer has gone.
   */
  send(address: bigint, length: number, fds: readonly number[] = []): number {
    if (fds.length > SCM_MAX_FD) {
      throw new SluiceError(
        'unsupported',
        `${fds.length} descriptors in one message, at most ${SCM_MAX_FD}`,
      );
    }
    const view = this.#view;
    const control = fds.length === 0 ? 0 : CMSGHDR_BYTES + fds.length * 4;
    this.#prepare(address, length, Math.ceil(control / 8) * 8);
    if (control !== 0) {
      view.setBigUint64(CONTROL_AT, BigInt(control), true);
      view.setInt32(CONTROL_AT + 8, SOL_SOCKET, true);
      view.setInt32(CONTROL_AT + 12, SCM_RIGHTS, true);
      for (const [index, fd] of fds.entries()) {
        view.setInt32(CONTROL_AT + CMSGHDR_BYTES + index * 4, fd, true);
      }
    }
    const sent = libc.sendmsg(this.fd, this.#message.address, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent !== -1) return sent;
    const number = errno[0];
    if (number === EAGAIN || number === EINTR) return 0;
    if (number === EPIPE || number === ECONNRESET) return -1;
    throw systemError('sendmsg', `fd ${this.fd}`);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeFd(this.fd);
  }

  get #truncated(): boolean {
    return (this.#view.getInt32(FLAGS_AT, true) & MSG_CTRUNC) !== 0;
  }

  /** The upper halves of lengths are zeros, and nobody changes them. */
  #prepare(address: bigint, length: number, controlBytes: number): void {
    const view = this.#view;
    if (address !== this.#address) {
      this.#address = address;
      view.setBigUint64(IOV_AT, address, true);
    }
    view.setUint32(IOV_AT + 8, length, true);
    view.setUint32(CONTROL_LENGTH_AT, controlBytes, true);
    view.setInt32(FLAGS_AT, 0, true);
  }

  #receivedFds(): number[] {
    const view = this.#view;
    const end = CONTROL_AT + view.getUint32(CONTROL_LENGTH_AT, true);
    const fds: number[] = [];
    let at = CONTROL_AT;
    while (at + CMSGHDR_BYTES <= end) {
      const length = Number(view.getBigUint64(at, true));
      if (length < CMSGHDR_BYTES) break;
      const rights =
        view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SCM_RIGHTS;
      if (rights) {
        for (let p = at + CMSGHDR_BYTES; p + 4 <= Math.min(at + length, end); p += 4) {
          fds.push(view.getInt32(p, true));
        }
      }
      at += Math.ceil(length / 8) * 8;
    }
    return fds;
  }
}

/** True for the error of connecting to a path where nobody listens (yet). */
export function isNobodyListening(error: unknown): boolean {
  return (
    error instanceof SystemError &&
    (error.errnoName === 'ENOENT' || error.errnoName === 'ECONNREFUSED')
  );
}
