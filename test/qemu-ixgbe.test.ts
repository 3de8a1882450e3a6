/**
 * Linux guests of QEMU that own a port of an 82599 each: all that the stock driver ixgbe and ethtool can do
 * with it. Guest `a` has two processors and the card behind a port of PCI Express, `b` has one, and is
 * started with the very arguments that `sluice guest qemu-args` prints.
 */
// suite: timeout=900
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { QemuGuest } from '../src/guest/qemu.ts';
import { addAddresses, bringUp, hostOn, macOf, startFlood, startStream } from './support/cards.ts';
import { kernelLog } from './support/drives.ts';
import {
  arrives,
  callInVain,
  carrier,
  filtersWork,
  heardWhile,
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
  isApart,
  jumboFrames,
  PATIENCE,
  ringsAndModeration,
  startIxgbeGuest,
  streams,
  sumOf,
} from './support/ixgbe-cards.ts';
import { startPrinted } from './support/printed-guest.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

const NUMBERS = { a: 1, b: 2 } as const;
type Name = keyof typeof NUMBERS;

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
    a: startIxgbeGuest(t, sluice, { name: 'a', functions: ['a/net0'], cpus: 2 }),
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
  await Promise.all([guests.a.booted(), guests.b.booted()]);
  await Promise.all([bringUpCard('a'), bringUpCard('b')]);

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

  await scenario('TCP and UDP both ways', async (t) => {
    await streams(...pair(), t);
  });

  await scenario('what is sent arrives as it was', async () => {
    for (const [from, to] of BOTH_WAYS) await arrives(on(from), on(to), 32);
  });

  await scenario('frames cost no traps', async () => {
    const traps = async (): Promise<number> => {
      const { counters } =
        (await sluice.show('functions')).find((each) => each.function === 'a/net0') ??
        assert.fail();
      return counters.trap_reads + counters.trap_writes;
    };
    const figures = async () => ({
      traps: await traps(),
      interrupts: (await interruptsOf(on('a'))).reduce((sum, { count }) => sum + count, 0),
      frames: await sumOf(on('a'), /^[rt]x_packets$/),
    });
    const before = await figures();
    await arrives(on('b'), on('a'), 16);
    const after = await figures();
    const grown = (name: keyof typeof before): number => after[name] - before[name];
    assert.ok(grown('frames') > 1000);
    // Each interrupt costs one, and the watchdog and ethtool a few reads of counters.
    assert.ok(
      grown('traps') < grown('interrupts') + 1000,
      `${grown('traps')} traps, ${grown('interrupts')} interrupts, ${grown('frames')} frames`,
    );
  });

  await scenario('offloads are used when on, and not when off', async () => {
    for (const [from, to] of BOTH_WAYS) {
      const [sender, receiver] = [on(from), on(to)];
      const { guest, interface: device } = sender;
      const figures = async () => ({
        // Segments of TCP that the card cut: its driver counts frames, the wire counts more.
        wire: (await sluice.counters(portOf(sender))).tx_frames,
        errors: await statistic(receiver, 'rx_csum_offload_errors'),
      });
      await arrives(sender, receiver, 4);
      assert.equal((await figures()).errors, 0);
      await guest.sh(`ethtool -K ${device} tso off tx off sg off gso off gro off`);
      await receiver.guest.sh(`ethtool -K ${device} rx off gro off lro off`);
      await carrier(receiver);
      await arrives(sender, receiver, 4);
      assert.equal((await figures()).errors, 0);
      await guest.sh(`ethtool -K ${device} tx on sg on tso on gso on gro on`);
      await receiver.guest.sh(`ethtool -K ${device} rx on gro on`);
      await carrier(receiver);
    }
    await reaches(...pair());
  });

  await scenario('two queues carry traffic, and one after ethtool -L', async () => {
    const { guest, interface: device } = on('a');
    assert.match(await guest.sh(`ethtool -l ${device}`), /Current(.*\n)*Combined:\s+2\b/);
    const rss = await guest.sh(`ethtool -x ${device}`);
    assert.match(rss, /with 2 RX ring\(s\)/);
    assert.match(rss, /RSS hash key:\n([0-9a-f]{2}:){39}[0-9a-f]{2}/);
    const byQueue = async (): Promise<readonly number[]> => {
      const figures = await statistics(on('a'));
      return [0, 1].map((queue) => figures[`rx_queue_${queue}_packets`] ?? 0);
    };
    const before = await byQueue();
    await iperf(on('b'), on('a'), { seconds: 1, parallel: 8 });
    for (const [queue, count] of (await byQueue()).entries()) {
      assert.ok(count > (before[queue] ?? 0), `queue ${queue} received`);
    }
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

  await scenario('the card counts what Sluice counts', async () => {
    const [host, peer] = pair();
    const figures = async () => ({
      card: await statistics(host),
      port: await sluice.counters(portOf(host)),
    });
    await host.guest.sh(`ethtool -K ${host.interface} tso off gso off`);
    const before = await figures();
    await arrives(host, peer, 1);
    await arrives(peer, host, 1);
    let after = before;
    const port = (name: keyof typeof before.port): number => after.port[name] - before.port[name];
    const card = (name: string): number => (after.card[name] ?? 0) - (before.card[name] ?? 0);
    await until('the counters to agree', async () => {
      after = await figures();
      return card('tx_packets') === port('tx_frames') && card('rx_packets') === port('rx_frames');
    });
    assert.ok(card('tx_packets') > 100 && card('rx_packets') > 100);
    // The driver's own and those of the card's registers, which count the check sequence too.
    assert.equal(card('tx_pkts_nic'), port('tx_frames'));
    assert.equal(card('rx_pkts_nic'), port('rx_frames'));
    assert.equal(card('tx_bytes_nic'), port('tx_bytes') + 4 * port('tx_frames'));
    assert.equal(card('rx_bytes_nic'), port('rx_bytes') + 4 * port('rx_frames'));
    for (const name of ['rx_errors', 'tx_errors', 'rx_crc_errors', 'tx_timeout_count']) {
      assert.equal(after.card[name], 0, name);
    }
    await host.guest.sh(`ethtool -K ${host.interface} tso on gso on`);
  });

  await scenario('registers, rings and moderation make sense to ethtool', async () => {
    const [host, peer] = pair();
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
    assert.ok((await heardWhile(on('a'), send)) < 20, 'filtered');
    await guests.a.sh('ip link add link card0 name stranger type vlan id 200');
    await guests.a.sh('ip link set stranger up');
    assert.ok((await heardWhile(on('a'), send)) >= 20, 'let in');
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
    const [host, peer] = pair();
    await filtersWork(host, peer);
    await reaches(peer, host);
  });

  await scenario('another address, and the link taken down and up', async () => {
    const [host, peer] = pair();
    const { guest, interface: device } = host;
    await guest.sh(`ip link set ${device} address 52:54:00:00:aa:00`);
    await peer.guest.sh(`ip neigh flush dev ${peer.interface}`);
    await reaches(peer, host);
    await guest.sh(`ip link set ${device} address ${macOf(0, NUMBERS.a)}`);
    await peer.guest.sh(`ip neigh flush dev ${peer.interface}`);
    await guest.sh(`ip link set ${device} down`);
    await isApart(peer, host);
    await addAddresses(host);
    await carrier(host);
    await peer.guest.sh(`ip neigh flush dev ${peer.interface}`);
    await reaches(peer, host);
    await guest.sh(`ethtool -r ${device}`);
    await carrier(host);
    await reaches(peer, host);
  });

  await scenario('the function is reset', async () => {
    const [host, peer] = pair();
    const methods = await guests.a.sh(`cat /sys/class/net/card0/device/reset_method`);
    assert.match(methods, /^flr\b/);
    for (const method of methods.split(' ')) {
      await functionReset(host, method);
      await addAddresses(host);
      await carrier(host);
      await reaches(host, peer);
    }
  });

  await scenario('the driver is unloaded and loaded again, under load', async () => {
    const flood = await startFlood(on('b'), on('a'));
    await guests.a.sh('modprobe -r ixgbe', PATIENCE);
    await guests.a.sh('modprobe ixgbe', PATIENCE);
    await bringUpCard('a');
    await flood.end();
    await reaches(...pair());
    await arrives(on('b'), on('a'), 4);
  });

  await scenario('a guest reboots in the midst of traffic, another dies', async () => {
    await startStream(...pair());
    const moved = async (): Promise<number> => (await sluice.counters('b/net0')).rx_bytes;
    const before = await moved();
    await until('the stream', async () => (await moved()) > before + 2 ** 18);
    await guests.b.kill();
    await sluice.disconnected('b/net0');
    guests.b = await startPrinted(t, sluice, 'b', { kernelParameters: 'pci=nomsi' });
    await Promise.all([guests.a.reboot(PATIENCE.timeoutMs), guests.b.booted()]);
    await Promise.all([bringUpCard('a'), bringUpCard('b')]);
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
});
