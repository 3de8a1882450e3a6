/** `sluice capture PORT`: the frames of a port as pcapng. */
import { createWriteStream } from 'node:fs';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { SluiceError } from '../base/errors.ts';
import { CAPTURE_PATH } from '../control/api.ts';
import { printJson } from './output.ts';
import { clientFor, controlCommand, type JsonOption, type PlaceOptions } from './place.ts';

const MIN_SNAPLEN = 64;

interface CaptureOptions extends PlaceOptions, JsonOption {
  readonly write: string;
  readonly snaplen?: number;
}

export function captureCommand(): Command {
  return controlCommand('capture')
    .argument('<port>', 'the port, such as web/net0 or lan/wire')
    .option('-w, --write <file>', 'file to write; - is standard output', '-')
    .option('-s, --snaplen <bytes>', 'most bytes to keep of a frame', snaplen)
    .addHelpText('after', '\nExample: sluice capture web/net0 | wireshark -k -i -')
    .action(async (port: string, options: CaptureOptions) => {
      const toTerminal = options.write === '-' && process.stdout.isTTY;
      if (toTerminal) {
        throw new SluiceError('usage', 'a capture is not for a terminal', {
          remedy: 'give -w FILE, or pipe it: sluice capture PORT | wireshark -k -i -',
        });
      }
      if (options.json === true && options.write === '-') {
        throw new SluiceError('usage', '--json and the capture cannot both be on standard output', {
          remedy: 'give -w FILE',
        });
      }
      const client = clientFor(options);
      const stream = await client.open('POST', CAPTURE_PATH, {
        port,
        snaplen: options.snaplen,
      });
      const output: Writable =
        options.write === '-' ? process.stdout : createWriteStream(options.write);
      // The first interrupt ends the capture in order: what has passed the port is in the file, whole.
      // The second one ends it at once, such as when nobody reads what is written.
      let interrupted = false;
      const end = (signal: NodeJS.Signals): void => {
        if (interrupted) {
          breakOff(port, options.write, signal);
          return;
        }
        interrupted = true;
        client.call('endCapture', { port }).catch((error: Error) => stream.destroy(error));
      };
      process.on('SIGINT', end);
      process.on('SIGTERM', end);
      let bytes = 0;
      stream.on('data', (part: Buffer) => {
        bytes += part.length;
      });
      try {
        await pipeline(stream, output);
      } catch (error) {
        throw captureFailed(port, error);
      }
      if (options.json === true) printJson({ port, file: options.write, bytes });
    });
}

/**
 * Ends the process by the signal, as if it were not handled (a shell sees 130): process.exit would wait
 * for a thread that opens a FIFO without a reader.
 */
function breakOff(port: string, file: string, signal: NodeJS.Signals): void {
  const what = file === '-' ? 'what was written' : file;
  process.stderr.write(`sluice: the capture of ${port} is broken off: ${what} may lack its end\n`);
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}

function captureFailed(port: string, error: unknown): SluiceError {
  const reason = error instanceof Error ? error.message : String(error);
  return new SluiceError('state', `the capture of ${port} ended: ${reason}`, { cause: error });
}

function snaplen(text: string): number {
  const bytes = Number(text);
  if (!Number.isInteger(bytes) || bytes < MIN_SNAPLEN) {
    throw new InvalidArgumentError(`Expected a number of bytes from ${MIN_SNAPLEN} on.`);
  }
  return bytes;
}
