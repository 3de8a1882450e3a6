import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { escapeMarkup, renderChart, shortNumber, ticksTo } from './chart.ts';

describe('ticks', () => {
  it('begin at 0, reach the top, and are few and even', () => {
    assert.deepEqual(ticksTo(10), [0, 5, 10]);
    assert.deepEqual(ticksTo(0.7), [0, 0.2, 0.4, 0.6, 0.8]);
    assert.deepEqual(ticksTo(0), [0, 1]);
    fc.assert(
      fc.property(fc.double({ min: 1e-6, max: 1e12, noNaN: true }), (top) => {
        const ticks = ticksTo(top);
        assert.equal(ticks[0], 0);
        assert.ok((ticks.at(-1) as number) >= top * (1 - 1e-9));
        assert.ok((ticks.at(-2) as number) < top);
        assert.ok(ticks.length >= 3 && ticks.length <= 6, `${top}: ${ticks}`);
      }),
    );
  });
});

describe('a chart', () => {
  const chart = renderChart({
    title: 'A & B',
    unit: 'Gb/s',
    panels: [
      { label: '<64 B>', bars: [{ label: '2', value: 5, low: 4, high: 6, limit: 10 }] },
      { label: '1514 B', bars: [{ label: '2', value: 0 }] },
    ],
  });

  it('escapes what it is given', () => {
    assert.equal(escapeMarkup(`<a b="c" d='e'>&`), '&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;');
    assert.ok(chart.includes('A &amp; B, Gb/s'));
    assert.ok(chart.includes('&lt;64 B&gt;'));
    assert.ok(!chart.includes('<64'));
  });

  it('draws a bar as high as its value in its panel', () => {
    const heights = [...chart.matchAll(/<rect class="bar"[^>]* height="([\d.]+)"/g)].map((match) =>
      Number(match[1]),
    );
    // The first panel reaches up to its limit of 10, so 5 is half of it.
    assert.deepEqual(heights, [90, 0]);
  });

  it('has whiskers and limits only where they are given', () => {
    assert.equal(chart.match(/class="whisker"/g)?.length, 1);
    assert.equal(chart.match(/class="limit"/g)?.length, 1);
    assert.ok(!chart.includes('NaN'));
  });
});

describe('short numbers', () => {
  it('have three digits that say something', () => {
    assert.equal(shortNumber(0), '0');
    assert.equal(shortNumber(0.012345), '0.0123');
    assert.equal(shortNumber(12.345), '12.3');
    assert.equal(shortNumber(12345.6), '12346');
  });
});
