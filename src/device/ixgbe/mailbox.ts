/**
 * The mailbox between a virtual function and its physical function (§7.10.2.9, §8.3.5.1.5): sixteen words
 * that both see, who owns them, and what each has told the other. The VF's side is a register and the
 * words; the physical function's side are calls, since the driver domain drives it.
 *
 * Nobody waits here: a VF that owns the words for ever, sends half a message or never acknowledges only
 * has no answer itself. What the physical function says meanwhile is kept: the last message of each of
 * two kinds, an answer and a notice.
 */
import {
  IXGBE_MAILBOX_WORDS,
  IXGBE_VFMAILBOX_ACK,
  IXGBE_VFMAILBOX_CLEARED,
  IXGBE_VFMAILBOX_PF_ACK,
  IXGBE_VFMAILBOX_PF_STATUS,
  IXGBE_VFMAILBOX_REQUEST,
  IXGBE_VFMAILBOX_RESET_DONE,
  IXGBE_VFMAILBOX_VF_OWNS,
} from '../../spec/ixgbe-mailbox.ts';

/** The physical function's side. */
export interface MailboxPeer {
  /** The VF has sent a message: sixteen words, which it cannot change any more. */
  request(message: Uint32Array): void;
  /** The VF has read a message. */
  acknowledged(): void;
}

const NONE = 0;

export class Mailbox {
  /** Whom messages of the VF go to. */
  peer: MailboxPeer | undefined;
  /** The VF is to be interrupted: something was told to it. */
  onNotice: (() => void) | undefined;
  readonly #words = new Uint32Array(IXGBE_MAILBOX_WORDS);
  readonly #message = new Uint32Array(IXGBE_MAILBOX_WORDS);
  /** What waits until the VF gives the words back: words of an answer, and one of a notice. */
  readonly #answer = new Uint32Array(IXGBE_MAILBOX_WORDS);
  #answerWords = NONE;
  #notice = NONE;
  /** The words hold an answer that the VF has not acknowledged: a notice would take its place. */
  #unread = false;
  /** Bits of VFMAILBOX that the VF reads. */
  #status = IXGBE_VFMAILBOX_RESET_DONE;

  // The VF's side

  readWord(index: number): number {
    return this.#words[index] as number;
  }

  /** Who owns the words is for both to heed, the hardware does not enforce it. */
  writeWord(index: number, value: number): void {
    this.#words[index] = value;
  }

  /** VFMAILBOX: what the physical function told is cleared by the read. */
  readControl(): number {
    const status = this.#status;
    this.#status &= ~IXGBE_VFMAILBOX_CLEARED;
    return status;
  }

  writeControl(value: number): void {
    // The physical function owns the words only while it writes them, which is no time at all.
    const owns = value & IXGBE_VFMAILBOX_VF_OWNS;
    this.#status = (this.#status & ~IXGBE_VFMAILBOX_VF_OWNS) | owns;
    if ((value & IXGBE_VFMAILBOX_ACK) !== 0) {
      this.#unread = false;
      this.peer?.acknowledged();
    }
    if ((value & IXGBE_VFMAILBOX_REQUEST) !== 0) this.#request();
    this.#deliver();
  }

  /** The VF was reset: nothing is owned, nothing waits; that it is over can be read, once more. */
  reset(): void {
    this.#words.fill(0);
    this.#answerWords = NONE;
    this.#notice = NONE;
    this.#unread = false;
    this.#status = IXGBE_VFMAILBOX_RESET_DONE;
  }

  // The physical function's side

  /** Answers a request with the first `count` words. */
  answer(words: Uint32Array, count: number): void {
    for (let i = 0; i < count; i++) this.#answer[i] = words[i] as number;
    this.#answerWords = count;
    this.#deliver();
  }

  /** Tells the VF one word that it has not asked for. */
  notify(word: number): void {
    this.#notice = word;
    this.#deliver();
  }

  #request(): void {
    this.#message.set(this.#words);
    this.#unread = false;
    this.#status |= IXGBE_VFMAILBOX_PF_ACK;
    this.onNotice?.();
    this.peer?.request(this.#message);
  }

  /** Writes what waits, unless the VF owns the words: an answer, or a notice when there is none to read. */
  #deliver(): void {
    if ((this.#status & IXGBE_VFMAILBOX_VF_OWNS) !== 0) return;
    const count = this.#answerWords;
    if (count !== NONE) {
      for (let i = 0; i < count; i++) this.#words[i] = this.#answer[i] as number;
      this.#answerWords = NONE;
      this.#unread = true;
    } else if (this.#notice !== NONE && !this.#unread) {
      this.#words[0] = this.#notice;
      this.#notice = NONE;
    } else {
      return;
    }
    this.#status |= IXGBE_VFMAILBOX_PF_STATUS;
    this.onNotice?.();
  }
}
