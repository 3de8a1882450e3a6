/**
 * Linux guests of QEMU with virtual functions of an 82599: all that the stock driver ixgbevf can do with them,
 * and what the driver domain lets it do. `a` and `b` look at what the card can do while `c` and `d` look at what
 * they may: most of that is waiting for drivers.
 */
import type { TestContext } from 'node:test';
import {
  addressesAreGuarded,
  linkStateIsSeen,
  portVlanSeparates,
  rateIsObeyed,
  spoofedFramesAreDropped,
  trustDecides,
} from './vf-policy-scenarios.ts';
import type { VfRig } from './vf-rig.ts';
import {
  driversAreThere,
  ethtoolMakesSense,
  fourReachEachOther,
  functionIsPlugged,
  guestsComeAndGo,
  jumboFramesArrive,
  offloadsAreUsed,
  paravirtualCardTalks,
  resetsAreSurvived,
  selfTestsPass,
  streamsFlow,
  twoQueuesCarryTraffic,
  vlansInsideGuests,
} from './vf-scenarios.ts';

/** How many of the scenarios run at once: the `concurrency` of the test that they are parts of. */
export const VF_TRACKS = 2;

type Scenario = readonly [name: string, run: (rig: VfRig, t: TestContext) => Promise<void>];

const FIRST: readonly Scenario[] = [
  ['the drivers find their functions, and a link of 10 Gb/s', driversAreThere],
  ['four guests reach each other, all at once', fourReachEachOther],
  ['a port VLAN', portVlanSeparates],
];

/** Of `a` and `b`. */
const TRAFFIC: readonly Scenario[] = [
  ['TCP and UDP both ways, and what is sent arrives as it was', streamsFlow],
  ['offloads are used when on, and not when off', offloadsAreUsed],
  ['two queues carry traffic; the RSS table is told to who may ask', twoQueuesCarryTraffic],
  ['counters, registers, rings and moderation make sense to ethtool', ethtoolMakesSense],
  ['jumbo frames', jumboFramesArrive],
  ['functions are reset, in the midst of traffic', resetsAreSurvived],
];

/** Of `c` and `d`. */
const POLICY: readonly Scenario[] = [
  ['self-tests pass', selfTestsPass],
  ['VLANs inside the guests', vlansInsideGuests],
  ['a paravirtual card on the same network', paravirtualCardTalks],
  ['multicast, and promiscuous with and without trust', trustDecides],
  ['another address: refused, allowed, and given', addressesAreGuarded],
  ['spoofed frames are dropped and counted', spoofedFramesAreDropped],
  ['a rate limit is obeyed', rateIsObeyed],
  ['the link state that the guest sees', linkStateIsSeen],
];

const LAST: readonly Scenario[] = [
  ['a guest reboots, in the midst of traffic another dies', guestsComeAndGo],
  ['a function is plugged into a running guest, and taken away', functionIsPlugged],
];

async function runAll(rig: VfRig, scenarios: readonly Scenario[]): Promise<void> {
  for (const [name, run] of scenarios) await rig.scenario(name, (t) => run(rig, t));
}

export async function runVfSuite(rig: VfRig): Promise<void> {
  await runAll(rig, FIRST);
  await Promise.all([runAll(rig, TRAFFIC), runAll(rig, POLICY)]);
  await runAll(rig, LAST);
}
