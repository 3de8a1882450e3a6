/**
 * A lane, seen from inside: a worker thread that runs one poll loop and what a factory puts into
 * it. The engine knows neither devices nor methods.
 */
import { readlinkSync } from 'node:fs';
import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import { describeError, SluiceError } from '../base/errors.ts';
import { type Logger, loggerTo } from '../base/log.ts';
import { Arena } from '../memory/arena.ts';
import { pinThread } from '../os/affinity.ts';
import { EPOLLET, EPOLLIN } from '../os/epoll.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { GuardedPoller } from './guard.ts';
import { LaneCounterWriter } from './lane-counters.ts';
import {
  type CommandMap,
  type FromLane,
  type LaneWorkerData,
  postedError,
  type ToLane,
} from './lane-protocol.ts';
import { Later } from './later.ts';

/** What a lane gives to the program that runs in it. */
export interface LaneHost<Event> {
  readonly index: number;
  readonly loop: PollLoop;
  readonly arena: Arena;
  /** Ends in the main thread's log. */
  readonly log: Logger;
  /** What the daemon passed for the program when it started the lane. */
  readonly settings: unknown;
  /** Tells the main thread something that it did not ask for. */
  emit(event: Event): void;
  /** A poller whose failure ends it alone: counted, logged, then `onFailure`. */
  guard(
    name: string,
    poller: Parameters<PollLoop['addPoller']>[0],
    onFailure: (error: unknown) => void,
  ): GuardedPoller;
}

/** What runs in a lane: one function a command, each with a reply or an error, at once or later. */
export interface LaneProgram<Commands extends CommandMap> {
  readonly commands: {
    readonly [Name in keyof Commands]: (
      args: Commands[Name]['args'],
    ) => Commands[Name]['reply'] | Later<Commands[Name]['reply']>;
  };
  /** Gives everything back: sockets, rings, memory. */
  close(): void;
}

/**
 * Runs the lane of this worker until it is told to stop. To be called once, as the last thing that
 * the worker's entry module does.
 */
export function runLane<Commands extends CommandMap, Event>(
  factory: (host: LaneHost<Event>) => LaneProgram<Commands>,
): void {
  const data = workerData as LaneWorkerData;
  const post = (message: FromLane): void => data.port.postMessage(message);
  try {
    if (data.cpus !== undefined) pin(data.index, data.cpus);
    const loop = new PollLoop(data.idlePollUs === undefined ? {} : { idlePollUs: data.idlePollUs });
    const counters = new LaneCounterWriter(loop, data.counters);
    loop.addPoller(counters);
    const log = loggerTo(
      (level, message, fields) => post({ kind: 'log', level, message, fields }),
      {
        lane: data.index,
      },
    );
    const program = factory({
      index: data.index,
      loop,
      arena: Arena.attach(data.arena),
      log,
      settings: data.settings,
      emit: (event) => post({ kind: 'event', event }),
      guard: (name, poller, onFailure) =>
        new GuardedPoller(poller, (error) => {
          counters.countFailure();
          const { message, stack } = postedError(error);
          log.error('device stopped: its code failed', {
            device: name,
            error: message,
            stack: stack ?? null,
          });
          onFailure(error);
        }),
    });
    const takeMessages = (): void => {
      for (;;) {
        const next = receiveMessageOnPort(data.port) as { readonly message: ToLane } | undefined;
        if (next === undefined) return;
        const { message } = next;
        if (message.kind === 'stop') loop.stop();
        else answer(program, counters, message, post);
      }
    };
    // Edge-triggered: every write of the main thread is an event of its own, so nothing is read.
    loop.epoll.add(data.wakeFd, EPOLLIN | EPOLLET, takeMessages);
    post({ kind: 'ready', tid: threadId() });
    try {
      loop.run();
    } finally {
      program.close();
      loop.close();
    }
  } catch (error) {
    post({ kind: 'crashed', error: postedError(error) });
  } finally {
    data.port.close();
  }
}

function pin(index: number, cpus: readonly number[]): void {
  try {
    pinThread(cpus);
  } catch (error) {
    throw new SluiceError(
      'config',
      `lane ${index} cannot run on processors ${cpus.join(', ')}: ${describeError(error)}`,
      {
        cause: error,
        remedy: 'name processors that are there and that this process may use (key lanes, cpus)',
      },
    );
  }
}

function answer<Commands extends CommandMap>(
  program: LaneProgram<Commands>,
  counters: LaneCounterWriter,
  message: Exclude<ToLane, { kind: 'stop' }>,
  post: (message: FromLane) => void,
): void {
  const { id } = message;
  if (message.kind === 'sample') {
    counters.sample();
    post({ kind: 'reply', id, value: undefined });
    return;
  }
  const { name, args } = message;
  const reply = (value: unknown): void => post({ kind: 'reply', id, value });
  const fail = (error: unknown): void => post({ kind: 'failed', id, error: postedError(error) });
  try {
    const command = program.commands[name];
    if (command === undefined) throw new SluiceError('unsupported', `no lane command ${name}`);
    const value = command(args);
    if (value instanceof Later) value.whenSettled(reply, fail);
    else reply(value);
  } catch (error) {
    fail(error);
  }
}

/** The kernel's id of this thread: the link reads PID/task/TID (proc(5)). */
function threadId(): number {
  return Number(readlinkSync('/proc/thread-self').split('/').at(-1));
}
