/**
 * The client's side of an NBD handshake, apart from any socket: bytes of the server go in, bytes for
 * the server come out ("Fixed newstyle negotiation").
 *
 * It asks for structured replies, then for the export with its block sizes. Servers that know no
 * NBD_OPT_INFO and NBD_OPT_GO (before 2017) are asked by NBD_OPT_EXPORT_NAME.
 */
import { SluiceError } from '../../base/errors.ts';
import * as nbd from '../../spec/nbd.ts';
import {
  decodeExportName,
  decodeGreeting,
  decodeInfo,
  decodeOptionReply,
  type ExportInfo,
  encodeClientFlags,
  encodeDisconnect,
  encodeInfoRequest,
  encodeOption,
  type NbdExport,
  type OptionReply,
  protocolError,
} from './codec.ts';

/** Above any reply to an option that is asked for. */
const MAX_REPLY_BYTES = 64 * 1024;
/** Information that a server may send before it acknowledges. */
const MAX_INFORMATION = 64;

/** `info` asks about an export, `go` begins to use it. */
export type NegotiationGoal = 'info' | 'go';

type Step = 'greeting' | 'structured' | 'export' | 'export-name' | 'done';

const CLIENT_FLAGS = nbd.NBD_FLAG_FIXED_NEWSTYLE | nbd.NBD_FLAG_NO_ZEROES;

export class NbdNegotiation {
  readonly #name: string;
  readonly #goal: NegotiationGoal;
  #step: Step = 'greeting';
  #input = new Uint8Array(0);
  #output: Uint8Array[] = [];
  #noZeroes = false;
  #structured = false;
  #reply: OptionReply | undefined;
  #information = 0;
  #found: ExportInfo = {};
  #inTransmission = false;

  /** @param name the export's name; the empty one is the server's default */
  constructor(name: string, goal: NegotiationGoal) {
    this.#name = name;
    this.#goal = goal;
  }

  /** What has to be sent now. */
  take(): Uint8Array {
    const bytes = Buffer.concat(this.#output);
    this.#output = [];
    return bytes;
  }

  /** The export, once the handshake is done. */
  get result(): NbdExport | undefined {
    if (this.#step !== 'done') return undefined;
    const { bytes, flags } = this.#found;
    if (bytes === undefined || flags === undefined) return undefined;
    return {
      minBlock: nbd.DEFAULT_MIN_BLOCK,
      preferredBlock: nbd.DEFAULT_PREFERRED_BLOCK,
      maxPayload: nbd.DEFAULT_MAX_PAYLOAD,
      ...this.#found,
      bytes,
      flags,
      structured: this.#structured,
    };
  }

  /** What ends the connection politely once the handshake is done. */
  goodbye(): Uint8Array {
    return this.#inTransmission ? encodeDisconnect() : encodeOption(nbd.NBD_OPT_ABORT);
  }

  /**
   * Takes what the server sent, cut anywhere.
   * @throws SluiceError `protocol` for what is not NBD, `not-found` for an export that is not there,
   * `unsupported` if the server wants what Sluice does not have, `state` if it refuses
   */
  push(bytes: Uint8Array): void {
    this.#input = Buffer.concat([this.#input, bytes]);
    while (this.#advance()) {
      // Each turn has taken one message.
    }
    if (this.#step === 'done' && this.#input.length > 0) {
      throw protocolError('the server sends more than was asked for');
    }
  }

  #advance(): boolean {
    switch (this.#step) {
      case 'greeting':
        return this.#greeting();
      case 'structured':
      case 'export':
        return this.#optionReply();
      case 'export-name':
        return this.#exportName();
      default:
        return false;
    }
  }

  /** The first bytes of the input, if they are all there. */
  #shift(length: number): Uint8Array | undefined {
    if (this.#input.length < length) return undefined;
    const bytes = this.#input.subarray(0, length);
    this.#input = this.#input.subarray(length);
    return bytes;
  }

  #greeting(): boolean {
    const bytes = this.#shift(nbd.GREETING_BYTES);
    if (bytes === undefined) return false;
    const flags = decodeGreeting(bytes) & CLIENT_FLAGS;
    this.#noZeroes = (flags & nbd.NBD_FLAG_NO_ZEROES) !== 0;
    this.#output.push(encodeClientFlags(flags), encodeOption(nbd.NBD_OPT_STRUCTURED_REPLY));
    this.#step = 'structured';
    return true;
  }

  #optionReply(): boolean {
    if (this.#reply === undefined) {
      const header = this.#shift(nbd.OPTION_REPLY_BYTES);
      if (header === undefined) return false;
      const reply = decodeOptionReply(header);
      const expected = this.#step === 'structured' ? nbd.NBD_OPT_STRUCTURED_REPLY : this.#option();
      if (reply.option !== expected) {
        throw protocolError(`a reply to option ${reply.option}, expected one to ${expected}`);
      }
      if (reply.length > MAX_REPLY_BYTES) {
        throw protocolError(`a reply of ${reply.length} bytes to option ${reply.option}`);
      }
      this.#reply = reply;
    }
    const { type, length } = this.#reply;
    const payload = this.#shift(length);
    if (payload === undefined) return false;
    this.#reply = undefined;
    if (this.#step === 'structured') this.#structuredReply(type);
    else this.#exportReply(type, payload);
    return true;
  }

  #option(): number {
    return this.#goal === 'go' ? nbd.NBD_OPT_GO : nbd.NBD_OPT_INFO;
  }

  #structuredReply(type: number): void {
    if (type !== nbd.NBD_REP_ACK && !nbd.isErrorReply(type)) {
      throw protocolError(`reply ${type} to NBD_OPT_STRUCTURED_REPLY`);
    }
    // A server that demands TLS says so again when it is asked for the export.
    this.#structured = type === nbd.NBD_REP_ACK;
    const wanted = encodeInfoRequest(this.#name, [nbd.NBD_INFO_BLOCK_SIZE, nbd.NBD_INFO_NAME]);
    this.#output.push(encodeOption(this.#option(), wanted));
    this.#step = 'export';
  }

  #exportReply(type: number, payload: Uint8Array): void {
    if (type === nbd.NBD_REP_INFO) {
      if (++this.#information > MAX_INFORMATION) {
        throw protocolError(`more than ${MAX_INFORMATION} pieces of information about an export`);
      }
      this.#found = { ...this.#found, ...decodeInfo(payload) };
      return;
    }
    if (type === nbd.NBD_REP_ACK) {
      if (this.#found.bytes === undefined) {
        throw protocolError('the server does not tell the size of the export');
      }
      this.#inTransmission = this.#goal === 'go';
      this.#step = 'done';
      return;
    }
    if (type === nbd.NBD_REP_ERR_UNSUP) {
      this.#found = {};
      const name = Buffer.from(this.#name, 'utf8');
      this.#output.push(encodeOption(nbd.NBD_OPT_EXPORT_NAME, name));
      this.#step = 'export-name';
      return;
    }
    if (!nbd.isErrorReply(type)) throw protocolError(`reply ${type} to a request for an export`);
    throw this.#refusal(type, Buffer.from(payload).toString('utf8'));
  }

  #exportName(): boolean {
    const zeroes = this.#noZeroes ? 0 : nbd.EXPORT_NAME_ZEROES;
    const bytes = this.#shift(nbd.EXPORT_NAME_REPLY_BYTES + zeroes);
    if (bytes === undefined) return false;
    this.#found = decodeExportName(bytes);
    this.#inTransmission = true;
    this.#step = 'done';
    return true;
  }

  #refusal(type: number, text: string): SluiceError {
    const said = text === '' ? '' : `: ${text}`;
    const name = this.#name === '' ? 'default export' : `export "${this.#name}"`;
    switch (type) {
      case nbd.NBD_REP_ERR_UNKNOWN:
        return new SluiceError('not-found', `the server has no ${name}${said}`, {
          remedy: 'nbdinfo --list or qemu-nbd --list tells what it has',
        });
      case nbd.NBD_REP_ERR_TLS_REQD:
        return new SluiceError('unsupported', `the server demands TLS for the ${name}${said}`, {
          remedy: 'serve it without, on a Unix socket or through a tunnel',
        });
      case nbd.NBD_REP_ERR_POLICY:
        return new SluiceError('state', `the server does not let us have the ${name}${said}`);
      case nbd.NBD_REP_ERR_SHUTDOWN:
        return new SluiceError('state', `the server is shutting down${said}`);
      default:
        return new SluiceError(
          'state',
          `the server refuses the ${name}, with 0x${type.toString(16)}${said}`,
        );
    }
  }
}
