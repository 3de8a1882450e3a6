/** Linux guests of QEMU with virtual functions of an 82599. */
// suite: takes=200 timeout=900
import { test } from 'node:test';
import { withoutTestbed } from './support/testbed.ts';
import { VfRig } from './support/vf-rig.ts';
import { runVfSuite, VF_TRACKS } from './support/vf-suite.ts';

test('QEMU guests with virtual functions of an 82599', {
  skip: withoutTestbed(),
  concurrency: VF_TRACKS,
}, async (t) => {
  await runVfSuite(await VfRig.start(t, { iommu: false }));
});
