/**
 * A device's socket: waits for a front-end, or connects to one and comes back to it, and runs one
 * session at a time. All of it happens in the loop of the lane that owns the device.
 */
import { describeError } from '../../base/errors.ts';
import { EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '../../os/epoll.ts';
import type { Timer } from '../../os/poll-loop.ts';
import {
  connectUnix,
  isNobodyListening,
  type SocketAccess,
  type UnixConnection,
  UnixListener,
} from '../../os/unix-socket.ts';
import { SocketChannel } from '../channel.ts';
import { type SessionDescription, type SessionOptions, VhostUserSession } from './session.ts';

export interface ServerOptions extends SessionOptions {
  readonly path: string;
  /** `listen` (default): the front-end connects. `connect`: it listens. */
  readonly role?: 'listen' | 'connect';
  /** Who may connect to a listening socket. */
  readonly access?: SocketAccess;
  /** First and longest pause between attempts to connect, in milliseconds; each doubles the last. */
  readonly reconnectMs?: { readonly first: number; readonly longest: number };
  /** A front-end has come or gone. */
  readonly onConnection?: (connected: boolean) => void;
}

export const DEFAULT_RECONNECT_MS = { first: 100, longest: 5000 } as const;

export class VhostUserServer {
  readonly path: string;
  /** Sessions since the start. */
  connections = 0;
  readonly #options: ServerOptions;
  readonly #pauses: { readonly first: number; readonly longest: number };
  #listener: UnixListener | undefined;
  #session: VhostUserSession | undefined;
  #socket: UnixConnection | undefined;
  #waitsForOutput = false;
  #timer: Timer | undefined;
  #pauseMs: number;
  #complaint = '';
  #closed = false;

  /**
   * Listens at once, or begins to connect.
   * @throws SluiceError if the socket cannot be made: in use, path too long, not permitted …
   */
  constructor(options: ServerOptions) {
    this.path = options.path;
    this.#options = options;
    this.#pauses = options.reconnectMs ?? DEFAULT_RECONNECT_MS;
    this.#pauseMs = this.#pauses.first;
    if (options.role === 'connect') this.#connect();
    else this.#listen();
  }

  get connected(): boolean {
    return this.#session !== undefined;
  }

  /** The present connection, or undefined. */
  describe(): SessionDescription | undefined {
    return this.#session?.describe();
  }

  /** Ends the connection and gives the socket back. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer?.cancel();
    const listener = this.#listener;
    if (listener !== undefined) {
      this.#options.loop.epoll.remove(listener.fd);
      listener.close();
    }
    this.#end();
  }

  #listen(): void {
    const { loop, path, access } = this.#options;
    const listener = new UnixListener(path, access);
    this.#listener = listener;
    loop.epoll.add(listener.fd, EPOLLIN, () => {
      try {
        for (let c = listener.accept(); c !== undefined; c = listener.accept()) this.#accept(c);
      } catch (error) {
        this.#options.log.error(`accepting on ${path}: ${describeError(error)}`);
      }
    });
  }

  #accept(connection: UnixConnection): void {
    // The former front-end may have gone without our having looked yet.
    if (this.#session !== undefined) this.#readable();
    if (this.#session !== undefined) {
      this.#options.log.warn(`${this.path} is already connected: a second front-end is refused`);
      connection.close();
      return;
    }
    this.#begin(connection);
  }

  #connect(): void {
    const { log, path } = this.#options;
    try {
      this.#begin(connectUnix(path));
      this.#pauseMs = this.#pauses.first;
      this.#complaint = '';
    } catch (error) {
      // Said once, not at each attempt.
      const complaint = describeError(error);
      if (complaint !== this.#complaint) {
        if (isNobodyListening(error)) log.info(`${complaint}: waiting for the front-end`);
        else log.warn(`${complaint}: trying again`);
      }
      this.#complaint = complaint;
      this.#connectLater();
    }
  }

  #connectLater(): void {
    const { loop } = this.#options;
    this.#timer = loop.setTimer(this.#pauseMs * 1000, () => this.#connect());
    this.#pauseMs = Math.min(this.#pauseMs * 2, this.#pauses.longest);
  }

  #begin(connection: UnixConnection): void {
    const { loop, log, onConnection } = this.#options;
    this.#socket = connection;
    this.#session = new VhostUserSession(new SocketChannel(connection), this.#options);
    this.#waitsForOutput = false;
    this.connections++;
    loop.epoll.add(connection.fd, EPOLLIN | EPOLLRDHUP, () => this.#readable());
    log.info(`a front-end is connected to ${this.path}`);
    onConnection?.(true);
  }

  #readable(): void {
    const session = this.#session;
    const socket = this.#socket;
    if (session === undefined || socket === undefined) return;
    const alive = session.flush() && session.readable();
    if (!alive) {
      this.#end();
      if (!this.#closed && this.#options.role === 'connect') this.#connectLater();
      return;
    }
    if (session.blocked === this.#waitsForOutput) return;
    this.#waitsForOutput = session.blocked;
    const output = session.blocked ? EPOLLOUT : 0;
    this.#options.loop.epoll.modify(socket.fd, EPOLLIN | EPOLLRDHUP | output);
  }

  #end(): void {
    const session = this.#session;
    const socket = this.#socket;
    if (session === undefined || socket === undefined) return;
    const { loop, log, onConnection } = this.#options;
    this.#session = undefined;
    this.#socket = undefined;
    loop.epoll.remove(socket.fd);
    session.close();
    log.info(`the front-end of ${this.path} has gone`);
    onConnection?.(false);
  }
}
