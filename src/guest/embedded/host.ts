/** The guests of one process, and what the launcher can ask of them. */
import { getHeapStatistics } from 'node:v8';
import { SluiceError } from '../../base/errors.ts';
import type { Arena } from '../../memory/arena.ts';
import { monotonicNs } from '../../os/clock.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import type { Connect } from './frontend.ts';
import { EmbeddedGuest } from './guest.ts';
import {
  type Message,
  type ProcessReading,
  type Request,
  type RequestName,
  type Requests,
  sentError,
} from './protocol.ts';

/** How often a stop looks whether it is done. */
const DRAIN_LOOK_US = 1000;

export class GuestHost {
  readonly #arena: Arena;
  readonly #loop: PollLoop;
  readonly #connect: Connect;
  readonly #send: (message: Message) => void;
  readonly #guests = new Map<string, EmbeddedGuest>();

  constructor(arena: Arena, loop: PollLoop, connect: Connect, send: (message: Message) => void) {
    this.#arena = arena;
    this.#loop = loop;
    this.#connect = connect;
    this.#send = send;
  }

  /** Does what a request asks for and sends the reply, now or (stop) later. */
  handle(request: Request): void {
    const { id } = request;
    try {
      if (request.name === 'stop') this.#stop(id, request.args.timeoutMs);
      else this.#reply(id, this.#answer(request));
    } catch (error) {
      this.#send({ kind: 'failed', id, error: sentError(error) });
    }
  }

  close(): void {
    for (const guest of this.#guests.values()) guest.close();
    this.#guests.clear();
  }

  #answer(request: Exclude<Request, { name: 'stop' }>): Requests[RequestName]['reply'] {
    switch (request.name) {
      case 'attach': {
        const { name } = request.args;
        if (this.#guests.has(name)) throw new SluiceError('state', `two guests named ${name}`);
        const onLost = (reason: string): void => this.#send({ kind: 'lost', guest: name, reason });
        const guest = new EmbeddedGuest(
          request.args,
          this.#arena,
          this.#loop,
          this.#connect,
          onLost,
        );
        this.#guests.set(name, guest);
        return guest.info;
      }
      case 'detach': {
        const { guest } = request.args;
        this.#find(guest).close();
        this.#guests.delete(guest);
        return null;
      }
      case 'start': {
        // Nobody is polled before all have their roles.
        const roles = Object.entries(request.args.roles);
        for (const [name] of roles) this.#find(name);
        for (const [name, specs] of roles) this.#find(name).start(specs);
        return null;
      }
      case 'read':
        return this.#read();
    }
  }

  #stop(id: number, timeoutMs: number): void {
    for (const guest of this.#guests.values()) guest.stop();
    const deadline = monotonicNs() + timeoutMs * 1e6;
    const look = (): void => {
      const drained = [...this.#guests.values()].every((guest) => guest.drained);
      if (drained || monotonicNs() > deadline) this.#reply(id, { drained });
      else this.#loop.setTimer(DRAIN_LOOK_US, look);
    };
    this.#loop.setTimer(0, look);
  }

  #read(): ProcessReading {
    const cpu = process.threadCpuUsage();
    return {
      nowNs: monotonicNs(),
      cpuUs: cpu.user + cpu.system,
      heapBytes: getHeapStatistics().total_allocated_bytes,
      turns: this.#loop.turns,
      busyTurns: this.#loop.busyTurns,
      sleeps: this.#loop.sleeps,
      guests: Object.fromEntries(
        [...this.#guests].map(([name, guest]) => [name, guest.read()] as const),
      ),
    };
  }

  #find(name: string): EmbeddedGuest {
    const guest = this.#guests.get(name);
    if (guest === undefined) throw new SluiceError('not-found', `no guest named ${name}`);
    return guest;
  }

  #reply(id: number, value: unknown): void {
    this.#send({ kind: 'reply', id, value });
  }
}
