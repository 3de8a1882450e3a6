/** "Did you mean …?": the nearest of the words that were possible. */

/** Insertions, deletions, replacements and swaps of neighbours between two words (Damerau). */
export function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(
        (last[j] as number) + 1,
        (row[j - 1] as number) + 1,
        (last[j - 1] as number) + cost,
      );
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) best = Math.min(best, (beforeLast[j - 2] as number) + 1);
      row.push(best);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length] as number;
}

/** The word nearest to `given`, unless none is near enough to have been meant. */
export function nearest(given: string, words: Iterable<string>): string | undefined {
  const limit = Math.max(1, Math.floor(given.length / 3));
  let found: string | undefined;
  let distance = limit + 1;
  for (const word of words) {
    const d = editDistance(given.toLowerCase(), word.toLowerCase());
    if (d < distance) {
      found = word;
      distance = d;
    }
  }
  return found;
}

/** `; did you mean "lan"?`, or nothing. */
export function suggestion(given: string, words: Iterable<string>): string {
  const word = nearest(given, words);
  return word === undefined ? '' : `; did you mean "${word}"?`;
}
