/** Frames out (82599 datasheet §7.2.3): advanced data and context descriptors. */
import { SluiceError } from '../../base/errors.ts';
import { read16le } from '../../net/frame.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import {
  ETHERNET_HEADER_BYTES,
  IPV4_MIN_HEADER_BYTES,
  TCP_CHECKSUM,
  UDP_CHECKSUM,
} from '../../spec/ethernet.ts';
import {
  IXGBE_TXC_IPV4,
  IXGBE_TXC_L4_LENGTH_SHIFT,
  IXGBE_TXC_L4_TCP,
  IXGBE_TXC_L4_UDP,
  IXGBE_TXC_MAC_LENGTH_SHIFT,
  IXGBE_TXC_MSS_SHIFT,
  IXGBE_TXD_ADVANCED,
  IXGBE_TXD_CHECK_CONTEXT,
  IXGBE_TXD_INSERT_FCS,
  IXGBE_TXD_IP_CHECKSUM,
  IXGBE_TXD_L4_CHECKSUM,
  IXGBE_TXD_PAYLOAD_SHIFT,
  IXGBE_TXD_SEGMENT,
  IXGBE_TXD_TYPE_CONTEXT,
  IXGBE_TXD_TYPE_DATA,
} from '../../spec/ixgbe-descriptors.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_CSUM_OFFSET,
  NET_HEADER_CSUM_START,
  NET_HEADER_GSO_SIZE,
  NET_HEADER_GSO_TYPE,
  NET_HEADER_HDR_LEN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from '../../spec/virtio-net.ts';
import type { CallGate } from '../nic/call-gate.ts';
import type { DescriptorRing } from '../nic/descriptor-ring.ts';
import { CardTransmitQueue, descriptorsFor } from '../nic/transmit-queue.ts';

/** Bytes of a data descriptor: what Linux's drivers put into one. */
const MOST_BYTES = 16384;

const L3 = ETHERNET_HEADER_BYTES;
const DATA = IXGBE_TXD_ADVANCED | IXGBE_TXD_TYPE_DATA | IXGBE_TXD_INSERT_FCS;
const CONTEXT = IXGBE_TXD_ADVANCED | IXGBE_TXD_TYPE_CONTEXT;
const MAC_LENGTH = L3 << IXGBE_TXC_MAC_LENGTH_SHIFT;

/** Descriptors of a frame of so many bytes, its context included. */
export function descriptorsOf(bytes: number): number {
  return descriptorsFor(bytes, MOST_BYTES);
}

export class IxgbeTransmitQueue extends CardTransmitQueue {
  readonly #checkContext: boolean;
  /** The card has the context of plain frames. */
  #plain = false;

  /**
   * @param checkContext every frame refers to a context: who sends through the card's switch says by it
   * where its headers are (§7.2.3.2.4, CC)
   */
  constructor(ring: DescriptorRing, gate: CallGate, memory: DriverMemory, checkContext: boolean) {
    super(ring, gate, memory, MOST_BYTES);
    this.#checkContext = checkContext;
  }

  protected override preparePlain(length: number): void {
    this.command = DATA;
    this.options = length << IXGBE_TXD_PAYLOAD_SHIFT;
    if (!this.#checkContext) return;
    this.options |= IXGBE_TXD_CHECK_CONTEXT;
    if (this.#plain) return;
    const { wanted } = this;
    wanted[0] = MAC_LENGTH;
    wanted[2] = CONTEXT;
    wanted[3] = 0;
    this.putContext();
    this.#plain = true;
  }

  protected override prepareOffload(offset: number, length: number): void {
    const { bytes, wanted } = this;
    const gso = bytes[offset + NET_HEADER_GSO_TYPE] as number;
    this.command = DATA;
    this.options = length << IXGBE_TXD_PAYLOAD_SHIFT;
    this.#plain = false;
    const start = read16le(bytes, offset + NET_HEADER_CSUM_START);
    const field = read16le(bytes, offset + NET_HEADER_CSUM_OFFSET);
    wanted[0] = MAC_LENGTH | (start - L3);
    if (gso === VIRTIO_NET_HDR_GSO_NONE) {
      if (field !== TCP_CHECKSUM && field !== UDP_CHECKSUM) {
        throw new SluiceError(
          'unsupported',
          `the driver has checksums of TCP and UDP made, not one at ${field}`,
        );
      }
      wanted[2] = CONTEXT | (field === TCP_CHECKSUM ? IXGBE_TXC_L4_TCP : IXGBE_TXC_L4_UDP);
      wanted[3] = 0;
      this.putContext();
      this.options |= IXGBE_TXD_CHECK_CONTEXT | IXGBE_TXD_L4_CHECKSUM;
      return;
    }
    if (gso !== VIRTIO_NET_HDR_GSO_TCPV4 || start !== L3 + IPV4_MIN_HEADER_BYTES) {
      throw new SluiceError(
        'unsupported',
        `the driver segments TCP over IPv4 without options only, not type ${gso}`,
      );
    }
    const headers = read16le(bytes, offset + NET_HEADER_HDR_LEN);
    const frame = offset + NET_HEADER_BYTES;
    this.prepareHeaders(frame, frame + start + field);
    wanted[2] = CONTEXT | IXGBE_TXC_L4_TCP | IXGBE_TXC_IPV4;
    wanted[3] =
      (read16le(bytes, offset + NET_HEADER_GSO_SIZE) << IXGBE_TXC_MSS_SHIFT) |
      ((headers - start) << IXGBE_TXC_L4_LENGTH_SHIFT);
    this.putContext();
    this.command = DATA | IXGBE_TXD_SEGMENT;
    this.options =
      ((length - headers) << IXGBE_TXD_PAYLOAD_SHIFT) |
      IXGBE_TXD_CHECK_CONTEXT |
      IXGBE_TXD_IP_CHECKSUM |
      IXGBE_TXD_L4_CHECKSUM;
  }
}
