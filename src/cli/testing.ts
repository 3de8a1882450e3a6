/** For tests of commands: a directory with a configuration file, and sluice run in it. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const MAIN = join(import.meta.dirname, 'main.ts');
/** What Node.js is given before the words of a command. */
const NODE_OPTIONS = ['--disable-warning=ExperimentalWarning', MAIN];

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A directory with a configuration file, and sluice run in it. */
export class Place implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), 'sluice-'));
  readonly #started: ChildProcess[] = [];

  constructor(config?: string) {
    if (config !== undefined) this.write(config);
  }

  write(config: string): void {
    writeFileSync(join(this.path, 'sluice.yaml'), config);
  }

  get run(): string {
    return join(this.path, 'run');
  }

  /** Runs a command to its end. */
  sluice(...words: string[]): Promise<Outcome> {
    return new Promise((resolve) => {
      const options = { cwd: this.path, encoding: 'utf8', timeout: 180_000 } as const;
      execFile(process.execPath, [...NODE_OPTIONS, ...words], options, (error, stdout, stderr) => {
        const code = error === null ? 0 : Number(error.code ?? -1);
        resolve({ code, stdout, stderr });
      });
    });
  }

  /** As {@link sluice}, for a command that succeeds and prints JSON. */
  async json(...words: string[]): Promise<unknown> {
    const { code, stdout, stderr } = await this.sluice(...words, '--json');
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout);
  }

  /** Starts `sluice up`, behind a command that runs commands; settles when it serves. */
  async up(...wrapper: string[]): Promise<ChildProcess> {
    const child = this.#spawn([...wrapper, process.execPath, ...NODE_OPTIONS, 'up', '--json']);
    let text = '';
    child.stdout?.setEncoding('utf8');
    for await (const part of child.stdout ?? []) {
      text += String(part);
      if (text.includes('\n}\n')) break;
    }
    assert.match(text, /"event": "up"/);
    return child;
  }

  start(...words: string[]): ChildProcess {
    return this.#spawn([process.execPath, ...NODE_OPTIONS, ...words]);
  }

  #spawn([program = '', ...words]: readonly string[]): ChildProcess {
    const child = spawn(program, words, {
      cwd: this.path,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#started.push(child);
    return child;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#started) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    rmSync(this.path, { recursive: true });
  }
}

/** Why a network namespace cannot be made here; false if it can. */
export const noNamespace =
  spawnSync('unshare', ['-n', 'ip', 'link', 'show', 'lo']).status === 0
    ? false
    : 'needs root, for a network namespace of its own';
