/** All fuzz targets. */
import { ahci } from './ahci.ts';
import { e1000 } from './e1000.ts';
import { ixgbe } from './ixgbe.ts';
import { ixgbevf } from './ixgbevf.ts';
import { nbdClient } from './nbd-client.ts';
import { packedRing } from './packed-ring.ts';
import { pciConfig } from './pci-config.ts';
import type { FuzzTarget } from './runner.ts';
import { splitRing } from './split-ring.ts';
import { vfioUserCodec } from './vfio-user-codec.ts';
import { vfioUserSession } from './vfio-user-session.ts';
import { vhostUserCodec } from './vhost-user-codec.ts';
import { vhostUserSession } from './vhost-user-session.ts';
import { virtioBlk } from './virtio-blk.ts';

export const TARGETS: readonly FuzzTarget[] = [
  splitRing,
  packedRing,
  vhostUserCodec,
  vhostUserSession,
  nbdClient,
  virtioBlk,
  vfioUserCodec,
  vfioUserSession,
  pciConfig,
  e1000,
  ahci,
  ixgbe,
  ixgbevf,
];
