/** What the virtio-net device offers, and what a driver's choice means for the port. */
import { bitMask, hasBit } from '../../base/bits.ts';
import {
  OFFLOAD_CSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
} from '../../net/port.ts';
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_STATUS,
} from '../../spec/virtio-net.ts';

/** Offloads by the names that a configuration uses, with the features of both directions. */
export const OFFLOAD_FEATURES = {
  csum: bitMask(VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM),
  tso4: bitMask(VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4),
  tso6: bitMask(VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_TSO6),
  ecn: bitMask(VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_GUEST_ECN),
  uso: bitMask(VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6),
} as const;

export type OffloadName = keyof typeof OFFLOAD_FEATURES;

/** The features of several offloads together; without names, of all. */
export function offloadFeatures(
  names: readonly OffloadName[] = Object.keys(OFFLOAD_FEATURES) as OffloadName[],
): bigint {
  return names.reduce((mask, name) => mask | OFFLOAD_FEATURES[name], 0n);
}

/** Features that each need one of others (§5.1.3.1); those that others rest on come first. */
const REQUIREMENTS: readonly (readonly [feature: number, oneOf: bigint])[] = [
  [VIRTIO_NET_F_HOST_TSO4, bitMask(VIRTIO_NET_F_CSUM)],
  [VIRTIO_NET_F_HOST_TSO6, bitMask(VIRTIO_NET_F_CSUM)],
  [VIRTIO_NET_F_HOST_USO, bitMask(VIRTIO_NET_F_CSUM)],
  [VIRTIO_NET_F_HOST_ECN, bitMask(VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6)],
  [VIRTIO_NET_F_GUEST_TSO4, bitMask(VIRTIO_NET_F_GUEST_CSUM)],
  [VIRTIO_NET_F_GUEST_TSO6, bitMask(VIRTIO_NET_F_GUEST_CSUM)],
  [VIRTIO_NET_F_GUEST_USO4, bitMask(VIRTIO_NET_F_GUEST_CSUM)],
  [VIRTIO_NET_F_GUEST_USO6, bitMask(VIRTIO_NET_F_GUEST_CSUM)],
  [VIRTIO_NET_F_GUEST_ECN, bitMask(VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6)],
];

/** The features without those that rest on one that is not among them. */
export function withRequirements(features: bigint): bigint {
  let kept = features;
  for (const [feature, oneOf] of REQUIREMENTS) {
    if ((kept & oneOf) === 0n) kept &= ~bitMask(feature);
  }
  return kept;
}

const ALWAYS =
  offloadFeatures() | bitMask(VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_STATUS);

/** Features that say nothing without the configuration space (§5.1.4). */
export const CONFIG_FEATURES = bitMask(
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MTU,
);

/**
 * The features of a device. MQ goes only with several queue pairs: a driver that sees it without a
 * control queue, which a VMM provides (or does not), gives the device up.
 */
export function offeredFeatures(queuePairs: number, withMtu: boolean): bigint {
  let features = ALWAYS;
  if (queuePairs > 1) features |= bitMask(VIRTIO_NET_F_MQ);
  if (withMtu) features |= bitMask(VIRTIO_NET_F_MTU);
  return features;
}

/** Which offloads a driver with these features takes on receive, a mask of OFFLOAD_*. */
export function receiveOffloads(features: bigint): number {
  if (!hasBit(features, VIRTIO_NET_F_GUEST_CSUM)) return 0;
  let mask = OFFLOAD_CSUM;
  if (hasBit(features, VIRTIO_NET_F_GUEST_TSO4)) mask |= OFFLOAD_TSO4;
  if (hasBit(features, VIRTIO_NET_F_GUEST_TSO6)) mask |= OFFLOAD_TSO6;
  if (hasBit(features, VIRTIO_NET_F_GUEST_ECN)) mask |= OFFLOAD_ECN;
  if (hasBit(features, VIRTIO_NET_F_GUEST_USO4)) mask |= OFFLOAD_USO4;
  if (hasBit(features, VIRTIO_NET_F_GUEST_USO6)) mask |= OFFLOAD_USO6;
  return mask;
}
