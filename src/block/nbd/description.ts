/** An NBD export as the main thread found it: all that a lane needs to use it. Can be posted. */
import { SluiceError } from '../../base/errors.ts';
import type { StreamAddress } from '../../os/stream-socket.ts';
import * as nbd from '../../spec/nbd.ts';
import type { NbdExport } from './codec.ts';

/**
 * What a flush answers after a connection was lost while completed writes had not been flushed. The
 * protocol does not tell whether the server has crashed and forgotten them, or only the network failed.
 * `trust`: the server still has them, as Linux and QEMU take it. `fail`: one flush fails with EIO.
 */
export type AfterLoss = 'trust' | 'fail';

export interface NbdDiskDescription {
  readonly kind: 'nbd';
  readonly name: string;
  /** The server and export as a URI, for messages. */
  readonly uri: string;
  /** The server's addresses, tried in turn. */
  readonly addresses: readonly StreamAddress[];
  readonly exportName: string;
  readonly export: NbdExport;
  readonly readonly: boolean;
  /** Connections: 1 unless the server allows several. */
  readonly connections: number;
  /** Pause before a second attempt to connect, in ms; it doubles with each, up to 5 s. */
  readonly retryMs: number;
  /** How long requests wait for a server that is gone, in ms, before they fail with EIO. */
  readonly reconnectMs: number;
  /** How long a connection with requests may be silent, in ms, before it is taken for lost. */
  readonly replyMs: number;
  readonly afterLoss: AfterLoss;
}

/** The flags that a disk relies on, and what they allow. */
const RELIED_ON = [
  [nbd.NBD_FLAG_SEND_FLUSH, 'flush'],
  [nbd.NBD_FLAG_SEND_FUA, 'writes with FUA'],
  [nbd.NBD_FLAG_SEND_TRIM, 'trim'],
  [nbd.NBD_FLAG_SEND_WRITE_ZEROES, 'write zeroes'],
] as const;

/**
 * Checks that an export, when it is connected to again, is what the disk was made for.
 * @throws SluiceError `state` that names what has changed
 */
export function checkSameExport(description: NbdDiskDescription, now: NbdExport): void {
  const was = description.export;
  const changed = (what: string): SluiceError =>
    new SluiceError('state', `${description.uri} has changed: ${what}`, {
      remedy: 'serve the former export again, or take the disk away and add it anew',
    });
  if (now.bytes !== was.bytes) throw changed(`${now.bytes} bytes, it had ${was.bytes}`);
  if (!description.readonly && (now.flags & nbd.NBD_FLAG_READ_ONLY) !== 0) {
    throw changed('it is read-only now');
  }
  for (const [flag, what] of RELIED_ON) {
    if ((was.flags & flag) !== 0 && (now.flags & flag) === 0) {
      throw changed(`it does not allow ${what} any more`);
    }
  }
  if (description.connections > 1 && (now.flags & nbd.NBD_FLAG_CAN_MULTI_CONN) === 0) {
    throw changed('it does not allow several connections any more');
  }
  if (now.minBlock > Math.max(was.minBlock, nbd.DEFAULT_MIN_BLOCK)) {
    throw changed(`its smallest block is ${now.minBlock} bytes, it was ${was.minBlock}`);
  }
  if (now.maxPayload < was.maxPayload) {
    throw changed(`it takes ${now.maxPayload} bytes at once, it took ${was.maxPayload}`);
  }
}
