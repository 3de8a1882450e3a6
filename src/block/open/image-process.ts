/**
 * qemu-nbd as a process of ours: started, watched, started again when it dies. It ends with us, also
 * when we are killed: the kernel sends it SIGTERM, on which it writes everything to the image.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from '../../base/log.ts';
import { imageError, run } from './image-tools.ts';

/** What is kept of the standard error. */
const STDERR_BYTES = 4096;
const FIRST_DELAY_MS = 100;
const LAST_DELAY_MS = 5000;
/** A process that lived so long was not stillborn: it is started again at once. */
const LIVED_MS = 5000;
/** After SIGTERM it may take so long to write what it has not written. */
const STOP_MS = 30_000;

export interface ImageProcessOptions {
  readonly name: string;
  /** The program, with what precedes its arguments. */
  readonly program: readonly string[];
  /** Its arguments, but for what says how long it lives. */
  readonly args: readonly string[];
  readonly socket: string;
  readonly log: Logger;
}

/** True if setpriv(1) can tie a process's life to its parent's. */
async function knowsParentDeath(): Promise<boolean> {
  try {
    await run(['setpriv', '--pdeathsig', 'TERM', '--', 'true'], []);
    return true;
  } catch {
    // No setpriv, or one without the option (busybox).
    return false;
  }
}

export class ImageProcess {
  /** Times that it died and was started again. */
  restarts = 0;
  readonly #options: ImageProcessOptions;
  readonly #command: readonly string[];
  #child: ChildProcess | undefined;
  #stderr = '';
  #supervised = false;
  #stopping = false;
  #ended: Promise<void> = Promise.resolve();
  #restarting: Promise<void> | undefined;
  #delayMs = 0;
  readonly #cancel = new AbortController();

  private constructor(options: ImageProcessOptions, command: readonly string[]) {
    this.#options = options;
    this.#command = command;
  }

  static async start(options: ImageProcessOptions): Promise<ImageProcess> {
    // Without the kernel's help it goes when its last client does, as ours do when we are killed.
    const { program, args } = options;
    const command = (await knowsParentDeath())
      ? ['setpriv', '--pdeathsig', 'TERM', '--', ...program, '--persistent', ...args]
      : [...program, ...args];
    const process = new ImageProcess(options, command);
    process.#spawn();
    return process;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get running(): boolean {
    return this.#child !== undefined;
  }

  /** The end of what it wrote to its standard error. */
  get stderr(): string {
    return this.#stderr;
  }

  /** Resolves when the present process has ended. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** From now on it is started again when it dies. */
  supervise(): void {
    this.#supervised = true;
    if (this.#child === undefined) this.#restart(0);
  }

  /** Ends it: what it holds is written to the image first. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#cancel.abort();
    await this.#restarting;
    const child = this.#child;
    if (child !== undefined) {
      child.kill('SIGTERM');
      const patience = new AbortController();
      await Promise.race([
        this.#ended,
        sleep(STOP_MS, undefined, { signal: patience.signal })
          .then(() => child.kill('SIGKILL'))
          .catch(() => undefined), // It ended before.
      ]);
      await this.#ended;
      patience.abort();
    }
    rmSync(this.#options.socket, { force: true });
  }

  #spawn(): void {
    const [program = '', ...args] = this.#command;
    // What a killed one left would be taken for one that listens.
    rmSync(this.#options.socket, { force: true });
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    const began = performance.now();
    this.#child = child;
    this.#stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_BYTES);
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ended = promise;
    const end = (how: string): void => {
      if (this.#child !== child) return;
      this.#child = undefined;
      resolve();
      if (!this.#supervised || this.#stopping) return;
      this.#options.log.error('qemu-nbd has died and is started again', {
        disk: this.#options.name,
        reason: imageError(how, this.#stderr).message,
      });
      this.#restart(performance.now() - began);
    };
    child.once('error', (error) => end(error.message));
    // Not 'exit': its last words come until 'close'.
    child.once('close', (code, signal) => end(signal ?? `code ${code}`));
  }

  #restart(livedMs: number): void {
    if (livedMs >= LIVED_MS) this.#delayMs = 0;
    const delay = this.#delayMs;
    this.#delayMs = Math.min(LAST_DELAY_MS, Math.max(FIRST_DELAY_MS, 2 * delay));
    this.restarts++;
    this.#restarting = sleep(delay, undefined, { signal: this.#cancel.signal }).then(
      () => {
        if (!this.#stopping) this.#spawn();
      },
      () => undefined, // It was stopped meanwhile.
    );
  }
}
