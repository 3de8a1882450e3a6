/**
 * The copy of payload, in batches: collect jobs, then do them all with one call.
 *
 * Where both ends lie in the window, the copy is done in WebAssembly, which moves a small frame in
 * a third of the time that the engine's own copyWithin takes; else copyWithin does it at once.
 */
import { wasm } from '../base/webassembly.ts';
import type { Arena } from './arena.ts';
import { WINDOW_BYTES } from './arena.ts';
import { COPY_WASM } from './copy.wasm.ts';

/** Jobs that are collected before they are done. */
export const COPY_JOBS = 512;
const JOB_WORDS = 3;

type Run = (jobs: number, count: number) => void;

export class CopyQueue {
  readonly #run: Run;
  readonly #jobs: Uint32Array;
  readonly #jobsAt: number;
  readonly #bytes: Uint8Array;
  /** Next free word of the job table. */
  #next = 0;

  constructor(arena: Arena) {
    this.#jobsAt = arena.allocate(COPY_JOBS * JOB_WORDS * 4, 'sluice-copy-jobs');
    this.#jobs = new Uint32Array(arena.buffer, this.#jobsAt, COPY_JOBS * JOB_WORDS);
    this.#bytes = arena.bytes;
    const module = new wasm.Module(Buffer.from(COPY_WASM, 'base64'));
    const instance = new wasm.Instance(module, { sluice: { window: arena.window } });
    this.#run = instance.exports['run'] as Run;
  }

  /**
   * Copies `length` bytes between two arena addresses, at the latest at the next {@link flush}.
   * The ends must not overlap, and both ranges must have been checked.
   */
  push(to: number, from: number, length: number): void {
    if (to + length > WINDOW_BYTES || from + length > WINDOW_BYTES) {
      this.#bytes.copyWithin(to, from, from + length);
      return;
    }
    const jobs = this.#jobs;
    const at = this.#next;
    jobs[at] = to;
    jobs[at + 1] = from;
    jobs[at + 2] = length;
    this.#next = at + JOB_WORDS;
    if (at + JOB_WORDS === jobs.length) this.flush();
  }

  /** Does all jobs that were pushed. */
  flush(): void {
    const count = this.#next / JOB_WORDS;
    if (count === 0) return;
    this.#next = 0;
    this.#run(this.#jobsAt, count);
  }
}
