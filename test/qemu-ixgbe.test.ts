/**
 * Linux guests of QEMU that own a port of an 82599 each: all that the stock driver ixgbe and ethtool can do
 * with it. Guest `a` has two processors, a virtual IOMMU, and the card behind a port of PCI Express; `b` has
 * one processor, no IOMMU until it is started anew, and is started with the very arguments that
 * `sluice guest qemu-args` prints. What one guest's card can do is asked of both.
 */
// suite: takes=200 timeout=900
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { QemuGuest } from '../src/guest/qemu.ts';
import { addAddresses, bringUp, hostOn, macOf, startStream } from './support/cards.ts';
import { kernelLog } from './support/drives.ts';
import {
  arrives,
  callInVain,
  carrier,
  countsAtRest,
  filtersWork,
  hears,
  hearsNot,
  interruptsOf,
  reaches,
  selfTest,
  statistic,
  statistics,
} from './support/emulated-cards.ts';
import { type Host, iperf, ping } from './support/guests.ts';
import {
  addVlan,
  changeMtu,
  functionReset,
  IOMMU_PARAMETERS,
  iommuOptions,
  isApart,
  jumboFrames,
  PATIENCE,
  ringsAndModeration,
  segmentation,
  startIxgbeGuest,
  streams,
  sumOf,
} from './support/ixgbe-cards.ts';
import { startFlood } from './support/packet-generator.ts';
import { startPrinted } from './support/printed-guest.ts';
import { FIRST_QUEUES, useStaleBuffers } from './support/refused-dma.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

const NUMBERS = { a: 1, b: 2 } as const;
type Name = keyof typeof NUMBERS;
const NAMES = Object.keys(NUMBERS) as Name[];
/** Frames a second; more keep an emulated processor from loading a driver. */
const FLOOD = 1000;

const config: SluiceConfig = {
  switches: { lan: {} },
  nics: {
    nic0: {
      model: 82599,
      ports: [{ wire: { switch: 'lan' }, link: 'none', mac: macOf(0, NUMBERS.a) }],
    },
    // The self-test writes what no mask lets through in pages that are mapped.
    nic1: {
      model: 82599,
      ports: [
        { link: 'none' },
        { wire: { switch: 'lan' }, link: 'none', mac: macOf(0, NUMBERS.b) },
      ],
      doorbells: 'trapped',
    },
  },
  guests: {
    a: { memory: '320M', net: [{ method: 'direct', nic: 'nic0', port: 0 }] },
    b: { memory: '320M', net: [{ method: 'direct', nic: 'nic1', port: 1 }] },
  },
};

test('QEMU guests that own a port of an 82599', { skip: withoutTestbed() }, async (t) => {
  const sluice = await Sluice.start(t, config);
  const guests: Record<Name, QemuGuest> = {
    a: startIxgbeGuest(t, sluice, {
      name: 'a',
      functions: ['a/net0'],
      cpus: 2,
      iommu: 'interrupts',
    }),
    b: await startPrinted(t, sluice, 'b'),
  };
  const on = (name: Name): Host => hostOn(guests[name], 0, NUMBERS[name], 'card0');
  const pair = (): [Host, Host] => [on('a'), on('b')];
  const bringUpCard = async (name: Name): Promise<void> => {
    await bringUp(guests[name], 0, NUMBERS[name]);
    await carrier(on(name));
  };
  const portOf = ({ guest }: Host): string => `${guest.name}/net0`;
  const scenario = async (name: string, run: (t: TestContext) => Promise<void>): Promise<void> => {
    await t.test(name, async (t) => {
      await run(t);
      await sluice.healthy();
    });
  };
  const BOTH_WAYS = [
    ['a', 'b'],
    ['b', 'a'],
  ] as const;
  await Promise.all(NAMES.map((name) => guests[name].booted(PATIENCE.timeoutMs)));
  await Promise.all(NAMES.map(bringUpCard));

  await scenario('the driver finds its card, and a link of 10 Gb/s', async () => {
    for (const { guest, interface: device } of pair()) {
      const driver = await guest.sh(`ethtool -i ${device}`);
      assert.match(driver, /^driver: ixgbe$/m);
      assert.match(driver, /^firmware-version: 0x[0-9a-f]{8}/m);
      const settings = await guest.sh(`ethtool ${device}`);
      assert.match(settings, /Speed: 10000Mb\/s\n\s+Duplex: Full\n/);
      assert.match(settings, /Port: Direct Attach Copper/);
      assert.match(settings, /Link detected: yes/);
      const module = await guest.sh(`ethtool -m ${device} offset 0 length 1 raw on | xxd -p`);
      assert.equal(module, '03', 'SFP');
      const log = await kernelLog(guest);
      assert.doesNotMatch(log, /ixgbe .*(error|fail|[Tt]imeout|[Uu]nsupported)/, log);
    }
    const pci = '/sys/class/net/card0/device';
    assert.equal(await guests.a.sh(`cat ${pci}/current_link_speed`), '5.0 GT/s PCIe');
    assert.equal(await guests.a.sh(`cat ${pci}/current_link_width`), '8');
    await guests.a.sh('[ -d /sys/class/iommu/dmar0 ]');
    await guests.b.sh('[ ! -e /sys/class/iommu/dmar0 ]');
    // Each buffer is a map.
    const functions = await sluice.show('functions');
    const maps = functions.find((each) => each.function === 'a/net0')?.maps ?? 0;
    assert.ok(maps > 256, `${maps} maps`);
  });

  await scenario('they reach each other', async () => {
    await reaches(...pair());
    assert.equal((await ping(...pair(), { ipv6: true, deadline: 30 })).received, 3);
    // A vector for each processor, and one for all else.
    for (const [name, vectors] of [
      ['a', 3],
      ['b', 2],
    ] as const) {
      const kinds = (await interruptsOf(on(name))).map(({ kind }) => kind);
      assert.deepEqual(kinds, Array(vectors).fill('PCI-MSIX'), name);
    }
  });

  await scenario('TCP and UDP both ways, and what is sent arrives as it was', async (t) => {
    await streams(...pair(), t);
    for (const [from, to] of BOTH_WAYS) await arrives(on(from), on(to), 4);
  });

  await scenario('frames cost no traps', async () => {
    const figures = async () => {
      const { counters } =
        (await sluice.show('functions')).find((each) => each.function === 'a/net0') ??
        assert.fail();
      return {
        at: performance.now(),
        reads: counters.trap_reads,
        writes: counters.trap_writes,
        interrupts: (await interruptsOf(on('a'))).reduce((sum, { count }) => sum + count, 0),
        frames: await sumOf(on('a'), /^[rt]x_packets$/),
      };
    };
    const attempt = async (): Promise<string> => {
      const before = await figures();
      await arrives(on('b'), on('a'), 8);
      const after = await figures();
      await sleep(after.at - before.at);
      const idle = await figures();
      const grown = (name: keyof typeof before): number => after[name] - before[name];
      const [frames, interrupts] = [grown('frames'), grown('interrupts')];
      assert.ok(frames > 1000);
      // Each interrupt costs one, and one more when its throttle is adapted; every twentieth frame that is
      // sent may tell the flow director of its flow.
      if (grown('writes') > 2 * interrupts + frames / 10 + 300)
        return `${grown('writes')} writes, ${interrupts} interrupts, ${frames} frames`;
      // Watchdog and ethtool read some hundred counters, whatever there is to do.
      const idleReads = idle.reads - after.reads;
      if (grown('reads') > 2 * idleReads + frames / 10 + 1000)
        return `${grown('reads')} reads, ${idleReads} without traffic, ${frames} frames`;
      return '';
    };
    // A driver that looks at its SFP meanwhile has some 3500 traps, which frames have in each attempt.
    const attempts: string[] = [];
    do attempts.push(await attempt());
    while (attempts.at(-1) !== '' && attempts.length < 3);
    assert.equal(attempts.at(-1), '', attempts.join('; '));
  });

  await scenario('offloads are used when on, and not when off', async () => {
    for (const [from, to] of BOTH_WAYS) {
      const [sender, receiver] = [on(from), on(to)];
      // The switch does for a port what its wire does not carry.
      await segmentation(sluice, sender, receiver, to === 'a' ? 'nic0/0' : 'nic1/1');
      assert.equal(await statistic(receiver, 'rx_csum_offload_errors'), 0);
    }
    await reaches(...pair());
  });

  await scenario('two queues carry traffic, and one after ethtool -L', async () => {
    const { guest, interface: device } = on('a');
    for (const [name, queues] of [
      ['a', 2],
      ['b', 1],
    ] as const) {
      const { guest, interface: device } = on(name);
      const channels = await guest.sh(`ethtool -l ${device}`);
      assert.match(channels, new RegExp(`Current(.*\\n)*Combined:\\s+${queues}\\b`));
      const rss = await guest.sh(`ethtool -x ${device}`);
      assert.match(rss, new RegExp(`with ${queues} RX ring\\(s\\)`));
      assert.match(rss, /RSS hash key:\n([0-9a-f]{2}:){39}[0-9a-f]{2}/);
    }
    const byQueue = async (): Promise<readonly number[]> => {
      const figures = await statistics(on('a'));
      return [0, 1].map((queue) => figures[`rx_queue_${queue}_packets`] ?? 0);
    };
    const before = await byQueue();
    // Once in a hundred times, chance has all flows of one run in the same queue.
    await until('frames in both queues', async () => {
      await iperf(on('b'), on('a'), { bytes: 2 ** 20, parallel: 8 });
      return (await byQueue()).every((count, queue) => count > (before[queue] ?? 0));
    });
    // All to the second queue.
    await guest.sh(`ethtool -X ${device} weight 0 1`);
    const [first = 0, second = 0] = await byQueue();
    await arrives(on('b'), on('a'), 2);
    const [firstNow = 0, secondNow = 0] = await byQueue();
    assert.ok(secondNow - second > 10 * (firstNow - first), 'the table decides');
    await guest.sh(`ethtool -X ${device} default`);
    for (const combined of [1, 2]) {
      await guest.sh(`ethtool -L ${device} combined ${combined}`, PATIENCE);
      await carrier(on('a'));
      assert.equal((await interruptsOf(on('a'))).length, combined + 1);
      await arrives(on('a'), on('b'), 2);
    }
  });

  const countsAgree = async (host: Host, peer: Host): Promise<void> => {
    const figures = () => countsAtRest(host, () => sluice.counters(portOf(host)));
    await host.guest.sh(`ethtool -K ${host.interface} tso off gso off`);
    const before = await figures();
    await arrives(host, peer, 1);
    await arrives(peer, host, 1);
    let after = before;
    const port = (name: keyof typeof before.ours): number => after.ours[name] - before.ours[name];
    const card = (name: string): number => (after.card[name] ?? 0) - (before.card[name] ?? 0);
    await until('the counters to agree', async () => {
      after = await figures();
      return card('tx_packets') === port('tx_frames') && card('rx_packets') === port('rx_frames');
    });
    assert.ok(card('tx_packets') > 100 && card('rx_packets') > 100);
    // The driver's own and those of the card's registers, which count the check sequence too.
    assert.equal(card('tx_pkts_nic'), port('tx_frames'));
    assert.equal(card('rx_pkts_nic'), port('rx_frames'));
    // The card makes short frames longer: those of ARP by 18 bytes, a reset of TCP by 6.
    const padding = card('tx_bytes_nic') - port('tx_bytes') - 4 * port('tx_frames');
    assert.ok(padding >= 0 && padding < 18 * 20, `${padding} bytes`);
    assert.equal(card('rx_bytes_nic'), port('rx_bytes') + 4 * port('rx_frames'));
    for (const name of ['rx_errors', 'tx_errors', 'rx_crc_errors', 'tx_timeout_count']) {
      assert.equal(after.card[name], 0, name);
    }
    await host.guest.sh(`ethtool -K ${host.interface} tso on gso on`);
  };

  await scenario('the cards count what Sluice counts', async () => {
    for (const [name, peer] of BOTH_WAYS) await countsAgree(on(name), on(peer));
  });

  const registersMakeSense = async (host: Host, peer: Host): Promise<void> => {
    const { guest, interface: device } = host;
    const dump = await guest.sh(`ethtool -d ${device}`);
    for (const line of [
      /LINKS \(Link Status register\) +0x[0-9a-f]{8}\n +Link Status: +up\n +Link Speed: +10G/i,
      /Broadcast Accept: +enabled/,
      /Multicast Promiscuous: +disabled/,
      /Unicast Promiscuous: +disabled/,
      /Device ID|0x00000: CTRL/,
    ]) {
      assert.match(dump, line, dump);
    }
    await ringsAndModeration(host, peer);
  };

  await scenario('registers, rings and moderation make sense to ethtool', async () => {
    for (const [name, peer] of BOTH_WAYS) await registersMakeSense(on(name), on(peer));
  });

  await scenario('self-tests pass', async () => {
    await Promise.all([selfTest(on('a'), 'online'), selfTest(on('b'), 'offline')]);
    await carrier(on('b'));
    await reaches(...pair());
  });

  await scenario('jumbo frames', async () => {
    const [a, b] = pair();
    await changeMtu([b], 9000);
    assert.equal(
      (await ping(b, a, { size: 8972, whole: true, deadline: 2 })).received,
      0,
      'a card that was not told takes none',
    );
    await jumboFrames(a, b);
    await reaches(a, b);
  });

  await scenario('VLANs by tags, put in and taken off by the cards', async () => {
    const vlan = await addVlan(pair(), 100);
    const [a, b] = [vlan.hosts[0] ?? assert.fail(), vlan.hosts[1] ?? assert.fail()];
    await reaches(a, b);
    await arrives(a, b, 4);
    await arrives(b, a, 4);
    // A VLAN that the guest has not is not received at all.
    const stranger = await addVlan([on('b')], 200);
    const host = stranger.hosts[0] ?? assert.fail();
    await host.guest.sh(
      `ip neigh replace 10.0.200.1 lladdr ${macOf(0, NUMBERS.a)} dev ${host.interface}`,
    );
    const send = (): Promise<void> => callInVain(host, '10.0.200.1');
    await hearsNot(on('a'), on('b'), 'a VLAN that it is not in', send);
    await guests.a.sh('ip link add link card0 name stranger type vlan id 200');
    await guests.a.sh('ip link set stranger up');
    await hears(on('a'), 'a VLAN that it is in', send);
    await guests.a.sh('ip link del stranger');
    await stranger.remove();
    // Now the driver does it.
    for (const each of pair()) {
      await each.guest.sh(`ethtool -K ${each.interface} rxvlan off txvlan off`, PATIENCE);
      await carrier(each);
    }
    await reaches(a, b);
    await arrives(a, b, 2);
    await vlan.remove();
    for (const each of pair()) {
      await each.guest.sh(`ethtool -K ${each.interface} rxvlan on txvlan on`, PATIENCE);
      await carrier(each);
    }
    await reaches(...pair());
  });

  await scenario('multicast and promiscuous filters', async () => {
    for (const [name, peer] of BOTH_WAYS) await filtersWork(on(name), on(peer));
    await reaches(...pair());
  });

  await scenario('another address, and the link taken down and up', async () => {
    for (const [name, other] of BOTH_WAYS) {
      const [host, peer] = [on(name), on(other)];
      const { guest, interface: device } = host;
      const flush = (): Promise<string> => peer.guest.sh(`ip neigh flush dev ${peer.interface}`);
      await guest.sh(`ip link set ${device} address 52:54:00:00:aa:00`);
      await flush();
      await reaches(peer, host);
      await guest.sh(`ip link set ${device} address ${macOf(0, NUMBERS[name])}`);
      await flush();
      await guest.sh(`ip link set ${device} down`);
      await isApart(peer, host);
      await addAddresses(host);
      await carrier(host);
      await flush();
      await reaches(peer, host);
      await guest.sh(`ethtool -r ${device}`);
      await carrier(host);
      await reaches(peer, host);
    }
  });

  await scenario('the function is reset', async () => {
    const methods = await guests.a.sh(`cat /sys/class/net/card0/device/reset_method`);
    assert.match(methods, /^flr\b/);
    const resets = async (name: Name, tried: readonly string[]): Promise<void> => {
      for (const method of tried) {
        await functionReset(on(name), method);
        await addAddresses(on(name));
        await carrier(on(name));
      }
    };
    await Promise.all([resets('a', methods.split(' ')), resets('b', ['flr'])]);
    await reaches(...pair());
  });

  await scenario('the drivers are unloaded and loaded again, under load', async () => {
    for (const [name, peer] of BOTH_WAYS) {
      const flood = await startFlood(on(peer), on(name), FLOOD);
      await guests[name].sh('modprobe -r ixgbe', PATIENCE);
      await guests[name].sh('modprobe ixgbe', PATIENCE);
      await bringUpCard(name);
      await flood.end();
    }
    await reaches(...pair());
    await arrives(on('b'), on('a'), 4);
  });

  await scenario('a guest dies in the midst of traffic, another reboots', async () => {
    await startStream(...pair());
    const moved = async (): Promise<number> => (await sluice.counters('b/net0')).rx_bytes;
    const before = await moved();
    await until('the stream', async () => (await moved()) > before + 2 ** 18);
    await guests.b.kill();
    await sluice.disconnected('b/net0');
    guests.b = await startPrinted(t, sluice, 'b', {
      kernelParameters: `${IOMMU_PARAMETERS} pci=nomsi`,
      options: () => iommuOptions('dma'),
    });
    // The maps of `a` may go before its function is reset: nobody is to send frames to it then.
    await Promise.all([guests.a.reboot(PATIENCE.timeoutMs), guests.b.booted(PATIENCE.timeoutMs)]);
    await Promise.all(NAMES.map(bringUpCard));
    await reaches(...pair());
    for (const [from, to] of BOTH_WAYS) await arrives(on(from), on(to), 4);
    for (const { guest } of pair()) {
      assert.doesNotMatch(await kernelLog(guest), /NETDEV WATCHDOG|Detected Tx Unit Hang/);
    }
  });

  await scenario('an interrupt line does as well, and the self-test looks at it', async () => {
    const [line, ...others] = await interruptsOf(on('b'));
    assert.deepEqual([line?.kind, others], ['IO-APIC', []]);
    assert.ok((line?.count ?? 0) > 0);
    await selfTest(on('b'), 'offline');
    await carrier(on('b'));
    await reaches(...pair());
  });

  await t.test('frames at pages that are not mapped are refused and told', async () => {
    await useStaleBuffers(sluice, ...pair(), 'a/net0', FIRST_QUEUES.physical);
    await arrives(on('b'), on('a'), 4);
  });
});
