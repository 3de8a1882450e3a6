/**
 * `sluice up` as a process of its own, as a user runs it, for tests with real guests.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import type { z } from 'zod';
import type { ApiArguments, ApiName, ApiReply } from '../../src/control/api.ts';
import { ControlClient } from '../../src/control/client.ts';
import type { configSchema } from '../../src/daemon/config-schema.ts';
import type { PortCounter } from '../../src/net/port.ts';
import type { Cleanup } from './testbed.ts';

/** What a configuration file says, but for `run`. */
export type SluiceConfig = Omit<z.input<typeof configSchema>, 'run'>;

export type PortFigures = ApiReply<'ports'>[number];

export interface SluiceOptions {
  /** A command that runs a command, such as `ip netns exec NAME`. */
  readonly wrapper?: readonly string[];
}

/** How a command ended. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const launcher = resolve(import.meta.dirname, '../../bin/sluice');
/** For what comes in milliseconds, unless the machine is very busy. */
const waitLimitMs = 120_000;

/** Waits for a condition; fails the test, naming `what`, if it does not come. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  const end = Date.now() + waitLimitMs;
  while (!(await condition())) {
    if (Date.now() > end) assert.fail(`waited in vain for ${what}`);
    await sleep(20);
  }
}

/** A configuration file in a directory of its own, and the daemon that serves it. */
export class Sluice {
  readonly directory: string;
  readonly file: string;
  readonly run: string;
  readonly #wrapper: readonly string[];
  readonly #client: ControlClient;
  #child: ChildProcess | undefined;
  #log = '';

  private constructor({ wrapper = [] }: SluiceOptions) {
    this.directory = mkdtempSync(join(tmpdir(), 'sluice-test-'));
    this.file = join(this.directory, 'sluice.yaml');
    this.run = join(this.directory, 'run');
    this.#wrapper = wrapper;
    this.#client = new ControlClient(this.run);
  }

  /** Starts a daemon; it and its files are gone after the test. */
  static async start(
    t: Cleanup,
    config: SluiceConfig,
    options: SluiceOptions = {},
  ): Promise<Sluice> {
    const sluice = new Sluice(options);
    t.after(async () => {
      await sluice.kill();
      rmSync(sluice.directory, { recursive: true, force: true });
    });
    sluice.write(config);
    await sluice.up();
    return sluice;
  }

  /** Writes the configuration file, which the daemon reads when it starts or is told to reload. */
  write(config: SluiceConfig): void {
    writeFileSync(
      this.file,
      stringify({ run: this.run, ...config }, { aliasDuplicateObjects: false }),
    );
  }

  /** Changes the configuration of the running daemon; fails the test if not all can be done. */
  async reload(config: SluiceConfig): Promise<ApiReply<'reload'>> {
    this.write(config);
    const report = await this.#client.call('reload');
    assert.deepEqual(report.failed, []);
    return report;
  }

  /**
   * Starts the daemon (again); resolves when it serves its sockets.
   * @param wrapper for this life in place of the one that was given at the start
   */
  async up(wrapper: readonly string[] = this.#wrapper): Promise<void> {
    assert.equal(this.#child, undefined, 'sluice runs already');
    // The kernel kills it with the test's process, however that ends.
    const words = ['--pdeathsig', 'KILL', ...wrapper, launcher, 'up', '--json', this.file];
    const child = spawn('setpriv', words, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#log += text;
    });
    let announced = '';
    const ended = once(child, 'close').then(([code, signal]: unknown[]) => {
      if (this.#child === child) this.#child = undefined;
      return `sluice ended (${String(signal ?? code)}):\n${announced}${this.#log}`;
    });
    const serves = new Promise<undefined>((done) => {
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        announced += text;
        if (announced.endsWith('\n}\n')) done(undefined);
      });
    });
    const failure = await Promise.race([serves, ended]);
    if (failure !== undefined) assert.fail(failure);
    assert.match(announced, /"event": "up"/);
  }

  /** The process of the daemon. */
  get pid(): number {
    return this.#child?.pid ?? assert.fail('sluice does not run');
  }

  /** What it logged since the test began, over all its starts: one JSON object a line. */
  get log(): string {
    return this.#log;
  }

  /** Ends it as SIGTERM does; fails the test unless it ends well. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const closed = once(child, 'close');
    child.kill('SIGTERM');
    const [code, signal]: unknown[] = await closed;
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, this.#log);
  }

  /** Ends it at once, as a crash does. Its files stay. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const closed = once(child, 'close');
    child.kill('SIGKILL');
    await closed;
  }

  /** Runs `sluice WORDS` about this daemon (`-c FILE` is added); never rejects. */
  command(...words: readonly string[]): Promise<Outcome> {
    const options = { encoding: 'utf8', timeout: waitLimitMs, maxBuffer: 1 << 26 } as const;
    return new Promise((done) => {
      execFile(launcher, [...words, '-c', this.file], options, (error, stdout, stderr) => {
        done({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr });
      });
    });
  }

  /** What a command that must succeed prints; with `--json` among the words, parse it. */
  async print(...words: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.command(...words);
    assert.equal(code, 0, `sluice ${words.join(' ')}: ${stderr}`);
    return stdout;
  }

  /** Runs `sluice capture PORT -w FILE`; resolves when it captures. `end` interrupts it. */
  async capture(port: string, file: string): Promise<{ end(): Promise<void> }> {
    rmSync(file, { force: true });
    const words = ['capture', port, '-w', file, '-c', this.file];
    const child = spawn(launcher, words, { stdio: ['ignore', 'ignore', 'pipe'] });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const closed = once(child, 'close');
    await until('the capture to begin', () => {
      assert.equal(child.exitCode, null, stderr);
      return (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > 0;
    });
    return {
      end: async () => {
        child.kill('SIGINT');
        assert.deepEqual(await closed, [0, null], stderr);
      },
    };
  }

  /** What `sluice show WHAT --json` prints, asked without starting a process for it. */
  show<Name extends ApiName>(what: Name, ...body: ApiArguments<Name>): Promise<ApiReply<Name>> {
    return this.#client.call(what, ...body);
  }

  /** Path of a port's socket, such as `web/net0`'s. */
  socket(port: string): string {
    return join(this.run, `${port.replace('/', '-')}.sock`);
  }

  async port(name: string): Promise<PortFigures> {
    const ports = await this.show('ports');
    return ports.find(({ port }) => port === name) ?? assert.fail(`there is no port ${name}`);
  }

  async counters(name: string): Promise<Readonly<Record<PortCounter, number>>> {
    return (await this.port(name)).counters;
  }

  /** Waits until the drivers behind all these ports have started. */
  async running(...names: readonly string[]): Promise<void> {
    await until(`${names.join(', ')} to run`, async () => {
      const ports = await this.show('ports');
      return names.every((name) => ports.some(({ port, running }) => port === name && running));
    });
  }

  /** Waits until no VMM is connected to the port. */
  async disconnected(name: string): Promise<void> {
    await until(`${name} to be disconnected`, async () => !(await this.port(name)).connected);
  }

  /** Fails the test if a device was stopped because of itself or its guest. */
  async healthy(): Promise<void> {
    assert.deepEqual(await this.show('faults'), []);
    for (const { lane, device_failures } of (await this.show('status')).lanes) {
      assert.equal(device_failures, 0, `lane ${lane}: a device failed:\n${this.#log}`);
    }
  }
}
