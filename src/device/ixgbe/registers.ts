/**
 * The register file of an 82599's physical function: storage by declaration (`spec/ixgbe.ts`), with the
 * second addresses that some registers have. What has effects is done by who owns the file.
 */
import {
  IXGBE_ALIASES,
  IXGBE_QUEUES,
  IXGBE_REGISTER_BYTES,
  IXGBE_REGISTERS,
  IXGBE_RX_QUEUE_REGISTERS,
  IXGBE_TX_QUEUE_REGISTERS,
  type IxgbeAccess,
  type IxgbeRegister,
  type IxgbeRegisterName,
  ixgbeRxQueue,
  ixgbeTxQueue,
} from '../../spec/ixgbe.ts';

export const REGISTER_WORDS = IXGBE_REGISTER_BYTES / 4;

export const ACCESS = { none: 0, rw: 1, ro: 2, rc: 3, wo: 4, w1c: 5 } as const satisfies Record<
  IxgbeAccess | 'none',
  number
>;

/** Index in {@link RegisterFile.words} of each register, or of the first of a row. */
export const R = Object.fromEntries(
  Object.entries(IXGBE_REGISTERS).map(([name, { offset }]) => [name, offset / 4]),
) as Readonly<Record<IxgbeRegisterName, number>>;

export class RegisterFile {
  /** All registers, by offset / 4. */
  readonly words: Uint32Array;
  readonly #masks = new Uint32Array(REGISTER_WORDS);
  readonly #access = new Uint8Array(REGISTER_WORDS);
  /** Of each word: where it really is. */
  readonly #home = new Uint16Array(REGISTER_WORDS).map((_, index) => index);

  /**
   * @param words {@link REGISTER_WORDS} of them: memory that a guest maps, where registers of queues are to
   * be written without traps. What it stores there by itself has passed no mask.
   */
  constructor(words: Uint32Array = new Uint32Array(REGISTER_WORDS)) {
    this.words = words;
    for (const register of Object.values(IXGBE_REGISTERS)) this.#declare(register, 0);
    for (let queue = 0; queue < IXGBE_QUEUES; queue++) {
      for (const register of Object.values(IXGBE_RX_QUEUE_REGISTERS)) {
        this.#declare(register, ixgbeRxQueue(queue));
      }
      for (const register of Object.values(IXGBE_TX_QUEUE_REGISTERS)) {
        this.#declare(register, ixgbeTxQueue(queue));
      }
    }
    for (const { at, stride, count, to, toStride } of IXGBE_ALIASES) {
      for (let i = 0; i < count; i++) {
        this.#home[(at + i * stride) / 4] = (to + i * toStride) / 4;
      }
    }
  }

  /** The index that stands for this one: another for a second address. */
  home(index: number): number {
    return this.#home[index] as number;
  }

  /** Of the word at this index, no second address: one of {@link ACCESS}. */
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

  clear(): void {
    this.words.fill(0);
  }

  #declare(register: IxgbeRegister, base: number): void {
    for (let i = 0; i < register.count; i++) {
      const index = (base + register.offset + i * register.stride) / 4;
      this.#masks[index] = register.mask;
      this.#access[index] = ACCESS[register.access];
    }
  }
}
