/**
 * Interrupts a second by what there is to do: many for a few small frames, which are to be answered soon,
 * few for a stream of large ones. Three classes by the bytes that came in a microsecond, with the bounds
 * that Intel's drivers have used.
 */
interface RateClass {
  readonly perSecond: number;
  /** Bytes in a microsecond below which the class before suits better, and above which the next. */
  readonly below: number;
  readonly above: number;
}

const CLASSES: readonly RateClass[] = [
  { perSecond: 100_000, below: 0, above: 10 },
  { perSecond: 20_000, below: 10, above: 20 },
  { perSecond: 8_000, below: 20, above: Number.POSITIVE_INFINITY },
];
const FIRST = 1;

export class AdaptiveRate {
  #index = FIRST;

  get perSecond(): number {
    return (CLASSES[this.#index] as RateClass).perSecond;
  }

  /** So many bytes came in a time. True if another rate suits from now on. */
  note(bytes: number, ns: number): boolean {
    const { below, above } = CLASSES[this.#index] as RateClass;
    const perUs = (bytes * 1000) / Math.max(ns, 1);
    if (perUs > above) this.#index++;
    else if (perUs < below) this.#index--;
    else return false;
    return true;
  }
}
