import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_ATTEMPTS, type Measured, type SideName, summarize, takePairs } from './pairs.ts';
import { peerRowSchema } from './report.ts';

const good = (value: number): Measured => ({ value, disturbed: undefined });
const bad = (value: number): Measured => ({ value, disturbed: 'of noise' });
const head = { work: '64 B split', unit: 'Mpps', better: 'higher' } as const;

/** Hands out samples of each side in their order, and writes down who was asked. */
function script(theirs: Measured[], ours: Measured[]) {
  const asked: SideName[] = [];
  const rest = { theirs: [...theirs], ours: [...ours] };
  const take = (side: SideName): Promise<Measured> => {
    asked.push(side);
    const next = rest[side].shift();
    assert.ok(next !== undefined, `too many samples of ${side}`);
    return Promise.resolve(next);
  };
  return { asked, take };
}

test('the sides are sampled in turn, theirs first', async () => {
  const { asked, take } = script([good(1), good(2)], [good(3), good(4)]);
  const { pairs, discarded } = await takePairs({ samples: 2, keepDisturbed: false, take });
  assert.deepEqual(asked, ['theirs', 'ours', 'theirs', 'ours']);
  assert.deepEqual(
    pairs.map(({ theirs, ours }) => [theirs.value, ours.value]),
    [
      [1, 3],
      [2, 4],
    ],
  );
  assert.equal(discarded, 0);
});

test('a disturbed sample is taken again at once and counted as discarded', async () => {
  const { asked, take } = script([bad(1), good(2)], [bad(3), bad(4), good(5)]);
  const seen: number[] = [];
  const result = await takePairs({
    samples: 1,
    keepDisturbed: false,
    take,
    seen: (_, { value }) => seen.push(value),
  });
  assert.deepEqual(asked, ['theirs', 'theirs', 'ours', 'ours', 'ours']);
  assert.deepEqual(seen, [1, 2, 3, 4, 5]);
  assert.deepEqual(result, { pairs: [{ theirs: good(2), ours: good(5) }], discarded: 3 });
});

test('disturbed samples count where that is asked for', async () => {
  const { take } = script([bad(1)], [bad(3)]);
  const { pairs, discarded } = await takePairs({ samples: 1, keepDisturbed: true, take });
  assert.deepEqual(pairs, [{ theirs: bad(1), ours: bad(3) }]);
  assert.equal(discarded, 0);
});

test('a machine that is never quiet is an error that says why', async () => {
  let taken = 0;
  const take = (): Promise<Measured> => {
    taken++;
    return Promise.resolve(bad(1));
  };
  await assert.rejects(takePairs({ samples: 1, keepDisturbed: false, take }), {
    code: 'state',
    message: /of noise/,
  });
  assert.equal(taken, MAX_ATTEMPTS);
});

test('a row has the medians, and the ratio within the pairs', () => {
  const pairs = [
    { theirs: good(10), ours: good(12) },
    { theirs: good(5), ours: good(10) },
    { theirs: good(20), ours: good(22) },
  ];
  const row = summarize(head, { pairs, discarded: 4 });
  assert.deepEqual(peerRowSchema.parse(row), {
    ...head,
    ours: 12,
    theirs: 10,
    ratio: 1.2,
    ratio_min: 1.1,
    ratio_max: 2,
    samples: 3,
    discarded: 4,
    ours_samples: [12, 10, 22],
    theirs_samples: [10, 5, 20],
  });
});

test('a peer that did nothing gives no ratio', () => {
  const pairs = [{ theirs: good(0), ours: good(1) }];
  assert.throws(() => summarize(head, { pairs, discarded: 0 }), { code: 'state' });
});
