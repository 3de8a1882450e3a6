/**
 * What `npm test` runs: which files, how many cores each is given, and which may run side by side.
 *
 * A test file may say so in a comment on a line of its own near the top:
 *
 *     // suite: exclusive cores=0.5 takes=90 timeout=600 no-testbed
 *
 * - `exclusive`: nothing else runs at the same time;
 * - `cores=N`: it keeps N cores busy, in quarters (at most all of the machine's): less than one where
 *   it mostly waits;
 * - `takes=SECONDS`: about how long it takes; the longest are started first;
 * - `timeout=SECONDS`: when it is killed and has failed;
 * - `no-testbed`: a file in test/ that needs no testbed, so it belongs to the fast ones.
 */
import { closeSync, globSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';

/** The file that builds the testbed; those that need it wait for its end. */
export const TESTBED_SUITE = 'test/testbed-build.test.ts';

export interface Suite {
  /** Path from the repository's root. */
  readonly file: string;
  /** Needs the testbed. */
  readonly guests: boolean;
  readonly exclusive: boolean;
  /** In quarters, so that sums are exact. */
  readonly cores: number;
  /** Seconds, about. */
  readonly takes: number;
  /** Seconds. */
  readonly timeout: number;
}

/**
 * Two guests could keep two cores busy, but mostly wait: for one another, for links, for time to pass.
 * Four at a time on two cores made one take 789 seconds that takes 248 with one other beside it.
 */
const GUEST_CORES = 0.75;
/** Seconds of those that do not say. */
const GUEST_TAKES = 30;
const UNIT_TAKES = 1;
const UNIT_TIMEOUT = 600;
const GUEST_TIMEOUT = 900;
// Debootstrap and some hundred packages from a slow mirror.
const TESTBED_TIMEOUT = 1800;

const DIRECTIVE = /^\/\/ suite:(.*)$/m;

/** The suite of a file, from the beginning of its text. Throws on words that it does not know. */
export function parseSuite(file: string, head: string, machineCores: number): Suite {
  const inTest = file.startsWith('test/');
  let guests = inTest && file !== TESTBED_SUITE;
  let exclusive = false;
  let cores: number | undefined;
  let takes: number | undefined;
  let timeout: number | undefined;
  for (const word of DIRECTIVE.exec(head)?.[1]?.trim().split(/\s+/) ?? []) {
    const [, name, text] = /^(cores|takes|timeout)=(\d+(?:\.\d+)?)$/.exec(word) ?? [];
    const value = Number(text);
    if (name === 'cores' && value > 0 && Number.isInteger(4 * value)) cores = value;
    else if (name === 'takes' && Number.isInteger(value)) takes = value;
    else if (name === 'timeout' && value > 0 && Number.isInteger(value)) timeout = value;
    else if (word === 'exclusive') exclusive = true;
    else if (word === 'no-testbed' && inTest) guests = false;
    else throw new Error(`${file}: '${word}' in its suite comment is not known`);
  }
  cores ??= guests ? GUEST_CORES : 1;
  takes ??= guests ? GUEST_TAKES : UNIT_TAKES;
  timeout ??= guests ? GUEST_TIMEOUT : file === TESTBED_SUITE ? TESTBED_TIMEOUT : UNIT_TIMEOUT;
  return {
    file,
    guests,
    exclusive,
    cores: exclusive ? machineCores : Math.min(cores, machineCores),
    takes,
    timeout,
  };
}

/** All test files of the repository at `root`, in the order in which they are best started. */
export function findSuites(root: string, machineCores: number): Suite[] {
  const places = ['src', 'scripts', 'bench', 'fuzz', 'test', 'examples'];
  const suites = globSync(`{${places.join(',')}}/**/*.test.ts`, { cwd: root })
    .sort()
    .map((file) => parseSuite(file, head(join(root, file)), machineCores));
  return inOrder(suites, machineCores);
}

/**
 * Suites in the order in which they are best started: the longest first, so that the short ones fill
 * what is left at the end. Those that leave no core to others come last: before them cores idle only
 * until the last of the short ones has ended.
 */
export function inOrder(suites: readonly Suite[], machineCores: number): Suite[] {
  const rank = ({ file, exclusive, cores }: Suite): number => {
    if (file === TESTBED_SUITE) return 0;
    return exclusive || (cores === machineCores && machineCores > 1) ? 2 : 1;
  };
  return suites.toSorted((a, b) => rank(a) - rank(b) || b.takes - a.takes);
}

/**
 * The suites that the words on the command line ask for: `unit` for all that need no testbed,
 * otherwise those whose path contains one of the words; all without words.
 */
export function selectSuites(suites: readonly Suite[], words: readonly string[]): Suite[] {
  if (words.length === 0) return [...suites];
  const chosen = suites.filter((suite) =>
    words.some((word) =>
      word === 'unit'
        ? !suite.guests && suite.file !== TESTBED_SUITE
        : suite.file.includes(word.replace(/^\.\//, '')),
    ),
  );
  const testbed = suites.find((suite) => suite.file === TESTBED_SUITE);
  const isMissing = testbed !== undefined && !chosen.includes(testbed);
  return isMissing && chosen.some((suite) => suite.guests) ? [testbed, ...chosen] : chosen;
}

/**
 * Which of the waiting suites may start now: the first that fits beside the running ones. An
 * exclusive one waits until nothing runs.
 */
export function nextSuite(
  waiting: readonly Suite[],
  running: readonly Suite[],
  machineCores: number,
): Suite | undefined {
  if (running.some((suite) => suite.exclusive)) return undefined;
  const free = machineCores - running.reduce((sum, suite) => sum + suite.cores, 0);
  const isTestbed = ({ file }: Suite): boolean => file === TESTBED_SUITE;
  const noTestbedYet = waiting.some(isTestbed) || running.some(isTestbed);
  return waiting.find(
    (suite) =>
      (suite.exclusive ? running.length === 0 : suite.cores <= free) &&
      !(suite.guests && noTestbedYet),
  );
}

/** The first 4 KiB of a file. */
function head(path: string): string {
  const fd = openSync(path, 'r');
  try {
    const buffer = Buffer.alloc(4096);
    return buffer.toString('utf8', 0, readSync(fd, buffer));
  } finally {
    closeSync(fd);
  }
}
