/**
 * A guest as a process: started inside the testbed's tree, with an agent to run commands in it.
 *
 * Nothing of it is left on the host, however the launcher ends: its files lie in mounts of its
 * own, its serial lines are inherited socket pairs, and the kernel kills it with its parent.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { basename, dirname, resolve } from 'node:path';
import { Duplex } from 'node:stream';
import { SluiceError } from '../base/errors.ts';
import { AgentChannel, type CommandResult } from './agent.ts';
import type { Testbed } from './testbed.ts';

/** How a guest's process ended. */
export interface GuestExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface RunOptions {
  /** How long to wait for the command; default three minutes. */
  readonly timeoutMs?: number;
}

/** One vhost-user network device of a guest. */
export interface VhostUserNet {
  /** Path of the back-end's socket on the host. Its directory must exist when the guest starts. */
  readonly socket: string;
  /** `52:54:00:00:00:01`; default: what the device says, else the launcher's choice. */
  readonly mac?: string;
}

/** An emulated processor may have to share the host's with many others. */
const defaultRunTimeoutMs = 180_000;
const defaultBootTimeoutMs = 300_000;
const consoleLimit = 1 << 18;
const panic = 'Kernel panic - not syncing';

/** Directories of the host that a guest is to see, and their names inside. */
export class SharedDirectories {
  readonly #names = new Map<string, string>();

  /** The path inside of a host path whose directory it shares from now on. */
  inside(path: string): string {
    const directory = dirname(resolve(path));
    let name = this.#names.get(directory);
    if (name === undefined) {
      name = String(this.#names.size);
      this.#names.set(directory, name);
    }
    return `/run/host/${name}/${basename(path)}`;
  }

  /** The options for the testbed's `enter`. */
  options(): string[] {
    return [...this.#names].flatMap(([directory, name]) => ['--bind', `${directory}=${name}`]);
  }
}

export interface GuestProcessOptions {
  readonly name: string;
  readonly testbed: Testbed;
  readonly shared: SharedDirectories;
  /** Run inside the tree: console on stdout, the agent's line on fd 3, fd 4 for `extraLine`. */
  readonly command: readonly string[];
  readonly extraLine: boolean;
}

function inherited(child: ChildProcess, fd: number): Duplex {
  const stream: unknown = child.stdio[fd];
  if (!(stream instanceof Duplex))
    throw new SluiceError('state', `fd ${fd} of a guest is not a socket`);
  return stream;
}

/** A running guest of either kind. */
export class GuestProcess implements AsyncDisposable {
  readonly name: string;
  /** Resolves when the guest's process has ended; never rejects. */
  readonly exited: Promise<GuestExit>;
  /** The line on fd 4, where the launcher asked for one. */
  protected readonly extraLine: Duplex | undefined;
  readonly #child: ChildProcess;
  readonly #agent: AgentChannel;
  #console = '';
  #stopping = false;

  constructor(options: GuestProcessOptions) {
    const { name, testbed, shared, command, extraLine } = options;
    this.name = name;
    const child = spawn(testbed.enter, [...shared.options(), '--', ...command], {
      stdio: ['ignore', 'pipe', 'pipe', 'pipe', ...(extraLine ? (['pipe'] as const) : [])],
    });
    this.#child = child;
    this.extraLine = extraLine ? inherited(child, 4) : undefined;
    this.#agent = new AgentChannel(inherited(child, 3));
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => this.#log(text));
    }
    this.exited = new Promise((done) => {
      // Not 'exit': the last words on the console come until 'close'.
      child.once('close', (code, signal) => {
        this.#agent.fail(this.#error(`ended (${signal ?? `code ${code}`})`));
        done({ code, signal });
      });
      child.once('error', (error) => {
        this.#agent.fail(error);
        done({ code: null, signal: null });
      });
    });
  }

  /** What the guest printed on its console: kernel messages, the VMM's errors; the last 256 KiB. */
  get console(): string {
    return this.#console;
  }

  /** The process on the host that everything of the guest lives and dies with. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /**
   * Resolves when the guest has booted and takes commands.
   * @throws SluiceError `state` if it ends or panics instead, or takes longer than `timeoutMs`.
   */
  async booted(timeoutMs = defaultBootTimeoutMs): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(this.#error(`did not boot within ${timeoutMs} ms`)),
        timeoutMs,
      );
    });
    try {
      await Promise.race([this.#agent.ready(), late]);
    } catch (error) {
      await this.kill();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Runs a shell script in the guest and returns what it did.
   * @throws SluiceError `state` if the guest ends, restarts or does not answer in time.
   */
  run(
    script: string,
    { timeoutMs = defaultRunTimeoutMs }: RunOptions = {},
  ): Promise<CommandResult> {
    return this.#agent.run(script, timeoutMs);
  }

  /**
   * Runs a shell script that is to succeed and returns what it printed, without the last newline.
   * @throws SluiceError `state` if it fails, with what it said.
   */
  async sh(script: string, options: RunOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(script, options);
    if (code !== 0)
      throw new SluiceError(
        'state',
        `guest ${this.name}: exit code ${code}: ${script}\n${stdout}${stderr}`,
      );
    return stdout.replace(/\n$/, '');
  }

  /** Restarts the guest at once, as its reset button would, and resolves when it has booted again. */
  async reboot(timeoutMs?: number): Promise<void> {
    await this.#agent.ready();
    this.#lastCommand('reboot -f');
    await this.booted(timeoutMs);
  }

  /** Turns the guest off; kills it if it is not gone after `timeoutMs`. */
  async powerOff(timeoutMs = 30_000): Promise<GuestExit> {
    this.#stopping = true;
    this.#lastCommand('poweroff -f');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), timeoutMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the guest at once, as when the VMM crashes. */
  async kill(): Promise<GuestExit> {
    this.#stopping = true;
    this.#child.kill('SIGKILL');
    return await this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  /** Gives a command that the guest does not live to answer. */
  #lastCommand(applet: string): void {
    const answer = this.#agent.run(`sync; exec busybox ${applet}`, defaultRunTimeoutMs);
    this.#agent.expectRestart();
    answer.catch(() => undefined); // It ends with the guest, which is what the caller waits for.
  }

  #log(text: string): void {
    this.#console = (this.#console + text).slice(-consoleLimit);
    if (text.includes(panic) && !this.#stopping) this.#agent.fail(this.#error('panicked'));
  }

  #error(what: string): SluiceError {
    return new SluiceError(
      'state',
      `guest ${this.name} ${what}; its console:\n${this.#console.slice(-2000)}`,
    );
  }
}
