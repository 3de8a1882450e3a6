/**
 * A device's socket: waits for a peer, or connects to one and comes back to it, and runs one session
 * at a time. All of it happens in the loop of the lane that owns the device.
 */
import { describeError } from '../base/errors.ts';
import { limitedLogger } from '../base/limited-logger.ts';
import type { Logger } from '../base/log.ts';
import { EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '../os/epoll.ts';
import type { PollLoop, Timer } from '../os/poll-loop.ts';
import {
  connectUnix,
  isNobodyListening,
  type SocketAccess,
  type UnixConnection,
  UnixListener,
} from '../os/unix-socket.ts';
import { type ByteChannel, SocketChannel } from './channel.ts';

/** The protocol on one connection, as its server sees it. */
export interface Session {
  /** Nothing more is to be read until `onReady`. */
  readonly waiting: boolean;
  /** Something waits for the peer to read: {@link flush} goes on with it. */
  readonly blocked: boolean;
  /** Handles messages that have come. False: the connection is over, and is to be closed. */
  readable(): boolean;
  /** Goes on with what was not taken. False: the connection is over. */
  flush(): boolean;
  /** Closes the channel; `onClosed` is called when nothing is in flight any more, maybe at once. */
  close(onClosed?: () => void): void;
}

/** What a session gets from its server. */
export interface SessionWiring {
  readonly log: Logger;
  /** A message that waited can go on. */
  readonly onReady: () => void;
}

export interface SocketServerOptions {
  readonly loop: PollLoop;
  readonly log: Logger;
  readonly path: string;
  /** `listen` (default): the peer connects. `connect`: it listens. */
  readonly role?: 'listen' | 'connect';
  /** Who may connect to a listening socket. */
  readonly access?: SocketAccess;
  /** First and longest pause between attempts to connect, in milliseconds; each doubles the last. */
  readonly reconnectMs?: { readonly first: number; readonly longest: number };
  /** A peer has come or gone. */
  readonly onConnection?: (connected: boolean) => void;
}

export const DEFAULT_RECONNECT_MS = { first: 100, longest: 5000 } as const;

/** How long nobody is accepted after an attempt that failed. */
const ACCEPT_PAUSE_US = 1_000_000;

/** Records that a peer can cause in a second. */
const LOG_LINES = 20;

const GONE = EPOLLRDHUP | EPOLLHUP;

export class SessionServer<S extends Session> {
  readonly path: string;
  /** Sessions since the start. */
  connections = 0;
  readonly #options: SocketServerOptions;
  readonly #peer: string;
  readonly #open: (channel: ByteChannel, wiring: SessionWiring) => S;
  readonly #log: Logger;
  readonly #pauses: { readonly first: number; readonly longest: number };
  #listener: UnixListener | undefined;
  #session: S | undefined;
  #socket: UnixConnection | undefined;
  /** What the loop waits for on the socket. */
  #events = 0;
  /** A former session's requests are in flight still: the next one must wait. */
  #draining = false;
  /** A peer that has connected meanwhile. */
  #next: UnixConnection | undefined;
  #timer: Timer | undefined;
  #pauseMs: number;
  #complaint = '';
  #closed = false;
  /** Told when the last session's requests are done, after the server was closed. */
  readonly #onFree: (() => void)[] = [];

  /**
   * Listens at once, or begins to connect. `peer` is what the log calls the other side, such as
   * `front-end`; `open` makes the session of a connection.
   * @throws SluiceError if the socket cannot be made: in use, path too long, not permitted …
   */
  constructor(
    options: SocketServerOptions,
    peer: string,
    open: (channel: ByteChannel, wiring: SessionWiring) => S,
  ) {
    this.path = options.path;
    this.#options = options;
    this.#peer = peer;
    this.#open = open;
    this.#log = limitedLogger(options.log, () => options.loop.now, LOG_LINES);
    this.#pauses = options.reconnectMs ?? DEFAULT_RECONNECT_MS;
    this.#pauseMs = this.#pauses.first;
    if (options.role === 'connect') this.#connect();
    else this.#listen();
  }

  get connected(): boolean {
    return this.#session !== undefined;
  }

  /** The session of the present connection, or undefined. */
  get session(): S | undefined {
    return this.#session;
  }

  /**
   * Ends the connection and gives the socket back. The device is still in use until its requests in
   * flight are done: `onClosed` is called then, which may be at once. Until then it must be polled.
   */
  close(onClosed: () => void = () => undefined): void {
    if (this.#closed) {
      if (this.#draining) this.#onFree.push(onClosed);
      else onClosed();
      return;
    }
    this.#closed = true;
    this.#timer?.cancel();
    this.#next?.close();
    this.#next = undefined;
    const listener = this.#listener;
    if (listener !== undefined) {
      this.#options.loop.epoll.remove(listener.fd);
      listener.close();
      this.#listener = undefined;
    }
    this.#end();
    if (this.#draining) this.#onFree.push(onClosed);
    else onClosed();
  }

  #listen(): void {
    const { loop, path, access } = this.#options;
    const listener = new UnixListener(path, access);
    this.#listener = listener;
    loop.epoll.add(listener.fd, EPOLLIN, () => {
      try {
        while (!this.#draining) {
          const connection = listener.accept();
          if (connection === undefined) return;
          this.#accept(connection);
        }
      } catch (error) {
        // Descriptors have run out, most likely: whoever waits is still there in a while.
        this.#log.error(`accepting on ${path}: ${describeError(error)}`);
        loop.epoll.modify(listener.fd, 0);
        this.#timer = loop.setTimer(ACCEPT_PAUSE_US, () => this.#listenAgain());
      }
    });
  }

  #listenAgain(): void {
    const listener = this.#listener;
    if (listener === undefined || this.#draining) return;
    this.#options.loop.epoll.modify(listener.fd, EPOLLIN);
  }

  #accept(connection: UnixConnection): void {
    // The former peer may have gone without our having looked yet.
    if (this.#session !== undefined) this.#readable();
    if (this.#session !== undefined) {
      this.#log.warn(`${this.path} is already connected: a second ${this.#peer} is refused`);
      connection.close();
      return;
    }
    if (this.#draining) this.#next = connection;
    else this.#begin(connection);
  }

  #connect(): void {
    const { path } = this.#options;
    try {
      this.#begin(connectUnix(path));
      this.#pauseMs = this.#pauses.first;
      this.#complaint = '';
    } catch (error) {
      // Said once, not at each attempt.
      const complaint = describeError(error);
      if (complaint !== this.#complaint) {
        if (isNobodyListening(error)) this.#log.info(`${complaint}: waiting for the ${this.#peer}`);
        else this.#log.warn(`${complaint}: trying again`);
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
    const { loop, onConnection } = this.#options;
    this.#socket = connection;
    this.#session = this.#open(new SocketChannel(connection), {
      log: this.#log,
      onReady: () => this.#readable(),
    });
    this.connections++;
    this.#events = EPOLLIN | EPOLLRDHUP;
    loop.epoll.add(connection.fd, this.#events, (events) => this.#readable(events));
    this.#log.info(`a ${this.#peer} is connected to ${this.path}`);
    onConnection?.(true);
  }

  #readable(events = 0): void {
    const session = this.#session;
    const socket = this.#socket;
    if (session === undefined || socket === undefined) return;
    // While a message waits nothing is read: that the peer has gone is then seen here alone.
    const gone = session.waiting && (events & GONE) !== 0;
    if (gone || !session.flush() || !session.readable()) {
      this.#end();
      return;
    }
    const wanted = EPOLLRDHUP | (session.waiting ? 0 : EPOLLIN) | (session.blocked ? EPOLLOUT : 0);
    if (wanted === this.#events) return;
    this.#events = wanted;
    this.#options.loop.epoll.modify(socket.fd, wanted);
  }

  #end(): void {
    const session = this.#session;
    const socket = this.#socket;
    if (session === undefined || socket === undefined) return;
    const { loop, onConnection } = this.#options;
    this.#session = undefined;
    this.#socket = undefined;
    loop.epoll.remove(socket.fd);
    this.#draining = true;
    let atOnce = true;
    session.close(() => {
      this.#draining = false;
      if (!atOnce) this.#onDrained();
    });
    atOnce = false;
    this.#log.info(`the ${this.#peer} of ${this.path} has gone`);
    if (this.#draining) this.#pauseListening();
    onConnection?.(false);
    if (!this.#draining) this.#comeBack();
  }

  /** Nothing is in flight any more that the last peer had asked for. */
  #onDrained(): void {
    for (const tell of this.#onFree.splice(0)) tell();
    if (this.#closed) return;
    this.#listenAgain();
    const next = this.#next;
    this.#next = undefined;
    if (next !== undefined) this.#begin(next);
    else this.#comeBack();
  }

  #comeBack(): void {
    if (!this.#closed && this.#options.role === 'connect') this.#connectLater();
  }

  /** Whoever connects meanwhile waits in the socket's queue. */
  #pauseListening(): void {
    const listener = this.#listener;
    if (listener !== undefined) this.#options.loop.epoll.modify(listener.fd, 0);
  }
}
