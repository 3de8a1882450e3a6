import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  gbps,
  jainIndex,
  mean,
  median,
  mpps,
  percent,
  perUnit,
  significant,
  slope,
} from './statistics.ts';

const values = fc.array(fc.double({ min: 0, max: 1e12, noNaN: true }), { minLength: 1 });

describe('median', () => {
  it('is the middle, or the mean of the two in the middle', () => {
    assert.equal(median([3, 1, 2]), 2);
    assert.equal(median([4, 1, 2, 3]), 2.5);
    assert.equal(median([7]), 7);
    assert.throws(() => median([]), { code: 'state' });
  });

  it('has at most half of the values on either side', () => {
    fc.assert(
      fc.property(values, (list) => {
        const middle = median(list);
        assert.ok(list.filter((value) => value < middle).length <= list.length / 2);
        assert.ok(list.filter((value) => value > middle).length <= list.length / 2);
      }),
    );
  });
});

describe("Jain's index", () => {
  it('is 1 for equal shares and 1/n for one that has all', () => {
    assert.equal(jainIndex([5, 5, 5, 5]), 1);
    assert.equal(jainIndex([8, 0, 0, 0]), 0.25);
    assert.equal(jainIndex([3, 1]), 16 / 20);
    assert.equal(jainIndex([0, 0]), 1);
  });

  it('is between 1/n and 1', () => {
    fc.assert(
      fc.property(values, (list) => {
        const index = jainIndex(list);
        assert.ok(index >= 1 / list.length - 1e-9 && index <= 1 + 1e-9);
      }),
    );
  });
});

describe('units', () => {
  it('are decimal, and bits for throughput', () => {
    assert.equal(gbps(125_000_000, 1), 1);
    assert.equal(gbps(125_000_000, 2), 0.5);
    assert.equal(mpps(3_000_000, 2), 1.5);
    assert.equal(percent(1, 4), 25);
    assert.equal(percent(0, 0), 0);
    assert.equal(perUnit(10, 4), 2.5);
    assert.equal(perUnit(10, 0), 0);
    assert.equal(mean([1, 2, 6]), 3);
    assert.equal(mean([]), 0);
  });

  it('are rounded to significant digits, not to decimals', () => {
    assert.equal(significant(123.456), 123.5);
    assert.equal(significant(0.000123456), 0.0001235);
    assert.equal(significant(0), 0);
  });
});

describe('slope', () => {
  it('is that of a line through points on it', () => {
    fc.assert(
      fc.property(fc.integer({ min: -1000, max: 1000 }), fc.integer(), (factor, offset) => {
        const points = [0, 1, 5, 9].map((x) => [x, factor * x + offset] as const);
        assert.ok(Math.abs(slope(points) - factor) < 1e-3);
      }),
    );
  });

  it('is 0 where there is no line', () => {
    assert.equal(slope([]), 0);
    assert.equal(slope([[1, 5]]), 0);
    assert.equal(
      slope([
        [1, 5],
        [1, 9],
      ]),
      0,
    );
  });
});
