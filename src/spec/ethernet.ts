/**
 * Ethernet (IEEE 802.3, 802.1Q) and what a switch that segments and checksums reads above it:
 * ARP (RFC 826), RARP (RFC 903), IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293), UDP (RFC 768).
 * All fields are big-endian; offsets count from the first byte of the header they belong to.
 */

/** Bytes of a MAC address. */
export const MAC_BYTES = 6;

/** Ethernet header: destination, source, type. */
export const ETHERNET_DESTINATION = 0;
export const ETHERNET_SOURCE = 6;
export const ETHERNET_TYPE = 12;
export const ETHERNET_HEADER_BYTES = 14;

/** Least and ordinary length of a frame without its frame check sequence (802.3 §3.1.1). */
export const ETHERNET_MIN_FRAME_BYTES = 60;
export const ETHERNET_DEFAULT_MTU = 1500;
/** The frame check sequence, which frames have on a wire and nowhere here. */
export const ETHERNET_FCS_BYTES = 4;

/** EtherType values. */
export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_RARP = 0x8035;
/** Customer VLAN tag (802.1Q §9.5). */
export const ETHERTYPE_VLAN = 0x8100;
export const ETHERTYPE_IPV6 = 0x86dd;
/** Service VLAN tag (802.1ad, now 802.1Q §9.5). */
export const ETHERTYPE_SERVICE_VLAN = 0x88a8;

/** A tag: type 2, tag control information 2; it stands before the EtherType (802.1Q §9.3). */
export const VLAN_TAG_BYTES = 4;

/** Tag control information (802.1Q §9.6): priority 3 bits, drop eligible 1, VLAN id 12. */
export const VLAN_ID_MASK = 0x0fff;
export const VLAN_DEI = 0x1000;
export const VLAN_PRIORITY_SHIFT = 13;
/** VLAN ids: 0 marks a priority tag, 4095 is reserved (802.1Q table 9-2). */
export const VLAN_IDS = 4096;
export const VLAN_ID_NONE = 0;
export const VLAN_ID_MAX = 4094;
export const VLAN_PRIORITY_MAX = 7;

/** ARP and RARP over Ethernet and IPv4. */
export const ARP_HARDWARE_TYPE = 0;
export const ARP_PROTOCOL_TYPE = 2;
export const ARP_HARDWARE_LENGTH = 4;
export const ARP_PROTOCOL_LENGTH = 5;
export const ARP_OPERATION = 6;
export const ARP_SENDER_MAC = 8;
export const ARP_SENDER_IP = 14;
export const ARP_TARGET_MAC = 18;
export const ARP_TARGET_IP = 24;
export const ARP_BYTES = 28;
export const ARP_HARDWARE_ETHERNET = 1;
export const ARP_REQUEST = 1;
export const ARP_REPLY = 2;
export const RARP_REQUEST = 3;
export const RARP_REPLY = 4;

/** IPv4 header (RFC 791 §3.1). */
export const IPV4_VERSION_IHL = 0;
export const IPV4_TOTAL_LENGTH = 2;
export const IPV4_ID = 4;
export const IPV4_FRAGMENT = 6;
export const IPV4_TTL = 8;
export const IPV4_PROTOCOL = 9;
export const IPV4_CHECKSUM = 10;
export const IPV4_SOURCE = 12;
export const IPV4_DESTINATION = 16;
export const IPV4_MIN_HEADER_BYTES = 20;
export const IPV4_MAX_HEADER_BYTES = 60;
/** In the fragment word: more fragments, and the offset in units of eight bytes. */
export const IPV4_MORE_FRAGMENTS = 0x2000;
export const IPV4_FRAGMENT_OFFSET_MASK = 0x1fff;

/** IPv6 header (RFC 8200 §3). */
export const IPV6_PAYLOAD_LENGTH = 4;
export const IPV6_NEXT_HEADER = 6;
export const IPV6_HOP_LIMIT = 7;
export const IPV6_SOURCE = 8;
export const IPV6_DESTINATION = 24;
export const IPV6_HEADER_BYTES = 40;

/** Extension headers that may precede TCP and UDP: next header 1, length 1 in eight bytes less one. */
export const IPV6_HOP_BY_HOP = 0;
export const IPV6_ROUTING = 43;
export const IPV6_FRAGMENT = 44;
export const IPV6_DESTINATION_OPTIONS = 60;

/** Protocol numbers (IANA), in IPv4's protocol and IPv6's next header. */
export const IP_PROTOCOL_ICMP = 1;
export const IP_PROTOCOL_TCP = 6;
export const IP_PROTOCOL_UDP = 17;
export const IP_PROTOCOL_SCTP = 132;

/** TCP header (RFC 9293 §3.1). */
export const TCP_SOURCE_PORT = 0;
export const TCP_DESTINATION_PORT = 2;
export const TCP_SEQUENCE = 4;
export const TCP_ACKNOWLEDGEMENT = 8;
/** Header length in four-byte words in the high four bits. */
export const TCP_DATA_OFFSET = 12;
export const TCP_FLAGS = 13;
export const TCP_WINDOW = 14;
export const TCP_CHECKSUM = 16;
export const TCP_URGENT = 18;
export const TCP_MIN_HEADER_BYTES = 20;
/** Of TCP over IPv4, both without options. */
export const IPV4_TCP_HEADER_BYTES = IPV4_MIN_HEADER_BYTES + TCP_MIN_HEADER_BYTES;
export const TCP_MAX_HEADER_BYTES = 60;
export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;
export const TCP_URG = 0x20;
export const TCP_ECE = 0x40;
/** Congestion window reduced (RFC 3168 §6.1.2). */
export const TCP_CWR = 0x80;

/** UDP header. */
export const UDP_SOURCE_PORT = 0;
export const UDP_DESTINATION_PORT = 2;
export const UDP_LENGTH = 4;
export const UDP_CHECKSUM = 6;
export const UDP_HEADER_BYTES = 8;
