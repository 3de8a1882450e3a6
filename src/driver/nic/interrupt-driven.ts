/**
 * A receiver that looks at its ring only after an interrupt, until it finds nothing more, as stock drivers
 * do (what Linux calls NAPI). Between two interrupts frames wait: how many there are a second decides how
 * long, and what they cost.
 */
import type { NetQueue, NetReceiver } from '../net-pair.ts';
import type { CallGate } from './call-gate.ts';

export class InterruptDrivenReceiver implements NetReceiver, NetQueue {
  readonly queue: NetQueue = this;
  /** Frames and bytes since {@link restart}. */
  frames = 0;
  readonly bytes = new Float64Array(1);
  readonly #inner: NetReceiver;
  readonly #gate: CallGate;
  readonly #onAsleep: () => void;
  #awake = true;

  /** @param onAsleep called each time that a look is in vain, because no interrupt has come */
  constructor(inner: NetReceiver, gate: CallGate, onAsleep: () => void) {
    this.#inner = inner;
    this.#gate = gate;
    this.#onAsleep = onAsleep;
  }

  /** An interrupt has come. */
  wake(): void {
    this.#awake = true;
  }

  /** Counts anew. */
  restart(): void {
    this.frames = 0;
    this.bytes[0] = 0;
  }

  receive(): number {
    if (!this.#awake) {
      this.#onAsleep();
      return 0;
    }
    const inner = this.#inner;
    const count = inner.receive();
    if (count === 0) {
      // What has come since is a cause that is there already, and interrupts at once.
      this.#awake = false;
      inner.queue.publish();
      this.#gate.open();
      return 0;
    }
    const { length } = inner;
    let bytes = this.bytes[0] as number;
    for (let i = 0; i < count; i++) bytes += length[i] as number;
    this.bytes[0] = bytes;
    this.frames += count;
    return count;
  }

  release(): void {
    this.#inner.release();
  }

  post(buffer: number): void {
    this.#inner.post(buffer);
  }

  publish(): boolean {
    return this.#inner.queue.publish();
  }

  /** The gate is open whenever there is nothing to do. */
  enableCalls(): boolean {
    return this.#awake;
  }

  disableCalls(): void {
    // As above.
  }

  get size(): number {
    return this.#inner.queue.size;
  }

  get outstanding(): number {
    return this.#inner.queue.outstanding;
  }

  get kicks(): number {
    return this.#inner.queue.kicks;
  }

  get pool(): NetReceiver['pool'] {
    return this.#inner.pool;
  }

  get offset(): Uint32Array {
    return this.#inner.offset;
  }

  get length(): Uint32Array {
    return this.#inner.length;
  }

  get pieces(): Uint16Array {
    return this.#inner.pieces;
  }

  get firstPiece(): Uint16Array {
    return this.#inner.firstPiece;
  }

  get pieceBuffer(): Uint16Array {
    return this.#inner.pieceBuffer;
  }

  get pieceLength(): Uint32Array {
    return this.#inner.pieceLength;
  }
}
