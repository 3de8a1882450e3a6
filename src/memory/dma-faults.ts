/** The DMA of a function that did not happen: counts, and the last of them in full. */
import { clock, readClock } from '../os/clock.ts';
import { DMA_FAULT_REASONS, type DmaFault } from './dma.ts';

/** Faults that are kept; older ones are only counted. */
export const DMA_FAULTS_KEPT = 256;

export interface DmaFaultRecord {
  /** The monotonic clock, in ns. */
  readonly time: number;
  readonly function: string;
  readonly iova: number;
  readonly length: number;
  readonly direction: 'read' | 'write';
  readonly reason: string;
}

/** A ring of typed arrays: a guest that faults all the time costs no memory. */
export class DmaFaultLog {
  readonly name: string;
  /** Faults since the start. */
  total = 0;
  /** The same by reason: {@link DMA_FAULT} is the index. */
  readonly byReason = new Float64Array(DMA_FAULT_REASONS.length);
  readonly #time = new Float64Array(DMA_FAULTS_KEPT);
  readonly #iova = new Float64Array(DMA_FAULTS_KEPT);
  readonly #length = new Float64Array(DMA_FAULTS_KEPT);
  readonly #write = new Uint8Array(DMA_FAULTS_KEPT);
  readonly #reason = new Uint8Array(DMA_FAULTS_KEPT);

  /** `name` is the function's. */
  constructor(name: string) {
    this.name = name;
  }

  record(iova: number, length: number, write: boolean, reason: DmaFault): void {
    readClock();
    const at = this.total % DMA_FAULTS_KEPT;
    this.#time[at] = clock[0] as number;
    this.#iova[at] = iova;
    this.#length[at] = length;
    this.#write[at] = write ? 1 : 0;
    this.#reason[at] = reason;
    this.total++;
    this.byReason[reason] = (this.byReason[reason] as number) + 1;
  }

  /** What is kept, oldest first. */
  list(): DmaFaultRecord[] {
    const kept = Math.min(this.total, DMA_FAULTS_KEPT);
    return Array.from({ length: kept }, (_, index) => {
      const at = (this.total - kept + index) % DMA_FAULTS_KEPT;
      return {
        time: this.#time[at] as number,
        function: this.name,
        iova: this.#iova[at] as number,
        length: this.#length[at] as number,
        direction: this.#write[at] === 1 ? 'write' : 'read',
        reason: DMA_FAULT_REASONS[this.#reason[at] as number] as string,
      };
    });
  }
}
