/**
 * An SFP+ module on the I2C lines of I2CCTL (§8.2.3.1.5): a passive direct attach cable, whose
 * identification (SFF-8472, address A0h) a driver reads bit by bit before it uses the link.
 */
import {
  IXGBE_I2C_CLOCK_IN,
  IXGBE_I2C_CLOCK_OUT,
  IXGBE_I2C_DATA_IN,
  IXGBE_I2C_DATA_OUT,
} from '../../spec/ixgbe.ts';

/** SFF-8472 table 4-1: offsets of what drivers read. */
const IDENTIFIER = 0;
const CONNECTOR = 2;
const CABLE_TECHNOLOGY = 8;
const BIT_RATE = 12;
const COPPER_LENGTH = 18;
const VENDOR_NAME = 20;
const VENDOR_OUI = 37;
const PART_NUMBER = 40;
const CHECK_BASE = 63;
const IDENTIFIER_SFP = 0x03;
const CONNECTOR_COPPER_PIGTAIL = 0x21;
const PASSIVE_CABLE = 0x04;
/** In units of 100 Mb/s. */
const BIT_RATE_10G = 103;
const OUI_INTEL = [0x00, 0x1b, 0x21];

const BYTES = 256;
/** The module's address on the bus, as the first seven bits of a transfer. */
const ADDRESS = 0x50;

const IDLE = 0;
/** Bits come in: the address and direction, then the offset, then bytes that are ignored. */
const RECEIVING = 1;
/** The module answers what it got with a zero. */
const ACKNOWLEDGING = 2;
/** Bits go out. */
const SENDING = 3;
/** The reader answers: a zero asks for the next byte. */
const AWAITING = 4;

export class SfpModule {
  readonly bytes = new Uint8Array(BYTES);
  #clock = true;
  #data = true;
  /** What the module drives: the line is the AND of both ends (open drain). */
  #out = true;
  #state = IDLE;
  #bits = 0;
  #shift = 0;
  #offset = 0;
  /** Bytes of this transfer. */
  #received = 0;
  #reading = false;

  constructor() {
    const { bytes } = this;
    bytes[IDENTIFIER] = IDENTIFIER_SFP;
    bytes[IDENTIFIER + 1] = 0x04;
    bytes[CONNECTOR] = CONNECTOR_COPPER_PIGTAIL;
    bytes[CABLE_TECHNOLOGY] = PASSIVE_CABLE;
    bytes[BIT_RATE] = BIT_RATE_10G;
    bytes[COPPER_LENGTH] = 1;
    bytes.set(Buffer.from('Sluice'.padEnd(16)), VENDOR_NAME);
    bytes.set(OUI_INTEL, VENDOR_OUI);
    bytes.set(Buffer.from('virtual twinax'.padEnd(16)), PART_NUMBER);
    let sum = 0;
    for (let i = 0; i < CHECK_BASE; i++) sum += bytes[i] as number;
    bytes[CHECK_BASE] = sum;
  }

  reset(): void {
    this.#clock = true;
    this.#data = true;
    this.#out = true;
    this.#state = IDLE;
  }

  /** I2CCTL as it reads: what the card drives, and the lines as they are. */
  get lines(): number {
    return (
      (this.#clock ? IXGBE_I2C_CLOCK_OUT | IXGBE_I2C_CLOCK_IN : 0) |
      (this.#data ? IXGBE_I2C_DATA_OUT : 0) |
      (this.#data && this.#out ? IXGBE_I2C_DATA_IN : 0)
    );
  }

  /** I2CCTL is written: the card moves its ends of the lines. */
  drive(value: number): void {
    const clock = (value & IXGBE_I2C_CLOCK_OUT) !== 0;
    const data = (value & IXGBE_I2C_DATA_OUT) !== 0;
    const wasClock = this.#clock;
    const wasData = this.#data;
    this.#clock = clock;
    this.#data = data;
    if (wasClock && clock && wasData !== data) {
      // Data moves while the clock is high: a start condition, or a stop.
      this.#out = true;
      this.#state = data ? IDLE : RECEIVING;
      this.#bits = 0;
      this.#shift = 0;
      this.#received = 0;
      return;
    }
    if (!wasClock && clock) this.#rise(data);
    else if (wasClock && !clock) this.#fall();
  }

  /** A rising clock: a bit is taken. */
  #rise(data: boolean): void {
    if (this.#state === RECEIVING) {
      this.#shift = ((this.#shift << 1) | (data ? 1 : 0)) & 0xff;
      this.#bits++;
    } else if (this.#state === SENDING) {
      this.#bits++;
    } else if (this.#state === AWAITING) {
      // A reader that does not acknowledge has enough (I2C §3.1.6).
      if (data) this.#state = IDLE;
    }
  }

  /** A falling clock: the next bit is put out. */
  #fall(): void {
    switch (this.#state) {
      case RECEIVING:
        if (this.#bits === 8) this.#take(this.#shift);
        break;
      case ACKNOWLEDGING:
        this.#out = true;
        this.#bits = 0;
        this.#shift = 0;
        this.#state = RECEIVING;
        if (this.#reading) this.#send();
        break;
      case SENDING:
        if (this.#bits === 8) {
          this.#out = true;
          this.#state = AWAITING;
        } else this.#putBit();
        break;
      case AWAITING:
        this.#send();
        break;
      default:
        this.#out = true;
    }
  }

  #take(byte: number): void {
    const first = this.#received === 0;
    this.#received++;
    if (first && byte >>> 1 !== ADDRESS) {
      this.#state = IDLE;
      return;
    }
    if (first) this.#reading = (byte & 1) !== 0;
    else if (this.#received === 2) this.#offset = byte;
    this.#out = false;
    this.#state = ACKNOWLEDGING;
  }

  #send(): void {
    this.#state = SENDING;
    this.#bits = 0;
    this.#shift = this.bytes[this.#offset] as number;
    this.#offset = (this.#offset + 1) % BYTES;
    this.#putBit();
  }

  #putBit(): void {
    this.#out = ((this.#shift >>> (7 - this.#bits)) & 1) !== 0;
  }
}
