/**
 * The link of a port (§3.7, §8.2.3.22): 10 Gb/s over SFI to an SFP+ module, without autonegotiation.
 * There is no PHY on MDIO.
 */
import {
  IXGBE_ANLP1_STATE,
  IXGBE_AUTOC_MODE,
  IXGBE_AUTOC_MODE_10G_SERIAL,
  IXGBE_AUTOC_MODE_SHIFT,
  IXGBE_AUTOC_RESTART,
  IXGBE_AUTOC2_10G_SFI,
  IXGBE_AUTOC2_LINK_DISABLE,
  IXGBE_ESDP_SDP2,
  IXGBE_LINKS_10G,
  IXGBE_LINKS_UP,
  IXGBE_MSCA_COMMAND,
  IXGBE_MSRWD_READ_SHIFT,
} from '../../spec/ixgbe.ts';
import { R } from './registers.ts';

const { AUTOC, AUTOC2, MSCA, MSRWD } = R;

/** AUTOC.LMS: modes of 1 Gb/s and less (§8.2.3.22.19), which the other end of this wire has not. */
const SLOW_MODES = new Set([0, 2, 5]);
/** What MDIO reads where nothing answers. */
const NOBODY = 0xffff;

export class Link {
  readonly #words: Uint32Array;
  readonly #changed: () => void;
  #cable = true;
  #up = true;

  /** @param changed the link came or went */
  constructor(words: Uint32Array, changed: () => void) {
    this.#words = words;
    this.#changed = changed;
  }

  /** Frames pass. */
  get up(): boolean {
    return this.#up;
  }

  /** The other end is plugged in, and on. */
  get cable(): boolean {
    return this.#cable;
  }

  set cable(plugged: boolean) {
    this.#cable = plugged;
    this.#update();
  }

  /** As the EEPROM sets the link up. */
  reset(): void {
    this.#words[AUTOC] = IXGBE_AUTOC_MODE_10G_SERIAL << IXGBE_AUTOC_MODE_SHIFT;
    this.#words[AUTOC2] = IXGBE_AUTOC2_10G_SFI;
    this.#update();
  }

  /** LINKS. */
  get status(): number {
    return this.#up ? IXGBE_LINKS_UP | IXGBE_LINKS_10G : 0;
  }

  /** ANLP1: the state machine of autonegotiation runs, as drivers look for after a restart. */
  get partner(): number {
    return IXGBE_ANLP1_STATE;
  }

  /** ESDP as it reads: there is a module in the cage. */
  pins(value: number): number {
    return (value | IXGBE_ESDP_SDP2) >>> 0;
  }

  /** AUTOC or AUTOC2 was written: a restart is over at once. */
  written(): void {
    this.#words[AUTOC] = (this.#words[AUTOC] as number) & ~IXGBE_AUTOC_RESTART;
    this.#update();
  }

  /** MSCA was written: the transaction is over, and nobody answered. */
  accessMdio(value: number): void {
    this.#words[MSCA] = value & ~IXGBE_MSCA_COMMAND;
    if ((value & IXGBE_MSCA_COMMAND) === 0) return;
    this.#words[MSRWD] =
      ((this.#words[MSRWD] as number) & NOBODY) | (NOBODY << IXGBE_MSRWD_READ_SHIFT);
  }

  #update(): void {
    const mode = ((this.#words[AUTOC] as number) >>> IXGBE_AUTOC_MODE_SHIFT) & IXGBE_AUTOC_MODE;
    const disabled = ((this.#words[AUTOC2] as number) & IXGBE_AUTOC2_LINK_DISABLE) !== 0;
    const up = this.#cable && !disabled && !SLOW_MODES.has(mode);
    if (up === this.#up) return;
    this.#up = up;
    this.#changed();
  }
}
