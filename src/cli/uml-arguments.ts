/** The kernel arguments with which User-Mode Linux gets the cards and disks that Sluice serves. */
import { MiB } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import type { GuestConfig } from '../daemon/config.ts';
import { VIRTIO_ID_BLOCK, VIRTIO_ID_NET } from '../spec/virtio.ts';

/**
 * @throws SluiceError `unsupported`: virtio_uml connects and cannot be connected to; and there is no PCI
 * for devices of other methods.
 */
export function umlArguments(guest: GuestConfig): string[] {
  const functions = [
    ...guest.net.flatMap(({ method, port }) =>
      method === 'paravirtual' ? [] : `${port} (method: ${method})`,
    ),
    ...guest.disk.flatMap(({ method, device }) =>
      method === 'paravirtual' ? [] : `${device} (method: ${method})`,
    ),
  ];
  if (functions.length > 0) {
    throw new SluiceError(
      'unsupported',
      `User-Mode Linux has no PCI, which ${functions.join(', ')} would need`,
      { remedy: 'set method: paravirtual, or run the guest in QEMU' },
    );
  }
  return [
    `mem=${guest.memoryBytes / MiB}M`,
    ...guest.net.map(({ port, server, socket }) =>
      deviceArgument(port, server, socket, VIRTIO_ID_NET),
    ),
    ...guest.disk.map(({ device, server, socket }) =>
      deviceArgument(device, server, socket, VIRTIO_ID_BLOCK),
    ),
  ];
}

function deviceArgument(
  name: string,
  server: 'listen' | 'connect',
  socket: string,
  id: number,
): string {
  if (server === 'connect') {
    throw new SluiceError(
      'unsupported',
      `${name} has server: connect, and User-Mode Linux does not listen`,
      { remedy: 'set server: listen' },
    );
  }
  return `virtio_uml.device=${socket}:${id}`;
}
