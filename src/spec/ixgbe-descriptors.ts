/**
 * Descriptors of the 82599 (82599 10 GbE Controller Datasheet §7.1.5, §7.1.6, §7.2.3), 16 bytes each,
 * little-endian.
 *
 *     receive, read          packet address 8, header address 8 (bit 0 is DD: zero)
 *     receive, written back  types and header length 4, RSS hash or checksum and IP id 4,
 *                            status and errors 4, length 2, VLAN 2
 *     receive, legacy        address 8, length 2, checksum 2, status 1, errors 1, VLAN 2
 *     transmit, data         address 8, length and commands 4, status, options and payload length 4
 *     transmit, context      VLAN, MAC and IP lengths 4, sequence seed 4, types 4, MSS and L4 length 4
 *     transmit, legacy       address 8, length 2, CSO 1, command 1, status 1, CSS 1, VLAN 2
 */

export const IXGBE_DESCRIPTOR_BYTES = 16;

/** SRRCTL (§8.2.3.8.7): sizes in 1 KiB and 64 bytes, kind of descriptor, what to do without buffers. */
export const IXGBE_SRRCTL_PACKET_SIZE = 0x1f;
export const IXGBE_SRRCTL_HEADER_SIZE_SHIFT = 8;
export const IXGBE_SRRCTL_HEADER_SIZE = 0x3f;
export const IXGBE_SRRCTL_THRESHOLD_SHIFT = 22;
export const IXGBE_SRRCTL_TYPE_SHIFT = 25;
export const IXGBE_SRRCTL_TYPE = 0x7;
export const IXGBE_SRRCTL_DROP = 0x1000_0000;
export const IXGBE_DESCTYPE_LEGACY = 0;
export const IXGBE_DESCTYPE_ONE_BUFFER = 1;
export const IXGBE_DESCTYPE_SPLIT = 2;
export const IXGBE_DESCTYPE_SPLIT_ALWAYS = 5;

/** RXDCTL and TXDCTL. */
export const IXGBE_QUEUE_ENABLE = 0x0200_0000;
export const IXGBE_RXDCTL_VLAN_STRIP = 0x4000_0000;
/** TDWBAL: the head is written back instead of DD (§7.2.3.5.2). */
export const IXGBE_HEAD_WRITE_BACK = 0x1;

/** First word that is written back: RSS type, packet type, header length, header was split. */
export const IXGBE_RXD_RSS_NONE = 0;
export const IXGBE_RXD_RSS_IPV4_TCP = 1;
export const IXGBE_RXD_RSS_IPV4 = 2;
export const IXGBE_RXD_RSS_IPV6_TCP = 3;
export const IXGBE_RXD_RSS_IPV6 = 5;
export const IXGBE_RXD_RSS_IPV4_UDP = 7;
export const IXGBE_RXD_RSS_IPV6_UDP = 8;
export const IXGBE_RXD_TYPE_IPV4 = 0x0010;
export const IXGBE_RXD_TYPE_IPV4_OPTIONS = 0x0020;
export const IXGBE_RXD_TYPE_IPV6 = 0x0040;
export const IXGBE_RXD_TYPE_IPV6_EXTENSIONS = 0x0080;
export const IXGBE_RXD_TYPE_TCP = 0x0100;
export const IXGBE_RXD_TYPE_UDP = 0x0200;
export const IXGBE_RXD_TYPE_SCTP = 0x0400;
export const IXGBE_RXD_TYPE_ETHERTYPE = 0x8000;
export const IXGBE_RXD_HEADER_LENGTH_SHIFT = 21;
export const IXGBE_RXD_HEADER_LENGTH_MAX = 0x3ff;
export const IXGBE_RXD_HEADER_SPLIT = 0x8000_0000;

/** Status and errors (§7.1.6.2). */
export const IXGBE_RXD_DONE = 0x0000_0001;
export const IXGBE_RXD_END = 0x0000_0002;
export const IXGBE_RXD_VLAN = 0x0000_0008;
export const IXGBE_RXD_UDP_CHECKED = 0x0000_0010;
export const IXGBE_RXD_L4_CHECKED = 0x0000_0020;
export const IXGBE_RXD_IP_CHECKED = 0x0000_0040;
/** Passed by the multicast or promiscuous filter, not by an exact address. */
export const IXGBE_RXD_INEXACT = 0x0000_0080;
/** Sent by another pool of the same card. */
export const IXGBE_RXD_LOOPBACK = 0x0004_0000;
/** The header did not fit into its buffer. */
export const IXGBE_RXD_ERROR_HEADER = 0x0080_0000;
export const IXGBE_RXD_ERROR_L4 = 0x4000_0000;
export const IXGBE_RXD_ERROR_IP = 0x8000_0000;

/** Third word of transmit descriptors (§7.2.3.2.2 to §7.2.3.2.4). */
export const IXGBE_TXD_LENGTH = 0xffff;
export const IXGBE_TXD_TYPE = 0x00f0_0000;
export const IXGBE_TXD_TYPE_CONTEXT = 0x0020_0000;
export const IXGBE_TXD_TYPE_DATA = 0x0030_0000;
export const IXGBE_TXD_END = 0x0100_0000;
export const IXGBE_TXD_INSERT_FCS = 0x0200_0000;
/** Legacy: a checksum is inserted. */
export const IXGBE_TXD_INSERT_CHECKSUM = 0x0400_0000;
export const IXGBE_TXD_REPORT = 0x0800_0000;
export const IXGBE_TXD_ADVANCED = 0x2000_0000;
export const IXGBE_TXD_VLAN = 0x4000_0000;
export const IXGBE_TXD_SEGMENT = 0x8000_0000;
/** Legacy: where the checksum goes (third word), and where it begins (fourth word). */
export const IXGBE_TXD_CHECKSUM_FIELD_SHIFT = 16;
export const IXGBE_TXD_CHECKSUM_START_SHIFT = 8;

/** Fourth word of data descriptors. */
export const IXGBE_TXD_DONE = 0x0000_0001;
export const IXGBE_TXD_CONTEXT_SHIFT = 4;
export const IXGBE_TXD_CONTEXTS = 2;
/** Check Context: the context's tag or MSS is in use. */
export const IXGBE_TXD_CHECK_CONTEXT = 0x0000_0080;
export const IXGBE_TXD_IP_CHECKSUM = 0x0000_0100;
export const IXGBE_TXD_L4_CHECKSUM = 0x0000_0200;
export const IXGBE_TXD_PAYLOAD_SHIFT = 14;

/** Context: first word (IP length, MAC length, tag), third (types), fourth (index, L4 length, MSS). */
export const IXGBE_TXC_IP_LENGTH = 0x1ff;
export const IXGBE_TXC_MAC_LENGTH_SHIFT = 9;
export const IXGBE_TXC_MAC_LENGTH = 0x7f;
export const IXGBE_TXC_VLAN_SHIFT = 16;
export const IXGBE_TXC_IPV4 = 0x0000_0400;
export const IXGBE_TXC_L4 = 0x0000_1800;
export const IXGBE_TXC_L4_UDP = 0x0000_0000;
export const IXGBE_TXC_L4_TCP = 0x0000_0800;
export const IXGBE_TXC_L4_SCTP = 0x0000_1000;
export const IXGBE_TXC_L4_LENGTH_SHIFT = 8;
export const IXGBE_TXC_L4_LENGTH = 0xff;
export const IXGBE_TXC_MSS_SHIFT = 16;
