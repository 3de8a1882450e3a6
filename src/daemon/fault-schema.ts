/** The form of a disk's `faults` in the configuration file. */
import { z } from 'zod';
import { GiB } from '../base/bits.ts';
import { SECTOR_BYTES } from '../block/disk.ts';
import { compileRules, FAULT_KINDS, type FaultKind, type FaultPlan } from '../block/fault-plan.ts';
import type { PowerCutOptions } from '../block/power-cut.ts';
import { bytesOf, choice, integer, problemOf, size, text } from './config-values.ts';

const MAX_SECTOR = 2 ** 53 / SECTOR_BYTES;
const MAX_EVERY = 1_000_000_000;
const MAX_DELAY_US = 3_600_000_000;
const MAX_SEED = 0xffff_ffff;
const MAX_VOLATILE_GIB = 16;

/** Keys that mean something to some kinds of fault only. */
const KINDS_OF_KEYS = {
  errno: ['error', 'torn'],
  us: ['delay'],
  random_us: ['delay'],
} as const satisfies Readonly<Record<string, readonly FaultKind[]>>;

const faultRule = z
  .strictObject(
    {
      fault: choice(FAULT_KINDS).describe(
        '`error`: the request fails and nothing is done. `torn`: a write fails after a part of it. `drop`: the guest is told that it was done, and nothing is. `delay`: it takes longer.',
      ),
      on: z
        .array(choice(['read', 'write', 'flush', 'discard', 'write_zeroes']), {
          error: 'expected a list of requests, such as [read, write]',
        })
        .min(1, { error: 'expected at least one request' })
        .optional()
        .describe(
          'Requests that the rule is about. Default: all; `torn`: writes; `drop`: all but reads.',
        ),
      from: integer(0, MAX_SECTOR, 'a sector').optional().describe('The first sector.'),
      to: integer(1, MAX_SECTOR, 'a sector').optional().describe('The sector behind the last.'),
      every: integer(1, MAX_EVERY, 'a number').optional().describe('Each n-th of them only.'),
      probability: z
        .number({ error: 'expected a share, 0 to 1' })
        .min(0, { error: 'expected a share, 0 to 1' })
        .max(1, { error: 'expected a share, 0 to 1' })
        .optional()
        .describe('The share of these that it happens to. Default: 1.'),
      errno: text(/^E[A-Z0-9]+$/, 'the name of an error, such as EIO or ENOSPC')
        .optional()
        .describe('The error. Default: EIO.'),
      us: integer(0, MAX_DELAY_US, 'microseconds').optional().describe('`delay`: so long.'),
      random_us: integer(0, MAX_DELAY_US, 'microseconds')
        .optional()
        .describe('`delay`: and up to so much more, by chance.'),
    },
    { error: 'expected a mapping, such as { fault: error, on: [read], every: 100 }' },
  )
  .superRefine((rule, context) => {
    // A value out of range is told already.
    if (context.issues.length > 0) return;
    for (const key of ['errno', 'us', 'random_us'] as const) {
      const kinds: readonly FaultKind[] = KINDS_OF_KEYS[key];
      if (rule[key] === undefined || kinds.includes(rule.fault)) continue;
      const message = `only for ${kinds.join(' and ')}, and this fault is ${rule.fault}: leave ${key} out`;
      context.addIssue({ code: 'custom', path: [key], message });
    }
    const problem = problemOf(() => compileRules(planOf([rule])));
    if (problem === undefined) return;
    // The rule's place and the keys are those of the file.
    const message = problem.replace(/^fault rule 0: /, '').replaceAll('randomUs', 'random_us');
    context.addIssue({ code: 'custom', message });
  });

const faultsObject = z.strictObject(
  {
    volatile: size
      .refine((value) => bytesOf(value) <= MAX_VOLATILE_GIB * GiB, {
        error: `expected at most ${MAX_VOLATILE_GIB}G`,
      })
      .optional()
      .describe(
        'What is written stays in a volatile cache of this size until a flush; `sluice disk power NAME off`, and a daemon that is killed, lose what is in it.',
      ),
    seed: integer(0, MAX_SEED, 'a number')
      .optional()
      .describe('The same seed and the same requests give the same faults. Default: 1.'),
    rules: z
      .array(faultRule, { error: 'expected a list of rules' })
      .min(1, { error: 'expected at least one rule' })
      .optional()
      .describe('What goes wrong, and when.'),
  },
  { error: 'expected a mapping with rules: [ … ], volatile: SIZE, or both' },
);

export const faults = faultsObject.refine(
  (value) => value.rules !== undefined || value.volatile !== undefined,
  { error: 'expected rules, volatile, or both' },
);

export type FaultsDocument = z.output<typeof faults>;

/** The plan as the disk takes it; undefined without rules. */
export function faultPlanOf({ seed, rules }: FaultsDocument): FaultPlan | undefined {
  if (rules === undefined) return undefined;
  return planOf(rules, seed);
}

/** Undefined for a disk that cannot lose its power. */
export function powerCutOf({ seed, volatile }: FaultsDocument): PowerCutOptions | undefined {
  if (volatile === undefined) return undefined;
  return { cacheBytes: bytesOf(volatile), ...(seed === undefined ? {} : { seed }) };
}

function planOf(rules: NonNullable<FaultsDocument['rules']>, seed?: number): FaultPlan {
  return {
    seed,
    rules: rules.map(({ random_us: randomUs, ...rule }) => ({ ...rule, randomUs })),
  };
}
