/**
 * Where a received frame goes: pieces of guest memory as destinations of `path.scatter`. What lies at no
 * address of ours goes to the function's bounce memory, and from there on its way.
 */
import { DMA_PENDING } from '../../memory/dma.ts';
import { withinPage } from '../device-memory.ts';
import { RECEIVE_BOUNCE_BYTES } from './queue-bounce.ts';
import type { QueueParts } from './queue-parts.ts';

export class ReceiveBuffers {
  readonly #parts: QueueParts;
  readonly #queue: number;
  readonly #client: number;
  /** Bytes of the bounce memory in use, and pieces and bytes before the present frame. */
  #used = 0;
  #piecesBefore = 0;
  #usedBefore = 0;

  /** @param client the queue's number in `DeviceMemory` */
  constructor(parts: QueueParts, queue: number, client: number) {
    this.#parts = parts;
    this.#queue = queue;
    this.#client = client;
  }

  /** Begins a frame: the scatter has no destinations. */
  begin(): void {
    const { bounce, path } = this.#parts;
    path.scatter.reset();
    if (!bounce.hasReceive(this.#queue)) this.#used = 0;
    this.#piecesBefore = bounce.hasReceive(this.#queue) ? bounce.pieces : 0;
    this.#usedBefore = this.#used;
  }

  /** Adds guest memory as a destination. False if there is no room to bounce it. */
  add(address: number, length: number): boolean {
    const { memory, path } = this.#parts;
    let done = 0;
    while (done < length) {
      const at = address < 0 ? -1 : address + done;
      let part = length - done;
      let to = memory.translate(at, part, true);
      if (to < 0 && at >= 0) {
        part = withinPage(at, part);
        to = memory.translate(at, part, true);
      }
      if (to >= 0) {
        path.scatter.addDestination(to, part);
        if (memory.logging) memory.markWritten(to, part);
      } else if (!this.#bounce(at, part)) {
        return false;
      }
      done += part;
    }
    return true;
  }

  /** The frame is not delivered: what was added for it is void. */
  undo(): void {
    const { bounce } = this.#parts;
    if (!bounce.hasReceive(this.#queue)) return;
    bounce.pieces = this.#piecesBefore;
    this.#used = this.#usedBefore;
    if (bounce.pieces === 0) this.forget();
  }

  /** Sends bounced pieces on their way, whose copies are done. Returns how many are pending. */
  write(): number {
    const { bounce, memory } = this.#parts;
    if (!bounce.hasReceive(this.#queue)) return 0;
    let pending = 0;
    for (let i = 0; i < bounce.pieces; i++) {
      const result = memory.write(
        this.#client,
        bounce.pieceIova[i] as number,
        bounce.pieceLength[i] as number,
        bounce.pieceFrom[i] as number,
      );
      if (result === DMA_PENDING) pending++;
    }
    if (pending === 0) this.forget();
    return pending;
  }

  /** What was bounced has arrived, or nobody waits for it any more. */
  forget(): void {
    this.#used = 0;
    this.#parts.bounce.giveReceive(this.#queue);
  }

  #bounce(address: number, length: number): boolean {
    const { bounce, path } = this.#parts;
    const at = bounce.takeReceive(this.#queue);
    if (at < 0) return false;
    const index = bounce.pieces;
    if (index === bounce.pieceLength.length || this.#used + length > RECEIVE_BOUNCE_BYTES) {
      return false;
    }
    const from = at + this.#used;
    bounce.pieceIova[index] = address;
    bounce.pieceFrom[index] = from;
    bounce.pieceLength[index] = length;
    bounce.pieces = index + 1;
    this.#used += length;
    path.scatter.addDestination(from, length);
    return true;
  }
}
