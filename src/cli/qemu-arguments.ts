/** The arguments with which QEMU gives a guest the cards and disks that Sluice serves. */
import { MiB } from '../base/bits.ts';
import type { GuestConfig, NetConfig, ParavirtualNetConfig } from '../daemon/config.ts';
import type { GuestDiskConfig, ParavirtualDiskConfig } from '../daemon/disk-config.ts';
import { EXTRA_SEGMENTS } from '../device/virtio-blk/features.ts';

/** QEMU's largest; only vhost-user takes it for both directions. */
const RING_SIZE = 1024;
/** Descriptors of a disk's queues, as QEMU has them. */
const DISK_RING_SIZE = 128;
/** How often QEMU looks for Sluice when the connection is gone. */
const RECONNECT_MS = 1000;
const MEMORY_ID = 'sluice-mem';
/** Numbers of the slots that Sluice's root ports are: no two of a machine have the same. */
const CHASSIS = 100;

/**
 * Machine type, processor and the rest are the caller's.
 * @param strict isolation: strict, which wants memory that cannot shrink
 */
export function qemuArguments(guest: GuestConfig, strict: boolean): string[] {
  const size = `${guest.memoryBytes / MiB}M`;
  const seal = strict ? ',seal=on' : '';
  return [
    '-m',
    size,
    // The driver domain maps the guest's memory by its file: it must be one, and shared.
    '-object',
    `memory-backend-memfd,id=${MEMORY_ID},size=${size},share=on${seal}`,
    '-machine',
    `memory-backend=${MEMORY_ID}`,
    ...guest.net.flatMap(cardArguments),
    ...guest.disk.flatMap(diskArguments),
    ...guest.controllers.flatMap(({ name, socket }) =>
      functionArguments(`sluice-${name.slice(guest.name.length + 1)}`, socket),
    ),
  ];
}

function cardArguments(net: NetConfig, index: number): string[] {
  const id = `sluice-net${index}`;
  switch (net.method) {
    case 'paravirtual':
      return virtioCardArguments(id, net);
    case 'emulated':
      return functionArguments(id, net.socket);
    case 'direct':
    case 'sriov': {
      const bus = `${id}-port`;
      // Linux looks for the link of a port of the card's own speed after a reset of the bus.
      const port = `pcie-root-port,id=${bus},chassis=${CHASSIS + index},x-speed=5,x-width=8`;
      return ['-device', port, ...functionArguments(id, net.socket, bus)];
    }
  }
}

function virtioCardArguments(id: string, net: ParavirtualNetConfig): string[] {
  const multi = net.queues > 1;
  return [
    ...socketArguments(id, net),
    '-netdev',
    `vhost-user,id=${id},chardev=${id}-socket,queues=${net.queues}`,
    '-device',
    [
      `virtio-net-pci,netdev=${id},mac=${net.mac}`,
      `rx_queue_size=${RING_SIZE},tx_queue_size=${RING_SIZE}`,
      // One vector a ring, one for configuration, one for the control queue.
      ...(multi ? [`mq=on,vectors=${2 * net.queues + 2}`] : []),
      ...(net.packed ? ['packed=on'] : []),
      ...(net.mtu === undefined ? [] : [`host_mtu=${net.mtu}`]),
    ].join(','),
  ];
}

function diskArguments(disk: GuestDiskConfig, index: number): string[] {
  // A drive comes with its controller.
  if (disk.method === 'emulated') return [];
  const id = `sluice-disk${index}`;
  const ringSize = 2 ** Math.ceil(Math.log2(disk.segMax + EXTRA_SEGMENTS));
  return [
    ...socketArguments(id, disk),
    '-device',
    [
      `vhost-user-blk-pci,id=${id},chardev=${id}-socket,num-queues=${disk.queues}`,
      ...(ringSize > DISK_RING_SIZE ? [`queue-size=${ringSize}`] : []),
      ...(disk.packed ? ['packed=on'] : []),
      // The firmware boots from the first. 0 is taken when QEMU is given a kernel (-kernel).
      ...(index === 0 ? ['bootindex=1'] : []),
    ].join(','),
  ];
}

/**
 * A PCI function over vfio-user: on the root bus, where every machine type with PCI has room, or behind a
 * port of PCI Express.
 */
function functionArguments(id: string, socket: string, bus?: string): string[] {
  const address = { path: socket, type: 'unix' };
  const place = bus === undefined ? {} : { bus };
  return ['-device', JSON.stringify({ driver: 'vfio-user-pci', id, ...place, socket: address })];
}

function socketArguments(
  id: string,
  { server, socket }: Pick<ParavirtualNetConfig | ParavirtualDiskConfig, 'server' | 'socket'>,
): string[] {
  const mode = server === 'listen' ? `reconnect-ms=${RECONNECT_MS}` : 'server=on,wait=off';
  return ['-chardev', `socket,id=${id}-socket,path=${escapeCommas(socket)},${mode}`];
}

/** In QEMU's option lists a comma in a value is written twice. */
function escapeCommas(value: string): string {
  return value.replaceAll(',', ',,');
}
