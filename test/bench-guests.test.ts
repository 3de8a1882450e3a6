// suite: cores=1 takes=10 timeout=240
/** The bench with real guests: what Linux reports of TCP comes out as the report's figures. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { runNetBench } from '../src/bench/net-bench.ts';
import { parseNetOptions } from '../src/bench/net-options.ts';
import { netReportSchema } from '../src/bench/report-schema.ts';
import { withoutTestbed } from './support/testbed.ts';

describe('sluice bench net --guest', { skip: withoutTestbed() }, () => {
  test('uml: two guests exchange TCP both ways', async () => {
    const report = netReportSchema.parse(
      await runNetBench(parseNetOptions({ guest: 'uml', direction: 'both', seconds: 1, runs: 1 })),
    );
    const { results, tcp } = report;
    assert.equal(tcp?.streams, 2);
    assert.equal(results.per_guest_gbps.length, 2);
    assert.ok(results.per_guest_gbps.every((gbps) => gbps > 0));
    assert.ok(results.latency_us.p50 > 0);
    assert.ok(results.cpu_pct.driver_domain > 0);
    assert.ok(results.cpu_pct.guests > 0);
    assert.ok(results.interrupts_per_s > 0);
  });

  test('an interrupt while guests boot ends them', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    await assert.rejects(
      runNetBench(parseNetOptions({ guest: 'uml' }), {
        signal: abort.signal,
        onStep: (step) => {
          if (step.startsWith('starting 2 guests')) setTimeout(() => abort.abort(reason), 50);
        },
      }),
      (error) => error === reason,
    );
  });
});
