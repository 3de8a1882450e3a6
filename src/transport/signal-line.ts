/** How a guest is called: the line owns its descriptor. */
import { closeFd, setNonBlocking, signalEventFd, signalKind } from '../os/fd.ts';
import { isUnnamedSocket } from '../os/unix-socket.ts';
import type { Interrupt } from '../ring/device-queue.ts';
import { protocolError } from './protocol-error.ts';

/**
 * Other kinds would let a peer hold the lane up, keep it awake, or keep its own connection alive after
 * its end.
 */
export function refuseKind(use: string, kinds: string): never {
  throw protocolError(`a ${use} descriptor that is no ${kinds}`);
}

/** Calls a driver, or tells it of an error: 8 bytes into an eventfd, a pipe or a socket. */
export class SignalLine implements Interrupt {
  readonly #onSignal: () => void;
  #fd = -1;

  /** `onSignal` is told of each signal that somebody listens to. */
  constructor(onSignal: () => void = () => undefined) {
    this.#onSignal = onSignal;
  }

  /** Signals through a descriptor from now on, which is the line's; -1: nobody listens. */
  attach(fd: number): void {
    this.clear();
    if (fd === -1) return;
    try {
      // User-Mode Linux passes one of a pair of sockets.
      if (signalKind(fd) === 'other' && !isUnnamedSocket(fd))
        refuseKind('call or error', 'eventfd, pipe or socket pair');
      // A full pipe must not hold the lane up: its reader has enough to wake up from.
      setNonBlocking(fd);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    this.#fd = fd;
  }

  /** Somebody listens. */
  get isAttached(): boolean {
    return this.#fd !== -1;
  }

  signal(): void {
    if (this.#fd === -1) return;
    signalEventFd(this.#fd);
    this.#onSignal();
  }

  clear(): void {
    const fd = this.#fd;
    this.#fd = -1;
    if (fd !== -1) closeFd(fd);
  }
}
