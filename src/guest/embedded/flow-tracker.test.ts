import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FlowTracker } from './flow-tracker.ts';

describe('FlowTracker', () => {
  it('counts nothing for frames in order, also past 2^32', () => {
    const tracker = new FlowTracker();
    for (let i = 0; i < 1000; i++) tracker.note(i % 3, Math.floor(i / 3));
    tracker.note(5, 0x7fff_ffff);
    tracker.note(5, 0xffff_fffe);
    const before = tracker.missing;
    for (let i = 0xffff_ffff; i < 0xffff_ffff + 5; i++) tracker.note(5, i >>> 0);
    assert.equal(tracker.missing, before);
    assert.deepEqual([tracker.reordered, tracker.duplicates], [0, 0]);
  });

  it('agrees with sets of numbers for any loss, order and repetition', () => {
    const frames = fc.array(fc.tuple(fc.nat(2), fc.nat(60)), { maxLength: 300 });
    fc.assert(
      fc.property(frames, (list) => {
        const tracker = new FlowTracker();
        const seen = [new Set<number>(), new Set<number>(), new Set<number>()];
        let duplicates = 0;
        let reordered = 0;
        for (const [flow, sequence] of list) {
          const had = seen[flow] as Set<number>;
          const highest = Math.max(-1, ...had);
          if (had.has(sequence)) duplicates++;
          else if (sequence < highest) reordered++;
          had.add(sequence);
          tracker.note(flow, sequence);
        }
        let missing = 0;
        for (const had of seen) missing += Math.max(-1, ...had) + 1 - had.size;
        assert.deepEqual(
          [tracker.missing, tracker.reordered, tracker.duplicates],
          [missing, reordered, duplicates],
        );
      }),
    );
  });

  it('forgets the oldest of too many gaps, and counts their frames as lost', () => {
    const tracker = new FlowTracker();
    for (let i = 1; i < 20000; i += 2) tracker.note(0, i);
    assert.equal(tracker.missing, 10000);
    tracker.note(0, 19998 - 2);
    assert.deepEqual([tracker.missing, tracker.reordered, tracker.duplicates], [9999, 1, 0]);
    tracker.note(0, 0);
    assert.deepEqual([tracker.missing, tracker.reordered, tracker.duplicates], [9999, 1, 1]);
    tracker.clear();
    tracker.note(0, 0);
    assert.deepEqual([tracker.missing, tracker.reordered, tracker.duplicates], [0, 0, 0]);
  });
});
