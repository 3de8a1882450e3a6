/** What goes wrong with a disk, and when: the plan of a {@link FaultyDisk}. */
import { constants } from 'node:os';
import { SluiceError } from '../base/errors.ts';
import { SECTOR_BYTES } from './disk.ts';
import { DISK_DISCARD, DISK_FLUSH, DISK_READ, DISK_WRITE, DISK_WRITE_ZEROES } from './requests.ts';

const OPS = {
  read: DISK_READ,
  write: DISK_WRITE,
  flush: DISK_FLUSH,
  discard: DISK_DISCARD,
  write_zeroes: DISK_WRITE_ZEROES,
} as const;

export type FaultOp = keyof typeof OPS;

export const FAULT_KINDS = ['error', 'torn', 'drop', 'delay'] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** What a kind is about unless a rule says so. */
const DEFAULT_OPS: Readonly<Record<FaultKind, readonly FaultOp[]>> = {
  error: Object.keys(OPS) as FaultOp[],
  torn: ['write'],
  drop: ['write', 'flush', 'discard', 'write_zeroes'],
  delay: Object.keys(OPS) as FaultOp[],
};

export interface FaultRule {
  /**
   * `error`: the request fails and nothing is done. `torn`: a write fails after a random part of its
   * blocks, side by side, has been written. `drop`: the request completes well, and nothing is done: a
   * disk that lies. `delay`: it takes longer.
   */
  readonly fault: FaultKind;
  /** Requests that the rule is about. Default: all; for `torn`: writes; for `drop`: all but reads. */
  readonly on?: readonly FaultOp[] | undefined;
  /** Only requests that touch sectors `from` up to, not including, `to`: so no flush. */
  readonly from?: number | undefined;
  readonly to?: number | undefined;
  /** Each n-th of them only. */
  readonly every?: number | undefined;
  /** Of these, this share: 0 to 1. Default: 1. */
  readonly probability?: number | undefined;
  /** The error's number, or name such as `ENOSPC`. Default: EIO. */
  readonly errno?: number | string | undefined;
  /** `delay`: microseconds from when the request is submitted, and up to so many more by chance. */
  readonly us?: number | undefined;
  readonly randomUs?: number | undefined;
}

/** Can be posted. */
export interface FaultPlan {
  /** The same seed and the same requests give the same faults. Default: 1. */
  readonly seed?: number | undefined;
  /** The first that applies decides how a request fails; all delays that apply add up. */
  readonly rules: readonly FaultRule[];
}

/** A rule as numbers. */
export interface CompiledRule {
  readonly fault: FaultRule['fault'];
  /** Bit `op` is set for each DISK_* that the rule is about. */
  readonly ops: number;
  /** Bytes of the disk: [from, to). */
  readonly from: number;
  readonly to: number;
  /** The rule is about a part of the disk, and so about no flush. */
  readonly ranged: boolean;
  readonly every: number;
  readonly probability: number;
  /** What the request completes with: a negative errno, or 0 for what is dropped. */
  readonly result: number;
  readonly delayNs: number;
  readonly randomNs: number;
  /** Requests that matched so far. */
  matched: number;
}

function refuse(index: number, message: string, remedy: string): never {
  throw new SluiceError('config', `fault rule ${index}: ${message}`, { remedy });
}

function errnoOf(index: number, errno: number | string): number {
  const names: Readonly<Record<string, number | undefined>> = constants.errno;
  const number = typeof errno === 'string' ? names[errno] : errno;
  if (number === undefined || !Number.isInteger(number) || number < 1 || number > 4095) {
    refuse(index, `${errno} is no error`, 'give the name of an errno, such as EIO or ENOSPC');
  }
  return number;
}

function opsOf(index: number, rule: FaultRule): number {
  const names = rule.on ?? DEFAULT_OPS[rule.fault];
  let ops = 0;
  for (const name of names) {
    // What a configuration says may be anything.
    const op: number | undefined = OPS[name];
    if (op === undefined)
      refuse(index, `on ${name}`, `give some of ${Object.keys(OPS).join(', ')}`);
    ops |= 1 << op;
  }
  if (rule.fault === 'torn' && ops !== 1 << DISK_WRITE)
    refuse(index, 'only writes can be torn', 'leave `on` out');
  if (rule.fault === 'drop' && (ops & (1 << DISK_READ)) !== 0)
    refuse(index, 'a read cannot be dropped', 'leave `read` out of `on`');
  return ops;
}

/** @throws SluiceError `config` for a rule that makes no sense */
export function compileRules(plan: FaultPlan): CompiledRule[] {
  return plan.rules.map((rule, index) => {
    const { fault, every = 1, probability = 1, us = 0, randomUs = 0, from, to } = rule;
    if (!FAULT_KINDS.includes(fault))
      refuse(index, `fault ${String(fault)}`, `give one of ${FAULT_KINDS.join(', ')}`);
    if (!(Number.isSafeInteger(every) && every >= 1))
      refuse(index, `every ${every}`, 'give a whole number from 1');
    if (!(probability >= 0 && probability <= 1))
      refuse(index, `a probability of ${probability}`, 'give a number from 0 to 1');
    for (const time of [us, randomUs]) {
      if (!(time >= 0 && time < Number.POSITIVE_INFINITY))
        refuse(index, `a delay of ${time} µs`, 'give a number from 0');
    }
    if (fault === 'delay' && us + randomUs === 0)
      refuse(index, 'a delay of nothing', 'give `us`, `randomUs` or both');
    const end = to ?? Number.POSITIVE_INFINITY;
    if (!((from ?? 0) >= 0 && (from ?? 0) < end))
      refuse(index, `sectors ${from ?? 0} to ${end}`, 'give a range that is not empty');
    return {
      fault,
      ops: opsOf(index, rule),
      from: (from ?? 0) * SECTOR_BYTES,
      to: end * SECTOR_BYTES,
      ranged: from !== undefined || to !== undefined,
      every,
      probability,
      result: fault === 'drop' ? 0 : -errnoOf(index, rule.errno ?? 'EIO'),
      delayNs: us * 1000,
      randomNs: randomUs * 1000,
      matched: 0,
    };
  });
}
