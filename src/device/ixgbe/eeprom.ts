/**
 * The EEPROM of an 82599 (§6), behind EERD and EEWR: the MAC address, the part number, and a list of
 * SFP+ modules without which a driver takes none.
 */
import {
  IXGBE_CAPS_NO_FCOE,
  IXGBE_EEPROM_CHECKSUM,
  IXGBE_EEPROM_DEVICE_CAPS,
  IXGBE_EEPROM_END,
  IXGBE_EEPROM_FIRMWARE_POINTER,
  IXGBE_EEPROM_MAC0_POINTER,
  IXGBE_EEPROM_PBA,
  IXGBE_EEPROM_POINTERS,
  IXGBE_EEPROM_POINTERS_END,
  IXGBE_EEPROM_SAN_MAC_POINTER,
  IXGBE_EEPROM_SFP_POINTER,
  IXGBE_EEPROM_SUM,
  IXGBE_EEPROM_VERSION,
  IXGBE_EERD_ADDRESS_MASK,
  IXGBE_EERD_ADDRESS_SHIFT,
  IXGBE_EERD_DATA_SHIFT,
  IXGBE_EERD_DONE,
  IXGBE_EERD_START,
  IXGBE_SFP_ACTIVE,
  IXGBE_SFP_DIRECT_ATTACH,
  IXGBE_SFP_OPTICAL,
} from '../../spec/ixgbe.ts';

/** 16 KiB: the size that EEC tells as 7 (64 << 7 words). */
export const EEPROM_WORDS = 8192;
export const EEPROM_SIZE_CODE = 7;

const ERASED = 0xffff;
/** Where areas begin that the pointers lead to. */
const MAC_AREA = 0x100;
const SFP_LIST = 0x180;
const SFP_SEQUENCE = 0x1c0;
const FIRMWARE = 0x200;
const FIRMWARE_PATCH = 0x220;
/** In the firmware's area: the pointer to its patch; there: its version, of which drivers want 6 or more. */
const PATCH_POINTER = 4;
const PATCH_VERSION = 7;
const FIRMWARE_VERSION = 6;
/** In the firmware's area: link establishment by firmware, which this card has not. */
const LINK_POINTER = 2;
/** The part number is digits of a nibble each, not a pointer to text: E66560-000. */
const PBA_HIGH = 0xe665;
const PBA_LOW = 0x6000;
const VERSION = 0x0001;

export class Eeprom {
  readonly words = new Uint16Array(EEPROM_WORDS).fill(ERASED);

  /** @param mac of six bytes @param port 0 or 1: which of the two ports' lists are filled in */
  constructor(mac: Uint8Array, port: 0 | 1) {
    const { words } = this;
    words.fill(0, 0, IXGBE_EEPROM_CHECKSUM);
    const pointer = IXGBE_EEPROM_MAC0_POINTER + port;
    words[pointer] = MAC_AREA;
    // An area begins with the number of its words (§6.1); the address is in the first three.
    words[MAC_AREA] = 3;
    for (let i = 0; i < 3; i++) {
      words[MAC_AREA + 1 + i] = (mac[2 * i] as number) | ((mac[2 * i + 1] as number) << 8);
    }
    words[IXGBE_EEPROM_FIRMWARE_POINTER] = FIRMWARE;
    words[FIRMWARE + LINK_POINTER] = ERASED;
    words[FIRMWARE + PATCH_POINTER] = FIRMWARE_PATCH;
    words[FIRMWARE_PATCH + PATCH_VERSION] = FIRMWARE_VERSION;
    words[IXGBE_EEPROM_SAN_MAC_POINTER] = ERASED;
    words[IXGBE_EEPROM_PBA] = PBA_HIGH;
    words[IXGBE_EEPROM_PBA + 1] = PBA_LOW;
    words[IXGBE_EEPROM_DEVICE_CAPS] = IXGBE_CAPS_NO_FCOE;
    words[IXGBE_EEPROM_VERSION] = VERSION;
    words[IXGBE_EEPROM_SFP_POINTER] = SFP_LIST;
    this.#listModules(port);
    words[IXGBE_EEPROM_CHECKSUM] = IXGBE_EEPROM_SUM - this.sum();
  }

  /** What EERD reads as after `value` was written to it (§8.2.3.2.2). */
  read(value: number): number {
    if ((value & IXGBE_EERD_START) === 0) return (value | IXGBE_EERD_DONE) >>> 0;
    const address = (value >>> IXGBE_EERD_ADDRESS_SHIFT) & IXGBE_EERD_ADDRESS_MASK;
    const word = address < EEPROM_WORDS ? (this.words[address] as number) : ERASED;
    return (
      ((word << IXGBE_EERD_DATA_SHIFT) |
        (address << IXGBE_EERD_ADDRESS_SHIFT) |
        IXGBE_EERD_DONE) >>>
      0
    );
  }

  /** What EEWR reads as after `value` was written to it. */
  write(value: number): number {
    if ((value & IXGBE_EERD_START) !== 0) {
      const address = (value >>> IXGBE_EERD_ADDRESS_SHIFT) & IXGBE_EERD_ADDRESS_MASK;
      if (address < EEPROM_WORDS) this.words[address] = value >>> IXGBE_EERD_DATA_SHIFT;
    }
    return ((value & ~IXGBE_EERD_START) | IXGBE_EERD_DONE) >>> 0;
  }

  /** Of all words but the checksum that it is built from (§6.2.16), not folded to 16 bits. */
  sum(): number {
    const { words } = this;
    let sum = 0;
    for (let i = 0; i < IXGBE_EEPROM_CHECKSUM; i++) sum += words[i] as number;
    for (let i = IXGBE_EEPROM_POINTERS; i < IXGBE_EEPROM_POINTERS_END; i++) {
      const area = words[i] as number;
      if (area === 0 || area === ERASED || area >= EEPROM_WORDS) continue;
      const count = words[area] as number;
      if (count === ERASED) continue;
      for (let word = 1; word <= count; word++) sum += words[area + word] ?? 0;
    }
    return sum;
  }

  /** Pairs of a module's id and the place of its sequence; what is to be written there is nothing. */
  #listModules(port: number): void {
    const { words } = this;
    let at = SFP_LIST + 1;
    for (const id of [IXGBE_SFP_DIRECT_ATTACH, IXGBE_SFP_OPTICAL, IXGBE_SFP_ACTIVE]) {
      words[at++] = id + port;
      words[at++] = SFP_SEQUENCE;
    }
    words[at] = IXGBE_EEPROM_END;
    words[SFP_LIST] = at - SFP_LIST;
    words[SFP_SEQUENCE] = 1;
    words[SFP_SEQUENCE + 1] = IXGBE_EEPROM_END;
  }
}
