/** Network device of Virtual I/O Device (VIRTIO) 1.3, §5.1. */

/** Feature bits (§5.1.3), as bit numbers. "Host" is the device's side, "guest" the driver's. */
export const VIRTIO_NET_F_CSUM = 0;
export const VIRTIO_NET_F_GUEST_CSUM = 1;
export const VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2;
export const VIRTIO_NET_F_MTU = 3;
export const VIRTIO_NET_F_MAC = 5;
/** Legacy (§5.1.3.2): any segmentation offload. */
export const VIRTIO_NET_F_GSO = 6;
export const VIRTIO_NET_F_GUEST_TSO4 = 7;
export const VIRTIO_NET_F_GUEST_TSO6 = 8;
export const VIRTIO_NET_F_GUEST_ECN = 9;
export const VIRTIO_NET_F_GUEST_UFO = 10;
export const VIRTIO_NET_F_HOST_TSO4 = 11;
export const VIRTIO_NET_F_HOST_TSO6 = 12;
export const VIRTIO_NET_F_HOST_ECN = 13;
export const VIRTIO_NET_F_HOST_UFO = 14;
export const VIRTIO_NET_F_MRG_RXBUF = 15;
export const VIRTIO_NET_F_STATUS = 16;
export const VIRTIO_NET_F_CTRL_VQ = 17;
export const VIRTIO_NET_F_CTRL_RX = 18;
export const VIRTIO_NET_F_CTRL_VLAN = 19;
export const VIRTIO_NET_F_CTRL_RX_EXTRA = 20;
export const VIRTIO_NET_F_GUEST_ANNOUNCE = 21;
export const VIRTIO_NET_F_MQ = 22;
export const VIRTIO_NET_F_CTRL_MAC_ADDR = 23;
export const VIRTIO_NET_F_HASH_TUNNEL = 51;
export const VIRTIO_NET_F_VQ_NOTF_COAL = 52;
export const VIRTIO_NET_F_NOTF_COAL = 53;
export const VIRTIO_NET_F_GUEST_USO4 = 54;
export const VIRTIO_NET_F_GUEST_USO6 = 55;
export const VIRTIO_NET_F_HOST_USO = 56;
export const VIRTIO_NET_F_HASH_REPORT = 57;
export const VIRTIO_NET_F_GUEST_HDRLEN = 59;
export const VIRTIO_NET_F_RSS = 60;
export const VIRTIO_NET_F_RSC_EXT = 61;
export const VIRTIO_NET_F_STANDBY = 62;
export const VIRTIO_NET_F_SPEED_DUPLEX = 63;

/**
 * struct virtio_net_config (§5.1.4), little-endian:
 * mac 6, status 2, max_virtqueue_pairs 2, mtu 2, speed 4, duplex 1, rss_max_key_size 1,
 * rss_max_indirection_table_length 2, supported_hash_types 4, supported_tunnel_types 4.
 */
export const NET_CONFIG_MAC = 0;
export const NET_CONFIG_STATUS = 6;
export const NET_CONFIG_MAX_QUEUE_PAIRS = 8;
export const NET_CONFIG_MTU = 10;
/** Megabits a second; all ones for unknown. */
export const NET_CONFIG_SPEED = 12;
/** 0 half, 1 full, 255 unknown. */
export const NET_CONFIG_DUPLEX = 16;
export const NET_CONFIG_RSS_MAX_KEY_SIZE = 17;
export const NET_CONFIG_RSS_MAX_INDIRECTION = 18;
export const NET_CONFIG_HASH_TYPES = 20;
export const NET_CONFIG_TUNNEL_TYPES = 24;
export const NET_CONFIG_BYTES = 28;

/** Bits of `status` (§5.1.4). */
export const VIRTIO_NET_S_LINK_UP = 1;
export const VIRTIO_NET_S_ANNOUNCE = 2;

export const NET_SPEED_UNKNOWN = 0xffff_ffff;
export const NET_DUPLEX_FULL = 1;
export const NET_DUPLEX_UNKNOWN = 0xff;

/** Legal values of `mtu` (§5.1.4.1) and of `max_virtqueue_pairs` (§5.1.4.1). */
export const NET_MTU_MIN = 68;
export const NET_MTU_MAX = 65535;
export const NET_QUEUE_PAIRS_MIN = 1;
export const NET_QUEUE_PAIRS_MAX = 0x8000;

/**
 * struct virtio_net_hdr (§5.1.6), little-endian, before every frame in both directions:
 * flags 1, gso_type 1, hdr_len 2, gso_size 2, csum_start 2, csum_offset 2, num_buffers 2.
 */
export const NET_HEADER_FLAGS = 0;
export const NET_HEADER_GSO_TYPE = 1;
export const NET_HEADER_HDR_LEN = 2;
export const NET_HEADER_GSO_SIZE = 4;
export const NET_HEADER_CSUM_START = 6;
export const NET_HEADER_CSUM_OFFSET = 8;
export const NET_HEADER_NUM_BUFFERS = 10;
export const NET_HEADER_BYTES = 12;
/** Legacy drivers without VIRTIO_NET_F_MRG_RXBUF leave out num_buffers (§5.1.6.1). */
export const NET_HEADER_LEGACY_BYTES = 10;

/** `flags` */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
export const VIRTIO_NET_HDR_F_DATA_VALID = 2;
export const VIRTIO_NET_HDR_F_RSC_INFO = 4;

/** `gso_type` */
export const VIRTIO_NET_HDR_GSO_NONE = 0;
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1;
export const VIRTIO_NET_HDR_GSO_UDP = 3;
export const VIRTIO_NET_HDR_GSO_TCPV6 = 4;
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
/** A bit beside the TCP types: the frame carries CWR (§5.1.6). */
export const VIRTIO_NET_HDR_GSO_ECN = 0x80;

/** Virtqueues (§5.1.2): receive queue of pair n, transmit queue of pair n; the control queue follows. */
export const receiveQueue = (pair: number): number => 2 * pair;
export const transmitQueue = (pair: number): number => 2 * pair + 1;

/** Control queue (§5.1.6.5): class 1, command 1, then data; the device writes one byte of status. */
export const VIRTIO_NET_OK = 0;
export const VIRTIO_NET_ERR = 1;
export const VIRTIO_NET_CTRL_RX = 0;
export const VIRTIO_NET_CTRL_RX_PROMISC = 0;
export const VIRTIO_NET_CTRL_RX_ALLMULTI = 1;
export const VIRTIO_NET_CTRL_MAC = 1;
export const VIRTIO_NET_CTRL_MAC_TABLE_SET = 0;
export const VIRTIO_NET_CTRL_MAC_ADDR_SET = 1;
export const VIRTIO_NET_CTRL_VLAN = 2;
export const VIRTIO_NET_CTRL_VLAN_ADD = 0;
export const VIRTIO_NET_CTRL_VLAN_DEL = 1;
export const VIRTIO_NET_CTRL_ANNOUNCE = 3;
export const VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0;
export const VIRTIO_NET_CTRL_MQ = 4;
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0;
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5;
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0;
