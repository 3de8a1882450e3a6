/**
 * A server and a client in one process, joined by a pipe or a socket, around a function of a few
 * registers. For tests and fuzzing.
 */
import { readdirSync } from 'node:fs';
import { loggerTo } from '../../base/log.ts';
import { Arena } from '../../memory/arena.ts';
import { DmaFiles } from '../../memory/dma-files.ts';
import { closeFd } from '../../os/fd.ts';
import { createMemfd } from '../../os/mapping.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { unixSocketPair } from '../../os/unix-socket.ts';
import type { BarInfo, PciFunction, PciWiring } from '../../pci/function.ts';
import { type ByteChannel, SocketChannel } from '../channel.ts';
import { type PipeOptions, pipePair } from '../pipe.ts';
import { type ClientOptions, VfioUserClient } from './client.ts';
import { type SessionOptions, VfioUserSession } from './session.ts';

/** Bytes of the function's BAR 0 (registers) and BAR 2 (memory, of which the second page may be mapped). */
export const REGISTER_BYTES = 4096;
export const SHARED_BYTES = 16384;

/**
 * A function whose registers hold what is written to them, and which tells what was done to it. Its
 * configuration space is plain memory.
 */
export class ScratchFunction implements PciFunction {
  readonly name = 'scratch';
  readonly bars: readonly (BarInfo | undefined)[];
  readonly rom = Uint8Array.from({ length: 2048 }, (_, index) => index & 0xff);
  readonly irqs = { intx: true, msi: 4, msix: 8 };
  readonly configBytes = 4096;
  readonly config = new Uint8Array(4096);
  readonly registers = new DataView(new ArrayBuffer(REGISTER_BYTES));
  /** What was done, such as `write 0+10/4=7`. */
  readonly calls: string[] = [];
  readonly sharedFd = createMemfd('sluice-test-bar', SHARED_BYTES);
  wiring: PciWiring | undefined;
  /** True: DMA is on its way, and a hold must wait. */
  busy = false;
  held = false;
  onDrained: (() => void) | undefined;

  constructor() {
    const bar = (bytes: number, areas: BarInfo['areas'] = []): BarInfo => ({
      kind: 'memory32',
      bytes,
      prefetchable: false,
      areas,
    });
    const area = { offset: 4096, bytes: 4096, fd: this.sharedFd, fdOffset: 4096 };
    const none = undefined;
    this.bars = [bar(REGISTER_BYTES), none, bar(SHARED_BYTES, [area]), none, none, none];
  }

  readConfig(offset: number, length: number): number {
    let value = 0;
    for (let i = length - 1; i >= 0; i--) value = value * 256 + (this.config[offset + i] ?? 0xff);
    return value;
  }

  writeConfig(offset: number, length: number, value: number): void {
    this.calls.push(`config ${offset}/${length}=${value}`);
    let rest = value;
    for (let i = 0; i < length; i++) {
      this.config[offset + i] = rest & 0xff;
      rest = Math.floor(rest / 256);
    }
  }

  readBar(bar: number, offset: number, length: number): number {
    this.calls.push(`read ${bar}+${offset}/${length}`);
    if (bar !== 0) return 0;
    if (length === 4) return this.registers.getUint32(offset, true);
    return length === 2 ? this.registers.getUint16(offset, true) : this.registers.getUint8(offset);
  }

  writeBar(bar: number, offset: number, length: number, value: number): void {
    this.calls.push(`write ${bar}+${offset}/${length}=${value}`);
    if (bar !== 0) return;
    if (length === 4) this.registers.setUint32(offset, value, true);
    else if (length === 2) this.registers.setUint16(offset, value, true);
    else this.registers.setUint8(offset, value);
  }

  reset(): void {
    this.calls.push('reset');
    this.held = false;
  }

  attach(wiring: PciWiring): void {
    this.calls.push('attach');
    this.wiring = wiring;
    wiring.setBusMaster(true);
  }

  detach(): void {
    this.calls.push('detach');
    this.wiring = undefined;
    this.held = false;
  }

  hold(): boolean {
    this.held = true;
    return !this.busy;
  }

  resume(): void {
    this.held = false;
  }

  /** What was on its way is done. */
  finish(): void {
    this.busy = false;
    if (this.held) this.onDrained?.();
  }

  /** Takes the calls so far. */
  take(): string[] {
    return this.calls.splice(0);
  }

  close(): void {
    closeFd(this.sharedFd);
  }
}

export interface BenchOptions extends ClientOptions, Partial<Pick<SessionOptions, 'faults'>> {
  /** Over a socket instead of a pipe. */
  readonly socket?: boolean;
  readonly pipe?: PipeOptions;
}

/** One arena for all tests of a process: address space is plenty, set-up is not free. */
let sharedArena: Arena | undefined;

export function testArena(): Arena {
  sharedArena ??= Arena.create();
  return sharedArena;
}

/** How many descriptors the process has open. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

export class Bench {
  readonly arena = testArena();
  readonly loop = new PollLoop();
  readonly files = new DmaFiles(this.arena);
  readonly function = new ScratchFunction();
  readonly log: string[] = [];
  readonly session: VfioUserSession;
  readonly client: VfioUserClient;
  /** The client's end, for bytes that no client sends. */
  readonly raw: ByteChannel;
  /** The session said that its connection is over, and was closed. */
  over = false;
  /** The session has let go of everything. */
  freed = false;

  constructor(options: BenchOptions = {}) {
    const [near, far] =
      options.socket === true
        ? unixSocketPair().map((end) => new SocketChannel(end))
        : pipePair(options.pipe);
    this.raw = near as ByteChannel;
    this.session = new VfioUserSession(far as SocketChannel, {
      loop: this.loop,
      log: loggerTo((level, message) => this.log.push(`${level}: ${message}`)),
      function: this.function,
      files: this.files,
      onReady: () => this.#work(),
      ...(options.faults === undefined ? {} : { faults: options.faults }),
    });
    this.client = new VfioUserClient(near as SocketChannel, {
      name: 'the bench',
      timeoutMs: 2000,
      pump: () => this.pump(),
      ...options,
    });
  }

  /** Agreed on the version. */
  static ready(options: BenchOptions = {}): Bench {
    const bench = new Bench(options);
    bench.client.negotiate();
    bench.function.take();
    return bench;
  }

  /** Lets the server do what there is to do, its timers included. */
  pump(): void {
    this.#work();
    this.loop.setTimer(0, () => this.loop.stop());
    this.loop.run();
  }

  #work(): void {
    if (this.over) return;
    if (!this.session.flush() || !this.session.readable()) this.#end();
  }

  #end(): void {
    if (this.over) return;
    this.over = true;
    this.session.close(() => {
      this.freed = true;
    });
  }

  close(): void {
    this.client.close();
    this.#end();
    this.function.finish();
    if (!this.freed) this.pump();
    this.function.close();
    this.loop.close();
  }
}
