/**
 * A network namespace of the host as one end of a test's network, with the testbed's programs.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { SluiceError } from '../../src/base/errors.ts';
import type { CommandResult } from '../../src/guest/agent.ts';
import type { RunOptions } from '../../src/guest/guest-process.ts';
import { findTestbed } from '../../src/guest/testbed.ts';
import type { Machine } from './guests.ts';
import type { Cleanup } from './testbed.ts';

const defaultRunTimeoutMs = 60_000;

/** A network namespace, gone after the test with everything that runs in it. */
export class Namespace implements Machine {
  readonly name: string;
  /** Has mounts and processes of its own, which all commands share, and ends with its input. */
  readonly #holder: ChildProcess;

  private constructor(name: string, holder: ChildProcess) {
    this.name = name;
    this.#holder = holder;
  }

  static async create(t: Cleanup, label: string): Promise<Namespace> {
    const name = `sluice-${process.pid}-${label}`;
    execFileSync('ip', ['netns', 'add', name], { stdio: 'pipe' });
    t.after(() => {
      execFileSync('ip', ['netns', 'del', name], { stdio: 'pipe' });
    });
    const holder = spawn(
      'ip',
      ['netns', 'exec', name, findTestbed().enter, '--', 'sh', '-c', 'echo; exec cat'],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    const closed = once(holder, 'close');
    t.after(async () => {
      holder.kill('SIGKILL');
      await closed;
    });
    await once(holder.stdout, 'data');
    const namespace = new Namespace(name, holder);
    await namespace.sh('ip link set lo up');
    return namespace;
  }

  /** A command that runs a command of the host in this namespace. */
  get wrapper(): readonly string[] {
    return ['ip', 'netns', 'exec', this.name];
  }

  /** Runs a shell script among the testbed's programs. */
  run(
    script: string,
    { timeoutMs = defaultRunTimeoutMs }: RunOptions = {},
  ): Promise<CommandResult> {
    const { pid = 0 } = this.#holder;
    const path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
    const child = spawn(
      'nsenter',
      [
        ...['--target', String(pid), '--mount', '--net', `--pid=/proc/${pid}/ns/pid_for_children`],
        ...['chroot', join(findTestbed().directory, 'tree')],
        ...['env', 'HOME=/root', 'TMPDIR=/tmp', `PATH=${path}`, 'sh', '-c', script],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs, killSignal: 'SIGKILL' },
    );
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    return new Promise((done, fail) => {
      child.once('error', fail);
      child.once('close', (code, signal) => {
        if (code === null) fail(new SluiceError('state', `${signal}: ${script}\n${stderr}`));
        else done({ code, stdout, stderr });
      });
    });
  }

  /** As {@link run}, for a script that is to succeed; what it printed. */
  async sh(script: string, options: RunOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(script, options);
    if (code !== 0)
      throw new SluiceError(
        'state',
        `${this.name}: exit code ${code}: ${script}\n${stdout}${stderr}`,
      );
    return stdout.replace(/\n$/, '');
  }
}
