/**
 * The mailbox of a virtual function, as its driver uses it (82599 datasheet §7.10.2.9): a request, for
 * whose answer it waits, and what the physical function says of its own accord.
 */
import { SluiceError } from '../../base/errors.ts';
import {
  IXGBE_MAILBOX_WORDS,
  IXGBE_MESSAGE_ACK,
  IXGBE_MESSAGE_CLEAR_TO_SEND,
  IXGBE_MESSAGE_INFO_SHIFT,
  IXGBE_MESSAGE_NACK,
  IXGBE_MESSAGE_REQUEST,
  IXGBE_PF_CONTROL,
  IXGBE_VF_MAILBOX,
  IXGBE_VF_MAILBOX_MEMORY,
  IXGBE_VFMAILBOX_ACK,
  IXGBE_VFMAILBOX_CLEARED,
  IXGBE_VFMAILBOX_PF_STATUS,
  IXGBE_VFMAILBOX_REQUEST,
  IXGBE_VFMAILBOX_RESET_DONE,
  IXGBE_VFMAILBOX_VF_OWNS,
} from '../../spec/ixgbe-mailbox.ts';
import type { RegisterAccess } from '../ixgbe/register-access.ts';

export class VfMailbox {
  /** The physical function said that its state has changed; `false`: the function is to reset itself. */
  onControl: ((clearToSend: boolean) => void) | undefined;
  readonly #registers: RegisterAccess;
  /** A request is on its way; an interrupt came meanwhile. */
  #busy = false;
  #interrupted = false;
  /** Nothing but a reset is wanted any more: to acknowledge that would bring the same again. */
  #revoked = false;
  /** Bits that a read of the control register has cleared, and nobody has looked at. */
  #seen = 0;

  constructor(registers: RegisterAccess) {
    this.#registers = registers;
  }

  /** The reset of the function is over. */
  awaitReset(): void {
    this.#seen = 0;
    this.#revoked = false;
    this.#registers.await('the end of its reset', () => this.#take(IXGBE_VFMAILBOX_RESET_DONE));
  }

  /**
   * Sends a request and gives the answer's words, of which the first is without its marks; undefined if
   * it was refused. The first word is the request, with `info` above it.
   * @throws SluiceError `state` without an answer
   */
  request(request: number, words: readonly number[] = [], info = 0): Uint32Array | undefined {
    this.#busy = true;
    try {
      return this.#ask(request, words, info);
    } finally {
      this.#busy = false;
      if (this.#interrupted) this.look();
    }
  }

  #ask(request: number, words: readonly number[], info: number): Uint32Array | undefined {
    this.#own();
    this.#write(0, request | (info << IXGBE_MESSAGE_INFO_SHIFT));
    for (const [index, word] of words.entries()) this.#write(index + 1, word);
    this.#registers.set(IXGBE_VF_MAILBOX, IXGBE_VFMAILBOX_REQUEST);
    for (;;) {
      this.#registers.await(`an answer to message ${request}`, () =>
        this.#take(IXGBE_VFMAILBOX_PF_STATUS),
      );
      const message = this.#read();
      const [first = 0] = message;
      if ((first & IXGBE_MESSAGE_REQUEST) !== request) {
        this.#control(first);
        continue;
      }
      if ((first & IXGBE_MESSAGE_NACK) !== 0) return undefined;
      if ((first & IXGBE_MESSAGE_ACK) === 0) continue;
      message[0] = request;
      return message;
    }
  }

  /** As {@link request}, where a refusal ends the matter. @throws SluiceError `state` saying what was refused */
  demand(what: string, request: number, words: readonly number[] = [], info = 0): Uint32Array {
    const answer = this.request(request, words, info);
    if (answer !== undefined) return answer;
    throw new SluiceError('state', `the physical function refused ${what}`);
  }

  /** After an interrupt: takes what the physical function said. */
  look(): void {
    // What has come may be the answer that is waited for.
    this.#interrupted = true;
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.#interrupted && !this.#revoked) this.#lookOnce();
    } finally {
      this.#busy = false;
    }
  }

  #lookOnce(): void {
    this.#interrupted = false;
    if (this.#take(IXGBE_VFMAILBOX_PF_STATUS)) this.#control(this.#read()[0] ?? 0);
  }

  #control(word: number): void {
    const isControl = (word & IXGBE_MESSAGE_REQUEST) === IXGBE_PF_CONTROL;
    if (!isControl && (word & IXGBE_MESSAGE_NACK) === 0) return;
    const clearToSend = isControl && (word & IXGBE_MESSAGE_CLEAR_TO_SEND) !== 0;
    if (!clearToSend) this.#revoked = true;
    this.onControl?.(clearToSend);
  }

  /** True, once, if the bit was set. */
  #take(bit: number): boolean {
    if ((this.#seen & bit) === 0) {
      this.#seen |= this.#registers.get(IXGBE_VF_MAILBOX) & IXGBE_VFMAILBOX_CLEARED;
    }
    const isSet = (this.#seen & bit) !== 0;
    this.#seen &= ~bit;
    return isSet;
  }

  /** Takes the words for the function. */
  #own(): void {
    this.#registers.await('its mailbox', () => {
      this.#registers.set(IXGBE_VF_MAILBOX, IXGBE_VFMAILBOX_VF_OWNS);
      const status = this.#registers.get(IXGBE_VF_MAILBOX);
      this.#seen |= status & IXGBE_VFMAILBOX_CLEARED;
      return (status & IXGBE_VFMAILBOX_VF_OWNS) !== 0;
    });
  }

  #write(index: number, word: number): void {
    this.#registers.set(IXGBE_VF_MAILBOX_MEMORY + 4 * index, word);
  }

  /** A message, which is acknowledged. */
  #read(): Uint32Array {
    this.#own();
    const message = Uint32Array.from({ length: IXGBE_MAILBOX_WORDS }, (_, index) =>
      this.#registers.get(IXGBE_VF_MAILBOX_MEMORY + 4 * index),
    );
    this.#registers.set(IXGBE_VF_MAILBOX, IXGBE_VFMAILBOX_ACK);
    return message;
  }
}
