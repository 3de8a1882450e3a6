/**
 * Talks to dpdk-testpmd (DPDK, "Testpmd Application User Guide"), started inside the testbed.
 */
import { SluiceError } from '../../src/base/errors.ts';
import type { SharedDirectories } from '../../src/guest/guest-process.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import { PeerProcess } from './peer-process.ts';

const PROMPT = 'testpmd> ';
const START_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 15_000;

export interface TestpmdOptions {
  readonly name: string;
  readonly testbed: Testbed;
  readonly shared: SharedDirectories;
  /** The processor that both of its threads run on. */
  readonly cpu: number;
  /** Huge pages it takes. */
  readonly memoryMib: number;
  /** Arguments of the environment abstraction layer, such as `--vdev`. */
  readonly environment: readonly string[];
  /** Arguments of the application. */
  readonly application: readonly string[];
}

/** Counters and rates of one port, from `show port stats`. */
export interface PortStats {
  readonly rxFrames: number;
  readonly txFrames: number;
  /** Frames a second since the command was given last; 0 the first time. */
  readonly rxRate: number;
}

/** Totals of all ports, from `stop`. */
export interface ForwardStats {
  readonly rxFrames: number;
  readonly txFrames: number;
  /** Frames that found no room in the transmit ring. */
  readonly txDropped: number;
}

function numbers(text: string, pattern: RegExp): number[] {
  return [...text.matchAll(pattern)].map((match) => Number(match[1]));
}

/** The ports in the answer to `show port stats all`, in their order. */
export function parsePortStats(text: string): PortStats[] {
  const rx = numbers(text, /RX-packets:\s*(\d+)/g);
  const tx = numbers(text, /TX-packets:\s*(\d+)/g);
  const rate = numbers(text, /Rx-pps:\s*(\d+)/g);
  if (rx.length === 0 || rx.length !== tx.length || rx.length !== rate.length) {
    throw new SluiceError('protocol', `testpmd: these are no port statistics:\n${text}`);
  }
  return rx.map((rxFrames, port) => ({
    rxFrames,
    txFrames: tx[port] as number,
    rxRate: rate[port] as number,
  }));
}

/** The totals in the answer to `stop`. */
export function parseForwardStats(text: string): ForwardStats {
  const totals = text.slice(text.indexOf('Accumulated forward statistics'));
  const [rxFrames] = numbers(totals, /RX-packets:\s*(\d+)/g);
  const [txFrames] = numbers(totals, /TX-packets:\s*(\d+)/g);
  const [txDropped] = numbers(totals, /TX-dropped:\s*(\d+)/g);
  if (rxFrames === undefined || txFrames === undefined || txDropped === undefined) {
    throw new SluiceError('protocol', `testpmd: these are no forward statistics:\n${text}`);
  }
  return { rxFrames, txFrames, txDropped };
}

/** `24.11.4` of what testpmd says at its start with `-v`. */
export function parseVersion(text: string): string {
  const version = /RTE Version: 'DPDK ([^']+)'/.exec(text)?.[1];
  if (version === undefined) throw new SluiceError('protocol', 'testpmd does not say its version');
  return version;
}

export class Testpmd implements AsyncDisposable {
  readonly process: PeerProcess;
  /** How much of the answers belongs to earlier commands. */
  #read = 0;

  /** Starts it; {@link ready} tells when it takes commands. */
  constructor({ name, testbed, shared, cpu, memoryMib, ...args }: TestpmdOptions) {
    this.process = new PeerProcess({
      name,
      command: [
        testbed.enter,
        ...shared.options(),
        '--',
        // Not into a terminal: the C library would keep its output back for blocks of 4 KiB.
        ...['stdbuf', '--output=L', 'dpdk-testpmd', '-v', '--no-pci', '--in-memory'],
        // Lcore 0 takes commands (and sleeps), lcore 1 moves frames.
        ...['--lcores', `0@${cpu},1@${cpu}`, '--main-lcore', '0'],
        ...['-m', String(memoryMib), '--file-prefix', name, ...args.environment],
        ...['--', '-i', '--nb-cores=1', ...args.application],
      ],
    });
  }

  async ready(): Promise<void> {
    await this.#answer('prompt', START_TIMEOUT_MS);
  }

  /** Gives a command and returns what it printed. */
  command(text: string): Promise<string> {
    this.process.write(`${text}\n`);
    return this.#answer(`answer to ${text}`, COMMAND_TIMEOUT_MS);
  }

  async portStats(): Promise<PortStats[]> {
    return parsePortStats(await this.command('show port stats all'));
  }

  async stopForwarding(): Promise<ForwardStats> {
    return parseForwardStats(await this.command('stop'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process.stop();
  }

  #answer(what: string, timeoutMs: number): Promise<string> {
    return this.process.until(what, timeoutMs, () => {
      const { answers } = this.process;
      const end = answers.indexOf(PROMPT, this.#read);
      if (end < 0) return undefined;
      const answer = answers.slice(this.#read, end);
      this.#read = end + PROMPT.length;
      return answer;
    });
  }
}
