/**
 * Launches QEMU guests: the testbed's QEMU, kernel and initramfs.
 */
import type { Duplex } from 'node:stream';
import { SluiceError } from '../base/errors.ts';
import {
  GuestProcess,
  type GuestProcessOptions,
  SharedDirectories,
  type VhostUserNet,
} from './guest-process.ts';
import { type Json, QmpClient } from './qmp.ts';
import { type Accelerator, chooseAccelerator, findTestbed, type Testbed } from './testbed.ts';

/** A vhost-user network device of a QEMU guest. */
export interface QemuNet extends VhostUserNet {
  /** Queue pairs, default 1. */
  readonly queues?: number;
  /** Packed instead of split rings. */
  readonly packed?: boolean;
  /** Descriptors of each receive and transmit ring: a power of two, 256 to 1024; default 1024. */
  readonly ringSize?: number;
  /** False: neither checksum nor segmentation offloads, in both directions. */
  readonly offloads?: boolean;
  /** Milliseconds between attempts to reconnect when the back-end goes; default: none. */
  readonly reconnectMs?: number;
  /** True: QEMU listens on the socket and the back-end connects. */
  readonly listens?: boolean;
  /** The MTU that the host advises, 68 to 65535. */
  readonly mtu?: number;
  /** Further properties of virtio-net-pci. */
  readonly properties?: Readonly<Record<string, string | number | boolean>>;
}

/** A vhost-user disk of a QEMU guest. */
export interface QemuDisk {
  /** Path of the back-end's socket on the host. Its directory must exist when the guest starts. */
  readonly socket: string;
  /** Default 1. */
  readonly queues?: number;
  /** Packed instead of split rings. */
  readonly packed?: boolean;
  /** Descriptors of each queue: a power of two up to 1024; default 128, QEMU's own. */
  readonly ringSize?: number;
  /** Milliseconds between attempts to reconnect when the back-end goes; default: none. */
  readonly reconnectMs?: number;
  /** True: QEMU listens on the socket and the back-end connects. */
  readonly listens?: boolean;
  /** Place in the order in which the firmware tries to boot; default: not from this. */
  readonly bootIndex?: number;
  /** Further properties of vhost-user-blk-pci. */
  readonly properties?: Readonly<Record<string, string | number | boolean>>;
}

export interface QemuOptions {
  readonly name: string;
  /** MiB, default 512. */
  readonly memory?: number;
  /** Default 1. */
  readonly cpus?: number;
  readonly net?: readonly QemuNet[];
  readonly disk?: readonly QemuDisk[];
  /** Default: {@link chooseAccelerator}. */
  readonly accelerator?: Accelerator;
  /** Host CPUs to run on, such as `0` or `0,1`; default: all. */
  readonly pin?: string;
  /** Appended to the kernel's command line, such as `module_blacklist=ixgbevf`; not with `firmware`. */
  readonly kernelParameters?: string;
  /**
   * True: the firmware boots from the disk with the lowest `bootIndex`, as on a real machine. Default:
   * QEMU starts the testbed's kernel itself.
   */
  readonly firmware?: boolean;
  /** Mount the testbed's tree in the guest at /tools: fio and all else that is too big for the initramfs. */
  readonly tools?: boolean;
  /** Further options. `inside` turns a host path (of a socket, an image) into QEMU's. */
  readonly options?: (inside: (path: string) => string) => readonly string[];
  readonly testbed?: Testbed;
}

const offloadProperties = [
  'csum',
  'gso',
  'host_tso4',
  'host_tso6',
  'host_ecn',
  'host_ufo',
  'host_uso',
  'guest_csum',
  'guest_tso4',
  'guest_tso6',
  'guest_ecn',
  'guest_ufo',
  'guest_uso4',
  'guest_uso6',
  'host_tunnel',
  'host_tunnel_csum',
  'guest_tunnel',
  'guest_tunnel_csum',
] as const;

/**
 * The kernel's command line of {@link startQemu}, for those who start it otherwise. The guest boots in
 * seconds under emulation: no self-tests, no calibration, few messages, and none of the built-in code that
 * no test asks for and that computes for long: a key derivation that only tests itself, an entropy source
 * made of jitter, a key type.
 */
export const QEMU_KERNEL_PARAMETERS =
  'console=ttyS0 loglevel=4 panic=0 tsc=reliable no_timer_check mitigations=off rodata=off cryptomgr.notests initcall_blacklist=crypto_kdf108_init,jent_mod_init,init_encrypted';

function propertyList(properties: Readonly<Record<string, string | number | boolean>>): string {
  return Object.entries(properties)
    .map(
      ([name, value]) => `,${name}=${typeof value === 'boolean' ? (value ? 'on' : 'off') : value}`,
    )
    .join('');
}

function netOptions(net: QemuNet, index: number, inside: (path: string) => string): string[] {
  const queues = net.queues ?? 1;
  const ringSize = net.ringSize ?? 1024;
  const properties: Record<string, string | number | boolean> = {
    ...(net.mac === undefined ? {} : { mac: net.mac }),
    rx_queue_size: ringSize,
    tx_queue_size: ringSize,
    ...(queues === 1 ? {} : { mq: true, vectors: 2 * queues + 2 }),
    ...(net.packed === true ? { packed: true } : {}),
    ...(net.mtu === undefined ? {} : { host_mtu: net.mtu }),
    ...(net.offloads === false
      ? Object.fromEntries(offloadProperties.map((name) => [name, false]))
      : {}),
    ...net.properties,
  };
  return [
    ...socketOptions(`c${index}`, net, inside),
    '-netdev',
    `vhost-user,id=n${index},chardev=c${index},queues=${queues}`,
    '-device',
    `virtio-net-pci,id=net${index},netdev=n${index},romfile=${propertyList(properties)}`,
  ];
}

function diskOptions(disk: QemuDisk, index: number, inside: (path: string) => string): string[] {
  const properties: Record<string, string | number | boolean> = {
    'num-queues': disk.queues ?? 1,
    ...(disk.ringSize === undefined ? {} : { 'queue-size': disk.ringSize }),
    ...(disk.packed === true ? { packed: true } : {}),
    ...(disk.bootIndex === undefined ? {} : { bootindex: disk.bootIndex }),
    ...disk.properties,
  };
  return [
    ...socketOptions(`b${index}`, disk, inside),
    '-device',
    `vhost-user-blk-pci,id=disk${index},chardev=b${index}${propertyList(properties)}`,
  ];
}

function socketOptions(
  id: string,
  { socket, listens, reconnectMs }: Pick<QemuNet, 'socket' | 'listens' | 'reconnectMs'>,
  inside: (path: string) => string,
): string[] {
  const mode = listens === true ? ',server=on,wait=off' : '';
  const reconnect = reconnectMs === undefined ? '' : `,reconnect-ms=${reconnectMs}`;
  return [
    '-chardev',
    `socket,id=${id},path=${inside(socket).replaceAll(',', ',,')}${mode}${reconnect}`,
  ];
}

function kernelOptions({ kernelParameters = '' }: QemuOptions): string[] {
  const parameters = `${QEMU_KERNEL_PARAMETERS} ${kernelParameters}`.trimEnd();
  return [
    ...['-kernel', '/run/testbed/kernel'],
    ...['-initrd', '/run/testbed/initramfs'],
    ...['-append', parameters],
  ];
}

/** The command that runs the guest inside the testbed's tree. */
export function qemuCommand(
  options: QemuOptions,
  accelerator: Accelerator,
  inside: (path: string) => string,
): string[] {
  const memory = options.memory ?? 512;
  return [
    ...(options.pin === undefined ? [] : ['taskset', '--cpu-list', options.pin]),
    'qemu-system-x86_64',
    '-name',
    options.name,
    '-no-user-config',
    '-nodefaults',
    '-display',
    'none',
    '-machine',
    // Without devices that no test asks for: each costs time at boot.
    'q35,memory-backend=ram,sata=off,smbus=off,usb=off,vmport=off',
    '-object',
    // vhost-user and vfio-user back-ends map it by its fd.
    `memory-backend-memfd,id=ram,size=${memory}M,share=on`,
    '-m',
    `${memory}M`,
    '-accel',
    accelerator,
    '-cpu',
    accelerator === 'kvm' ? 'host' : 'max',
    '-smp',
    String(options.cpus ?? 1),
    ...(options.firmware === true ? [] : kernelOptions(options)),
    '-boot',
    // SeaBIOS leaves disks alone that it is not to boot from. It does not stop those that it has set up,
    // and QEMU loads a large initramfs over where their rings are.
    'strict=on',
    '-serial',
    'stdio',
    '-device',
    'virtio-serial-pci',
    '-chardev',
    'socket,id=agent,fd=3',
    '-device',
    'virtserialport,chardev=agent,name=sluice.agent',
    '-chardev',
    'socket,id=qmp,fd=4',
    '-object',
    'monitor-qmp,id=monitor,chardev=qmp',
    ...(options.tools === true
      ? ['-virtfs', 'local,path=/,mount_tag=tools,security_model=none,readonly=on,multidevs=remap']
      : []),
    ...(options.net ?? []).flatMap((net, index) => netOptions(net, index, inside)),
    ...(options.disk ?? []).flatMap((disk, index) => diskOptions(disk, index, inside)),
    ...(options.options?.(inside) ?? []),
  ];
}

/** A running QEMU guest. */
export class QemuGuest extends GuestProcess {
  readonly #qmp: QmpClient;

  constructor(options: GuestProcessOptions) {
    super(options);
    const line: Duplex | undefined = this.extraLine;
    if (line === undefined)
      throw new SluiceError('state', `guest ${this.name} has no line for QMP`);
    const qmp = new QmpClient(line);
    this.#qmp = qmp;
    this.exited.then(() => qmp.fail(new SluiceError('state', `guest ${this.name} has ended`)));
  }

  /**
   * Gives QEMU a command of its machine protocol, such as `set_link`, `device_del`, `device_add`.
   * Network device N has the ids `netN` (device), `nN` (back-end) and `cN` (socket), disk N has `diskN`
   * and `bN` (socket).
   * @throws SluiceError `protocol` if QEMU refuses it, `state` if it has ended.
   */
  qmp(command: string, parameters: { readonly [name: string]: Json } = {}): Promise<Json> {
    return this.#qmp.command(command, parameters);
  }

  /** Names of QEMU's events so far, such as `RESET`, `DEVICE_DELETED`. */
  get events(): readonly string[] {
    return this.#qmp.events;
  }
}

/**
 * Starts a QEMU guest; {@link GuestProcess.booted} tells when it is up.
 * @throws SluiceError `not-found` without a testbed.
 */
export function startQemu(options: QemuOptions): QemuGuest {
  const testbed = options.testbed ?? findTestbed();
  const shared = new SharedDirectories();
  const command = qemuCommand(options, options.accelerator ?? chooseAccelerator(), (path) =>
    shared.inside(path),
  );
  return new QemuGuest({ name: options.name, testbed, shared, command, extraLine: true });
}
