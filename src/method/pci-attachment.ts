/**
 * A PCI function behind its socket: a vfio-user server, polled in its lane, with what the operator is
 * told of it. The counterpart of {@link Attachment} for virtio devices.
 */
import type { Logger } from '../base/log.ts';
import type { GuardedPoller } from '../engine/guard.ts';
import type { DmaFaultLog } from '../memory/dma-faults.ts';
import type { DmaFiles } from '../memory/dma-files.ts';
import type { Poller } from '../os/poll-loop.ts';
import type { SocketAccess } from '../os/unix-socket.ts';
import type { PciFunction } from '../pci/function.ts';
import { VfioUserServer } from '../transport/vfio-user/server.ts';
import type { VfioUserSession } from '../transport/vfio-user/session.ts';
import type { MethodHost } from './attachment.ts';
import { GuardedFunction } from './guarded-function.ts';

/** How a guest reaches a function, whatever the function is. */
export interface PciAttachmentOptions {
  readonly socket: string;
  readonly access: SocketAccess;
  /** The function's own code has failed; the guest was disconnected. */
  readonly onFailure: (reason: string) => void;
  /** A VMM has come, or gone by itself. */
  readonly onConnection?: (connected: boolean) => void;
}

export interface PciAttachmentParts {
  readonly device: PciFunction & Poller;
  /** Memory files of the lane's guests. */
  readonly files: DmaFiles;
  /** Where refused DMA is recorded: it outlives connections. */
  readonly faults: DmaFaultLog;
  readonly log: Logger;
}

/** What is counted of a function since it was made, over all its connections. */
export const PCI_COUNTERS = [
  /** Accesses to registers, each a trap. */
  'trap_reads',
  'trap_writes',
  /** Messages of the VMM: posted writes share them. */
  'messages',
  'interrupts',
  /** DMA that was refused. */
  'dma_faults',
] as const;

export type PciCounter = (typeof PCI_COUNTERS)[number];

/** What is told of a function. */
export interface PciState {
  readonly connected: boolean;
  readonly busMaster: boolean;
  /** Maps of its DMA domain, and bytes in them. */
  readonly maps: number;
  readonly memoryBytes: number;
  /** Vectors that the VMM has set up. */
  readonly vectors: { readonly intx: number; readonly msi: number; readonly msix: number };
  readonly counters: Readonly<Record<PciCounter, number>>;
  readonly fault: string | null;
}

const NO_VECTORS = { intx: 0, msi: 0, msix: 0 } as const;

export class PciAttachment {
  readonly name: string;
  readonly server: VfioUserServer;
  readonly guard: GuardedPoller;
  readonly #host: MethodHost;
  readonly #faults: DmaFaultLog;
  /** The present connection, and what was counted in those before. */
  #session: VfioUserSession | undefined;
  readonly #before = { trap_reads: 0, trap_writes: 0, messages: 0, interrupts: 0 };
  /** The connection ends because it is to, not because the VMM has gone. */
  #ending = false;
  #failure: string | undefined;

  /** @throws SluiceError if the socket cannot be made. */
  constructor(options: PciAttachmentOptions, host: MethodHost, parts: PciAttachmentParts) {
    const { device, files, faults, log } = parts;
    this.name = device.name;
    this.#host = host;
    this.#faults = faults;
    this.guard = host.guard(device.name, device, (error) => {
      this.#failure = error instanceof Error ? error.message : String(error);
      // It may be in the midst of a trap, which the session has yet to answer.
      host.loop.setTimer(0, () => this.disconnect());
      options.onFailure(this.#failure);
    });
    this.server = new VfioUserServer({
      function: new GuardedFunction(device, this.guard),
      files,
      faults,
      loop: host.loop,
      log,
      path: options.socket,
      access: options.access,
      onConnection: (connected) => {
        Object.assign(this.#before, this.#total());
        this.#session = connected ? this.server.session : undefined;
        if (!this.#ending) options.onConnection?.(connected);
      },
    });
    host.loop.addPoller(this.guard);
  }

  get connected(): boolean {
    return this.#session !== undefined;
  }

  get fault(): string | null {
    return this.#failure ?? null;
  }

  describe(): PciState {
    const session = this.#session;
    const now = session?.describe();
    const maps = session?.domain.describe() ?? [];
    return {
      connected: session !== undefined,
      busMaster: now?.busMaster ?? false,
      maps: maps.length,
      memoryBytes: maps.reduce((sum, { length }) => sum + length, 0),
      vectors: now?.vectors ?? NO_VECTORS,
      counters: { ...this.#total(), dma_faults: this.#faults.total },
      fault: this.fault,
    };
  }

  /** Disconnects the guest; the socket disappears at once. The function is polled on. */
  disconnect(): void {
    this.#ending = true;
    this.server.close();
  }

  /**
   * As {@link disconnect}. `onClosed` is called when no DMA of the function is on its way any more, which
   * may be at once, and it is polled no more then.
   */
  close(onClosed: () => void): void {
    this.#ending = true;
    this.server.close(() => {
      this.#host.loop.removePoller(this.guard);
      onClosed();
    });
  }

  /** With what the present connection has counted. */
  #total(): Record<Exclude<PciCounter, 'dma_faults'>, number> {
    const session = this.#session?.describe();
    const { trap_reads, trap_writes, messages, interrupts } = this.#before;
    return {
      trap_reads: trap_reads + (session?.reads ?? 0),
      trap_writes: trap_writes + (session?.writes ?? 0),
      messages: messages + (session?.messages ?? 0),
      interrupts: interrupts + (session?.interrupts ?? 0),
    };
  }
}
