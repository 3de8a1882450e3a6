/**
 * A driver domain for the bench alone: one lane, with what the bench asks for, in a run directory of
 * its own that disappears with it.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { KiB } from '../base/bits.ts';
import { SluiceError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { loggerTo } from '../base/log.ts';
import { parseConfig } from '../daemon/config.ts';
import { Daemon } from '../daemon/daemon.ts';
import type { BlockCounter } from '../device/virtio-blk/counters.ts';
import type { PortCounter } from '../net/port.ts';
import type { Method } from './report-schema.ts';

/** A guest's network card as the driver domain knows it. */
export interface DomainCard {
  /** Of the guest. */
  readonly name: string;
  readonly socket: string;
  readonly mac: string;
  readonly method: Method;
}

/** A guest's disk. */
export interface DomainDisk {
  /** Of the guest. */
  readonly name: string;
  readonly socket: string;
}

/** Counters since the start, all of about the same moment. */
export interface DomainSample {
  readonly laneCpuNs: number;
  /** Time in which the lane was ready to run and had no processor. */
  readonly laneWaitNs: number;
  /** Bytes that the lane's JavaScript has allocated. */
  readonly laneHeapBytes: number;
  readonly laneSleeps: number;
  /** Turns of the lane's loop that found work. */
  readonly laneBusyTurns: number;
  /** Accesses to registers of all emulated devices that became messages. */
  readonly trapReads: number;
  readonly trapWrites: number;
  /** Interrupts of all emulated devices. */
  readonly interrupts: number;
  /** By card, and by disk. */
  readonly ports: readonly Readonly<Record<PortCounter, number>>[];
  readonly devices: readonly Readonly<Record<BlockCounter, number>>[];
}

/** Memory of the driver domain's process. */
export interface DomainMemory {
  /** Resident, without what is mapped from files: guest memory is, and is not counted. */
  readonly residentBytes: number;
  /** Heap of the lane in use. */
  readonly heapBytes: number;
}

export interface PrivateDomainOptions {
  /** Processors of the lane; undefined leaves it to the kernel. */
  readonly cpus: readonly number[] | undefined;
  /** The configuration, without `run` and `lanes`. */
  readonly config: object;
}

export class PrivateDomain implements AsyncDisposable {
  readonly cards: readonly DomainCard[];
  readonly disks: readonly DomainDisk[];
  readonly #daemon: Daemon;
  readonly #directory: string;
  readonly #ports: readonly string[];
  readonly #devices: readonly string[];
  /** Some devices are emulated. */
  readonly #hasFunctions: boolean;
  readonly #removeAtExit = (): void => this.#remove();

  private constructor(daemon: Daemon, directory: string) {
    this.#daemon = daemon;
    this.#directory = directory;
    const cards = daemon.config.guests.flatMap(({ net }) => net);
    const disks = daemon.config.guests.flatMap(({ disk }) => disk);
    this.cards = cards.flatMap(({ guest, socket, mac, method }) =>
      guest === undefined ? [] : { name: guest, socket, mac, method },
    );
    this.disks = disks.map(({ guest, socket }) => ({ name: guest, socket }));
    this.#ports = cards.map(({ port }) => port);
    this.#devices = disks.map(({ device }) => device);
    this.#hasFunctions = [...cards, ...disks].some(({ method }) => method !== 'paravirtual');
    process.once('exit', this.#removeAtExit);
  }

  /** @throws SluiceError with what could not be started; nothing is left then. */
  static async start({ cpus, config }: PrivateDomainOptions): Promise<PrivateDomain> {
    const directory = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
    try {
      const text = stringify(
        { run: './run', lanes: cpus === undefined ? 1 : [{ cpus: [...cpus] }], ...config },
        { aliasDuplicateObjects: false },
      );
      const parsed = parseConfig(text, join(directory, 'bench.yaml'));
      return new PrivateDomain(await Daemon.start(parsed, complaints()), directory);
    } catch (error) {
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** Asks the lane for exact counters; this wakes it. */
  async sample(): Promise<DomainSample> {
    const [fault] = this.#daemon.faults;
    if (fault !== undefined) throw new SluiceError('state', `${fault.port}: ${fault.reason}`);
    const functions = this.#hasFunctions ? await this.#daemon.functions() : [];
    const [lane] = await this.#daemon.sampleLanes();
    if (lane === undefined) throw new SluiceError('state', 'the driver domain has no lane');
    const functionsOf = (name: 'trap_reads' | 'trap_writes' | 'interrupts'): number =>
      functions.reduce((sum, { counters }) => sum + counters[name], 0);
    return {
      laneCpuNs: lane.cpu_ns,
      laneWaitNs: lane.wait_ns,
      laneHeapBytes: lane.heap_allocated_bytes,
      laneSleeps: lane.sleeps,
      laneBusyTurns: lane.busy_turns,
      trapReads: functionsOf('trap_reads'),
      trapWrites: functionsOf('trap_writes'),
      interrupts: functionsOf('interrupts'),
      ports: this.#ports.map((port) => this.#daemon.countersOf(port)),
      devices: this.#devices.map((device) => this.#daemon.deviceCountersOf(device)),
    };
  }

  async memory(): Promise<DomainMemory> {
    const [lane] = await this.#daemon.sampleLanes();
    return { residentBytes: anonymousBytes(), heapBytes: lane?.heap_used_bytes ?? 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#daemon.stop();
    process.off('exit', this.#removeAtExit);
    this.#remove();
  }

  #remove(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Resident memory of this process that no file is behind (proc(5), RssAnon). */
function anonymousBytes(): number {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(/^RssAnon:\s*(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) * KiB;
}

/** Errors go to standard error; what is normal with a guest is no news to who runs a bench. */
function complaints(): Logger {
  return loggerTo((level, message, fields) => {
    if (level !== 'error') return;
    console.error(`${level}: ${message} ${JSON.stringify(fields)}`);
  });
}
