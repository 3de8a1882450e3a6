/**
 * What guests do with virtual functions of an 82599, and what their stock driver and ethtool tell of it. Run
 * with and without a virtual IOMMU.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { bringUp, hostOn, macOf, startStream } from './cards.ts';
import { kernelLog } from './drives.ts';
import {
  arrives,
  carrier,
  countsAtRest,
  hears,
  hearsNot,
  interruptsOf,
  reaches,
  selfTest,
  statistic,
  statistics,
} from './emulated-cards.ts';
import { iperf, ping } from './guests.ts';
import {
  addVlan,
  functionReset,
  jumboFrames,
  PATIENCE,
  ringsAndModeration,
  segmentation,
  streams,
} from './ixgbe-cards.ts';
import { startFlood } from './packet-generator.ts';
import { until } from './sluice.ts';
import { FREE_SLOT, NAMES, NUMBERS, PORT, type VfRig } from './vf-rig.ts';

type Diagnostics = { diagnostic(message: string): void };

/** Both ways between `a` and `b`. */
const BOTH_WAYS = [
  ['a', 'b'],
  ['b', 'a'],
] as const;
/** The function that is made at run time. */
const PLUGGED = { vf: 7, network: 3, number: 3 } as const;

export async function driversAreThere(rig: VfRig): Promise<void> {
  for (const name of NAMES) {
    const { guest, interface: device } = rig.on(name);
    assert.match(await guest.sh(`ethtool -i ${device}`), /^driver: ixgbevf$/m);
    const settings = await guest.sh(`ethtool ${device}`);
    assert.match(settings, /Speed: 10000Mb\/s\n\s+Duplex: Full\n/);
    assert.match(settings, /Link detected: yes/);
    const log = await kernelLog(guest);
    assert.doesNotMatch(log, /ixgbevf .*(error|fail|[Tt]imeout|disabled)/, log);
    if (name !== 'c') {
      const address = await guest.sh(`cat /sys/class/net/${device}/address`);
      assert.equal(address, macOf(0, NUMBERS[name]));
    }
    if (rig.iommu) await guest.sh('[ -d /sys/class/iommu/dmar0 ]');
  }
  // A vector for each processor, and one for the mailbox.
  for (const [name, vectors] of [
    ['a', 3],
    ['b', 2],
  ] as const) {
    const kinds = (await interruptsOf(rig.on(name))).map(({ kind }) => kind);
    assert.deepEqual(kinds, Array(vectors).fill('PCI-MSIX'), name);
  }
  if (!rig.iommu) return;
  // Each buffer is a map.
  for (const { function: name, maps } of await rig.sluice.show('functions')) {
    assert.ok(maps > 256, `${maps} maps of ${name}`);
  }
}

export async function fourReachEachOther(rig: VfRig): Promise<void> {
  const hosts = NAMES.map((name) => rig.on(name));
  await Promise.all(
    hosts.map(async (host, index) => {
      for (const step of [1, 2, 3]) await reaches(host, hosts[(index + step) % 4] ?? host);
    }),
  );
  await Promise.all(
    NAMES.map((name, index) => arrives(rig.on(name), hosts[(index + 1) % 4] ?? rig.on(name), 2)),
  );
}

// Between `a` and `b`

export async function streamsFlow(rig: VfRig, t: Diagnostics): Promise<void> {
  const [a, b] = [rig.on('a'), rig.on('b')];
  assert.equal((await ping(a, b, { ipv6: true, deadline: 30 })).received, 3);
  await streams(a, b, t);
  for (const [from, to] of BOTH_WAYS) await arrives(rig.on(from), rig.on(to), 4);
}

export async function offloadsAreUsed(rig: VfRig): Promise<void> {
  for (const [from, to] of BOTH_WAYS) {
    const [sender, receiver] = [rig.on(from), rig.on(to)];
    await segmentation(rig.sluice, sender, receiver);
    assert.equal(await statistic(receiver, 'rx_csum_offload_errors'), 0);
  }
}

export async function twoQueuesCarryTraffic(rig: VfRig): Promise<void> {
  const [a, b] = [rig.on('a'), rig.on('b')];
  const byQueue = async (): Promise<readonly number[]> => {
    const figures = await statistics(a);
    return ['tx_queue_0', 'tx_queue_1', 'rx_queue_0', 'rx_queue_1'].map(
      (queue) => figures[`${queue}_packets`] ?? 0,
    );
  };
  const before = await byQueue();
  const flows = { bytes: 2 ** 20, parallel: 8 };
  // Chance may have all flows of one run in the same queue.
  await until('frames in all queues', async () => {
    await Promise.all([iperf(b, a, flows), iperf(a, b, flows)]);
    return (await byQueue()).every((count, index) => count > (before[index] ?? 0));
  });
  const rss = await a.guest.sh(`ethtool -x ${a.interface}`);
  assert.match(rss, /RSS hash key:\n([0-9a-f]{2}:){39}[0-9a-f]{2}/);
  const { stderr } = await b.guest.run(`ethtool -x ${b.interface}`);
  assert.match(stderr, /Operation not permitted/);
}

export async function ethtoolMakesSense(rig: VfRig): Promise<void> {
  const [host, peer] = [rig.on('a'), rig.on('b')];
  const { guest, interface: device } = host;
  await guest.sh(`ethtool -K ${device} tso off gso off`);
  const figures = async () => {
    const { card, ours: vf } = await countsAtRest(host, async () => (await rig.row('a')).counters);
    return {
      sent: [card['tx_packets'] ?? 0, vf.tx_frames],
      received: [card['rx_packets'] ?? 0, vf.rx_frames],
    };
  };
  const before = await figures();
  await arrives(host, peer, 1);
  await arrives(peer, host, 1);
  await until('the counters to agree', async () => {
    const after = await figures();
    return (['sent', 'received'] as const).every((way) => {
      const [card = 0, vf = 0] = after[way].map((count, i) => count - (before[way][i] ?? 0));
      return card > 100 && card === vf;
    });
  });
  await guest.sh(`ethtool -K ${device} tso on gso on`);
  const dump = await guest.sh(`ethtool -d ${device}`);
  for (const line of [/VFLINKS +\(VF Link Status Register\) +0x7/, /VFRDLEN/]) {
    assert.match(dump, line, dump);
  }
  await ringsAndModeration(host, peer);
}

export async function jumboFramesArrive(rig: VfRig): Promise<void> {
  const [a, b] = [rig.on('a'), rig.on('b')];
  await jumboFrames(a, b);
  await reaches(a, b);
}

/** Resets in the midst of traffic, and a driver that is lost until it starts anew. */
export async function resetsAreSurvived(rig: VfRig): Promise<void> {
  const flood = await startFlood(rig.on('b'), rig.on('a'));
  const guest = rig.guest('a');
  for (const method of ['flr', 'bus']) {
    await functionReset(rig.on('a'), method);
    await rig.bringUp('a');
    await reaches(rig.on('a'), rig.on('b'));
  }
  // A driver that is not told of it.
  await guest.sh('echo flr >/sys/class/net/card0/device/reset_method');
  await guest.sh('echo 1 >/sys/class/net/card0/device/reset');
  await guest.sh('modprobe -r ixgbevf', PATIENCE);
  await guest.sh('modprobe ixgbevf', PATIENCE);
  await rig.bringUp('a');
  await flood.end();
  await rig.flushNeighbours('b');
  await reaches(rig.on('a'), rig.on('b'));
  await arrives(rig.on('b'), rig.on('a'), 4);
}

// Between `c` and `d`

export async function paravirtualCardTalks(rig: VfRig, t: Diagnostics): Promise<void> {
  const [c, d] = rig.mixed();
  await reaches(c, d);
  const ways = [false, true];
  const flows = await Promise.all(ways.map((reverse) => iperf(c, d, { bytes: 2 ** 21, reverse })));
  for (const [index, { bytes, gbps }] of flows.entries()) {
    assert.ok(bytes > 0);
    const way = ways[index] === true ? 'to' : 'from';
    t.diagnostic(`${way} the function: ${(1000 * gbps).toFixed(0)} Mb/s`);
  }
  await arrives(c, d, 4);
  await arrives(d, c, 4);
  await c.guest.sh(`ethtool -K ${c.interface} tso off tx off gso off`);
  await arrives(c, d, 4);
  await c.guest.sh(`ethtool -K ${c.interface} tx on tso on gso on`);
}

export async function selfTestsPass(rig: VfRig): Promise<void> {
  const parts = { Register: 0, Link: 0 };
  const trapped = hostOn(rig.guest('d'), 2, NUMBERS.d, 'card2');
  await Promise.all([selfTest(rig.on('c'), 'online', parts), selfTest(trapped, 'offline', parts)]);
  await carrier(trapped);
  await reaches(rig.on('c'), rig.on('d'));
}

/** A VLAN of `c`'s, in which `d` is later. */
export async function vlansInsideGuests(rig: VfRig): Promise<void> {
  const [c, d] = [rig.on('c'), rig.on('d')];
  const first = await addVlan([c], 100);
  const shout = async (): Promise<void> => {
    await c.guest.run('ping -b -c 20 -i 0.01 -W 0.1 10.0.100.255');
  };
  await hearsNot(d, c, 'a VLAN that it is not in', shout);
  const second = await addVlan([d], 100);
  const [taggedC, taggedD] = [first.hosts[0] ?? c, second.hosts[0] ?? d];
  await hears(d, 'a VLAN that it is in', shout);
  await reaches(taggedC, taggedD);
  await arrives(taggedC, taggedD, 4);
  await arrives(taggedD, taggedC, 4);
  await first.remove();
  await second.remove();
  await reaches(c, d);
}

// All of them

/**
 * `b`'s QEMU dies in the midst of traffic, and `a` starts anew. With an IOMMU nobody sends to `a` then: its maps
 * can go before its function is reset, and a frame in between would be refused.
 */
export async function guestsComeAndGo(rig: VfRig): Promise<void> {
  const others = ['c', 'd'] as const;
  await startStream(rig.on('a'), rig.on('b'));
  const moved = async (): Promise<number> => (await rig.sluice.counters('b/net0')).rx_bytes;
  const before = await moved();
  await until('the stream', async () => (await moved()) > before + 2 ** 18);
  await rig.guest('b').kill();
  await rig.sluice.disconnected('b/net0');
  await reaches(rig.on('c'), rig.on('d'));
  if (rig.iommu) for (const name of others) await rig.guest(name).sh('ip link set card0 down');
  await Promise.all([rig.guest('a').reboot(PATIENCE.timeoutMs), rig.boot('b')]);
  const started = ['a', 'b'] as const;
  await Promise.all((rig.iommu ? NAMES : started).map((name) => rig.bringUp(name)));
  await rig.flushNeighbours(...others);
  for (const [from, to] of [...BOTH_WAYS, ['c', 'a'], ['b', 'd']] as const) {
    await reaches(rig.on(from), rig.on(to));
  }
  for (const [from, to] of BOTH_WAYS) await arrives(rig.on(from), rig.on(to), 4);
  for (const name of NAMES) {
    assert.doesNotMatch(await kernelLog(rig.guest(name)), /NETDEV WATCHDOG|Tx Unit Hang/);
  }
}

/** A function that is made, plugged into guest `c` while it runs, and taken away from it. */
export async function functionIsPlugged(rig: VfRig): Promise<void> {
  const { sluice } = rig;
  const { vf, network, number } = PLUGGED;
  const guest = rig.guest('c');
  await sluice.show('addVf', { nic: PORT, vf, set: { mac: macOf(network, number) } });
  await guest.qmp('device_add', {
    driver: 'vfio-user-pci',
    id: 'plugged',
    bus: FREE_SLOT,
    rombar: 0,
    socket: {
      path: rig.insideOfC(join(sluice.run, `nic0-0-vf${vf}.sock`)),
      type: 'unix',
    },
  });
  const plugged = await bringUp(guest, network, number);
  await carrier(plugged);
  const before = (await sluice.counters(`${PORT}/vf${vf}`)).rx_frames;
  // Nobody has this address: the request goes to all.
  await guest.run(`ping -c 2 -W 1 10.0.${network}.77`);
  await until('the request', async () => {
    return (await sluice.counters(`${PORT}/vf${vf}`)).tx_frames > 0;
  });
  await guest.run(`ping -c 1 -W 1 -I card0 10.0.0.77`);
  await until('the request of the neighbour', async () => {
    return (await sluice.counters(`${PORT}/vf${vf}`)).rx_frames > before;
  });
  await sluice.show('removeVf', { nic: PORT, vf });
  const left = (await sluice.show('vfs')).filter(({ nic }) => nic === PORT);
  assert.deepEqual(
    left.map((each) => each.vf),
    NAMES.map((_, index) => index),
  );
  // The guest, and its other function, go on.
  await carrier(rig.on('c'));
  await reaches(rig.on('c'), rig.on('a'));
}
