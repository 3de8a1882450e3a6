import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { SluiceError } from './errors.ts';
import { TokenBucket } from './token-bucket.ts';

const SECOND = 1e9;

test('a burst passes at once, then the rate', () => {
  const bucket = new TokenBucket({ rate: 1000, burst: 10 }, 0);
  const passed = (): number => {
    let count = 0;
    while (bucket.take(1)) count++;
    return count;
  };
  assert.equal(passed(), 10);
  bucket.refill(SECOND / 200);
  assert.equal(passed(), 5);
  bucket.refill(100 * SECOND);
  assert.equal(passed(), 10);
});

test('a frame larger than the burst passes and is paid for afterwards', () => {
  const bucket = new TokenBucket({ rate: 100, burst: 10 }, 0);
  assert.equal(bucket.take(60), true);
  assert.equal(bucket.tokens, -50);
  assert.equal(bucket.take(1), false);
  const wait = bucket.waitNs();
  bucket.refill(wait - 2);
  assert.equal(bucket.take(1), false);
  bucket.refill(wait);
  assert.equal(bucket.waitNs(), 0);
  assert.equal(bucket.take(1), true);
});

test('a clock that goes back neither gives nor takes', () => {
  const bucket = new TokenBucket({ rate: SECOND, burst: 100 }, 1000);
  bucket.take(100);
  bucket.refill(500);
  assert.equal(bucket.tokens, 0);
  bucket.refill(1010);
  assert.equal(bucket.tokens, 10);
});

test('no more passes than rate * time + burst + one frame, and what is offered if it is less', () => {
  const offers = fc.array(fc.tuple(fc.nat(2_000_000), fc.integer({ min: 1, max: 65_000 })), {
    minLength: 1,
    maxLength: 300,
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 1000, max: 10 ** 10 }),
      fc.integer({ min: 1, max: 10 ** 6 }),
      offers,
      (rate, burst, run) => {
        const bucket = new TokenBucket({ rate, burst }, 0);
        let now = 0;
        let passed = 0;
        let refused = 0;
        for (const [wait, amount] of run) {
          now += wait;
          bucket.refill(now);
          if (bucket.take(amount)) passed += amount;
          else refused += amount;
        }
        assert.ok(passed <= (rate * now) / SECOND + burst + 65_000 + 1e-3);
        // Whoever was refused had used what flowed in, less what did not fit into the burst.
        if (refused > 0) assert.ok(passed >= burst - 1e-3);
      },
    ),
  );
});

test('rates and bursts that are not positive are refused', () => {
  for (const rate of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => new TokenBucket({ rate, burst: 1 }, 0), SluiceError);
    assert.throws(() => new TokenBucket({ rate: 1, burst: rate }, 0), SluiceError);
  }
});
