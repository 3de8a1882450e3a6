/**
 * The other end of a capture: takes frames out of a {@link CaptureRing} and writes them as pcapng
 * to a file or stream. Runs on the main thread, or on any that is no lane.
 */
import { open } from 'node:fs/promises';
import type { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { SluiceError } from '../base/errors.ts';
import { monotonicNs } from '../os/clock.ts';
import { DEFAULT_SNAP_LENGTH } from './capture.ts';
import type { CaptureRing } from './capture-ring.ts';
import {
  enhancedPacket,
  interfaceDescription,
  interfaceStatistics,
  sectionHeader,
} from './pcapng.ts';

/** Bytes that are handed to the output at a time. */
const CHUNK_BYTES = 256 * 1024;

export interface CaptureWriterOptions {
  readonly ring: CaptureRing;
  /** Names of the interfaces, in the order of their numbers: ports. */
  readonly interfaces: readonly string[];
  readonly snapLength?: number;
  readonly output: Writable;
}

export interface CaptureSummary {
  /** Frames in the file. */
  readonly frames: number;
  /** Frames that passed while the ring was full. */
  readonly dropped: number;
}

/**
 * Where a capture is to be written: a file (`-`: standard output).
 * @throws SluiceError `system` if the file cannot be written
 */
export async function openCaptureOutput(target: string): Promise<Writable> {
  if (target === '-') return process.stdout;
  try {
    const file = await open(target, 'w', 0o600);
    return file.createWriteStream();
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
    throw new SluiceError('system', `${code}: cannot write the capture file ${target}`, {
      cause,
      remedy: 'choose a file in a directory that sluice may write to',
    });
  }
}

/** Nanoseconds since 1970 at zero of the monotonic clock. */
function wallClockOffset(): bigint {
  return BigInt(Date.now()) * 1_000_000n - BigInt(monotonicNs());
}

/**
 * Writes frames until the ring is closed (by either side) and empty, then ends the output. A slow
 * output is waited for; meanwhile the lane drops what finds no room.
 * @throws SluiceError `system` if the output fails; the ring is closed then
 */
export async function writeCapture(options: CaptureWriterOptions): Promise<CaptureSummary> {
  const { ring, output } = options;
  let failure: Error | undefined;
  const fail = (error: Error): void => {
    failure ??= error;
    ring.close();
  };
  // A reader that goes away closes the stream without an error of its own.
  const closed = (): void => {
    if (!output.writableFinished) fail(new Error('the output was closed'));
  };
  output.on('error', fail);
  output.on('close', closed);
  const send = async (bytes: Uint8Array): Promise<void> => {
    if (failure !== undefined || output.write(bytes)) return;
    await roomIn(output);
  };
  const offset = wallClockOffset();
  let frames = 0;
  try {
    const { interfaces, snapLength = DEFAULT_SNAP_LENGTH } = options;
    const header = interfaces.map((name) => interfaceDescription(name, snapLength));
    await send(Buffer.concat([sectionHeader('sluice'), ...header]));
    while (failure === undefined) {
      // Asked for first: what was written before the end is read after this.
      const ended = ring.closed;
      const chunk: Buffer[] = [];
      for (let bytes = 0; bytes < CHUNK_BYTES; ) {
        const record = ring.read();
        if (record === undefined) break;
        const block = enhancedPacket({
          interface: record.interface,
          time: offset + BigInt(Math.round(record.time)),
          outbound: record.sent,
          originalLength: record.originalLength,
          data: record.data,
        });
        ring.release();
        chunk.push(block);
        bytes += block.length;
      }
      frames += chunk.length;
      if (chunk.length > 0) await send(Buffer.concat(chunk));
      else if (ended) break;
      else await ring.waitForMore();
    }
    const { dropped, seen } = ring;
    // The ring counts for all interfaces together: it is known of one only where there is one.
    if (interfaces.length === 1) {
      await send(interfaceStatistics(0, offset + BigInt(monotonicNs()), seen, dropped));
    }
    if (failure === undefined) await finish(output);
    if (failure !== undefined) throw failure;
    return { frames, dropped };
  } catch (cause) {
    const what = cause instanceof Error ? cause.message : String(cause);
    throw new SluiceError('system', `writing the capture failed: ${what}`, { cause });
  } finally {
    ring.close();
    output.off('error', fail);
    output.off('close', closed);
  }
}

/** Resolves when a stream takes more, or never will: 'close' follows every 'error'. */
function roomIn(output: Writable): Promise<void> {
  return new Promise((resolve) => {
    const go = (): void => {
      output.off('drain', go);
      output.off('close', go);
      resolve();
    };
    output.on('drain', go);
    output.on('close', go);
  });
}

/** Ends a file; standard output stays open for whoever else writes to it. */
async function finish(output: Writable): Promise<void> {
  if (output === process.stdout) return;
  output.end();
  await finished(output, { readable: false });
}
