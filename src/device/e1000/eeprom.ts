/**
 * The EEPROM: 64 words behind the microwire lines of EECD (SDM §5.4; opcodes of a 93C46) and behind
 * EERD and EEWR.
 */
import {
  E1000_VENDOR_INTEL,
  EECD_AUTO_RD,
  EECD_CS,
  EECD_DI,
  EECD_DO,
  EECD_FWE_DISABLED,
  EECD_GNT,
  EECD_LINES,
  EECD_PRES,
  EECD_REQ,
  EECD_SK,
  EEPROM_CHECKSUM,
  EEPROM_COMPATIBILITY,
  EEPROM_DEVICE_ID,
  EEPROM_INIT_CONTROL_1,
  EEPROM_INIT_CONTROL_2,
  EEPROM_INIT_CONTROL_3,
  EEPROM_MAC,
  EEPROM_PBA_NUMBER,
  EEPROM_SUBSYSTEM_ID,
  EEPROM_SUBSYSTEM_VENDOR,
  EEPROM_SUM,
  EEPROM_VENDOR_ID,
  EEPROM_VERSION,
  EEPROM_WORDS,
  EERD_ADDRESS_SHIFT,
  EERD_ADDRESS_SHIFT_82574,
  EERD_DATA_SHIFT,
  EERD_DONE,
  EERD_DONE_82574,
  EERD_START,
  MICROWIRE_ADDRESS_BITS,
  MICROWIRE_ERASE,
  MICROWIRE_READ,
  MICROWIRE_SPECIAL,
  MICROWIRE_WRITE,
} from '../../spec/e1000.ts';

/** Start, opcode, address. */
const COMMAND_BITS = 3 + MICROWIRE_ADDRESS_BITS;
const ADDRESS_MASK = (1 << MICROWIRE_ADDRESS_BITS) - 1;
const WORD_BITS = 16;
const ERASED = 0xffff;

/** Special commands are told by the upper two bits of the address. */
const WRITE_ENABLE = 3;
const WRITE_DISABLE = 0;

const IDLE = 0;
const COMMAND = 1;
const READING = 2;
const WRITING = 3;
const DONE = 4;

export class Eeprom {
  readonly words = new Uint16Array(EEPROM_WORDS).fill(ERASED);
  readonly #express: boolean;
  #lines = 0;
  #out = true;
  #state = IDLE;
  #shift = 0;
  #bits = 0;
  #address = 0;
  #writable = false;

  constructor(mac: Uint8Array, deviceId: number, express: boolean) {
    this.#express = express;
    const { words } = this;
    for (let i = 0; i < 3; i++) {
      words[EEPROM_MAC + i] = (mac[2 * i] as number) | ((mac[2 * i + 1] as number) << 8);
    }
    words[EEPROM_COMPATIBILITY] = 0;
    words[EEPROM_VERSION] = 0x1000;
    words[EEPROM_PBA_NUMBER] = 0xa701;
    words[EEPROM_PBA_NUMBER + 1] = 0x0021;
    words[EEPROM_INIT_CONTROL_1] = 0x440c;
    words[EEPROM_SUBSYSTEM_ID] = deviceId;
    words[EEPROM_SUBSYSTEM_VENDOR] = E1000_VENDOR_INTEL;
    words[EEPROM_DEVICE_ID] = deviceId;
    words[EEPROM_VENDOR_ID] = E1000_VENDOR_INTEL;
    // Pause both ways; no management firmware.
    words[EEPROM_INIT_CONTROL_2] = 0x1040;
    words[EEPROM_INIT_CONTROL_3] = 0;
    let sum = 0;
    for (let i = 0; i < EEPROM_CHECKSUM; i++) sum += words[i] as number;
    words[EEPROM_CHECKSUM] = EEPROM_SUM - sum;
  }

  /** EECD as it reads. */
  get control(): number {
    let value = this.#lines | EECD_PRES | EECD_FWE_DISABLED;
    if (this.#out) value |= EECD_DO;
    if ((this.#lines & EECD_REQ) !== 0) value |= EECD_GNT;
    return this.#express ? value | EECD_AUTO_RD : value;
  }

  /** EECD is written: the lines move, and a rising clock is a bit. */
  writeControl(value: number): void {
    const before = this.#lines;
    this.#lines = value & EECD_LINES;
    if ((value & EECD_CS) === 0) {
      this.#state = IDLE;
      this.#out = true;
      return;
    }
    if (this.#state === IDLE && (before & EECD_CS) === 0) {
      this.#state = COMMAND;
      this.#shift = 0;
      this.#bits = 0;
    }
    if ((value & EECD_SK) !== 0 && (before & EECD_SK) === 0) this.#clock((value & EECD_DI) !== 0);
  }

  /** What EERD reads as after `value` was written to it. */
  read(value: number): number {
    const shift = this.#express ? EERD_ADDRESS_SHIFT_82574 : EERD_ADDRESS_SHIFT;
    const done = this.#express ? EERD_DONE_82574 : EERD_DONE;
    if ((value & EERD_START) === 0) return value | done;
    const address = (value >>> shift) & (this.#express ? 0x3fff : 0xff);
    const word = address < EEPROM_WORDS ? (this.words[address] as number) : ERASED;
    return ((word << EERD_DATA_SHIFT) | (address << shift) | done) >>> 0;
  }

  /** What EEWR reads as after `value` was written to it (82574). */
  write(value: number): number {
    if ((value & EERD_START) !== 0) {
      const address = (value >>> EERD_ADDRESS_SHIFT_82574) & 0x3fff;
      if (address < EEPROM_WORDS) this.words[address] = value >>> EERD_DATA_SHIFT;
    }
    return ((value & ~EERD_START) | EERD_DONE_82574) >>> 0;
  }

  #clock(bit: boolean): void {
    if (this.#state === COMMAND) {
      // Zeros before the start bit count for nothing.
      if (this.#bits === 0 && !bit) return;
      this.#take(bit);
      if (this.#bits === COMMAND_BITS) this.#begin();
    } else if (this.#state === READING) {
      this.#out = ((this.#shift >>> --this.#bits) & 1) !== 0;
      if (this.#bits === 0) this.#load(this.#address + 1);
    } else if (this.#state === WRITING) {
      this.#take(bit);
      if (this.#bits === WORD_BITS) {
        if (this.#writable) this.words[this.#address] = this.#shift;
        this.#state = DONE;
        this.#out = true;
      }
    }
  }

  #take(bit: boolean): void {
    this.#shift = (this.#shift << 1) | (bit ? 1 : 0);
    this.#bits++;
  }

  #begin(): void {
    const opcode = (this.#shift >>> MICROWIRE_ADDRESS_BITS) & 3;
    const address = this.#shift & ADDRESS_MASK;
    this.#address = address;
    this.#state = DONE;
    if (opcode === MICROWIRE_READ) {
      // The bit before the data is a zero.
      this.#out = false;
      this.#state = READING;
      this.#load(address);
    } else if (opcode === MICROWIRE_WRITE) {
      this.#shift = 0;
      this.#bits = 0;
      this.#state = WRITING;
    } else if (opcode === MICROWIRE_ERASE && this.#writable) {
      this.words[address] = ERASED;
    } else if (opcode === MICROWIRE_SPECIAL) {
      const command = address >>> (MICROWIRE_ADDRESS_BITS - 2);
      if (command === WRITE_ENABLE) this.#writable = true;
      else if (command === WRITE_DISABLE) this.#writable = false;
    }
  }

  #load(address: number): void {
    this.#address = address & ADDRESS_MASK;
    this.#shift = this.words[this.#address] as number;
    this.#bits = WORD_BITS;
  }
}
