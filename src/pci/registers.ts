/**
 * How a register of configuration space is declared: one a line. Bits that are in none of the masks
 * are read-only.
 */

export interface PciRegister {
  readonly name: string;
  /** From the start of the space, or of the capability it belongs to. */
  readonly offset: number;
  /** 1, 2, 3 or 4. Naturally aligned but for the class code. */
  readonly bytes: number;
  readonly meaning: string;
  /** What it holds after a reset. Default: 0. */
  readonly reset?: number;
  /** Bits that take what is written (RW). */
  readonly rw?: number;
  /** Bits that a one written to them clears (RW1C). */
  readonly rw1c?: number;
  /** Bits that read as zero, and do something when a one is written to them. */
  readonly strobe?: number;
  /** Bits that every reset keeps: RWS, RW1CS and ROS, as the other masks say (PCIe §7.4). */
  readonly sticky?: number;
  /** Bits that a function-level reset keeps, and one of the bus does not (PCIe §6.6.2). */
  readonly keptByFlr?: number;
}

/** What resets a function (PCIe §6.6; PM 1.2 §5.4): how much of configuration space it keeps differs. */
export type ResetKind =
  /** Of the bus, the slot or the machine. */
  | 'bus'
  /** Asked for by the guest, of this function alone. */
  | 'function'
  /** From D3hot to D0 without No_Soft_Reset. */
  | 'power';
