/**
 * Fuzzes for as long as is asked for:
 *
 *   npm run fuzz                                   all targets, a minute each
 *   npm run fuzz -- split-ring --seconds 600
 *   npm run fuzz -- split-ring --seed 17 --iterations 1
 *
 * Exit codes: 0 nothing was found, 1 something was, 2 wrong usage.
 */
import { parseArgs } from 'node:util';
import { FuzzFailure, freshSeed, fuzz } from './runner.ts';
import { TARGETS } from './targets.ts';

const SECONDS = 60;

function usage(message: string): never {
  console.error(`${message}\ntargets: ${TARGETS.map(({ name }) => name).join(', ')}`);
  process.exit(2);
}

function number(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  return Number.isFinite(value) && value >= 0 ? value : usage(`--${name} ${text} is no number`);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: 'string' },
    iterations: { type: 'string' },
    seconds: { type: 'string' },
  },
});
for (const name of positionals) {
  if (!TARGETS.some((target) => target.name === name)) usage(`no target ${name}`);
}
const seed = number(values.seed, 'seed') ?? freshSeed();
const iterations = number(values.iterations, 'iterations');
const seconds =
  number(values.seconds, 'seconds') ?? (iterations === undefined ? SECONDS : undefined);

for (const target of TARGETS) {
  if (positionals.length > 0 && !positionals.includes(target.name)) continue;
  try {
    const result = await fuzz(target, {
      seed,
      ...(iterations === undefined ? {} : { iterations }),
      ...(seconds === undefined ? {} : { seconds }),
    });
    console.log(`${target.name}: ${result.iterations} iterations from seed ${seed}, nothing found`);
  } catch (error) {
    if (!(error instanceof FuzzFailure)) throw error;
    console.error(error.message);
    console.error(error.cause);
    process.exitCode = 1;
  }
}
