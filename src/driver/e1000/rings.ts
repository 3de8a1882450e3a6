/** The rings of an 8254x or 82574: their registers, and what the card writes into them. */
import { TWO_32 } from '../../base/bits.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { RXD_ERROR_IPE, RXD_ERROR_TCPE, RXD_IXSM, RXD_TCPCS } from '../../spec/e1000.ts';
import { DescriptorRing, type RingRegisters } from '../nic/descriptor-ring.ts';
import type { ReceiveFormat } from '../nic/receive-queue.ts';
import type { E1000Card } from './card.ts';

const NAMES = {
  transmit: { base: 'TDBAL', high: 'TDBAH', length: 'TDLEN', head: 'TDH', tail: 'TDT' },
  receive: { base: 'RDBAL', high: 'RDBAH', length: 'RDLEN', head: 'RDH', tail: 'RDT' },
} as const;

const STATUS_WORD = 3;
const ERRORS_SHIFT = 8;

/** Legacy receive descriptors (SDM §3.2.3): checksums of IP and transport were looked at, none is wrong. */
export const E1000_RECEIVE_FORMAT: ReceiveFormat = {
  statusWord: STATUS_WORD,
  lengthWord: 2,
  checkedMask: RXD_TCPCS | RXD_IXSM | ((RXD_ERROR_TCPE | RXD_ERROR_IPE) << ERRORS_SHIFT),
  checked: RXD_TCPCS,
};

/** Of `buffers`, how many wait for more before the card is told of them: a trap each time. */
export function returnedAt(buffers: number): number {
  return Math.max(1, Math.floor(buffers / RETURN_SHARE));
}

const RETURN_SHARE = 8;

class E1000RingRegisters implements RingRegisters {
  readonly #card: E1000Card;
  readonly #names: (typeof NAMES)[keyof typeof NAMES];

  constructor(card: E1000Card, direction: keyof typeof NAMES) {
    this.#card = card;
    this.#names = NAMES[direction];
  }

  begin(address: number, bytes: number): void {
    const { base, high, length, head, tail } = this.#names;
    this.#card.set(base, address % TWO_32);
    this.#card.set(high, Math.floor(address / TWO_32));
    this.#card.set(length, bytes);
    this.#card.set(head, 0);
    this.#card.set(tail, 0);
  }

  setTail(index: number): void {
    this.#card.set(this.#names.tail, index);
  }
}

/** `offset`: where in the memory the ring lies, a multiple of 128. */
export function e1000Ring(
  card: E1000Card,
  direction: keyof typeof NAMES,
  memory: DriverMemory,
  offset: number,
  entries: number,
): DescriptorRing {
  const registers = new E1000RingRegisters(card, direction);
  return new DescriptorRing(registers, memory, offset, entries, STATUS_WORD);
}
