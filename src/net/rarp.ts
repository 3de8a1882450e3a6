/** The broadcast that tells a network where a station is now, after it has moved. */
import {
  ARP_BYTES,
  ARP_HARDWARE_ETHERNET,
  ARP_HARDWARE_LENGTH,
  ARP_HARDWARE_TYPE,
  ARP_OPERATION,
  ARP_PROTOCOL_LENGTH,
  ARP_PROTOCOL_TYPE,
  ARP_SENDER_MAC,
  ARP_TARGET_MAC,
  ETHERNET_HEADER_BYTES,
  ETHERNET_MIN_FRAME_BYTES,
  ETHERNET_SOURCE,
  ETHERNET_TYPE,
  ETHERTYPE_IPV4,
  ETHERTYPE_RARP,
  MAC_BYTES,
  RARP_REQUEST,
} from '../spec/ethernet.ts';

const IPV4_BYTES = 4;

/** A RARP request of a station for itself, as VMMs send it: every switch on the way learns from it. */
export function rarpAnnouncement(mac: Uint8Array): Uint8Array {
  const frame = new Uint8Array(
    Math.max(ETHERNET_MIN_FRAME_BYTES, ETHERNET_HEADER_BYTES + ARP_BYTES),
  );
  const view = new DataView(frame.buffer);
  const at = ETHERNET_HEADER_BYTES;
  frame.fill(0xff, 0, MAC_BYTES);
  frame.set(mac, ETHERNET_SOURCE);
  view.setUint16(ETHERNET_TYPE, ETHERTYPE_RARP);
  view.setUint16(at + ARP_HARDWARE_TYPE, ARP_HARDWARE_ETHERNET);
  view.setUint16(at + ARP_PROTOCOL_TYPE, ETHERTYPE_IPV4);
  view.setUint8(at + ARP_HARDWARE_LENGTH, MAC_BYTES);
  view.setUint8(at + ARP_PROTOCOL_LENGTH, IPV4_BYTES);
  view.setUint16(at + ARP_OPERATION, RARP_REQUEST);
  frame.set(mac, at + ARP_SENDER_MAC);
  frame.set(mac, at + ARP_TARGET_MAC);
  return frame;
}
