/** The register file of an 8254x or 82574: storage by declaration (`spec/e1000.ts`). */
import {
  E1000_REGISTER_BYTES,
  E1000_REGISTERS,
  type E1000Access,
  type E1000Register,
  type E1000RegisterName,
} from '../../spec/e1000.ts';

const WORDS = E1000_REGISTER_BYTES / 4;

export const ACCESS = { none: 0, rw: 1, ro: 2, rc: 3, wo: 4, w1c: 5 } as const satisfies Record<
  E1000Access | 'none',
  number
>;

/** Index of each register in {@link RegisterFile.words}: half of its declaration, as a plain number. */
export const R = Object.fromEntries(
  Object.entries(E1000_REGISTERS).map(([name, { offset }]) => [name, offset / 4]),
) as Readonly<Record<E1000RegisterName, number>>;

export class RegisterFile {
  /** All registers, by offset / 4. */
  readonly words = new Uint32Array(WORDS);
  readonly #masks = new Uint32Array(WORDS);
  readonly #access = new Uint8Array(WORDS);

  /** @param express with the registers that only the 82574 has */
  constructor(express: boolean) {
    for (const register of Object.values<E1000Register>(E1000_REGISTERS)) {
      if (register.express && !express) continue;
      const first = register.offset / 4;
      this.#masks.fill(register.mask, first, first + register.count);
      this.#access.fill(ACCESS[register.access], first, first + register.count);
    }
  }

  /** Of the word at this index: one of {@link ACCESS}. */
  access(index: number): number {
    return this.#access[index] as number;
  }

  /** What a register without effects of its own reads as; a counter is cleared. */
  read(index: number): number {
    const value = this.words[index] as number;
    const access = this.#access[index];
    if (access === ACCESS.rc) this.words[index] = 0;
    return access === ACCESS.wo ? 0 : value;
  }

  /** Stores what a register without effects of its own takes. */
  write(index: number, value: number): void {
    const access = this.#access[index];
    const mask = this.#masks[index] as number;
    if (access === ACCESS.rw) this.words[index] = value & mask;
    else if (access === ACCESS.w1c) this.words[index] = (this.words[index] as number) & ~value;
  }

  /** Sets bits of a register to what the device says. */
  put(index: number, bits: number, on: boolean): void {
    const value = this.words[index] as number;
    this.words[index] = on ? value | bits : value & ~bits;
  }

  clear(): void {
    this.words.fill(0);
  }
}
