/**
 * Tap interfaces of the host: Ethernet frames through a file descriptor, each with a virtio_net_hdr
 * before it (Linux, Documentation/networking/tuntap.rst; uapi/linux/if_tun.h).
 */
import { constants, openSync } from 'node:fs';
import { SluiceError, SystemError } from '../base/errors.ts';
import { closeFd } from './fd.ts';
import type { IoVector } from './io-vector.ts';
import { check, EAGAIN, EINTR, EIO, ENOMEM, errno, errnoName, libc } from './libc.ts';

const DEVICE = '/dev/net/tun';

/** ioctl numbers and the flags that they take (uapi/linux/if_tun.h). */
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETVNETHDRSZ = 0x400454d8;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const TUN_F_CSUM = 0x01;
const TUN_F_TSO4 = 0x02;
const TUN_F_TSO6 = 0x04;
const TUN_F_TSO_ECN = 0x08;
/** Since Linux 6.2. */
const TUN_F_USO4 = 0x20;
const TUN_F_USO6 = 0x40;

/** Interface flags by ioctl (uapi/linux/sockios.h, if.h). */
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SET_FLAGS = 'ioctl SIOCSIFFLAGS';
const IFF_UP = 1;
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;

/** struct ifreq: name 16, then a union of which the first two bytes are flags. */
const IFREQ_BYTES = 40;
const IFREQ_FLAGS = 16;
const IFNAMSIZ = 16;

/** Error numbers that tell what became of a frame (asm-generic/errno.h). */
const EBADFD = 77;
const ENOBUFS = 105;

/** What {@link Tap.write} did with a frame. */
export const TAP_WRITTEN = 0;
/** The host has no room for it now. */
export const TAP_FULL = 1;
/** The interface is down or gone. */
export const TAP_DOWN = 2;
/** The host refuses the frame as it is. */
export const TAP_REFUSED = 3;

export interface TapOptions {
  /** Name of the interface: taken if it exists, else created for as long as it is open. */
  readonly name: string;
  /** Bytes of the virtio_net_hdr before each frame. */
  readonly headerBytes: number;
  /** Sets the interface up. */
  readonly up?: boolean;
}

function requestFor(name: string): Buffer {
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(name, 'utf8');
  return request;
}

function checkName(name: string): void {
  const fits = /^[^\s/:]+$/.test(name) && Buffer.byteLength(name) < IFNAMSIZ;
  if (fits && name !== '.' && name !== '..') return;
  throw new SluiceError('config', `"${name}" is not a name for a network interface`, {
    remedy: `choose 1 to ${IFNAMSIZ - 1} characters without space, slash or colon`,
  });
}

function openDevice(name: string): number {
  try {
    return openSync(DEVICE, constants.O_RDWR | constants.O_NONBLOCK);
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
    throw new SluiceError('unsupported', `cannot open ${DEVICE} for tap ${name}: ${code}`, {
      cause,
      remedy:
        code === 'EACCES' || code === 'EPERM'
          ? 'run sluice as root, or give its user access to the device'
          : 'load the kernel module: modprobe tun',
    });
  }
}

/** Why the kernel gave no interface, in terms of what to do. */
function explain(error: SystemError, name: string): SluiceError {
  const because = (message: string, remedy: string): SluiceError =>
    new SluiceError('system', `${error.errnoName}: ${message}`, { cause: error, remedy });
  switch (error.errnoName) {
    case 'EPERM':
      if (error.syscall === SET_FLAGS) {
        return because(
          `may not set the network interface ${name} up`,
          `set it up before: ip link set ${name} up`,
        );
      }
      return because(
        `may not open the network interface ${name}`,
        `give sluice CAP_NET_ADMIN, or make the interface for its user: ip tuntap add dev ${name} mode tap user USER vnet_hdr && ip link set ${name} up`,
      );
    case 'EBUSY':
      return because(
        `the network interface ${name} is in use`,
        'end the program that has it open, or choose another name',
      );
    case 'EINVAL':
      return because(
        `the network interface ${name} exists and is no plain tap`,
        'choose another name, or remove the interface',
      );
    default:
      return error;
  }
}

export class Tap {
  readonly fd: number;
  readonly name: string;
  /** The host sends and takes UDP segmentation offload (Linux 6.2). */
  readonly udpSegmentation: boolean;

  /** @throws SluiceError that names the interface and the remedy */
  constructor(options: TapOptions) {
    const { name } = options;
    checkName(name);
    this.name = name;
    this.fd = openDevice(name);
    try {
      const request = requestFor(name);
      request.writeUInt16LE(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, IFREQ_FLAGS);
      check(libc.ioctl(this.fd, TUNSETIFF, request), 'ioctl TUNSETIFF', name);
      const size = Int32Array.of(options.headerBytes);
      check(libc.ioctl(this.fd, TUNSETVNETHDRSZ, size), 'ioctl TUNSETVNETHDRSZ', name);
      this.udpSegmentation = this.#setOffloads();
      if (options.up === true) setUp(name);
    } catch (error) {
      closeFd(this.fd);
      throw error instanceof SystemError ? explain(error, name) : error;
    }
  }

  /** Tells the kernel which offloads its frames may carry to us: all that it knows. */
  #setOffloads(): boolean {
    const all = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    // The argument is the mask itself, not a pointer to it.
    const request = BigInt(all | TUN_F_USO4 | TUN_F_USO6);
    if (libc.ioctl(this.fd, TUNSETOFFLOAD, request) === 0) return true;
    check(libc.ioctl(this.fd, TUNSETOFFLOAD, BigInt(all)), 'ioctl TUNSETOFFLOAD', this.name);
    return false;
  }

  /**
   * Reads one frame to a pointer. Returns its bytes, or 0 if there is none.
   * @throws SystemError when the interface is gone
   */
  read(pointer: bigint, length: number): number {
    const bytes = libc.read(this.fd, pointer, length);
    if (bytes !== -1) return bytes;
    const error = errno[0];
    if (error === EAGAIN || error === EINTR) return 0;
    throw new SystemError(error, errnoName(error), 'read', `tap ${this.name}`);
  }

  /** Writes one frame, gathered from a list. Returns one of TAP_*; never throws. */
  write(list: IoVector): number {
    if (libc.writev(this.fd, list.bytes, list.count) !== -1) return TAP_WRITTEN;
    switch (errno[0]) {
      case EAGAIN:
      case ENOBUFS:
      case ENOMEM:
        return TAP_FULL;
      case EIO:
      case EBADFD:
        return TAP_DOWN;
      default:
        return TAP_REFUSED;
    }
  }

  close(): void {
    closeFd(this.fd);
  }
}

/** Sets a network interface up that is not (netdevice(7)): its user may use it, and not do that. */
function setUp(name: string): void {
  const socket = check(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket', name);
  try {
    const request = requestFor(name);
    check(libc.ioctl(socket, SIOCGIFFLAGS, request), 'ioctl SIOCGIFFLAGS', name);
    const flags = request.readUInt16LE(IFREQ_FLAGS);
    if ((flags & IFF_UP) !== 0) return;
    request.writeUInt16LE(flags | IFF_UP, IFREQ_FLAGS);
    check(libc.ioctl(socket, SIOCSIFFLAGS, request), SET_FLAGS, name);
  } finally {
    closeFd(socket);
  }
}
