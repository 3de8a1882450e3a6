/** A lane, seen from the main thread: starts its worker, sends it commands, hears its end. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { CounterBlock } from '../base/counters.ts';
import { SluiceError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { ArenaHandle } from '../memory/arena.ts';
import { closeFd, createEventFd, signalEventFd } from '../os/fd.ts';
import { type ThreadSchedule, threadSchedule } from '../os/schedule.ts';
import { LANE_COUNTERS, type LaneCounter } from './lane-counters.ts';
import {
  type CommandMap,
  type FromLane,
  type LaneWorkerData,
  receivedError,
  type ToLane,
} from './lane-protocol.ts';

export interface LaneOptions<Event> {
  readonly index: number;
  /** This lane's part of the process's address space (`Arena.split`). */
  readonly arena: ArenaHandle;
  /** The worker's module, which calls `runLane`. */
  readonly entry: URL;
  /** Processors to run on. Default: the kernel's choice. */
  readonly cpus?: readonly number[];
  /** How long the lane polls without work before it sleeps, in microseconds. */
  readonly idlePollUs?: number;
  /** Passed to the lane's program; anything that can be posted. */
  readonly settings?: unknown;
  readonly log: Logger;
  readonly onEvent?: (event: Event) => void;
}

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class LaneHandle<Commands extends CommandMap, Event> {
  readonly index: number;
  readonly counters = new CounterBlock<LaneCounter>(LANE_COUNTERS);
  /** Settles when the lane has ended: undefined if it was told to, else the reason. */
  readonly ended: Promise<Error | undefined>;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #wakeFd: number;
  readonly #log: Logger;
  readonly #onEvent: ((event: Event) => void) | undefined;
  readonly #pending = new Map<number, Pending>();
  readonly #ready = Promise.withResolvers<void>();
  readonly #stopAtExit = (): void => this.#send({ kind: 'stop' });
  #nextId = 1;
  #tid = 0;
  #crash: Error | undefined;
  #isOver = false;

  private constructor(options: LaneOptions<Event>) {
    this.index = options.index;
    this.#log = options.log;
    this.#onEvent = options.onEvent;
    this.#wakeFd = createEventFd();
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const data: LaneWorkerData = {
      index: options.index,
      arena: options.arena,
      port: port2,
      wakeFd: this.#wakeFd,
      counters: this.counters.shared,
      cpus: options.cpus,
      idlePollUs: options.idlePollUs,
      settings: options.settings,
    };
    port1.on('message', (message: FromLane) => this.#hear(message));
    this.#worker = new Worker(options.entry, {
      workerData: data,
      transferList: [port2],
      name: `lane-${options.index}`,
      // Descriptors are opened by Node.js and closed by os/, or the other way round. Node.js, which
      // sees half of that, would close numbers at the worker's end that are others' by then.
      trackUnmanagedFds: false,
    });
    this.#worker.once('error', (error) => {
      this.#crash ??= error instanceof Error ? error : new Error(String(error));
    });
    const exited = new Promise((resolve) => this.#worker.once('exit', resolve));
    // The worker's last messages, its reason to end among them, come before the port's end.
    const drained = new Promise((resolve) => port1.once('close', () => resolve(undefined)));
    this.ended = Promise.all([exited, drained]).then(() => this.#end());
    // A worker asleep in epoll_wait hears no termination: without this the process would not end.
    process.once('exit', this.#stopAtExit);
  }

  /** Starts the worker; settles when it polls. @throws what the lane's factory throws. */
  static async start<Commands extends CommandMap, Event>(
    options: LaneOptions<Event>,
  ): Promise<LaneHandle<Commands, Event>> {
    const lane = new LaneHandle<Commands, Event>(options);
    await lane.#ready.promise;
    return lane;
  }

  /** Has the lane do something; settles with its reply. @throws what the command throws there. */
  request<Name extends keyof Commands & string>(
    name: Name,
    args: Commands[Name]['args'],
  ): Promise<Commands[Name]['reply']> {
    return this.#ask((id) => ({ kind: 'command', id, name, args }));
  }

  /** Has the lane write its counters exactly, the heap's included. */
  async sample(): Promise<void> {
    await this.#ask((id) => ({ kind: 'sample', id }));
  }

  /** Ends the lane; settles when its thread has ended. */
  async stop(): Promise<void> {
    this.#send({ kind: 'stop' });
    await this.ended;
  }

  /** Processor time of the lane's thread so far, and the time that it waited for one. */
  schedule(): ThreadSchedule {
    if (this.#isOver) throw new SluiceError('state', `lane ${this.index} has ended`);
    return threadSchedule(process.pid, this.#tid);
  }

  /** The kernel's id of the lane's thread. */
  get tid(): number {
    return this.#tid;
  }

  async #ask(message: (id: number) => ToLane): Promise<unknown> {
    if (this.#isOver) throw this.#gone();
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#pending.set(id, { resolve, reject });
    this.#send(message(id));
    return await promise;
  }

  #send(message: ToLane): void {
    if (this.#isOver) return;
    this.#port.postMessage(message);
    signalEventFd(this.#wakeFd);
  }

  #hear(message: FromLane): void {
    switch (message.kind) {
      case 'ready':
        this.#tid = message.tid;
        this.#ready.resolve();
        break;
      case 'reply':
        this.#take(message.id)?.resolve(message.value);
        break;
      case 'failed':
        this.#take(message.id)?.reject(receivedError(message.error));
        break;
      case 'event':
        this.#onEvent?.(message.event as Event);
        break;
      case 'log':
        this.#log[message.level](message.message, message.fields);
        break;
      case 'crashed':
        this.#crash ??= receivedError(message.error);
        break;
    }
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #end(): Error | undefined {
    this.#isOver = true;
    process.removeListener('exit', this.#stopAtExit);
    closeFd(this.#wakeFd);
    const gone = this.#gone();
    this.#ready.reject(this.#crash ?? gone);
    for (const { reject } of this.#pending.values()) reject(gone);
    this.#pending.clear();
    return this.#crash;
  }

  #gone(): SluiceError {
    const why = this.#crash === undefined ? '' : `: ${this.#crash.message}`;
    return new SluiceError('state', `lane ${this.index} has ended${why}`, {
      ...(this.#crash === undefined ? {} : { cause: this.#crash }),
    });
  }
}
