/** The registers of an 8254x or 82574 as a driver works them: by name, EEPROM and PHY included. */
import { SluiceError } from '../../base/errors.ts';
import {
  CTRL_RST,
  E1000_PHY_ADDRESS,
  E1000_REGISTERS,
  type E1000RegisterName,
  EECD_CS,
  EECD_DI,
  EECD_DO,
  EECD_GNT,
  EECD_REQ,
  EECD_SK,
  INT_ASSERTED,
  MDIC_PHY_SHIFT,
  MDIC_READ,
  MDIC_READY,
  MDIC_REGISTER_SHIFT,
  MDIC_WRITE,
  MICROWIRE_ADDRESS_BITS,
  MICROWIRE_READ,
} from '../../spec/e1000.ts';
import { MAC_BYTES } from '../../spec/ethernet.ts';
import type { PciBus } from '../pci/bus.ts';

const REGISTER_BAR = 0;
const EEPROM_WORD_BITS = 16;
/** Looks at a bit that the card is to change; each is a trap, and takes some microseconds. */
const PATIENCE = 1000;

export class E1000Card {
  readonly bus: PciBus;

  constructor(bus: PciBus) {
    this.bus = bus;
  }

  /** `index` counts registers in a row. */
  get(name: E1000RegisterName, index = 0): number {
    return this.bus.read(REGISTER_BAR, E1000_REGISTERS[name].offset + 4 * index, 4);
  }

  /** Posted, as all writes to memory space are: a read behind it waits for it. */
  set(name: E1000RegisterName, value: number, index = 0): void {
    this.bus.post(REGISTER_BAR, E1000_REGISTERS[name].offset + 4 * index, 4, value >>> 0);
  }

  /** Resets the card but for its PCI side; all interrupts are masked then (SDM §14.2; DS §4.6). */
  reset(): void {
    this.set('IMC', ~0);
    this.set('CTRL', CTRL_RST);
    this.#await('the end of its reset', () => (this.get('CTRL') & CTRL_RST) === 0);
    this.set('IMC', ~0);
    // What was asserted before is not of interest any more.
    this.set('ICR', ~INT_ASSERTED);
  }

  /** The station address, which the card has loaded from its EEPROM (SDM §13.5.2). */
  mac(): Uint8Array {
    const words = [this.get('RA', 0), this.get('RA', 1)];
    const bytes = new Uint8Array(Uint32Array.from(words).buffer);
    return bytes.slice(0, MAC_BYTES);
  }

  /** A word of the EEPROM by microwire (SDM §5.4), as the 82540EM's driver reads it. */
  eeprom(address: number): number {
    this.set('EECD', EECD_REQ);
    this.#await('its EEPROM', () => (this.get('EECD') & EECD_GNT) !== 0);
    let lines = EECD_REQ | EECD_CS;
    const clock = (bit: number): number => {
      lines = (lines & ~EECD_DI) | (bit === 0 ? 0 : EECD_DI);
      this.set('EECD', lines);
      this.set('EECD', lines | EECD_SK);
      const out = this.get('EECD') & EECD_DO;
      this.set('EECD', lines);
      return out === 0 ? 0 : 1;
    };
    this.set('EECD', lines);
    // A start bit, the opcode, the address.
    const command = ((0b100 | MICROWIRE_READ) << MICROWIRE_ADDRESS_BITS) | address;
    for (let i = MICROWIRE_ADDRESS_BITS + 2; i >= 0; i--) clock((command >>> i) & 1);
    let word = 0;
    for (let i = 0; i < EEPROM_WORD_BITS; i++) word = (word << 1) | clock(0);
    this.set('EECD', EECD_REQ);
    this.set('EECD', 0);
    return word;
  }

  phy(register: number): number {
    this.set('MDIC', MDIC_READ | phyAddress(register));
    this.#await('its PHY', () => (this.get('MDIC') & MDIC_READY) !== 0);
    return this.get('MDIC') & 0xffff;
  }

  setPhy(register: number, value: number): void {
    this.set('MDIC', MDIC_WRITE | phyAddress(register) | value);
    this.#await('its PHY', () => (this.get('MDIC') & MDIC_READY) !== 0);
  }

  #await(what: string, isThere: () => boolean): void {
    for (let i = 0; i < PATIENCE; i++) if (isThere()) return;
    throw new SluiceError('state', `the network card has not given ${what}`);
  }
}

function phyAddress(register: number): number {
  return (E1000_PHY_ADDRESS << MDIC_PHY_SHIFT) | (register << MDIC_REGISTER_SHIFT);
}
