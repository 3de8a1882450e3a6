/** Which queues of a device take no more chains, how many each has in flight, and who waits for their end. */
export class DrainWatch {
  /** Chains that were taken and not completed, by queue. */
  readonly inFlight: Uint32Array;
  /** By queue: no more chains are taken. */
  readonly held: boolean[];
  /** Somebody waits. */
  waiting = false;
  private readonly queues: boolean[];
  private everything = false;

  constructor(queues: number) {
    this.inFlight = new Uint32Array(queues);
    this.held = new Array(queues).fill(false);
    this.queues = new Array(queues).fill(false);
  }

  /**
   * Holds one queue, or (undefined) all; `idle`: nothing at all is in flight. True if there is nothing to
   * wait for, else {@link take} will tell.
   */
  hold(index: number | undefined, idle: boolean): boolean {
    if (index === undefined) this.held.fill(true);
    else this.held[index] = true;
    if (index === undefined ? idle : this.inFlight[index] === 0) return true;
    if (index === undefined) this.everything = true;
    else this.queues[index] = true;
    this.waiting = true;
    return false;
  }

  /** True, once, when what somebody waited for has drained. */
  take(idle: boolean): boolean {
    let done = this.everything && idle;
    if (done) this.everything = false;
    for (let index = 0; index < this.queues.length; index++) {
      if (this.queues[index] !== true || this.inFlight[index] !== 0) continue;
      this.queues[index] = false;
      done = true;
    }
    if (done) this.waiting = this.everything || this.queues.includes(true);
    return done;
  }

  reset(): void {
    this.held.fill(false);
    this.queues.fill(false);
    this.everything = false;
    this.waiting = false;
  }
}
