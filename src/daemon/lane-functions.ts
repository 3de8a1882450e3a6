/** What the emulated devices of a lane share: memory files of guests, and the records of refused DMA. */
import { join } from 'node:path';
import type { Logger } from '../base/log.ts';
import type { Arena } from '../memory/arena.ts';
import { DmaFaultLog } from '../memory/dma-faults.ts';
import { DmaFiles } from '../memory/dma-files.ts';
import type { DmaParts } from '../method/emulated-net.ts';
import type { PciAttachmentOptions, PciState } from '../method/pci-attachment.ts';
import { monotonicNs } from '../os/clock.ts';
import { GuestMark } from './guest-mark.ts';
import type { DmaFaultState, FunctionState, LaneSettings } from './lane-commands.ts';
import { guestMarkName } from './run-directory.ts';

const NS_PER_MS = 1e6;

export class LaneFunctions {
  readonly #files: DmaFiles;
  readonly #log: Logger;
  readonly #run: string;
  /** By function. What was refused is told also when the function has gone. */
  readonly #faults = new Map<string, DmaFaultLog>();
  readonly #marks = new Map<string, GuestMark>();

  constructor(arena: Arena, log: Logger, { isolation, run }: LaneSettings) {
    this.#log = log;
    this.#files = new DmaFiles(arena, isolation);
    this.#run = run;
  }

  /** What a function of this name is made with. */
  partsOf(name: string): DmaParts {
    const faults = this.#faults.get(name) ?? new DmaFaultLog(name);
    this.#faults.set(name, faults);
    return { files: this.#files, faults };
  }

  /** Who is told of the VMMs of a function that is about to be made. */
  watch(name: string): Pick<PciAttachmentOptions, 'onConnection'> {
    const mark = new GuestMark(join(this.#run, guestMarkName(name)), this.#log);
    this.#marks.set(name, mark);
    return { onConnection: (connected) => mark.set(connected) };
  }

  /** A function has gone. */
  forget(name: string): void {
    this.#marks.delete(name);
    if (this.#faults.get(name)?.total === 0) this.#faults.delete(name);
  }

  /** A function as it is told. */
  stateOf(name: string, model: string, state: PciState): FunctionState {
    return { function: name, model, ...state, lost: this.#marks.get(name)?.lost ?? false };
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
