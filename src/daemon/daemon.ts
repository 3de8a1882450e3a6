/**
 * The daemon: brings what runs to what the configuration says, and keeps it so until it is told
 * to stop. Lives on the main thread and never touches guest memory.
 */
import { rmSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { CounterBlock } from '../base/counters.ts';
import { describeError, SluiceError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { BlockCounter } from '../device/virtio-blk/counters.ts';
import type { LaneCounter } from '../engine/lane-counters.ts';
import { LaneHandle } from '../engine/lane-handle.ts';
import { Arena } from '../memory/arena.ts';
import type { CaptureSummary } from '../net/capture-writer.ts';
import { newPortCounters, type PortCounter } from '../net/port.ts';
import { Captures } from './captures.ts';
import { type Config, loadConfig } from './config.ts';
import {
  type Action,
  actionTitle,
  differenceOf,
  isCapture,
  needs,
  type Part,
  partKey,
  partsOf,
  partTitle,
  released,
} from './difference.ts';
import { type DeviceFigures, type DiskFigures, Disks } from './disks.ts';
import type {
  DmaFaultState,
  Fault,
  FunctionState,
  Lane,
  LaneCommands,
  LaneEvent,
  LaneSettings,
  LaneSnapshot,
  MacState,
  PortState,
  RingState,
  VfState,
} from './lane-commands.ts';
import { planLanes } from './lane-plan.ts';
import { suggestion } from './near-miss.ts';
import { vfName } from './nic-config.ts';
import { PartRunner } from './part-runner.ts';
import { checkReloadable, placesOf, removeOldStates } from './reload.ts';
import { controlSocketPath, RunDirectory } from './run-directory.ts';
import {
  carriedOver,
  checkFree,
  checkMade,
  checkVf,
  desiredState,
  makeVf,
  NO_REQUESTS,
  setWords,
  unmakeVf,
  type VfRequests,
} from './vf-requests.ts';
import type { VfWords } from './vf-schema.ts';

/** How long requests that are on their way to disks may take when the daemon ends, in ms. */
const DRAIN_MS = 10_000;

/** What a reload did. */
export interface ApplyReport {
  /** `add port web/net0` */
  readonly done: readonly string[];
  readonly failed: readonly { readonly action: string; readonly error: string }[];
}

export interface LaneFigures extends Readonly<Record<LaneCounter, number>> {
  readonly lane: number;
  readonly cpu_ns: number;
  /** Time in which the lane was ready to run and had no processor. */
  readonly wait_ns: number;
}

/** A port as it is shown: its state with its counters. */
export interface PortFigures extends PortState {
  readonly lane: number;
  readonly counters: Readonly<Record<PortCounter, number>>;
}

/** A virtual function as it is shown. */
export interface VfFigures extends VfState {
  readonly lane: number;
  readonly counters: Readonly<Record<PortCounter, number>>;
}

/** A PCI function as it is shown. */
export interface FunctionFigures extends FunctionState {
  readonly lane: number;
}

/** Faults that are remembered for `sluice show faults`. */
const MAX_FAULTS = 256;

export interface DatedFault extends Fault {
  /** ISO 8601 */
  readonly time: string;
}

class FaultLog {
  list: readonly DatedFault[] = [];

  push(fault: Fault): void {
    this.list = [...this.list, { ...fault, time: new Date().toISOString() }].slice(-MAX_FAULTS);
  }
}

export class Daemon {
  readonly log: Logger;
  readonly startedAt = Date.now();
  #config: Config;
  readonly #run: RunDirectory;
  readonly #lanes: Lane[];
  /** What runs, in the order in which it was added. */
  #running: Part[] = [];
  readonly #counters = new Map<string, CounterBlock<PortCounter>>();
  /** Names of the ports that came with a part. */
  readonly #portsOf = new Map<string, readonly string[]>();
  readonly #faults: FaultLog;
  readonly #captures: Captures;
  readonly #disks: Disks;
  readonly #parts: PartRunner;
  #requests = NO_REQUESTS;
  /** Fails when the daemon is to stop, for what would wait long. */
  readonly #stopping = Promise.withResolvers<never>();
  #queue: Promise<unknown> = Promise.resolve();
  readonly #ending = Promise.withResolvers<Error | undefined>();
  #ended = false;

  private constructor(
    config: Config,
    run: RunDirectory,
    lanes: Lane[],
    faults: FaultLog,
    log: Logger,
  ) {
    this.#config = config;
    this.#run = run;
    this.#lanes = lanes;
    this.#faults = faults;
    this.log = log;
    this.#captures = new Captures(log);
    this.#disks = new Disks(run.path, log);
    this.#stopping.promise.catch(() => undefined);
    this.#parts = new PartRunner(this.#captures, this.#disks, this.#stopping.promise);
  }

  /**
   * Starts everything that a configuration asks for.
   * @param entry the lanes' module; tests have their own
   * @throws SluiceError with what could not be started; nothing is left running then.
   */
  static async start(
    config: Config,
    log: Logger,
    entry: URL = new URL('./lane-main.ts', import.meta.url),
  ): Promise<Daemon> {
    const plan = planLanes(config);
    const daemon = await Daemon.#open(config, log, entry);
    try {
      const failed = await daemon.#addAll(differenceOf([], partsOf(config, plan)));
      if (failed.length > 0) {
        throw new SluiceError(
          'state',
          failed.map(({ action, error }) => `${action}: ${error}`).join('\n'),
        );
      }
      removeOldStates(desiredState(config, NO_REQUESTS));
      return daemon;
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }

  /** A daemon with its run directory and its lanes, which run nothing yet. */
  static async #open(config: Config, log: Logger, entry: URL): Promise<Daemon> {
    const run = new RunDirectory(config.run);
    const faults = new FaultLog();
    const lanes: Lane[] = [];
    try {
      for (const [index, arena] of Arena.split(config.lanes.length).entries()) {
        const { cpus, idlePollUs } = config.lanes[index] ?? {};
        const settings: LaneSettings = {
          isolation: config.isolation,
          run: config.run.path,
          ...run.ownership,
        };
        lanes.push(
          await LaneHandle.start<LaneCommands, LaneEvent>({
            index,
            arena,
            entry,
            ...(cpus === undefined ? {} : { cpus }),
            ...(idlePollUs === undefined ? {} : { idlePollUs }),
            settings,
            log,
            onEvent: (event) => faults.push(event.fault),
          }),
        );
      }
    } catch (error) {
      await Promise.all(lanes.map((lane) => lane.stop()));
      run.release();
      throw error;
    }
    const daemon = new Daemon(config, run, lanes, faults, log);
    daemon.#watchLanes();
    return daemon;
  }

  /** Settles when the daemon has ended: undefined if it was told to, else why. */
  get ended(): Promise<Error | undefined> {
    return this.#ending.promise;
  }

  get config(): Config {
    return this.#config;
  }

  get faults(): readonly DatedFault[] {
    return this.#faults.list;
  }

  get controlSocket(): string {
    return controlSocketPath(this.#run.path);
  }

  /** Reads the configuration file again and makes what runs into what it says. */
  reload(): Promise<ApplyReport> {
    return this.#inTurn(async () => {
      const next = loadConfig(this.#config.file);
      checkReloadable(this.#config, next);
      const report = await this.#become(next, carriedOver(this.#requests, this.#config, next));
      removeOldStates(desiredState(next, this.#requests));
      for (const { action, error } of report.failed) this.log.error(error, { action });
      this.log.info('reloaded', { done: report.done.length, failed: report.failed.length });
      return report;
    });
  }

  /** @throws SluiceError `config` if that cannot be, and nothing is done then */
  async #become(config: Config, requests: VfRequests): Promise<ApplyReport> {
    const desired = desiredState(config, requests);
    const plan = planLanes(desired, placesOf(this.#running));
    const report = await this.#perform(differenceOf(this.#running, partsOf(desired, plan)));
    this.#config = config;
    this.#requests = requests;
    return report;
  }

  /**
   * Changes what is asked for at run time, and does it. What fails is not asked for any more.
   * @throws SluiceError
   */
  async #ask(requests: VfRequests): Promise<void> {
    const before = this.#requests;
    const { failed } = await this.#become(this.#config, requests);
    const [first] = failed;
    if (first === undefined) return;
    await this.#become(this.#config, before);
    throw new SluiceError('state', `${first.action}: ${first.error}`);
  }

  /**
   * Sets words of a virtual function; its guest keeps it. They stay over a reload.
   * @throws SluiceError `not-found`; `config` if they contradict others
   */
  async setVf(nicPort: string, vf: number, words: VfWords): Promise<void> {
    await this.#inTurn(async () => {
      checkVf(this.#config, this.#requests, nicPort, vf);
      await this.#ask(setWords(this.#requests, vfName(nicPort, vf), words));
    });
  }

  /**
   * Makes a virtual function that no guest of the file has.
   * @throws SluiceError `not-found`, `config`, `state`
   */
  async addVf(nicPort: string, vf: number, words: VfWords): Promise<void> {
    await this.#inTurn(async () => {
      checkFree(this.#config, this.#requests, nicPort, vf);
      const made = makeVf(this.#requests, nicPort, vf);
      await this.#ask(setWords(made, vfName(nicPort, vf), words));
    });
  }

  /**
   * Removes a virtual function that was made at run time; its guest loses it.
   * @throws SluiceError `not-found`; `state` for one of the file
   */
  async removeVf(nicPort: string, vf: number): Promise<void> {
    await this.#inTurn(async () => {
      checkMade(this.#config, this.#requests, nicPort, vf);
      await this.#ask(unmakeVf(this.#requests, vfName(nicPort, vf)));
    });
  }

  /** Virtual functions of all NICs, as their ports' policies have them. */
  async vfs(): Promise<VfFigures[]> {
    return (await this.#snapshots()).flatMap(({ lane, snapshot }) =>
      snapshot.vfs.map((vf) => ({ ...vf, lane, counters: this.countersOf(vf.port) })),
    );
  }

  async ports(): Promise<PortFigures[]> {
    return (await this.#snapshots()).flatMap(({ lane, snapshot }) =>
      snapshot.ports.map((port) => ({ ...port, lane, counters: this.countersOf(port.port) })),
    );
  }

  async rings(): Promise<RingState[]> {
    return (await this.#snapshots()).flatMap(({ snapshot }) => snapshot.rings);
  }

  async #snapshots(): Promise<{ readonly lane: number; readonly snapshot: LaneSnapshot }[]> {
    return await Promise.all(
      this.#lanes.map(async (lane) => ({
        lane: lane.index,
        snapshot: await lane.request('snapshot', undefined),
      })),
    );
  }

  /** The disks of the configuration, whether a guest has them or not. */
  async disks(): Promise<DiskFigures[]> {
    return this.#disks.list(this.#config, await this.#snapshots());
  }

  /**
   * Gives a disk another size; its guests are told.
   * @param shrink whether what lies behind a smaller size may be lost
   * @throws SluiceError for a disk that is not there, is not open, or cannot have that size
   */
  async resizeDisk(name: string, bytes: number, shrink: boolean): Promise<void> {
    await this.#inTurn(async () => {
      this.#checkDisk(name);
      await this.#disks.resize(this.#lanes, name, bytes, shrink);
    });
  }

  /**
   * Cuts the power of a disk with a volatile cache, or gives it back.
   * @throws SluiceError for a disk that is not there, is not open, has no such cache, or is so already
   */
  async powerDisk(name: string, on: boolean): Promise<void> {
    await this.#inTurn(async () => {
      this.#checkDisk(name);
      await this.#disks.power(this.#lanes, name, on);
    });
  }

  #checkDisk(name: string): void {
    const names = this.#config.disks.map((disk) => disk.name);
    if (names.includes(name)) return;
    throw new SluiceError('not-found', `no disk ${name}${suggestion(name, names)}`, {
      remedy: names.length === 0 ? 'there are no disks' : `there are ${names.join(', ')}`,
    });
  }

  /** Guests' disk devices. */
  async devices(): Promise<DeviceFigures[]> {
    return this.#disks.devices(await this.#snapshots());
  }

  /** Live counters of a disk device. @throws SluiceError `not-found`. */
  deviceCountersOf(device: string): Record<BlockCounter, number> {
    return this.#disks.countersOf(device);
  }

  /** PCI functions that guests have, each with its socket. */
  async functions(): Promise<FunctionFigures[]> {
    return (await this.#snapshots()).flatMap(({ lane, snapshot }) =>
      snapshot.functions.map((state) => ({ ...state, lane })),
    );
  }

  /** The last DMA of PCI functions that was refused, oldest first. */
  async dmaFaults(): Promise<DmaFaultState[]> {
    const found = await Promise.all(
      this.#lanes.map((lane) => lane.request('dmaFaults', undefined)),
    );
    return found.flat();
  }

  async macs(): Promise<MacState[]> {
    const found = await Promise.all(this.#lanes.map((lane) => lane.request('macs', undefined)));
    return found.flat();
  }

  /** Live figures of the lanes. Stops none of them. */
  lanes(): LaneFigures[] {
    return this.#lanes.map((lane) => {
      const { cpuNs, waitNs } = lane.schedule();
      return { lane: lane.index, cpu_ns: cpuNs, wait_ns: waitNs, ...lane.counters.snapshot() };
    });
  }

  /** Has the lanes write their counters exactly, the allocated bytes included. */
  async sampleLanes(): Promise<LaneFigures[]> {
    await Promise.all(this.#lanes.map((lane) => lane.sample()));
    return this.lanes();
  }

  /** The lane that runs a switch. @throws SluiceError `not-found`. */
  laneOf(name: string): number {
    const part = this.#running.find((other) => other.kind === 'switch' && other.name === name);
    if (part === undefined) throw new SluiceError('not-found', `no switch ${name}`);
    return part.lane;
  }

  /** Live counters of a port. @throws SluiceError `not-found`. */
  countersOf(port: string): Record<PortCounter, number> {
    const block = this.#counters.get(port);
    if (block === undefined) throw new SluiceError('not-found', `no port ${port}`);
    return block.snapshot();
  }

  /**
   * Writes the frames of a port to a stream, as pcapng, until the stream is closed or the daemon
   * ends. @throws SluiceError `not-found`; `state` if the port is being captured already.
   */
  async capture(
    port: string,
    snapLength: number | undefined,
    output: Writable,
  ): Promise<CaptureSummary> {
    const lane = this.#laneOfPort(port);
    return await this.#captures.run(
      port,
      snapLength,
      output,
      async (ring) => {
        await lane.request('startCapture', { port, ring: ring.shared, snapLength });
      },
      async () => {
        // The port may have gone in the meantime, and its lane with it.
        if (this.#counters.has(port) && !this.#ended) await lane.request('stopCapture', port);
      },
    );
  }

  /** Ends a {@link capture} in order. @throws SluiceError `not-found` if there is none. */
  async endCapture(port: string): Promise<void> {
    await this.#captures.finish(port);
  }

  #laneOfPort(port: string): Lane {
    for (const part of this.#running) {
      if (this.#portsOf.get(partKey(part))?.includes(port) !== true) continue;
      const lane = this.#lanes[part.lane];
      if (lane !== undefined) return lane;
    }
    const known = [...this.#counters.keys()];
    throw new SluiceError('not-found', `no port ${port}${suggestion(port, known)}`, {
      remedy: known.length === 0 ? 'there are no ports' : `there are ${known.join(', ')}`,
    });
  }

  /**
   * Ends everything: guests are disconnected, their sockets removed, requests that are on their way
   * to disks are completed.
   */
  async stop(): Promise<void> {
    this.#stopping.reject(new SluiceError('state', 'sluice is ending'));
    await this.#inTurn(() => this.#end(undefined));
  }

  async #end(reason: Error | undefined): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#captures.close();
    if (reason === undefined) await this.#drain();
    await Promise.all(this.#lanes.map((lane) => lane.stop()));
    await this.#disks.close();
    rmSync(this.controlSocket, { force: true });
    this.#run.release();
    this.#ending.resolve(reason);
  }

  /** Completes the requests that are on their way to disks, unless that takes too long. */
  async #drain(): Promise<void> {
    const timer = new AbortController();
    const drained = this.#lanes.map(async (lane) => {
      try {
        await lane.request('drain', undefined);
      } catch (error) {
        this.log.error(`disks of lane ${lane.index} did not end well: ${describeError(error)}`);
      }
      return lane.index;
    });
    const late = delay(DRAIN_MS, 'late', { signal: timer.signal }).catch(() => undefined);
    if ((await Promise.race([Promise.all(drained), late])) === 'late')
      this.log.error('ending while requests to disks are on their way: their outcome is unknown');
    timer.abort();
  }

  /** Changes happen one after the other. */
  #inTurn<Result>(change: () => Promise<Result>): Promise<Result> {
    const result = this.#queue.then(change);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  #watchLanes(): void {
    for (const lane of this.#lanes) {
      void lane.ended.then(async (reason) => {
        if (this.#ended) return;
        const error = new SluiceError(
          'state',
          `lane ${lane.index} crashed: ${reason === undefined ? 'it ended' : describeError(reason)}`,
          reason === undefined ? {} : { cause: reason },
        );
        await this.#end(error);
      });
    }
  }

  /**
   * Adds everything, captures last and only if all else runs: each begins its file anew, and a start
   * that fails is to leave what a former run has captured.
   */
  async #addAll(actions: readonly Action[]): Promise<ApplyReport['failed']> {
    const { failed } = await this.#perform(actions.filter(({ part }) => !isCapture(part)));
    if (failed.length > 0) return failed;
    return (await this.#perform(actions.filter(({ part }) => isCapture(part)))).failed;
  }

  async #perform(actions: readonly Action[]): Promise<ApplyReport> {
    const done: string[] = [];
    const failed = new Map<Action, string>();
    const missing = new Map<string, string>();
    const attempt = async (action: Action): Promise<void> => {
      const { verb, part } = action;
      try {
        const need = needs(part).find((key) => missing.has(key));
        if (verb === 'add' && need !== undefined)
          throw new SluiceError('state', `it needs ${missing.get(need)}`);
        await this.#performOne(action);
        failed.delete(action);
        done.push(actionTitle(action));
      } catch (error) {
        if (verb === 'add') missing.set(partKey(part), partTitle(part));
        failed.set(action, describeError(error));
      }
    };
    for (const action of actions.filter(({ verb }) => verb !== 'add')) await attempt(action);
    // Virtual functions may wait for what others give up, and two for each other.
    const stuck = (): Action[] => [...failed.keys()].filter(({ verb }) => verb === 'change');
    for (const action of stuck()) await attempt(action);
    if (stuck().length > 1) {
      const keys = new Set(stuck().map(({ part }) => partKey(part)));
      const before = this.#running.filter((part) => keys.has(partKey(part)));
      for (const part of before) await this.#set(released(part));
      for (const action of stuck()) await attempt(action);
      const left = new Set(stuck().map(({ part }) => partKey(part)));
      for (const part of before) if (left.has(partKey(part))) await this.#set(part);
    }
    for (const action of actions.filter(({ verb }) => verb === 'add')) await attempt(action);
    return {
      done,
      failed: [...failed].map(([action, error]) => ({ action: actionTitle(action), error })),
    };
  }

  /** Changes a part on the way to what is wanted, which the next reload looks at if it fails. */
  async #set(part: Part): Promise<void> {
    try {
      await this.#performOne({ verb: 'change', part });
    } catch (error) {
      this.log.warn(`change ${partTitle(part)}: ${describeError(error)}`);
    }
  }

  async #performOne({ verb, part }: Action): Promise<void> {
    const lane = this.#lanes[part.lane];
    if (lane === undefined) throw new SluiceError('state', `no lane ${part.lane}`);
    if (verb === 'remove') {
      const key = partKey(part);
      for (const port of this.#portsOf.get(key) ?? []) this.#captures.end(port);
      await this.#parts.remove(lane, part);
      this.#running = this.#running.filter((other) => partKey(other) !== key);
      for (const port of this.#portsOf.get(key) ?? []) this.#counters.delete(port);
      this.#portsOf.delete(key);
      return;
    }
    if (verb === 'change') {
      await this.#parts.change(lane, part);
      const key = partKey(part);
      this.#running = this.#running.map((other) => (partKey(other) === key ? part : other));
      return;
    }
    const counters = await this.#parts.add(lane, part);
    this.#running.push(part);
    this.#portsOf.set(
      partKey(part),
      counters.map(({ port }) => port),
    );
    for (const { port, shared } of counters) this.#counters.set(port, newPortCounters(shared));
  }
}
