/**
 * Linux guests of QEMU with a virtual IOMMU each and virtual functions of an 82599: each buffer that the drivers
 * give is a map of its own, and what is not mapped is refused and told. Interrupts are remapped in some of them.
 */
// suite: takes=200 timeout=900
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startStream } from './support/cards.ts';
import { reaches } from './support/emulated-cards.ts';
import { FIRST_QUEUES, startEchoes, useStaleBuffers } from './support/refused-dma.ts';
import { withoutTestbed } from './support/testbed.ts';
import { VfRig } from './support/vf-rig.ts';
import { runVfSuite, VF_TRACKS } from './support/vf-suite.ts';

test('QEMU guests with a virtual IOMMU and virtual functions of an 82599', {
  skip: withoutTestbed(),
  concurrency: VF_TRACKS,
}, async (t) => {
  const rig = await VfRig.start(t, { iommu: true });
  await runVfSuite(rig);

  await t.test(
    'frames at pages that are not mapped are refused and told, other functions go on',
    async () => {
      const { sluice } = rig;
      const [a, b, c, d] = [rig.on('a'), rig.on('b'), rig.on('c'), rig.on('d')];
      const echoes = await startEchoes(b, a);
      const stream = await startStream(a, b);
      await useStaleBuffers(sluice, d, c, 'd/net0', FIRST_QUEUES.virtual);
      const { sent, received, bytes } = await stream.end();
      assert.equal(received, sent);
      assert.ok(bytes > 2 ** 18, `${bytes} bytes`);
      const count = await echoes.end();
      assert.ok(count.sent > 0);
      assert.equal(count.received, count.sent, 'echoes of other functions');
      assert.match(await sluice.print('show', 'faults'), /d\/net0.*not mapped/);
      await reaches(d, a);
    },
  );
});
