/** The form of a disk's `faults` in the configuration file. */
import { z } from 'zod';
import { SECTOR_BYTES } from '../block/disk.ts';
import { compileRules, type FaultPlan } from '../block/fault-plan.ts';
import { choice, integer, problemOf, text } from './config-values.ts';

const MAX_SECTOR = 2 ** 53 / SECTOR_BYTES;
const MAX_EVERY = 1_000_000_000;
const MAX_DELAY_US = 3_600_000_000;
const MAX_SEED = 0xffff_ffff;

const faultRule = z
  .strictObject(
    {
      fault: choice(['error', 'torn', 'delay']).describe(
        '`error`: the request fails and nothing is done. `torn`: a write fails after a part of it. `delay`: it takes longer.',
      ),
      on: z
        .array(choice(['read', 'write', 'flush', 'discard', 'write_zeroes']), {
          error: 'expected a list of requests, such as [read, write]',
        })
        .min(1, { error: 'expected at least one request' })
        .optional()
        .describe('Requests that the rule is about. Default: all.'),
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
    const problem = problemOf(() => compileRules(faultPlanOf({ rules: [rule] })));
    if (problem === undefined) return;
    // The rule's place and the keys are those of the file.
    const message = problem.replace(/^fault rule 0: /, '').replaceAll('randomUs', 'random_us');
    context.addIssue({ code: 'custom', message });
  });

export const faults = z.strictObject(
  {
    seed: integer(0, MAX_SEED, 'a number')
      .optional()
      .describe('The same seed and the same requests give the same faults. Default: 1.'),
    rules: z
      .array(faultRule, { error: 'expected a list of rules' })
      .min(1, { error: 'expected at least one rule' })
      .describe('What goes wrong, and when.'),
  },
  { error: 'expected a mapping with rules: [ … ]' },
);

export type FaultsDocument = z.output<typeof faults>;

/** The plan as the disk takes it. */
export function faultPlanOf({ seed, rules }: FaultsDocument): FaultPlan {
  return {
    seed,
    rules: rules.map(({ random_us: randomUs, ...rule }) => ({ ...rule, randomUs })),
  };
}
