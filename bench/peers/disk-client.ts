/** The client of the comparison of disks: blkio-client.c, built in the testbed and run there. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { SluiceError } from '../../src/base/errors.ts';
import { SharedDirectories } from '../../src/guest/guest-process.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import { buildProgram } from './c-program.ts';
import type { DiskServer } from './disk-servers.ts';
import type { DiskWork } from './disk-work.ts';
import type { Measured } from './pairs.ts';
import { PeerProcess } from './peer-process.ts';
import { disturbance, occupancy, takeSnapshot } from './processor-time.ts';

const READY_TIMEOUT_MS = 60_000;
/** How long an answer may take after the sample's time: what was on its way completes. */
const ANSWER_TIMEOUT_MS = 60_000;
/** From when a side goes on to when it is measured. */
const SETTLE_S = 0.1;

const amount = z.number().nonnegative();

/** One line of the client's. */
export const diskAnswerSchema = z.strictObject({
  seconds: amount,
  requests: z.int().nonnegative(),
  bytes: amount,
  iops: amount,
  bytes_per_s: amount,
  latency_ns: z.strictObject({ min: amount, p50: amount, p99: amount, max: amount }),
  cpu_s: amount.describe("The client's own processor time."),
  waits: z.int().nonnegative().describe('How often the client slept.'),
  verified: z.int().nonnegative().describe('Blocks whose content was checked.'),
});

export type DiskAnswer = z.output<typeof diskAnswerSchema>;

/** @throws SluiceError `protocol` for anything but a line of the client's */
export function parseDiskAnswer(line: string): DiskAnswer {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new SluiceError('protocol', `blkio-client: no JSON: ${line}`, { cause: error });
  }
  const answer = diskAnswerSchema.safeParse(value);
  if (!answer.success)
    throw new SluiceError('protocol', `blkio-client: ${z.prettifyError(answer.error)}`);
  return answer.data;
}

/** The client's program. */
export function buildDiskClient(testbed: Testbed): string {
  return buildProgram(testbed, 'blkio-client', ['-lblkio']);
}

export interface DiskClientOptions {
  readonly testbed: Testbed;
  /** What {@link buildDiskClient} returned. */
  readonly program: string;
  readonly cpu: number;
  readonly work: DiskWork;
  /** Check all that is read or written; then figures are the client's rather than the server's. */
  readonly verify: boolean;
}

/** A client at its disk; it does nothing until it is told to. */
export class DiskClient implements AsyncDisposable {
  readonly process: PeerProcess;
  /** How much of the answers belongs to earlier commands. */
  #read = 0;

  private constructor(process: PeerProcess) {
    this.process = process;
  }

  /** @throws SluiceError `state` if it does not get ready */
  static async start(socket: string, options: DiskClientOptions): Promise<DiskClient> {
    const { testbed, program, cpu, work, verify } = options;
    const shared = new SharedDirectories();
    const client = [
      ...[shared.inside(program), '--socket', shared.inside(socket), '--mode', work.mode],
      ...['--rw', work.rw, '--bs', String(work.bs), '--depth', String(work.depth)],
      ...(verify ? ['--verify'] : []),
    ];
    const pinned = ['taskset', '--cpu-list', String(cpu), ...client];
    const command = [testbed.enter, ...shared.options(), '--', ...pinned];
    const started = new DiskClient(new PeerProcess({ name: 'blkio-client', command }));
    try {
      const ready = await started.#line('disk', READY_TIMEOUT_MS);
      if (!/^ready \d+$/.test(ready))
        throw new SluiceError('protocol', `blkio-client: not ready: ${ready}`);
    } catch (error) {
      await started.process.stop();
      throw error;
    }
    return started;
  }

  /**
   * Has requests made for `warmup` seconds, then for `seconds` that count.
   * @throws SluiceError `state` if a request fails, or its data is wrong: it ends the client
   */
  async run(warmup: number, seconds: number): Promise<DiskAnswer> {
    this.process.write(`run ${warmup} ${seconds}\n`);
    // Looking for the answer would take time from what is measured.
    await sleep((warmup + seconds) * 1e3);
    return parseDiskAnswer(await this.#line('answer', ANSWER_TIMEOUT_MS));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process.stop();
  }

  #line(what: string, timeoutMs: number): Promise<string> {
    return this.process.until(what, timeoutMs, () => {
      const { answers } = this.process;
      const end = answers.indexOf('\n', this.#read);
      if (end < 0) return undefined;
      const line = answers.slice(this.#read, end);
      this.#read = end + 1;
      return line;
    });
  }
}

export interface DiskSideOptions extends DiskClientOptions {
  readonly serverCpu: number;
  /** Seconds before the first sample, and of each. */
  readonly warmup: number;
  readonly seconds: number;
  /** The part of its processor's time that client or server may lose to others in a sample. */
  readonly maxDisturbance: number;
}

/** What was seen of one server in one go; `value` is its iops. */
export interface DiskSample extends Measured {
  readonly answer: DiskAnswer;
  /** Part of its processor that the server had, all of its threads together. */
  readonly busy: number;
}

/**
 * A server and its client. Both sides of a comparison are there at once; each is stopped while the
 * other is measured, so that a server that polls does not take the other's processor.
 */
export class DiskSide implements AsyncDisposable {
  readonly #server: DiskServer;
  readonly #client: DiskClient;
  readonly #options: DiskSideOptions;

  private constructor(server: DiskServer, client: DiskClient, options: DiskSideOptions) {
    this.#server = server;
    this.#client = client;
    this.#options = options;
  }

  /** Brings a client to a server, warms both up, and stops the server. Ends it if that fails. */
  static async start(server: DiskServer, options: DiskSideOptions): Promise<DiskSide> {
    try {
      const client = await DiskClient.start(server.socket, options);
      const side = new DiskSide(server, client, options);
      try {
        await client.run(options.warmup, options.seconds);
        server.process.signal('SIGSTOP');
        return side;
      } catch (error) {
        await client[Symbol.asyncDispose]();
        throw error;
      }
    } catch (error) {
      await server.process.stop();
      throw error;
    }
  }

  /** @throws SluiceError `state` if a request fails, or one of the two ends */
  async sample(): Promise<DiskSample> {
    const { cpu, serverCpu, seconds, maxDisturbance } = this.#options;
    const snapshots = () => ({
      client: takeSnapshot(this.#client.process.pid, cpu),
      server: takeSnapshot(this.#server.process.pid, serverCpu),
    });
    this.#server.process.signal('SIGCONT');
    const before = snapshots();
    const answer = await this.#client.run(SETTLE_S, seconds);
    const after = snapshots();
    this.#server.process.signal('SIGSTOP');
    // Nothing is on its way any more, so no wait can be unfinished.
    const server = occupancy(before.server, after.server, after.server);
    const client = occupancy(before.client, after.client, after.client);
    return {
      value: answer.iops,
      answer,
      busy: server.busiest + server.others,
      disturbed:
        disturbance('the client', client, maxDisturbance) ??
        disturbance('the server', server, maxDisturbance),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.process.signal('SIGCONT');
    await this.#client[Symbol.asyncDispose]();
    await this.#server.process.stop();
  }
}
