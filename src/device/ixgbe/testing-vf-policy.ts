/** For tests of mailbox and policy: VFs without a function, and the driver's side of the mailbox. */
import { loggerTo } from '../../base/log.ts';
import {
  IXGBE_MAILBOX_WORDS,
  IXGBE_MESSAGE_ACK,
  IXGBE_MESSAGE_CLEAR_TO_SEND,
  IXGBE_MESSAGE_NACK,
  IXGBE_VF_API_NEGOTIATE,
  IXGBE_VF_RESET,
  IXGBE_VFMAILBOX_ACK,
  IXGBE_VFMAILBOX_PF_ACK,
  IXGBE_VFMAILBOX_PF_STATUS,
  IXGBE_VFMAILBOX_REQUEST,
  IXGBE_VFMAILBOX_VF_OWNS,
} from '../../spec/ixgbe-mailbox.ts';
import { Mailbox } from './mailbox.ts';
import { Veb } from './veb.ts';
import { type PolicedVf, VfPolicy } from './vf-policy.ts';
import type { VfChange } from './vf-policy-settings.ts';

/** How a driver reaches the mailbox: by registers, or with none in between. */
export type MailboxAccess = Pick<
  Mailbox,
  'readWord' | 'writeWord' | 'readControl' | 'writeControl'
>;

/** The driver of a VF, as far as it uses the mailbox (as Linux's ixgbevf up to API 1.4, and 1.6 on). */
export class MailboxDriver {
  readonly #mailbox: MailboxAccess;
  /** Bits that reads of VFMAILBOX cleared, and that nobody has looked for yet. */
  #seen = 0;

  constructor(mailbox: MailboxAccess) {
    this.#mailbox = mailbox;
  }

  /** Sends a message and takes the answer; the first word is returned without the rest's zeros. */
  ask(...words: number[]): number[] {
    this.send(words);
    if (!this.has(IXGBE_VFMAILBOX_PF_ACK)) throw new Error('the message was not acknowledged');
    if (!this.has(IXGBE_VFMAILBOX_PF_STATUS)) throw new Error('there is no answer');
    return this.read();
  }

  /** Writes a message, owning the words, and gives them back with the request. */
  send(words: readonly number[]): void {
    this.own();
    this.has(IXGBE_VFMAILBOX_PF_ACK);
    this.has(IXGBE_VFMAILBOX_PF_STATUS);
    for (const [index, word] of words.entries()) this.#mailbox.writeWord(index, word);
    this.#mailbox.writeControl(IXGBE_VFMAILBOX_REQUEST);
  }

  /** Reads the words and acknowledges them. */
  read(): number[] {
    this.own();
    const words = Array.from({ length: IXGBE_MAILBOX_WORDS }, (_, i) => this.#mailbox.readWord(i));
    this.#mailbox.writeControl(IXGBE_VFMAILBOX_ACK);
    return words;
  }

  own(): void {
    this.#mailbox.writeControl(IXGBE_VFMAILBOX_VF_OWNS);
  }

  /** Whether the PF has set a bit since the last time that this was asked. */
  has(bit: number): boolean {
    this.#seen |= this.#mailbox.readControl();
    const found = (this.#seen & bit) !== 0;
    this.#seen &= ~bit;
    return found;
  }

  /** As a driver begins: reset, and agreement on a version. The answer to the reset. */
  begin(api: number): number[] {
    const answer = this.ask(IXGBE_VF_RESET);
    const agreed = this.ask(IXGBE_VF_API_NEGOTIATE, api);
    if (!isAcked(agreed)) throw new Error(`no agreement on version ${api}`);
    return answer;
  }
}

export function isAcked(answer: readonly number[]): boolean {
  const word = answer[0] as number;
  const both = IXGBE_MESSAGE_ACK | IXGBE_MESSAGE_CLEAR_TO_SEND;
  return (word & both) >>> 0 === both >>> 0 && (word & IXGBE_MESSAGE_NACK) === 0;
}

export function isNacked(answer: readonly number[]): boolean {
  const word = answer[0] as number;
  return (word & IXGBE_MESSAGE_NACK) !== 0 && (word & IXGBE_MESSAGE_ACK) === 0;
}

/** A VF of which only what the policy sets is kept. */
export class TestVf implements PolicedVf {
  readonly name: string;
  readonly pool: number;
  readonly queues = 2;
  readonly mailbox = new Mailbox();
  readonly driver = new MailboxDriver(this.mailbox);
  link = false;
  longest = 0;

  constructor(pool: number) {
    this.name = `nic0/0/vf${pool}`;
    this.pool = pool;
  }

  setLink(up: boolean): void {
    this.link = up;
  }

  setLongest(bytes: number): void {
    this.longest = bytes;
  }
}

/** A policy, its switch, what it said, and which pools it said that changed. */
export class TestPort {
  readonly veb = new Veb(1);
  readonly logged: string[] = [];
  readonly changed: number[] = [];
  readonly policy: VfPolicy;

  constructor(link: number | undefined = 10_000) {
    this.policy = new VfPolicy({
      veb: this.veb,
      rss: {
        table: Uint8Array.from({ length: 128 }, (_, i) => i % 2),
        key: Uint32Array.from({ length: 10 }, (_, i) => 0x0101_0101 * (i + 1)),
      },
      link,
      log: loggerTo((_level, message) => this.logged.push(message)),
      changed: (pool) => this.changed.push(pool),
    });
  }

  add(pool: number, settings: VfChange = {}, first?: Uint8Array): TestVf {
    const vf = new TestVf(pool);
    this.policy.add(vf, settings, first);
    return vf;
  }
}
