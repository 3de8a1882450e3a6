/** What a back-end offers for a device: the device's features and those of its transport. */
import { bitMask, hasBit } from '../../base/bits.ts';
import type { VirtioDevice } from '../../device/virtio-device.ts';
import {
  PROTOCOL_FEATURES,
  type ProtocolFeature,
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
} from '../../spec/vhost-user.ts';
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from '../../spec/virtio.ts';

export interface OfferOptions {
  /** Feature bits that are not offered, whoever has them: to switch off packed rings, for example. */
  readonly withheldFeatures?: bigint;
  readonly withheldProtocolFeatures?: readonly ProtocolFeature[];
}

/** Protocol features by name, as one value. */
export function protocolMask(...names: readonly ProtocolFeature[]): bigint {
  return bitMask(...names.map((name) => PROTOCOL_FEATURES.indexOf(name)));
}

/** The names of the bits that are set; unknown ones by number. */
export function protocolFeatureNames(features: bigint): string[] {
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (hasBit(features, bit)) names.push(PROTOCOL_FEATURES[bit] ?? `bit ${bit}`);
  }
  return names;
}

/** Feature bits of vhost itself: a device never sees them. */
export const VHOST_FEATURES = bitMask(VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES);

/** What a transport adds to a device's own features. */
export const RING_FEATURES = bitMask(
  VIRTIO_F_VERSION_1,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
);

/** Protocol features that need nothing of the device. */
const GENERAL: readonly ProtocolFeature[] = [
  'MQ',
  'LOG_SHMFD',
  'REPLY_ACK',
  'BACKEND_REQ',
  'CONFIG',
  'INFLIGHT_SHMFD',
  'RESET_DEVICE',
  'CONFIGURE_MEM_SLOTS',
  'STATUS',
];

export function offeredProtocolFeatures(device: VirtioDevice, options: OfferOptions): bigint {
  let offered = protocolMask(...GENERAL);
  if (device.announce !== undefined) offered |= protocolMask('RARP');
  if (device.setMtu !== undefined) offered |= protocolMask('MTU');
  return offered & ~protocolMask(...(options.withheldProtocolFeatures ?? []));
}

export function offeredFeatures(device: VirtioDevice, options: OfferOptions): bigint {
  let offered = device.features | RING_FEATURES | VHOST_FEATURES;
  if (device.tracksInflight === true) offered &= ~bitMask(VIRTIO_F_IN_ORDER);
  // virtio_uml reads the configuration space through this protocol feature or not at all.
  if (options.withheldProtocolFeatures?.includes('CONFIG') === true) {
    offered &= ~(device.configFeatures ?? 0n);
  }
  return offered & ~(options.withheldFeatures ?? 0n);
}
