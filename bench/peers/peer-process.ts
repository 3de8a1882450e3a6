/**
 * The processes of a comparison. None outlives it: each is killed when it is no longer wanted, when
 * this process exits, and by the kernel if this process is killed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { SluiceError } from '../../src/base/errors.ts';

/** How long a process that was asked to end may take. */
const GRACE_MS = 5000;

const alive = new Set<PeerProcess>();
process.on('exit', () => {
  for (const one of alive) one.kill();
});

export interface PeerProcessOptions {
  readonly name: string;
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

export class PeerProcess implements AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  readonly exited: Promise<void>;
  readonly #child: ChildProcess;
  readonly #waiting = new Set<() => void>();
  #output = '';
  #answers = '';
  #ending: string | undefined;

  /** @throws SluiceError `not-found` if the program is not there. */
  constructor({ name, command, environment = {} }: PeerProcessOptions) {
    this.name = name;
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...command], {
      // A process group of its own, so that its children can be ended with it.
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...environment },
    });
    this.#child = child;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#answers += text;
      this.#printed(text);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => this.#printed(text));
    // What it did not read any more is told by its end.
    child.stdin.on('error', () => undefined);
    this.exited = new Promise((resolve) => {
      const end = (how: string): void => {
        alive.delete(this);
        this.#ending = how;
        this.#notify();
        resolve();
      };
      child.once('error', (error) => end(error.message));
      child.once('close', (code, signal) => end(signal ?? `code ${code}`));
    });
    if (child.pid === undefined) {
      throw new SluiceError('not-found', `${name}: setpriv (util-linux) cannot be started`);
    }
    this.pid = child.pid;
    alive.add(this);
  }

  /** Everything it printed, messages in the midst of answers. */
  get output(): string {
    return this.#output;
  }

  /** What it printed on its standard output. */
  get answers(): string {
    return this.#answers;
  }

  write(text: string): void {
    this.#child.stdin?.write(text);
  }

  /**
   * Resolves with what `look` returns as soon as that is not undefined; `look` is asked again
   * whenever the process prints something, and every 20 ms.
   * @throws SluiceError `state` if the process ends before, or after `timeoutMs`.
   */
  async until<T>(what: string, timeoutMs: number, look: () => T | undefined): Promise<T> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      if (this.#ending !== undefined) throw this.#error(`ended (${this.#ending}) before ${what}`);
      if (performance.now() > deadline) throw this.#error(`no ${what} within ${timeoutMs} ms`);
      await this.#change(20);
    }
  }

  /** Ends it: SIGTERM, and SIGKILL if it takes too long. */
  async stop(): Promise<void> {
    if (this.#ending !== undefined) return;
    this.signal('SIGTERM');
    // One that is stopped hears of it only when it goes on.
    this.signal('SIGCONT');
    const timer = setTimeout(() => this.kill(), GRACE_MS);
    await this.exited;
    clearTimeout(timer);
    // What it may have started and left behind.
    this.kill();
  }

  kill(): void {
    this.signal('SIGKILL');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Sends a signal to the process and all that it started. */
  signal(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.pid, signal);
    } catch (error) {
      // Nobody is left in the group.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  #printed(text: string): void {
    this.#output += text;
    this.#notify();
  }

  #notify(): void {
    for (const resume of this.#waiting) resume();
  }

  async #change(timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const resume = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(resume);
        resolve();
      };
      const timer = setTimeout(resume, timeoutMs);
      this.#waiting.add(resume);
    });
  }

  #error(what: string): SluiceError {
    return new SluiceError(
      'state',
      `${this.name}: ${what}; it said:\n${this.#output.slice(-3000)}`,
    );
  }
}
