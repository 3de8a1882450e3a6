/** The guests of one process, and what the launcher can ask of them. */
import { getHeapStatistics } from 'node:v8';
import { SluiceError } from '../../base/errors.ts';
import type { Arena } from '../../memory/arena.ts';
import { monotonicNs } from '../../os/clock.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import { EmbeddedDiskGuest } from './disk-guest.ts';
import type { Transports } from './frontend.ts';
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
  readonly #transports: Transports;
  readonly #send: (message: Message) => void;
  readonly #guests = new Map<string, EmbeddedGuest>();
  readonly #disks = new Map<string, EmbeddedDiskGuest>();

  constructor(
    arena: Arena,
    loop: PollLoop,
    transports: Transports,
    send: (message: Message) => void,
  ) {
    this.#arena = arena;
    this.#loop = loop;
    this.#transports = transports;
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
    for (const guest of this.#all()) guest.close();
    this.#guests.clear();
    this.#disks.clear();
  }

  #answer(request: Exclude<Request, { name: 'stop' }>): Requests[RequestName]['reply'] {
    switch (request.name) {
      case 'attach': {
        const guest = new EmbeddedGuest(request.args, ...this.#house(request.args.name));
        this.#guests.set(request.args.name, guest);
        return guest.info;
      }
      case 'attachDisk': {
        const guest = new EmbeddedDiskGuest(request.args, ...this.#house(request.args.name));
        this.#disks.set(request.args.name, guest);
        return guest.info;
      }
      case 'detach': {
        const { guest: name } = request.args;
        const guest = this.#guests.get(name) ?? findIn(this.#disks, name);
        guest.close();
        this.#guests.delete(name);
        this.#disks.delete(name);
        return null;
      }
      case 'start': {
        // Nobody is polled before all have their roles.
        const roles = Object.entries(request.args.roles);
        for (const [name] of roles) findIn(this.#guests, name);
        for (const [name, specs] of roles) findIn(this.#guests, name).start(specs);
        return null;
      }
      case 'startDisks': {
        const work = Object.entries(request.args.work);
        for (const [name] of work) findIn(this.#disks, name);
        for (const [name, specs] of work) findIn(this.#disks, name).start(specs);
        return null;
      }
      case 'read':
        return this.#read();
    }
  }

  #stop(id: number, timeoutMs: number): void {
    for (const guest of this.#all()) guest.stop();
    const deadline = monotonicNs() + timeoutMs * 1e6;
    const look = (): void => {
      const drained = this.#all().every((guest) => guest.drained);
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
      guests: readAll(this.#guests),
      disks: readAll(this.#disks),
    };
  }

  #all(): (EmbeddedGuest | EmbeddedDiskGuest)[] {
    return [...this.#guests.values(), ...this.#disks.values()];
  }

  /** What a new guest needs of its process. @throws SluiceError `state` if its name is in use */
  #house(name: string): [Arena, PollLoop, Transports, (reason: string) => void] {
    if (this.#guests.has(name) || this.#disks.has(name)) {
      throw new SluiceError('state', `two guests named ${name}`);
    }
    const onLost = (reason: string): void => this.#send({ kind: 'lost', guest: name, reason });
    return [this.#arena, this.#loop, this.#transports, onLost];
  }

  #reply(id: number, value: unknown): void {
    this.#send({ kind: 'reply', id, value });
  }
}

function findIn<Guest>(guests: ReadonlyMap<string, Guest>, name: string): Guest {
  const guest = guests.get(name);
  if (guest === undefined) throw new SluiceError('not-found', `no guest named ${name}`);
  return guest;
}

function readAll<Reading>(
  guests: ReadonlyMap<string, { read(): Reading }>,
): Record<string, Reading> {
  return Object.fromEntries([...guests].map(([name, guest]) => [name, guest.read()] as const));
}
