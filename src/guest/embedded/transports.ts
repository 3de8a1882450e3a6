/** How the guests of a loop reach their devices: over sockets. */
import { VfioUserBus } from '../../driver/pci/vfio-user-bus.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import type { Transports } from './frontend.ts';
import { VhostUserFrontend } from './vhost-user-frontend.ts';

export function transportsOf(loop: PollLoop): Transports {
  return {
    virtio: (socket, onLost) => new VhostUserFrontend(socket, loop, onLost),
    pci: (socket, onLost) => VfioUserBus.connect(socket, loop, onLost),
  };
}
