/**
 * Samples of two sides in turn, A B A B, so that what drifts (heat, neighbours) hits both alike; the
 * ratio is taken within each pair.
 */

import { SluiceError } from '../../src/base/errors.ts';
import { median, significant } from '../../src/bench/statistics.ts';
import type { PeerRow } from './report.ts';

/** How often a disturbed sample is taken again before the machine counts as too busy. */
export const MAX_ATTEMPTS = 20;

export type SideName = 'theirs' | 'ours';

/** What was measured of one side in one go, and why it does not count. */
export interface Measured {
  readonly value: number;
  /** Undefined if it counts. */
  readonly disturbed: string | undefined;
}

export interface Pair<T extends Measured> {
  readonly theirs: T;
  readonly ours: T;
}

export interface Pairs<T extends Measured> {
  readonly pairs: readonly Pair<T>[];
  /** Samples that did not count and were taken again. */
  readonly discarded: number;
}

export interface PairOptions<T extends Measured> {
  readonly samples: number;
  /** Count disturbed samples too. */
  readonly keepDisturbed: boolean;
  take(side: SideName): Promise<T>;
  /** Told of each sample as it is taken. */
  seen?(side: SideName, sample: T): void;
}

/** @throws SluiceError `state` if a sample was disturbed {@link MAX_ATTEMPTS} times in a row. */
export async function takePairs<T extends Measured>(options: PairOptions<T>): Promise<Pairs<T>> {
  let discarded = 0;
  const takeOne = async (side: SideName): Promise<T> => {
    for (let attempt = 1; ; attempt++) {
      const sample = await options.take(side);
      options.seen?.(side, sample);
      if (sample.disturbed === undefined || options.keepDisturbed) return sample;
      discarded++;
      if (attempt === MAX_ATTEMPTS) {
        throw new SluiceError(
          'state',
          `${MAX_ATTEMPTS} samples in a row were disturbed, the last because ${sample.disturbed}`,
          { remedy: 'Stop what else runs on the two processors.' },
        );
      }
    }
  };
  const pairs: Pair<T>[] = [];
  while (pairs.length < options.samples) {
    const theirs = await takeOne('theirs');
    const ours = await takeOne('ours');
    pairs.push({ theirs, ours });
  }
  return { pairs, discarded };
}

/** What a row says of how its values are to be read. */
export type RowHead = Pick<PeerRow, 'work' | 'unit' | 'better'>;

/** @throws SluiceError `state` for no pairs, or a side that measured 0. */
export function summarize(head: RowHead, { pairs, discarded }: Pairs<Measured>): PeerRow {
  const ours = pairs.map((pair) => pair.ours.value);
  const theirs = pairs.map((pair) => pair.theirs.value);
  const ratios = pairs.map((pair) => pair.ours.value / pair.theirs.value);
  if (ratios.some((ratio) => !Number.isFinite(ratio))) {
    throw new SluiceError('state', `${head.work}: the peer did nothing in a sample that counts`);
  }
  return {
    work: head.work,
    unit: head.unit,
    ours: significant(median(ours)),
    theirs: significant(median(theirs)),
    ratio: significant(median(ratios)),
    ratio_min: significant(Math.min(...ratios)),
    ratio_max: significant(Math.max(...ratios)),
    better: head.better,
    samples: pairs.length,
    discarded,
    ours_samples: ours.map((value) => significant(value)),
    theirs_samples: theirs.map((value) => significant(value)),
  };
}
