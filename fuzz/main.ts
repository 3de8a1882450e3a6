/**
 * Fuzzes for as long as is asked for:
 *
 *   npm run fuzz                                   all targets, a minute each
 *   npm run fuzz -- split-ring --seconds 600
 *   npm run fuzz -- split-ring --seed 17 --iterations 1
 *
 * Exit codes: 0 nothing was found, 1 something was, 2 wrong usage.
 */
import { Argument, Command, CommanderError } from 'commander';
import { numberFrom } from '../bench/peers/options.ts';
import { FuzzFailure, freshSeed, fuzz } from './runner.ts';
import { TARGETS } from './targets.ts';

const EXIT_FOUND = 1;
const EXIT_USAGE = 2;
const SECONDS = 60;
const U32_MAX = 2 ** 32 - 1;
/** Of seconds and of iterations. */
const MOST = 1e9;

interface Options {
  readonly seed?: number;
  readonly iterations?: number;
  readonly seconds?: number;
}

async function run(names: readonly string[], options: Options): Promise<void> {
  const { seed = freshSeed(), iterations } = options;
  const seconds = options.seconds ?? (iterations === undefined ? SECONDS : undefined);
  for (const target of TARGETS) {
    if (names.length > 0 && !names.includes(target.name)) continue;
    try {
      const result = await fuzz(target, {
        seed,
        ...(iterations === undefined ? {} : { iterations }),
        ...(seconds === undefined ? {} : { seconds }),
      });
      console.log(
        `${target.name}: ${result.iterations} iterations from seed ${seed}, nothing found`,
      );
    } catch (error) {
      if (!(error instanceof FuzzFailure)) throw error;
      console.error(error.message);
      console.error(error.cause);
      process.exitCode = EXIT_FOUND;
    }
  }
}

const command = new Command('fuzz')
  .description('Gives devices and protocols what no honest guest would, and looks for harm.')
  .addArgument(
    new Argument('[targets...]', 'what is fuzzed (default: all, one after the other)').choices(
      TARGETS.map(({ name }) => name),
    ),
  )
  .option(
    '--seconds <s>',
    `how long each target is fuzzed (default: ${SECONDS})`,
    numberFrom(0, MOST, false),
  )
  .option('--iterations <n>', 'how many iterations at most', numberFrom(1, MOST, true))
  .option(
    '--seed <n>',
    "the first iteration's seed (default: another each time)",
    numberFrom(0, U32_MAX, true),
  )
  .exitOverride()
  .action(run);

try {
  await command.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  // Commander has printed what there is to say.
  process.exitCode = error.exitCode === 0 ? 0 : EXIT_USAGE;
}
