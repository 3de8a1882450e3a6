import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { countBits } from '../../base/bits.ts';
import { Aggregation } from './aggregation.ts';

const US = 1000;
const SLOTS = 32;

/**
 * A guest that keeps `depth` commands with a drive that takes `driveUs` for each: it takes `issueUs` to send one, and
 * `interruptUs` for each interrupt. Returns what `commands` of them took.
 */
function run(
  depth: number,
  commands: number,
  { issueUs = 100, driveUs = 10, interruptUs = 200 } = {},
): { readonly interrupts: number; readonly us: number; readonly longestUs: number } {
  const aggregation = new Aggregation();
  const ready = new Float64Array(SLOTS);
  let now = 0;
  let outstanding = 0;
  let guestFree = 0;
  let told = 0;
  let interrupts = 0;
  let longest = 0;
  while (told < commands) {
    now += US;
    assert.ok(now < 10e9, `${told} of ${commands} were told`);
    if (now >= guestFree && countBits(outstanding) < depth) {
      const tag = 31 - Math.clz32(~outstanding & -~outstanding);
      outstanding |= 1 << tag;
      ready[tag] = now + driveUs * US;
      aggregation.arrived(now);
      guestFree = now + issueUs * US;
    }
    let done = 0;
    for (let tag = 0; tag < SLOTS; tag++) {
      if ((outstanding & (1 << tag)) !== 0 && now >= (ready[tag] as number)) done |= 1 << tag;
    }
    if (done === 0 || !aggregation.due(now, done, outstanding)) continue;
    for (let tag = 0; tag < SLOTS; tag++) {
      if ((done & (1 << tag)) !== 0) longest = Math.max(longest, now - (ready[tag] as number));
    }
    outstanding &= ~done;
    told += countBits(done);
    interrupts++;
    guestFree = Math.max(guestFree, now) + interruptUs * US;
  }
  return { interrupts, us: now / US, longestUs: longest / US };
}

describe('when ends of queued commands are told', () => {
  it('gathers them while commands keep coming', () => {
    for (const depth of [8, 16, 32]) {
      const { interrupts } = run(depth, 2000);
      assert.ok(interrupts < 2000 / 5, `depth ${depth}: ${interrupts} interrupts`);
    }
  });

  it('saves more than it costs, however many are queued', () => {
    for (const depth of [2, 3, 4, 8, 32]) {
      for (const issueUs of [5, 20, 100]) {
        const { us } = run(depth, 2000, { issueUs, interruptUs: 2 * issueUs });
        // Each told alone: the guest works for each command and for each interrupt.
        assert.ok(us < 2000 * 3 * issueUs, `depth ${depth}, ${issueUs} us: ${us} us`);
      }
    }
  });

  it('lets single commands wait on trial only, and ever less often', () => {
    const { us, interrupts } = run(1, 4000);
    assert.equal(interrupts, 4000);
    // What they take if nothing is ever held back, and 2 % more.
    assert.ok(us < 4000 * (100 + 200) * 1.02, `${us} us`);
  });

  it('holds back no end for longer than a millisecond, or of a slow drive in vain', () => {
    assert.ok(run(32, 2000, { issueUs: 300 }).longestUs <= 1001);
    const slow = run(4, 1000, { driveUs: 5000 });
    assert.ok(slow.us < (1000 / 4) * 6000 * 1.1, `${slow.us} us`);
  });

  it('begins anew when all is forgotten', () => {
    const aggregation = new Aggregation();
    let now = 0;
    for (; aggregation.due(now, 1, 1); now += US) assert.ok(now < 1000 * US);
    assert.ok(aggregation.holding);
    aggregation.forget();
    assert.equal(aggregation.holding, false);
  });
});
