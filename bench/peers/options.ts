/** What the comparisons' command lines share. */
import { InvalidArgumentError } from 'commander';
import { SluiceError } from '../../src/base/errors.ts';
import { allowedCpus } from '../../src/bench/machine.ts';

/** Reads a number of a range, for commander. */
export function numberFrom(min: number, max: number, whole: boolean): (text: string) => number {
  return (text) => {
    const value = Number(text);
    const valid = text.trim() !== '' && value >= min && value <= max;
    if (!valid || (whole && !Number.isInteger(value))) {
      const kind = whole ? 'a whole number' : 'a number';
      throw new InvalidArgumentError(`Expected ${kind}, ${min} to ${max}.`);
    }
    return value;
  };
}

/** Reads a list of some of these words, for commander. */
export function someOf<const Word extends string>(words: readonly Word[]) {
  return (text: string): readonly Word[] =>
    text.split(',').map((given) => {
      const word = words.find((one) => one === given.trim());
      if (word === undefined)
        throw new InvalidArgumentError(`Expected some of ${words.join(',')}.`);
      return word;
    });
}

/** Reads parts of works' names, for commander. */
export function namesOf(text: string): readonly string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

/**
 * The works in whose name is one of these parts; all if there are no parts.
 * @throws SluiceError `usage` where that is none
 */
export function worksNamed<Work>(
  works: readonly Work[],
  nameOf: (work: Work) => string,
  parts: readonly string[] | undefined,
): Work[] {
  const found = works.filter((work) => parts?.some((part) => nameOf(work).includes(part)) ?? true);
  if (found.length > 0 || works.length === 0) return found;
  throw new SluiceError('usage', `no work is named ${parts?.join(' or ')}`, {
    remedy: `There are: ${works.map(nameOf).join('; ')}.`,
  });
}

export interface ProcessorChoice {
  /** Whose processor the second is, such as `switch`. */
  readonly other: string;
  readonly clientCpu: number | undefined;
  readonly otherCpu: number | undefined;
}

/**
 * The processors of the client and of what it measures: those asked for, else the last and the first
 * that we may use.
 * @throws SluiceError `usage` where these are not two
 */
export function chooseProcessors(choice: ProcessorChoice): { client: number; other: number } {
  const allowed = allowedCpus();
  const other = choice.otherCpu ?? allowed.find((cpu) => cpu !== choice.clientCpu);
  const client = choice.clientCpu ?? allowed.findLast((cpu) => cpu !== other);
  if (other === undefined || client === undefined || other === client) {
    throw new SluiceError('usage', `the client and the ${choice.other} need a processor each`, {
      remedy: `Give --client-cpu and --${choice.other}-cpu different numbers, on a machine that has two.`,
    });
  }
  for (const cpu of [client, other]) {
    if (allowed.includes(cpu)) continue;
    throw new SluiceError('usage', `processor ${cpu} is not one that this process may use`, {
      remedy: `Choose from ${allowed.join(', ')}.`,
    });
  }
  return { client, other };
}
