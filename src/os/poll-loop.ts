/**
 * The loop of a lane and of an embedded guest: poll rings while there is work, sleep in
 * epoll_wait while there is none. It runs no event loop of Node's.
 */
import { clock, monotonicNs, readClock, setTimerSlack } from './clock.ts';
import { Epoll } from './epoll.ts';
import { libc } from './libc.ts';

/** Something with rings in shared memory that must be looked at. */
export interface Poller {
  /** Does at most one burst of work for each ring. Returns frames or requests moved (0: idle). */
  poll(): number;
  /** Asks the other side for kicks, then looks again: true if work has come in the meantime. */
  arm(): boolean;
  /** Kicks are no longer needed: polling has begun again. */
  disarm(): void;
}

/**
 * A socket whose peer waits for every answer, as a guest does that touches a register: while it is in
 * use the loop looks at it between turns, instead of asking the kernel now and then who is ready.
 */
export interface EagerSocket {
  /** Handles what has come. True if something had. */
  look(): boolean;
}

/** A pending timer; `cancel` may be called at any time. */
export interface Timer {
  cancel(): void;
}

interface PendingTimer extends Timer {
  due: number;
  fire: (() => void) | undefined;
}

export interface PollLoopOptions {
  /**
   * How long the loop goes on polling without finding work before it asks for kicks and
   * sleeps, in microseconds. Longer saves wake-ups, shorter saves processor time.
   */
  readonly idlePollUs?: number;
}

export const DEFAULT_IDLE_POLL_US = 50;

/** While it spins, the loop reads the clock once in this many turns, */
const TURNS_PER_CLOCK = 64;
/** and looks at its descriptors when so much time has passed, in ns. */
const LOOK_NS = 100_000;
/** For so long after its last message a socket is an eager one, in ns. */
const EAGER_NS = 1_000_000;
/** A nap is shorter than a second. */
const LONGEST_NAP_NS = 999_999_999;
/** How late the kernel may end one: what it allows itself by default is longer than a short nap. */
const TIMER_SLACK_NS = 1000;
/** Stands for a time that begins when the clock is read next: a handler may run right after a sleep. */
const JUST_USED = 0;
/** With work to do, the loop looks at eager sockets once in this many turns; without, each turn. */
const BUSY_TURNS_PER_EAGER = 4;
/**
 * The loop goes on for so many times as long without work while sockets are eager: whoever touches one register
 * mostly touches another soon, and to be woken for it takes as long as several that find the loop awake.
 */
const EAGER_IDLE_POLLS = 4;
/** Whoever uses an offered processor for longer, in ns, is no client that had waited for its answer: */
const LONG_OFFER_NS = 100_000;
/** it is kept for so many times as long then. */
const OFFER_PAUSES = 8;

export class PollLoop {
  readonly epoll = new Epoll();
  /** Turns in which at least one poller found work. */
  busyTurns = 0;
  /** Turns in all. */
  turns = 0;
  /** Times the loop went to sleep. */
  sleeps = 0;
  /** The monotonic clock in ns, as the loop read it last: at most some hundred turns old. */
  now = monotonicNs();
  readonly #idlePollNs: number;
  #pollers: Poller[] = [];
  #timers: PendingTimer[] = [];
  readonly #eager: EagerSocket[] = [];
  /** Until when each of them is one. */
  readonly #eagerUntil: number[] = [];
  /** The longest sleep that pollers allow, in ns. */
  readonly #nap = new Float64Array(1);
  /** From when on the processor may be offered to others. */
  #offerFrom = 0;
  #stopped = false;

  constructor(options: PollLoopOptions = {}) {
    this.#idlePollNs = (options.idlePollUs ?? DEFAULT_IDLE_POLL_US) * 1000;
  }

  /** Adds a poller; it is polled from the next turn on. */
  addPoller(poller: Poller): void {
    this.#pollers = [...this.#pollers, poller];
  }

  removePoller(poller: Poller): void {
    this.#pollers = this.#pollers.filter((other) => other !== poller);
  }

  /**
   * A message has come on this socket: it is looked at between turns for a while. It stays in
   * {@link epoll} too, which wakes the loop from its sleep.
   */
  hasten(socket: EagerSocket): void {
    const index = this.#eager.indexOf(socket);
    if (index !== -1) this.#eagerUntil[index] = JUST_USED;
    else {
      this.#eager.push(socket);
      this.#eagerUntil.push(JUST_USED);
    }
  }

  /** Looks at it no more; may be called for any socket, at any time. */
  rest(socket: EagerSocket): void {
    const index = this.#eager.indexOf(socket);
    if (index !== -1) this.#dropEager(index);
  }

  /** Calls `fire` once, `delayUs` microseconds from now or as soon after as the loop comes round. */
  setTimer(delayUs: number, fire: () => void): Timer {
    const timer: PendingTimer = {
      due: monotonicNs() + delayUs * 1000,
      fire,
      cancel: () => {
        timer.fire = undefined;
      },
    };
    this.#timers.push(timer);
    return timer;
  }

  /**
   * From a poller's `arm`: its work may come without waking anybody, so the loop is to sleep no longer
   * than this many microseconds. If no poller has work then, it sleeps on.
   */
  wakeWithin(delayUs: number): void {
    this.#nap[0] = Math.min(this.#nap[0] as number, delayUs * 1000);
  }

  /** Makes `run` return after the present turn. From a handler, a timer or a poller. */
  stop(): void {
    this.#stopped = true;
  }

  /** Runs until {@link stop}. */
  run(): void {
    this.#stopped = false;
    setTimerSlack(TIMER_SLACK_NS);
    let idleSince = 0;
    let lookedAt = this.now;
    while (!this.#stopped) {
      const turn = ++this.turns;
      const isBusy = this.#pollAll() !== 0;
      if (isBusy) {
        this.busyTurns++;
        idleSince = 0;
      }
      let isWaiting = false;
      if (this.#eager.length !== 0 && (!isBusy || turn % BUSY_TURNS_PER_EAGER === 0)) {
        if (this.#lookAtEager()) idleSince = 0;
        else isWaiting = !isBusy;
      }
      // A turn that waits for a message makes calls: it is no short one.
      if (turn % TURNS_PER_CLOCK !== 0 && !isWaiting) continue;
      this.#readClock();
      const { now } = this;
      if (this.#eager.length !== 0) this.#forgetEager();
      if (now - lookedAt >= LOOK_NS) {
        lookedAt = now;
        // Whatever a handler has brought is polled for before the loop sleeps.
        if (this.#look(0) !== 0) idleSince = 0;
      }
      if (idleSince === 0) idleSince = now;
      // Whoever was looked at may have ended the loop: then there is nothing to sleep for.
      if (this.#stopped) continue;
      const patience = this.#eager.length === 0 ? 1 : EAGER_IDLE_POLLS;
      if (now - idleSince < patience * this.#idlePollNs) {
        if (isWaiting) this.#offerProcessor();
        continue;
      }
      this.#sleep();
      idleSince = 0;
      lookedAt = this.now;
    }
  }

  close(): void {
    this.epoll.close();
  }

  #pollAll(): number {
    const pollers = this.#pollers;
    let work = 0;
    for (let i = 0; i < pollers.length; i++) work += (pollers[i] as Poller).poll();
    return work;
  }

  #lookAtEager(): boolean {
    let found = false;
    // From the end: whoever is looked at may be dropped.
    for (let i = this.#eager.length - 1; i >= 0; i--) found = this.#eager[i]?.look() || found;
    return found;
  }

  /**
   * A client that waits for an answer may share the loop's processor: the kernel does not always let it run
   * as soon as it is answered, and the loop would spin in its place. Anybody else is not to have it for as
   * long as the kernel would give it.
   */
  #offerProcessor(): void {
    const { now } = this;
    if (now < this.#offerFrom) return;
    libc.sched_yield(0);
    this.#readClock();
    const used = this.now - now;
    if (used > LONG_OFFER_NS) this.#offerFrom = this.now + OFFER_PAUSES * used;
  }

  #forgetEager(): void {
    for (let i = this.#eager.length - 1; i >= 0; i--) {
      const until = this.#eagerUntil[i] as number;
      if (until === JUST_USED) this.#eagerUntil[i] = this.now + EAGER_NS;
      else if (until <= this.now) this.#dropEager(i);
    }
  }

  #dropEager(index: number): void {
    this.#eager.splice(index, 1);
    this.#eagerUntil.splice(index, 1);
  }

  #sleep(): void {
    while (!this.#doze()) {
      if (this.#stopped) return;
      this.turns++;
      if (this.#pollAll() === 0) continue;
      this.busyTurns++;
      return;
    }
  }

  /** Sleeps once. False if only the time that a poller set is over. */
  #doze(): boolean {
    // Everybody is armed before anything is decided: work that arrives after a poller's check
    // raises a kick, work that arrived before it is seen by the check.
    const armed = this.#pollers;
    let pending = false;
    this.#nap[0] = Number.POSITIVE_INFINITY;
    for (const poller of armed) pending = poller.arm() || pending;
    if (!pending) this.sleeps++;
    const timeout = pending ? 0 : this.#timeout();
    const nap = this.#nap[0] as number;
    const isNap =
      !pending && nap !== Number.POSITIVE_INFINITY && (timeout < 0 || nap < timeout * 1e6);
    const ready = isNap ? this.#nod(nap) : this.#look(timeout);
    for (const poller of armed) poller.disarm();
    return !isNap || ready !== 0;
  }

  /** Returns how many descriptors were ready. */
  #look(timeout: number): number {
    const ready = this.epoll.wait(timeout);
    this.#readClock();
    if (this.#timers.length > 0) this.#fireTimers();
    return ready;
  }

  /** Returns how many descriptors were ready. */
  #nod(nanoseconds: number): number {
    const ready = this.epoll.waitNs(Math.min(nanoseconds, LONGEST_NAP_NS));
    this.#readClock();
    return ready;
  }

  #readClock(): void {
    readClock();
    this.now = clock[0] as number;
  }

  /** Milliseconds until the next timer, rounded up; -1 without one. */
  #timeout(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const timer of this.#timers)
      if (timer.fire !== undefined) next = Math.min(next, timer.due);
    if (next === Number.POSITIVE_INFINITY) return -1;
    return Math.max(0, Math.ceil((next - monotonicNs()) / 1e6));
  }

  #fireTimers(): void {
    const { now } = this;
    const due = this.#timers.filter((timer) => timer.fire === undefined || timer.due <= now);
    if (due.length === 0) return;
    this.#timers = this.#timers.filter((timer) => !due.includes(timer));
    due.sort((a, b) => a.due - b.due);
    for (const timer of due) {
      const fire = timer.fire;
      timer.fire = undefined;
      fire?.();
    }
  }
}
