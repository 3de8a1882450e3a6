/**
 * What passes between the main thread and a lane.
 *
 * A lane inside epoll_wait runs no event loop, so it cannot be told anything by an event: the main
 * thread posts a message to the lane's port and writes its eventfd, which stands in the lane's
 * epoll set; the lane then takes all messages out of the port synchronously. The other way there
 * is nothing special: the main thread has an event loop.
 */
import type { MessagePort } from 'node:worker_threads';
import { type ErrorCode, SluiceError } from '../base/errors.ts';
import type { LogFields, LogLevel } from '../base/log.ts';
import type { ArenaHandle } from '../memory/arena.ts';

/** The commands of a lane: what each takes and gives. All of it can be posted. */
export type CommandMap = {
  readonly [name: string]: { readonly args: unknown; readonly reply: unknown };
};

export type ToLane =
  | { readonly kind: 'command'; readonly id: number; readonly name: string; readonly args: unknown }
  | { readonly kind: 'sample'; readonly id: number }
  | { readonly kind: 'stop' };

export type FromLane =
  | { readonly kind: 'ready'; readonly tid: number }
  | { readonly kind: 'reply'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly error: PostedError }
  | { readonly kind: 'event'; readonly event: unknown }
  | {
      readonly kind: 'log';
      readonly level: LogLevel;
      readonly message: string;
      readonly fields: LogFields;
    }
  | { readonly kind: 'crashed'; readonly error: PostedError };

/** What a worker is started with. */
export interface LaneWorkerData {
  readonly index: number;
  readonly arena: ArenaHandle;
  readonly port: MessagePort;
  /** The eventfd that wakes the lane. */
  readonly wakeFd: number;
  readonly counters: SharedArrayBuffer;
  /** Processors to run on; undefined leaves the choice to the kernel. */
  readonly cpus: readonly number[] | undefined;
  /** See PollLoopOptions. */
  readonly idlePollUs: number | undefined;
  /** For the lane's program; the engine does not look at it. */
  readonly settings: unknown;
}

/** An error on its way to another thread: structured clone would lose its class and its code. */
export interface PostedError {
  readonly code: ErrorCode | undefined;
  readonly message: string;
  readonly remedy: string | undefined;
  readonly stack: string | undefined;
}

export function postedError(error: unknown): PostedError {
  const sluice = error instanceof SluiceError ? error : undefined;
  return {
    code: sluice?.code,
    message: error instanceof Error ? error.message : String(error),
    remedy: sluice?.remedy,
    stack: error instanceof Error ? error.stack : undefined,
  };
}

/** The error again, in the thread that asked; an unexpected one keeps the lane's stack as its cause. */
export function receivedError(posted: PostedError): Error {
  const cause = posted.stack === undefined ? {} : { cause: posted.stack };
  if (posted.code === undefined) return new Error(posted.message, cause);
  return new SluiceError(posted.code, posted.message, {
    ...cause,
    ...(posted.remedy === undefined ? {} : { remedy: posted.remedy }),
  });
}
