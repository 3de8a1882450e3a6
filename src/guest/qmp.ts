/**
 * A client of QEMU's machine protocol: JSON lines (QEMU, "QEMU Machine Protocol Specification").
 */
import type { Duplex } from 'node:stream';
import { SluiceError } from '../base/errors.ts';

export type Json =
  | null
  | boolean
  | number
  | string
  | readonly Json[]
  | { readonly [key: string]: Json };
type JsonObject = { readonly [key: string]: Json };

interface Waiter {
  readonly command: string;
  readonly resolve: (value: Json) => void;
  readonly reject: (error: Error) => void;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** One connection; commands are answered in order of their ids. */
export class QmpClient {
  readonly #line: Duplex;
  readonly #waiting = new Map<number, Waiter>();
  readonly #events: string[] = [];
  readonly #negotiated: Promise<Json>;
  #failure: Error | undefined;
  #lastId = 0;
  #rest = '';

  constructor(line: Duplex) {
    this.#line = line;
    line.setEncoding('utf8');
    line.on('data', (chunk: string) => this.#receive(chunk));
    line.on('error', (error: Error) => this.fail(error));
    this.#negotiated = this.#request('qmp_capabilities', {});
    this.#negotiated.catch(() => undefined); // Whoever gives a command learns of it.
  }

  /** Names of the events so far, oldest first. */
  get events(): readonly string[] {
    return this.#events;
  }

  /**
   * Gives a command, such as `set_link` with `{ name: 'n0', up: false }`, and returns its answer.
   * @throws SluiceError `protocol` if QEMU refuses it, `state` if QEMU is gone.
   */
  async command(name: string, parameters: JsonObject = {}): Promise<Json> {
    await this.#negotiated;
    return await this.#request(name, parameters);
  }

  fail(error: Error): void {
    this.#failure ??= error;
    for (const waiter of this.#waiting.values()) waiter.reject(this.#failure);
    this.#waiting.clear();
  }

  #request(name: string, parameters: JsonObject): Promise<Json> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { command: name, resolve, reject });
      this.#line.write(`${JSON.stringify({ execute: name, arguments: parameters, id })}\n`);
    });
  }

  #receive(chunk: string): void {
    const lines = (this.#rest + chunk).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      let message: unknown;
      try {
        message = JSON.parse(line);
      } catch (cause) {
        this.fail(new SluiceError('protocol', `QEMU said: ${line.slice(0, 100)}`, { cause }));
        return;
      }
      if (isObject(message)) this.#message(message);
    }
  }

  #message(message: JsonObject): void {
    const event = message['event'];
    if (typeof event === 'string') {
      this.#events.push(event);
      return;
    }
    const id = Number(message['id']);
    const waiter = this.#waiting.get(id);
    if (waiter === undefined) return; // The greeting.
    this.#waiting.delete(id);
    const error = message['error'];
    if (isObject(error)) {
      waiter.reject(
        new SluiceError('protocol', `QEMU refuses ${waiter.command}: ${String(error['desc'])}`),
      );
    } else {
      waiter.resolve(message['return'] ?? null);
    }
  }
}
