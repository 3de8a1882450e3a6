/**
 * Starts a process of embedded guests and asks things of it. Runs on the main thread of whoever
 * wants guests: it uses Node's event loop.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { SluiceError } from '../../base/errors.ts';
import type { DiskWorkSpec } from './disk-options.ts';
import { LineReader } from './line-reader.ts';
import {
  type DiskGuestInfo,
  type DiskGuestSpec,
  type GuestInfo,
  type GuestSpec,
  type Message,
  type ProcessReading,
  type RequestName,
  type Requests,
  type RoleSpec,
  receivedError,
} from './protocol.ts';

export interface ProcessOptions {
  /** Processors that the guests' thread may use; all unless given. */
  readonly cpus?: readonly number[];
  /** How long the loop polls in vain before it sleeps; see PollLoopOptions. */
  readonly idlePollUs?: number;
}

export interface LauncherOptions extends ProcessOptions {
  /** A guest has lost its device, or found it broken. */
  readonly onLost?: (guest: string, reason: string) => void;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Rings are empty in milliseconds, unless the machine is so busy that the lane hardly runs. */
const DRAIN_MS = 10_000;
/** A process that has not ended by itself after so long is killed. */
const CLOSE_MS = 5000;

/** The lowest flow number that this process has not given out. */
let nextFlow = 0;
const FLOWS = 1024;

/** A number for a flow; they come round after 1024. */
export function newFlow(): number {
  const flow = nextFlow;
  nextFlow = (nextFlow + 1) % FLOWS;
  return flow;
}

/** A process of embedded guests. Close it, or use it with `await using`. */
export class EmbeddedGuests implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #onLost: ((guest: string, reason: string) => void) | undefined;
  readonly #waiting = new Map<number, Waiting>();
  readonly #reader = new LineReader();
  readonly #ready = Promise.withResolvers<void>();
  #nextId = 1;
  #ended: string | undefined;

  private constructor(options: LauncherOptions) {
    const { onLost, ...processOptions } = options;
    this.#onLost = onLost;
    const entry = fileURLToPath(new URL('./process.ts', import.meta.url));
    this.#child = spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', entry, JSON.stringify(processOptions)],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    this.#child.stdout?.on('data', (bytes: Uint8Array) => {
      for (const line of this.#reader.push(bytes)) this.#take(JSON.parse(line) as Message);
    });
    // A write to a process that has just ended: its end is reported by 'exit'.
    this.#child.stdin?.on('error', (error) => this.#end(`cannot be reached: ${error.message}`));
    this.#child.on('error', (error) => this.#end(`cannot be started: ${error.message}`));
    this.#child.on('exit', (code, signal) => this.#end(`ended with ${signal ?? `code ${code}`}`));
  }

  /** Starts the process. @throws SluiceError `state` if it does not come up. */
  static async start(options: LauncherOptions = {}): Promise<EmbeddedGuests> {
    const guests = new EmbeddedGuests(options);
    await guests.#ready.promise;
    return guests;
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** Attaches a guest to a vhost-user socket; it drops what it receives until it gets a role. */
  attach(spec: GuestSpec): Promise<GuestInfo> {
    return this.#request('attach', spec);
  }

  /** Attaches a guest to the vhost-user socket of a disk; it does nothing until it gets work. */
  attachDisk(spec: DiskGuestSpec): Promise<DiskGuestInfo> {
    return this.#request('attachDisk', spec);
  }

  async detach(guest: string): Promise<void> {
    await this.#request('detach', { guest });
  }

  /** Gives guests roles, by name: one for each pair of queues, the rest become sinks. */
  async start(roles: Readonly<Record<string, readonly RoleSpec[]>>): Promise<void> {
    await this.#request('start', { roles });
  }

  /** Gives the queues of guests' disks work, by name of the guest. */
  async startDisks(work: Readonly<Record<string, readonly DiskWorkSpec[]>>): Promise<void> {
    await this.#request('startDisks', { work });
  }

  /**
   * Ends all sending and waits until the devices have taken what was sent, and done what was asked of disks.
   * @throws SluiceError `state` if they do not within `timeoutMs`.
   */
  async stop(timeoutMs = DRAIN_MS): Promise<void> {
    const { drained } = await this.#request('stop', { timeoutMs });
    if (!drained) {
      throw new SluiceError(
        'state',
        `a device has not taken its frames, or done its requests, within ${timeoutMs} ms`,
      );
    }
  }

  read(): Promise<ProcessReading> {
    return this.#request('read', null);
  }

  /** Ends the process; its guests disappear from their sockets. */
  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.stdin?.end();
    const kill = setTimeout(() => this.#child.kill('SIGKILL'), CLOSE_MS);
    await exited;
    clearTimeout(kill);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #request<Name extends RequestName>(
    name: Name,
    args: Requests[Name]['args'],
  ): Promise<Requests[Name]['reply']> {
    if (this.#ended !== undefined) return Promise.reject(this.#endedError(this.#ended));
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<Requests[Name]['reply']>();
    this.#waiting.set(id, {
      resolve: (value) => resolve(value as Requests[Name]['reply']),
      reject,
    });
    this.#child.stdin?.write(`${JSON.stringify({ id, name, args })}\n`);
    return promise;
  }

  #take(message: Message): void {
    if (message.kind === 'ready') {
      this.#ready.resolve();
      return;
    }
    if (message.kind === 'lost') {
      this.#onLost?.(message.guest, message.reason);
      return;
    }
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.kind === 'reply') waiting?.resolve(message.value);
    else waiting?.reject(receivedError(message.error));
  }

  #end(reason: string): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    const error = this.#endedError(reason);
    this.#ready.reject(error);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  #endedError(reason: string): SluiceError {
    return new SluiceError('state', `the process of the embedded guests ${reason}`);
  }
}
