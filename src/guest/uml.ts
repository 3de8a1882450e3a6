/**
 * Launches User-Mode Linux guests: Linux as a process, its root the testbed's tree.
 *
 * Its vhost-user front-end is the kernel's own (arch/um/drivers/virtio_uml.c).
 */
import { VIRTIO_ID_BLOCK, VIRTIO_ID_NET } from '../spec/virtio.ts';
import { GuestProcess, SharedDirectories, type VhostUserNet } from './guest-process.ts';
import { findTestbed, type Testbed } from './testbed.ts';

/** A vhost-user device. */
export interface UmlSocket {
  /** Path of the back-end's socket on the host; the back-end must listen when the guest starts. */
  readonly socket: string;
}

/** A vhost-user device of any kind. */
export interface UmlDevice extends UmlSocket {
  /** Virtio device id (virtio 1.3, section 5): 1 network, 2 block. */
  readonly id: number;
}

export interface UmlOptions {
  readonly name: string;
  /** MiB, default 512. */
  readonly memory?: number;
  /** The MAC is the back-end's to say. */
  readonly net?: readonly Omit<VhostUserNet, 'mac'>[];
  readonly disk?: readonly UmlSocket[];
  readonly devices?: readonly UmlDevice[];
  /** Appended to the kernel's command line. */
  readonly kernelParameters?: string;
  /** Host CPUs to run on, such as `0` or `0,1`; default: all. */
  readonly pin?: string;
  readonly testbed?: Testbed;
}

/** The command that runs the guest inside the testbed's tree. */
export function umlCommand(options: UmlOptions, inside: (path: string) => string): string[] {
  const devices: UmlDevice[] = [
    ...(options.net ?? []).map(({ socket }) => ({ socket, id: VIRTIO_ID_NET })),
    ...(options.disk ?? []).map(({ socket }) => ({ socket, id: VIRTIO_ID_BLOCK })),
    ...(options.devices ?? []),
  ];
  return [
    ...(options.pin === undefined ? [] : ['taskset', '--cpu-list', options.pin]),
    'linux.uml',
    `mem=${options.memory ?? 512}M`,
    `umid=${options.name}`,
    'uml_dir=/tmp/uml',
    'root=/dev/root',
    'rootfstype=hostfs',
    'rootflags=/',
    'ro',
    'init=/run/testbed/uml-init',
    // System calls by seccomp are cheaper than by ptrace.
    'seccomp=on',
    'loglevel=4',
    'panic=0',
    'con=null',
    'con0=null,fd:1',
    'ssl=null',
    'ssl0=fd:3',
    ...devices.map(({ socket, id }) => `virtio_uml.device=${inside(socket)}:${id}`),
    ...(options.kernelParameters?.split(' ') ?? []),
  ];
}

/**
 * Starts a User-Mode Linux guest; {@link GuestProcess.booted} tells when it is up.
 * @throws SluiceError `not-found` without a testbed.
 */
export function startUml(options: UmlOptions): GuestProcess {
  const testbed = options.testbed ?? findTestbed();
  const shared = new SharedDirectories();
  const command = umlCommand(options, (path) => shared.inside(path));
  return new GuestProcess({ name: options.name, testbed, shared, command, extraLine: false });
}
