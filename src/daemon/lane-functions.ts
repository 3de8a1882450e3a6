/** What the emulated devices of a lane share: memory files of guests, and the records of refused DMA. */
import type { Arena } from '../memory/arena.ts';
import { DmaFaultLog } from '../memory/dma-faults.ts';
import { DmaFiles } from '../memory/dma-files.ts';
import type { Isolation } from '../memory/guest-memory.ts';
import type { DmaParts } from '../method/emulated-net.ts';
import type { PciState } from '../method/pci-attachment.ts';
import { monotonicNs } from '../os/clock.ts';
import type { DmaFaultState, FunctionState } from './lane-commands.ts';

const NS_PER_MS = 1e6;

export class LaneFunctions {
  readonly #files: DmaFiles;
  /** By function. What was refused is told also when the function has gone. */
  readonly #faults = new Map<string, DmaFaultLog>();

  constructor(arena: Arena, isolation: Isolation) {
    this.#files = new DmaFiles(arena, isolation);
  }

  /** What a function of this name is made with. */
  partsOf(name: string): DmaParts {
    const faults = this.#faults.get(name) ?? new DmaFaultLog(name);
    this.#faults.set(name, faults);
    return { files: this.#files, faults };
  }

  /** A function has gone. */
  forget(name: string): void {
    if (this.#faults.get(name)?.total === 0) this.#faults.delete(name);
  }

  /** What was refused last, oldest first. */
  faults(): DmaFaultState[] {
    const now = monotonicNs();
    const wall = Date.now();
    return [...this.#faults.values()]
      .flatMap((log) => log.list())
      .toSorted((a, b) => a.time - b.time)
      .map(({ time, ...fault }) => ({
        ...fault,
        time: new Date(wall - (now - time) / NS_PER_MS).toISOString(),
      }));
  }
}

/** A function as it is told. */
export function functionState(name: string, model: string, state: PciState): FunctionState {
  return { function: name, model, ...state };
}
