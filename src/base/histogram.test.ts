import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Histogram } from './histogram.ts';

describe('Histogram', () => {
  it('gives quantiles within 1 % of the sorted values', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(0x7fff_ffff), { minLength: 1, maxLength: 200 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (values, fraction) => {
          const histogram = new Histogram();
          for (const value of values) histogram.record(value);
          const sorted = values.toSorted((a, b) => a - b);
          const exact = sorted[Math.max(0, Math.ceil(fraction * values.length) - 1)] as number;
          assert.ok(Math.abs(histogram.quantile(fraction) - exact) <= exact * 0.01);
          assert.equal(histogram.count, values.length);
        },
      ),
    );
  });

  it('adds and takes away the records of another', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(0x7fff_ffff)), fc.array(fc.nat(0x7fff_ffff)), (before, after) => {
        const all = new Histogram();
        const later = new Histogram();
        for (const value of before) all.record(value);
        const then = all.counts();
        for (const value of after) {
          all.record(value);
          later.record(value);
        }
        const difference = new Histogram();
        difference.addCounts(all.counts());
        difference.addCounts(then, -1);
        assert.deepEqual(difference.counts(), later.counts());
        assert.equal(difference.count, after.length);
      }),
    );
  });

  it('takes values beyond its range as the largest or as zero', () => {
    const histogram = new Histogram();
    histogram.record(-5);
    assert.equal(histogram.quantile(1), 0);
    histogram.record(1e15);
    assert.ok(histogram.quantile(1) > 2e9);
    histogram.clear();
    assert.equal(histogram.count, 0);
    assert.equal(histogram.quantile(0.5), 0);
  });
});
