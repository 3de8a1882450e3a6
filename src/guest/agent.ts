/**
 * The host's end of the agent that runs commands inside a guest (`scripts/testbed.d/agent`).
 *
 * Every message is a line. Scripts are as printf's %b reads them, so that the guest's shell needs no process to
 * decode them; what they print is base64, `-` if empty. The next line to
 * the guest is sent when the last one has been taken.
 *
 *     guest -> host   ready                   the agent has (re)started
 *     host -> guest   part ID TEXT            the next part of a script
 *     host -> guest   run ID TEXT             its last part
 *     host -> guest   kill ID
 *     guest -> host   ok                      the line is taken
 *     guest -> host   done ID CODE OUT ERR
 */
import type { Duplex } from 'node:stream';
import { SluiceError } from '../base/errors.ts';

/** What a command did. `code` is that of the shell: 128 + n if signal n ended it. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface Waiter<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

/** Characters of a script in a line: the guest's terminal buffers 4096 bytes. */
const partLength = 2048;

function decode(field: string): string {
  return field === '-' ? '' : Buffer.from(field, 'base64').toString('utf8');
}

/** What does not stand for itself in a line and for printf's %b. */
const SPECIAL = /[^A-Za-z0-9_./=:,@%+-]/g;

function encode(script: string): string {
  return Buffer.from(script)
    .toString('latin1')
    .replace(SPECIAL, (byte) => `\\0${byte.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

/** Commands side by side over one serial line to one guest. */
export class AgentChannel {
  readonly #line: Duplex;
  readonly #running = new Map<number, Waiter<CommandResult>>();
  #waitingForReady: Waiter<void>[] = [];
  #ready = false;
  #failure: Error | undefined;
  #lastId = 0;
  #rest = '';
  #toSend: string[] = [];
  #untaken = false;

  constructor(line: Duplex) {
    this.#line = line;
    line.setEncoding('latin1');
    line.on('data', (chunk: string) => this.#receive(chunk));
    line.on('error', (error: Error) => this.fail(error));
  }

  /** Resolves when the agent is there: at once, or after the (next) boot. */
  ready(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#ready) return Promise.resolve();
    return new Promise((resolve, reject) => this.#waitingForReady.push({ resolve, reject }));
  }

  /** From now on the agent counts as absent, until it says `ready` again. */
  expectRestart(): void {
    this.#ready = false;
  }

  /**
   * Runs a shell script in the guest and returns what it did. Whatever it leaves running in the
   * background goes on.
   * @throws SluiceError `state` if the guest stops, reboots or does not answer within `timeoutMs`.
   */
  async run(script: string, timeoutMs: number): Promise<CommandResult> {
    await this.ready();
    const id = ++this.#lastId;
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<CommandResult>((resolve, reject) => {
        this.#running.set(id, { resolve, reject });
        timer = setTimeout(() => {
          this.#send(`kill ${id}`);
          reject(new SluiceError('state', `no answer within ${timeoutMs} ms to: ${script}`));
        }, timeoutMs);
        this.#sendScript(id, script);
      });
    } finally {
      clearTimeout(timer);
      this.#running.delete(id);
    }
  }

  /** Gives up: everybody who waits gets this error. */
  fail(error: Error): void {
    this.#failure ??= error;
    this.#abandon(this.#failure);
    for (const waiter of this.#waitingForReady.splice(0)) waiter.reject(this.#failure);
  }

  #abandon(error: Error): void {
    for (const waiter of this.#running.values()) waiter.reject(error);
    this.#running.clear();
  }

  #sendScript(id: number, script: string): void {
    const text = encode(script);
    const last = Math.max(0, Math.ceil(text.length / partLength) - 1) * partLength;
    for (let at = 0; at < last; at += partLength) {
      this.#send(`part ${id} ${text.slice(at, at + partLength)}`);
    }
    this.#send(`run ${id} ${text.slice(last)}`);
  }

  #send(message: string): void {
    this.#toSend.push(message);
    this.#sendNext();
  }

  #sendNext(): void {
    if (this.#untaken) return;
    const message = this.#toSend.shift();
    if (message === undefined) return;
    this.#untaken = true;
    this.#line.write(`${message}\n`);
  }

  #receive(chunk: string): void {
    const lines = (this.#rest + chunk).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#message(line.trim());
  }

  #message(line: string): void {
    const [verb, id, code, stdout, stderr] = line.split(' ');
    if (verb === 'ok') {
      this.#untaken = false;
      this.#sendNext();
    } else if (verb === 'ready') {
      this.#abandon(new SluiceError('state', 'the guest restarted before the command was done'));
      this.#toSend = [];
      this.#untaken = false;
      this.#ready = true;
      for (const waiter of this.#waitingForReady.splice(0)) waiter.resolve();
    } else if (verb === 'done' && stdout !== undefined && stderr !== undefined) {
      const waiter = this.#running.get(Number(id));
      // A command that was given up answers late.
      waiter?.resolve({ code: Number(code), stdout: decode(stdout), stderr: decode(stderr) });
    } else {
      this.fail(new SluiceError('protocol', `the guest's agent said: ${line.slice(0, 100)}`));
    }
  }
}
