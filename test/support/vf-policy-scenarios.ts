/**
 * What the driver domain lets guests do with virtual functions of an 82599, and what it makes of them: `ip link
 * set DEV vf N …`. Run with and without a virtual IOMMU. But for the port's VLAN, between `c`, to which no
 * address was given, and `d`.
 */
import assert from 'node:assert/strict';
import { addAddresses, hostOn, macOf } from './cards.ts';
import {
  arrives,
  callsToStranger,
  carrier,
  groupsAreFiltered,
  hears,
  hearsNot,
  reaches,
  takesAllGroups,
  takesForeignFrames,
} from './emulated-cards.ts';
import { isApart } from './ixgbe-cards.ts';
import { sendMadeUp, startFlood } from './packet-generator.ts';
import { until } from './sluice.ts';
import { type Name, NUMBERS, PORT, PORT_VLAN, VFS, type VfRig } from './vf-rig.ts';

const STRANGER = '52:54:00:00:00:99';
/** Mb/s */
const RATE = 16;
const LEAST_RATE = 2;
/** How far from it the guest may be. */
const RATE_TOLERANCE = 0.05;
const RATE_ATTEMPTS = 4;
/** Frames that a rate is measured by: a burst of 64 more or less is well within what is tolerated. */
const RATE_FRAMES = 2000;
const BURST_FRAMES = 64;

/** `a` and `b` are in a VLAN of the port, `c` is not, and `d`'s paravirtual card sees tags. */
export async function portVlanSeparates(rig: VfRig): Promise<void> {
  const [paravirtual, c] = [rig.mixed()[1], rig.on('c')];
  const d = rig.guest('d');
  const words = ['vlan', `${PORT_VLAN}`, 'qos', '3'];
  await rig.sluice.print('vf', 'set', PORT, 'vf', `${VFS.a}`, ...words);
  await rig.set('b', { vlan: PORT_VLAN });
  assert.match(await rig.sluice.print('show', 'vfs'), /^ +vf 0 .*, vlan 10, qos 3, /m);
  await rig.flushNeighbours('a', 'b', 'c');
  await reaches(rig.on('a'), rig.on('b'));
  await arrives(rig.on('a'), rig.on('b'), 4);
  await isApart(c, rig.on('a'));
  // On the wire they have tags.
  const trunk = hostOn(d, 1, NUMBERS.d, 'card1.10');
  const untagged = hostOn(rig.guest('a'), 1, NUMBERS.a, 'card0');
  await d.sh(`set -e
    ip addr flush dev card1
    ip link add link card1 name card1.10 type vlan id ${PORT_VLAN}`);
  await addAddresses(trunk);
  await addAddresses(untagged);
  await reaches(untagged, trunk);
  await arrives(untagged, trunk, 2);
  await d.sh('ip link del card1.10');
  await rig.guest('a').sh(`ip addr del ${untagged.address}/24 dev card0`);
  // The guest can have none of its own.
  const { code } = await rig.guest('a').run('ip link add link card0 name own type vlan id 7');
  await rig.guest('a').run('ip link del own');
  assert.notEqual(code, 0, 'a VLAN of its own');
  await rig.set('a', { vlan: 0, qos: 0 });
  await rig.set('b', { vlan: 0 });
  await addAddresses(paravirtual);
  await rig.flushNeighbours('a', 'b', 'c');
  await reaches(c, rig.on('a'));
  await reaches(...rig.mixed());
}

/** Groups, all groups and frames for others: what `d` gets of them. */
export async function trustDecides(rig: VfRig): Promise<void> {
  const [host, peer] = [rig.on('d'), rig.on('c')];
  const { guest, interface: device } = host;
  await groupsAreFiltered(host, peer);
  await guest.sh(`ip link set ${device} promisc on`);
  await hearsNot(host, peer, 'a stranger, without trust', await callsToStranger(host, peer));
  await guest.sh(`ip link set ${device} promisc off`);
  await rig.set('d', { trust: true });
  await takesForeignFrames(host, peer);
  await takesAllGroups(host, peer);
  await rig.set('d', { trust: false });
  await reaches(peer, host);
}

/** Another address: refused, allowed, and given. */
export async function addressesAreGuarded(rig: VfRig): Promise<void> {
  const own = '52:54:00:00:aa:00';
  const choose = async (name: Name, mac: string): Promise<boolean> =>
    (await rig.guest(name).run(`ip link set card0 address ${mac}`)).code === 0;
  assert.equal(await choose('d', own), false, 'the administrator has given one');
  await rig.set('d', { trust: true });
  assert.equal(await choose('d', own), true, 'with trust');
  await rig.flushNeighbours('c');
  await reaches(rig.on('c'), rig.on('d'));
  assert.equal(await choose('d', macOf(0, NUMBERS.d)), true);
  await rig.set('d', { trust: false });
  // It was given none.
  assert.equal(await choose('c', own), true);
  await rig.flushNeighbours('d');
  await reaches(rig.on('d'), rig.on('c'));
  const given = '52:54:00:00:bb:00';
  await rig.set('c', { mac: given });
  await until('the guest to have its address', async () => {
    return (await rig.guest('c').sh('cat /sys/class/net/card0/address')) === given;
  });
  assert.equal(await choose('c', own), false, 'now there is one');
  await rig.flushNeighbours('c', 'd');
  await reaches(rig.on('d'), rig.on('c'));
}

/** Frames of `c` with another source address, or of a VLAN that it is not in. */
export async function spoofedFramesAreDropped(rig: VfRig): Promise<void> {
  const [from, to] = [rig.on('c'), rig.on('d')];
  const frames = { count: 50, mac: macOf(0, NUMBERS.d) };
  const spoofed = async (): Promise<number> => (await rig.row('c')).spoofed;
  for (const lie of [{ sourceMac: STRANGER }, { vlan: 77 }]) {
    const before = await spoofed();
    const send = async (): Promise<void> => {
      await sendMadeUp(from, { ...frames, ...lie });
      await until('the frames to be counted', async () => {
        return (await spoofed()) - before >= frames.count;
      });
    };
    await hearsNot(to, from, 'spoofed frames', send, frames.count);
  }
  await hears(to, 'honest frames', () => sendMadeUp(from, frames), frames.count);
  await rig.set('c', { spoofchk: false });
  const lie = { ...frames, sourceMac: STRANGER };
  await hears(to, 'what is not looked for', () => sendMadeUp(from, lie), frames.count);
  await rig.set('c', { spoofchk: true });
}

/** A flood obeys a limit of half of what it is without, where that is less than {@link RATE}. */
export async function rateIsObeyed(
  rig: VfRig,
  t: { diagnostic(message: string): void },
): Promise<void> {
  const flood = await startFlood(rig.on('c'), rig.on('d'));
  const sent = async () => {
    const asked = performance.now();
    const { tx_frames: frames, tx_bytes: bytes } = await rig.sluice.counters('c/net0');
    return { at: (asked + performance.now()) / 2, frames, bytes };
  };
  /** Mb/s while so many frames are sent. */
  const rateOver = async (frames: number): Promise<number> => {
    const before = await sent();
    let after = before;
    await until(`${frames} frames`, async () => {
      after = await sent();
      return after.frames - before.frames >= frames;
    });
    return (8 * (after.bytes - before.bytes)) / ((after.at - before.at) * 1000);
  };
  const free = await rateOver(4 * BURST_FRAMES);
  const limit = Math.min(RATE, Math.max(LEAST_RATE, Math.floor(free / 4)));
  await rig.set('c', { max_tx_rate: limit });
  // What a bucket held is gone by then.
  await rateOver(2 * BURST_FRAMES);
  // Never more than the limit. Less may be all that a guest sent which did not get its processor.
  const rates: number[] = [];
  do rates.push(await rateOver(RATE_FRAMES));
  while ((rates.at(-1) ?? 0) < limit * (1 - RATE_TOLERANCE) && rates.length < RATE_ATTEMPTS);
  const all = rates.map((rate) => rate.toFixed(2)).join(', ');
  t.diagnostic(`${all} Mb/s of ${limit}, ${free.toFixed(0)} without`);
  await flood.end();
  await rig.set('c', { max_tx_rate: 0 });
  for (const rate of rates) assert.ok(rate <= limit * (1 + RATE_TOLERANCE), `${all} Mb/s`);
  assert.ok((rates.at(-1) ?? 0) >= limit * (1 - RATE_TOLERANCE), `${all} Mb/s of ${limit}`);
}

/** The link that `c` sees, whatever the wire's is. */
export async function linkStateIsSeen(rig: VfRig): Promise<void> {
  const [host, peer] = [rig.on('c'), rig.on('d')];
  for (const [state, up] of [
    ['disable', false],
    ['enable', true],
    ['disable', false],
    ['auto', true],
  ] as const) {
    await rig.set('c', { state });
    await carrier(host, up);
    if (up) await reaches(peer, host);
    else await isApart(peer, host);
  }
}
