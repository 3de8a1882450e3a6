/** Frames out (SDM §3.3, §3.4): data and context descriptors of the 8254x and 82574. */
import { SluiceError } from '../../base/errors.ts';
import { read16le } from '../../net/frame.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import {
  TXC_IPV4,
  TXC_TCP,
  TXD_EXTENDED,
  TXD_POPTS_IXSM,
  TXD_POPTS_TXSM,
  TXD_TSE,
  TXD_TYPE_DATA,
} from '../../spec/e1000.ts';
import {
  ETHERNET_HEADER_BYTES,
  IPV4_CHECKSUM,
  IPV4_MIN_HEADER_BYTES,
} from '../../spec/ethernet.ts';
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
const MOST_BYTES = 8192;

const L3 = ETHERNET_HEADER_BYTES;

/** Descriptors of a frame of so many bytes, its context included. */
export function descriptorsOf(bytes: number): number {
  return descriptorsFor(bytes, MOST_BYTES);
}

export class TransmitQueue extends CardTransmitQueue {
  constructor(ring: DescriptorRing, gate: CallGate, memory: DriverMemory) {
    super(ring, gate, memory, MOST_BYTES);
  }

  protected override preparePlain(): void {
    this.command = TXD_EXTENDED | TXD_TYPE_DATA;
    this.options = 0;
  }

  protected override prepareOffload(offset: number, length: number): void {
    const { bytes, wanted } = this;
    const gso = bytes[offset + NET_HEADER_GSO_TYPE] as number;
    this.command = TXD_EXTENDED | TXD_TYPE_DATA;
    const start = read16le(bytes, offset + NET_HEADER_CSUM_START);
    const field = start + read16le(bytes, offset + NET_HEADER_CSUM_OFFSET);
    wanted[1] = start | (field << 8);
    if (gso === VIRTIO_NET_HDR_GSO_NONE) {
      wanted[0] = 0;
      wanted[2] = TXD_EXTENDED;
      wanted[3] = 0;
      this.putContext();
      this.options = TXD_POPTS_TXSM;
      return;
    }
    if (gso !== VIRTIO_NET_HDR_GSO_TCPV4) {
      throw new SluiceError(
        'unsupported',
        `the driver segments TCP over IPv4 only, not type ${gso}`,
      );
    }
    const headers = read16le(bytes, offset + NET_HEADER_HDR_LEN);
    const frame = offset + NET_HEADER_BYTES;
    this.prepareHeaders(frame, frame + field);
    wanted[0] = L3 | ((L3 + IPV4_CHECKSUM) << 8) | ((L3 + IPV4_MIN_HEADER_BYTES - 1) << 16);
    wanted[2] = TXD_EXTENDED | TXD_TSE | TXC_TCP | TXC_IPV4 | (length - headers);
    wanted[3] = (headers << 8) | (read16le(bytes, offset + NET_HEADER_GSO_SIZE) << 16);
    this.putContext();
    this.command = TXD_EXTENDED | TXD_TYPE_DATA | TXD_TSE;
    this.options = TXD_POPTS_IXSM | TXD_POPTS_TXSM;
  }
}
