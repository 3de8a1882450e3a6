// suite: takes=40
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { PollLoop } from '../src/os/poll-loop.ts';
import { checkIdle } from './idle.ts';
import { Random } from './random.ts';
import { FuzzFailure, freshSeed, fuzz } from './runner.ts';
import { TARGETS } from './targets.ts';

// Bounded: `npm run fuzz` goes on for longer.
const SECONDS = 2.5;

describe('fuzz targets', () => {
  for (const target of TARGETS) {
    it(target.name, async (context) => {
      const seed = freshSeed();
      const { iterations } = await fuzz(target, { seed, seconds: SECONDS });
      context.diagnostic(`${iterations} iterations from seed ${seed}`);
      assert.ok(iterations > 0);
    });
  }
});

describe('the fuzz runner', () => {
  it('repeats a failure by its seed', async () => {
    const target = {
      name: 'odd',
      run: (random: Random) => {
        if (random.below(10) === 7) throw new Error('seven');
      },
    };
    const failure = await fuzz(target, { seed: 1, iterations: 1000 }).then(
      () => assert.fail('nothing failed'),
      (error: unknown) => error,
    );
    assert.ok(failure instanceof FuzzFailure);
    assert.match(failure.message, /^odd, seed \d+: seven\nrepeat with: npm run fuzz -- odd --seed/);
    await assert.rejects(fuzz(target, { seed: failure.seed, iterations: 1 }), FuzzFailure);
  });

  it('gives the same numbers for the same seed, within their limits', () => {
    const [a, b] = [new Random(5), new Random(5)];
    for (let i = 0; i < 1000; i++) {
      assert.equal(a.u32(), b.u32());
      assert.ok(a.below(7) < 7);
      b.below(7);
      const nasty = a.nasty(16);
      assert.ok(Number.isInteger(nasty) && nasty >= 0 && nasty < 65536);
      assert.equal(b.nasty(16), nasty);
    }
    assert.notDeepEqual(new Random(1).bytes(8), new Random(2).bytes(8));
  });
});

describe('a device that has nothing to do', () => {
  const loop = new PollLoop();
  after(() => loop.close());

  it('may spin for a while, and not for ever', () => {
    let spins = 100;
    const device = { poll: () => 0, arm: () => spins-- > 0, disarm: () => undefined };
    checkIdle(loop, device, () => 0);
    spins = Number.POSITIVE_INFINITY;
    assert.throws(() => checkIdle(loop, device, () => 0), /keeps the lane awake/);
  });
});
