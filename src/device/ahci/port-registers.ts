/** The registers of one port (AHCI §3.3), and the rules that tie some of them together. */
import {
  AHCI_PORT_BYTES,
  PX_CI,
  PX_CMD,
  PX_IE,
  PX_IS,
  PX_IS_PCS,
  PX_IS_PRCS,
  PX_SACT,
  PX_SERR,
  PX_SERR_DIAG_EXCHANGED,
  PX_SERR_DIAG_PHYRDY,
  PX_SIG,
  PX_TFD,
} from '../../spec/ahci.ts';

export class PortRegisters {
  /** By offset / 4. */
  readonly words = new Uint32Array(AHCI_PORT_BYTES / 4);
  /** Something has changed that the interrupt rests on. */
  changed = false;

  get(offset: number): number {
    return this.words[offset >> 2] as number;
  }

  set(offset: number, value: number): void {
    this.words[offset >> 2] = value;
  }

  setBits(offset: number, bits: number): void {
    this.words[offset >> 2] = (this.words[offset >> 2] as number) | bits;
  }

  clearBits(offset: number, bits: number): void {
    this.words[offset >> 2] = (this.words[offset >> 2] as number) & ~bits;
  }

  /** Sets bits of PxIS. */
  raise(bits: number): void {
    if (bits === 0) return;
    this.setBits(PX_IS, bits);
    this.changed = true;
  }

  /** Clears bits of PxIS, as far as a write can. */
  acknowledge(bits: number): void {
    this.clearBits(PX_IS, bits);
    this.changed = true;
  }

  /** Sets or clears bits of PxSERR; two bits of PxIS follow it (§3.3.5). */
  setError(value: number): void {
    this.set(PX_SERR, value);
    this.follow(value, PX_SERR_DIAG_EXCHANGED, PX_IS_PCS);
    this.follow(value, PX_SERR_DIAG_PHYRDY, PX_IS_PRCS);
    this.changed = true;
  }

  /** Status and error of the task file. */
  setTaskfile(status: number, error: number): void {
    this.set(PX_TFD, (error << 8) | status);
  }

  get status(): number {
    return this.get(PX_TFD) & 0xff;
  }

  /** Some enabled bit of PxIS is set. */
  get pending(): boolean {
    return (this.get(PX_IS) & this.get(PX_IE)) !== 0;
  }

  /** ST was cleared: no command is issued any more (§3.3.14, §3.3.13). */
  clearCommands(): void {
    this.set(PX_CI, 0);
    this.set(PX_SACT, 0);
    this.clearBits(PX_CMD, 0x1f00);
  }

  /** No device has told its signature. */
  clearSignature(): void {
    this.set(PX_SIG, 0xffff_ffff);
  }

  private follow(value: number, bit: number, interrupt: number): void {
    if ((value & bit) !== 0) this.setBits(PX_IS, interrupt);
    else this.clearBits(PX_IS, interrupt);
  }
}
