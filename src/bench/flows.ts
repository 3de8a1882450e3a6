/**
 * Who sends to whom. The direction is the guests' view:
 *
 * - `both`: a ring, each guest sends to the next; two guests send to each other.
 * - `rx`: pairs, the first of each (0, 2, 4 …) receives from the second.
 * - `tx`: pairs, the first of each sends to the second.
 *
 * With machines outside, each guest receives from one of them, or sends to it, or both.
 */
import { SluiceError } from '../base/errors.ts';
import type { Direction } from './report-schema.ts';

/** One stream of frames; guests by number, and after them the machines beyond their wires. */
export interface Flow {
  readonly from: number;
  readonly to: number;
}

/**
 * The flows of a bench, in the order of its per-guest figures.
 * @throws SluiceError `usage` for a number of guests that cannot be paired, or for one alone.
 */
export function flowsOf(direction: Direction, guests: number): Flow[] {
  if (guests === 1) {
    throw new SluiceError('usage', '1 guest has nobody to exchange frames with', {
      remedy:
        'give it others, or a machine beyond the wire: --outside with --method direct or sriov',
    });
  }
  if (direction === 'both') {
    return Array.from({ length: guests }, (_, to) => ({ from: (to + guests - 1) % guests, to }));
  }
  if (guests % 2 !== 0) {
    throw new SluiceError('usage', `${guests} guests cannot be paired for direction ${direction}`, {
      remedy: 'give an even number of guests, or --direction both',
    });
  }
  return Array.from({ length: guests / 2 }, (_, pair) =>
    direction === 'rx'
      ? { from: 2 * pair + 1, to: 2 * pair }
      : { from: 2 * pair, to: 2 * pair + 1 },
  );
}

/**
 * The flows of guests with machines beyond the wires of their cards' ports, in the order of the per-guest
 * figures; of `both`, first what guests receive.
 * @param machines by guest: the machine that it exchanges frames with, as flows number it
 */
export function outsideFlowsOf(direction: Direction, machines: readonly number[]): Flow[] {
  const received = machines.map((machine, guest) => ({ from: machine, to: guest }));
  const sent = machines.map((machine, guest) => ({ from: guest, to: machine }));
  return [...(direction === 'tx' ? [] : received), ...(direction === 'rx' ? [] : sent)];
}
