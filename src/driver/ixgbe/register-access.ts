/** Registers of an 82599's function, physical or virtual, in its BAR 0, by offset. */

import { TWO_32 } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import {
  IXGBE_QUEUE_BYTES,
  IXGBE_RX_QUEUE_REGISTERS,
  IXGBE_TX_QUEUE_REGISTERS,
} from '../../spec/ixgbe.ts';
import { IXGBE_QUEUE_ENABLE } from '../../spec/ixgbe-descriptors.ts';
import type { RingRegisters } from '../nic/descriptor-ring.ts';
import type { PciBus } from '../pci/bus.ts';

const REGISTER_BAR = 0;
/** Looks at a bit that the card is to change; each is a trap, and takes some microseconds. */
const PATIENCE = 1000;

export class RegisterAccess {
  readonly bus: PciBus;

  constructor(bus: PciBus) {
    this.bus = bus;
  }

  get(offset: number): number {
    return this.bus.read(REGISTER_BAR, offset, 4);
  }

  /** Posted, as all writes to memory space are: a read behind it waits for it. */
  set(offset: number, value: number): void {
    this.bus.post(REGISTER_BAR, offset, 4, value >>> 0);
  }

  /**
   * Looks until `isThere`.
   * @throws SluiceError `state` saying `what` the card has not given
   */
  await(what: string, isThere: () => boolean): void {
    for (let i = 0; i < PATIENCE; i++) if (isThere()) return;
    throw new SluiceError('state', `the network card has not given ${what}`);
  }
}

// Registers of both directions stand at the same places of a queue's block, but for SRRCTL.
const { RDBAL: LOW, RDBAH: HIGH, RDLEN: LENGTH, RDH: HEAD } = IXGBE_RX_QUEUE_REGISTERS;
const TAIL_WORD = IXGBE_TX_QUEUE_REGISTERS.TDT.offset / 4;
const CONTROL = IXGBE_TX_QUEUE_REGISTERS.TXDCTL.offset;

/** The registers of one queue: where the card allows it, without traps. */
export class QueueRegisters implements RingRegisters {
  /** Stores here are seen by the card when it looks. */
  readonly isMapped: boolean;
  readonly #registers: RegisterAccess;
  readonly #offset: number;
  readonly #words: Uint32Array | undefined;

  /** `offset`: where in BAR 0 the queue's block begins. */
  constructor(registers: RegisterAccess, offset: number) {
    this.#registers = registers;
    this.#offset = offset;
    this.#words = registers.bus.window(REGISTER_BAR, offset, IXGBE_QUEUE_BYTES);
    this.isMapped = this.#words !== undefined;
  }

  /** A register of the block, by its offset there. */
  get(register: number): number {
    const words = this.#words;
    return words === undefined
      ? this.#registers.get(this.#offset + register)
      : Atomics.load(words, register >>> 2);
  }

  set(register: number, value: number): void {
    const words = this.#words;
    if (words === undefined) this.#registers.set(this.#offset + register, value);
    else Atomics.store(words, register >>> 2, value);
  }

  begin(address: number, bytes: number): void {
    this.set(LOW.offset, address % TWO_32);
    this.set(HIGH.offset, Math.floor(address / TWO_32));
    this.set(LENGTH.offset, bytes);
    this.set(HEAD.offset, 0);
    this.setTail(0);
  }

  /** The doorbell: what was written before is to be seen by who sees the tail. */
  setTail(index: number): void {
    const words = this.#words;
    if (words === undefined) this.#registers.set(this.#offset + 4 * TAIL_WORD, index);
    else Atomics.store(words, TAIL_WORD, index);
  }

  /** Enables the queue, whose control register has `bits` beside (§4.6.7, §4.6.8). */
  enable(bits: number): void {
    this.set(CONTROL, (IXGBE_QUEUE_ENABLE | bits) >>> 0);
    this.#registers.await('an enabled queue', () => (this.get(CONTROL) & IXGBE_QUEUE_ENABLE) !== 0);
  }
}
