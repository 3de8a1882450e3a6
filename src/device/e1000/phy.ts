/**
 * The PHY behind MDIC: an 88E1011 (82540EM) or the 82574's own, with a partner that does 1000BASE-T
 * in full duplex. Autonegotiation is over at once.
 */
import {
  BMCR_AUTONEG,
  BMCR_LOOPBACK,
  BMCR_POWER_DOWN,
  BMCR_RESET,
  BMCR_RESTART,
  BMSR_AUTONEG_DONE,
  BMSR_CAPABILITIES,
  BMSR_LINK,
  E1000_PHY_ADDRESS,
  MDIC_ERROR,
  MDIC_PHY_SHIFT,
  MDIC_READ,
  MDIC_READY,
  MDIC_REGISTER_SHIFT,
  MDIC_WRITE,
  PHY_1000T_CONTROL,
  PHY_1000T_STATUS,
  PHY_ADVERTISE,
  PHY_BMCR,
  PHY_BMSR,
  PHY_EXPANSION,
  PHY_EXTENDED_CONTROL,
  PHY_EXTENDED_STATUS,
  PHY_ID1,
  PHY_ID1_MARVELL,
  PHY_ID2,
  PHY_ID2_88E1011,
  PHY_ID2_82574,
  PHY_INTERRUPT_STATUS,
  PHY_PAGE,
  PHY_PARTNER,
  PHY_RECEIVE_ERRORS,
  PHY_SPECIFIC_CONTROL,
  PHY_SPECIFIC_STATUS,
} from '../../spec/e1000.ts';

const REGISTERS = 32;
/** Pages that the 82574 has (DS §10.2.11); an 88E1011 has one. */
const PAGES = 8;
const DATA = 0xffff;

const BMCR_DEFAULT = 0x1140;
/** 10 and 100 in both duplexes, pause both ways. */
const ADVERTISE_DEFAULT = 0x0de1;
const PARTNER = 0x4de1;
const PARTNER_CAN_NEGOTIATE = 0x0001;
const PAGE_RECEIVED = 0x0002;
const ADVERTISE_1000_FULL = 0x0e00;
/** Receivers fine on both sides; the partner can 1000BASE-T in both duplexes. */
const STATUS_1000 = 0x3c00;
const EXTENDED_1000 = 0x3000;
const SPECIFIC_CONTROL_DEFAULT = 0x0078;
const EXTENDED_CONTROL_DEFAULT = 0x0d60;
/** 1000 Mb/s, full duplex, resolved. */
const SPECIFIC_STATUS = 0xac00;
const SPECIFIC_STATUS_LINK = 0x0400;

function readOnly(register: number): boolean {
  return (
    register === PHY_BMSR ||
    register === PHY_ID1 ||
    register === PHY_ID2 ||
    register === PHY_PARTNER ||
    register === PHY_EXPANSION ||
    register === PHY_1000T_STATUS ||
    register === PHY_EXTENDED_STATUS ||
    register === PHY_SPECIFIC_STATUS ||
    register === PHY_INTERRUPT_STATUS ||
    register === PHY_RECEIVE_ERRORS
  );
}

export class Phy {
  /** The cable is plugged in. */
  cable = true;
  readonly #express: boolean;
  readonly #registers = new Uint16Array(PAGES * REGISTERS);

  constructor(express: boolean) {
    this.#express = express;
    this.reset();
  }

  reset(): void {
    const registers = this.#registers;
    registers.fill(0);
    registers[PHY_BMCR] = BMCR_DEFAULT;
    registers[PHY_ID1] = PHY_ID1_MARVELL;
    registers[PHY_ID2] = this.#express ? PHY_ID2_82574 : PHY_ID2_88E1011;
    registers[PHY_ADVERTISE] = ADVERTISE_DEFAULT;
    registers[PHY_1000T_CONTROL] = ADVERTISE_1000_FULL;
    registers[PHY_EXTENDED_STATUS] = EXTENDED_1000;
    registers[PHY_SPECIFIC_CONTROL] = SPECIFIC_CONTROL_DEFAULT;
    registers[PHY_EXTENDED_CONTROL] = EXTENDED_CONTROL_DEFAULT;
  }

  /** A link is there: to the partner, or to itself. */
  get link(): boolean {
    const control = this.#registers[PHY_BMCR] as number;
    if ((control & BMCR_POWER_DOWN) !== 0) return false;
    return this.cable || this.loopback;
  }

  /** What is sent comes back. */
  get loopback(): boolean {
    return ((this.#registers[PHY_BMCR] as number) & BMCR_LOOPBACK) !== 0;
  }

  /** What MDIC reads as after `value` was written to it: ready, or an error. */
  access(value: number): number {
    const register = (value >>> MDIC_REGISTER_SHIFT) & 0x1f;
    const phy = (value >>> MDIC_PHY_SHIFT) & 0x1f;
    const command = value & ~(MDIC_READY | MDIC_ERROR);
    const operation = value & (MDIC_READ | MDIC_WRITE);
    if (phy !== E1000_PHY_ADDRESS || (operation !== MDIC_READ && operation !== MDIC_WRITE)) {
      return (command | MDIC_READY | MDIC_ERROR) >>> 0;
    }
    if (operation === MDIC_WRITE) {
      this.#write(register, value & DATA);
      return (command | MDIC_READY) >>> 0;
    }
    return ((command & ~DATA) | this.#read(register) | MDIC_READY) >>> 0;
  }

  #read(register: number): number {
    const page = this.#page(register);
    if (page >= PAGES) return 0;
    if (page === 0) {
      if (register === PHY_BMSR) {
        return BMSR_CAPABILITIES | (this.link ? BMSR_LINK | BMSR_AUTONEG_DONE : 0);
      }
      if (register === PHY_PARTNER) return this.link ? PARTNER : 0;
      if (register === PHY_EXPANSION) {
        return this.link ? PARTNER_CAN_NEGOTIATE | PAGE_RECEIVED : 0;
      }
      if (register === PHY_1000T_STATUS) return this.link ? STATUS_1000 : 0;
      if (register === PHY_SPECIFIC_STATUS) {
        return this.link ? SPECIFIC_STATUS | SPECIFIC_STATUS_LINK : 0;
      }
    }
    return this.#registers[page * REGISTERS + register] as number;
  }

  #write(register: number, value: number): void {
    const page = this.#page(register);
    if (page >= PAGES || (page === 0 && readOnly(register))) return;
    if (page === 0 && register === PHY_BMCR) {
      // Resets and restarts are done before anybody can look (§22.2.4.1.1, §22.2.4.1.7).
      this.#registers[PHY_BMCR] = value & ~(BMCR_RESET | BMCR_RESTART);
      if ((value & BMCR_RESET) !== 0 && (value & BMCR_AUTONEG) !== 0) {
        this.#registers[PHY_BMCR] = value & ~(BMCR_RESET | BMCR_RESTART | BMCR_LOOPBACK);
      }
      return;
    }
    this.#registers[page * REGISTERS + register] = value;
  }

  /** The page that a register is on: those of IEEE 802.3 and the page register itself are on all. */
  #page(register: number): number {
    if (!this.#express || register <= PHY_EXTENDED_STATUS || register === PHY_PAGE) return 0;
    return (this.#registers[PHY_PAGE] as number) & 0xff;
  }
}
