/** Captures from the main thread's side: rings that lanes fill, and who empties them. */
import type { Writable } from 'node:stream';
import { describeError, SluiceError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { CaptureRing } from '../net/capture-ring.ts';
import { type CaptureSummary, openCaptureOutput, writeCapture } from '../net/capture-writer.ts';

/** How long an output may take for what was captured before its end. */
const CLOSE_GRACE_MS = 2000;

export interface Capture {
  readonly port: string;
  readonly ring: CaptureRing;
  /** Has the lane stop; undefined for a wire of the configuration, which ends with it. */
  readonly detach: (() => Promise<void>) | undefined;
}

export class Captures {
  readonly #log: Logger;
  readonly #open = new Map<string, Capture>();
  /** Writers that are not done yet, and where each writes to. */
  readonly #writers = new Map<Promise<unknown>, Writable>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * Captures a port until the output or {@link end} ends it.
   * @param attach has the lane fill the ring; `detach` has it stop
   * @throws SluiceError `state` if the port is being captured
   */
  async run(
    port: string,
    snapLength: number | undefined,
    output: Writable,
    attach: (ring: CaptureRing) => Promise<void>,
    detach: () => Promise<void>,
  ): Promise<CaptureSummary> {
    if (this.#open.has(port)) {
      throw new SluiceError('state', `port ${port} is being captured already`, {
        remedy: 'end the other capture first',
      });
    }
    const ring = CaptureRing.create();
    this.#open.set(port, { port, ring, detach });
    try {
      await attach(ring);
      const writing = writeCapture({
        ring,
        interfaces: [port],
        output,
        ...(snapLength === undefined ? {} : { snapLength }),
      });
      return await this.#tracked(writing, output);
    } finally {
      this.#open.delete(port);
      await detach();
    }
  }

  /** The writer of a wire that is a file; it ends when the wire's ring is closed. */
  async toFile(wire: string, file: string): Promise<CaptureRing> {
    const output = await openCaptureOutput(file);
    const ring = CaptureRing.create();
    this.#open.set(wire, { port: wire, ring, detach: undefined });
    const writing = writeCapture({ ring, interfaces: [wire], output }).then(
      ({ frames, dropped }) =>
        this.#log.info('capture wire ended', { wire, file, frames, dropped }),
      (error: unknown) =>
        this.#log.error('capture wire failed', { wire, file, error: describeError(error) }),
    );
    void this.#tracked(
      writing.finally(() => this.#open.delete(wire)),
      output,
    );
    return ring;
  }

  /**
   * Ends the capture of a port that {@link run} began: what has passed until now is still written.
   * @throws SluiceError `not-found` if there is none
   */
  async finish(port: string): Promise<void> {
    const capture = this.#open.get(port);
    if (capture?.detach === undefined) {
      throw new SluiceError('not-found', `no capture of port ${port}`);
    }
    await capture.detach();
    capture.ring.close();
  }

  /** Ends what captures a port, if anything does. */
  end(port: string): void {
    this.#open.get(port)?.ring.close();
  }

  /**
   * Ends all captures; settles when all is written, or has not been for `graceMs`: a reader that does not
   * read keeps nobody from ending.
   */
  async close(graceMs: number = CLOSE_GRACE_MS): Promise<void> {
    for (const { ring } of this.#open.values()) ring.close();
    const timer = setTimeout(() => {
      for (const output of this.#writers.values()) output.destroy();
    }, graceMs);
    await Promise.allSettled(this.#writers.keys());
    clearTimeout(timer);
  }

  async #tracked<Result>(writing: Promise<Result>, output: Writable): Promise<Result> {
    this.#writers.set(writing, output);
    try {
      return await writing;
    } finally {
      this.#writers.delete(writing);
    }
  }
}
