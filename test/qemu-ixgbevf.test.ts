/**
 * Linux guests of QEMU with virtual functions of an 82599: all that the stock driver ixgbevf can do with
 * them, and what the driver domain lets it do. Guest `a` has two processors, `d` a paravirtual card on
 * the same network beside its function; `b` and `d` are started with what `sluice guest qemu-args` prints.
 */
// suite: timeout=900
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { ApiReply } from '../src/control/api.ts';
import type { VfDocument } from '../src/daemon/vf-schema.ts';
import type { QemuGuest } from '../src/guest/qemu.ts';
import { addAddresses, bringUp, hostOn, macOf, startFlood, startStream } from './support/cards.ts';
import { kernelLog } from './support/drives.ts';
import {
  arrives,
  callInVain,
  carrier,
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
  bringUpDriver,
  functionReset,
  isApart,
  jumboFrames,
  PATIENCE,
  ringsAndModeration,
  sendMadeUp,
  startIxgbeGuest,
  streams,
} from './support/ixgbe-cards.ts';
import { startPrinted } from './support/printed-guest.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

const NUMBERS = { a: 1, b: 2, c: 3, d: 4 } as const;
type Name = keyof typeof NUMBERS;
const NAMES = Object.keys(NUMBERS) as Name[];
/** Numbers of the virtual functions. */
const VFS = { a: 0, b: 1, c: 2, d: 3 } as const;
const PORT = 'nic0/0';
const PORT_VLAN = 10;
const STRANGER = '52:54:00:00:00:99';
/** Mb/s */
const RATE = 16;

function vf(name: Name) {
  // What has no address of the administrator's may choose one.
  const mac = name === 'c' ? {} : { mac: macOf(0, NUMBERS[name]) };
  return { method: 'sriov' as const, nic: 'nic0', port: 0, vf: VFS[name], ...mac };
}

const config: SluiceConfig = {
  switches: { lan: {} },
  nics: {
    nic0: {
      model: 82599,
      ports: [{ wire: { switch: 'lan', trunk: [0, PORT_VLAN] }, link: 'none' }],
    },
    // For the self-test, which writes what no mask lets through in pages that are mapped.
    nic1: { model: 82599, ports: [{ link: 'none' }], doorbells: 'trapped' },
  },
  guests: {
    a: { memory: '320M', net: [{ ...vf('a'), query_rss: true }] },
    b: { memory: '320M', net: [vf('b')] },
    c: { memory: '320M', net: [vf('c')] },
    d: {
      memory: '320M',
      net: [
        vf('d'),
        {
          method: 'paravirtual',
          switch: 'lan',
          mac: macOf(1, NUMBERS.d),
          trunk: [0, PORT_VLAN],
        },
        { method: 'sriov', nic: 'nic1', port: 0, vf: 62, mac: macOf(2, NUMBERS.d) },
      ],
    },
  },
};

test('QEMU guests with virtual functions of an 82599', { skip: withoutTestbed() }, async (t) => {
  const sluice = await Sluice.start(t, config);
  const guests: Record<Name, QemuGuest> = {
    a: startIxgbeGuest(t, sluice, { name: 'a', functions: ['a/net0'], cpus: 2 }),
    b: await startPrinted(t, sluice, 'b'),
    c: startIxgbeGuest(t, sluice, { name: 'c', functions: ['c/net0'] }),
    d: await startPrinted(t, sluice, 'd'),
  };
  const on = (name: Name): Host => hostOn(guests[name], 0, NUMBERS[name], 'card0');
  /** Guest `a` and the paravirtual card of `d`. */
  const mixed = (): [Host, Host] => [
    hostOn(guests.a, 1, NUMBERS.a, 'card0'),
    hostOn(guests.d, 1, NUMBERS.d, 'card1'),
  ];
  const bringUpCard = async (name: Name): Promise<void> => {
    if (name === 'c') await bringUpDriver(guests[name], 'ixgbevf', 0, NUMBERS[name]);
    else await bringUp(guests[name], 0, NUMBERS[name]);
    await carrier(on(name));
    if (name === 'a') await addAddresses(mixed()[0]);
    if (name !== 'd') return;
    // Both cards are on one network, and each answers for itself.
    await guests.d.sh(`echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
      echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce`);
    for (const network of [1, 2]) await bringUp(guests.d, network, NUMBERS.d);
  };
  /** `ip link set DEV vf N …`, by the driver domain. */
  const set = async (name: Name, words: VfDocument): Promise<void> => {
    await sluice.show('setVf', { nic: PORT, vf: VFS[name], set: words });
  };
  const row = async (name: Name): Promise<ApiReply<'vfs'>[number]> => {
    const rows = await sluice.show('vfs');
    const vf = rows.find((each) => each.function === `${PORT}/vf${VFS[name]}`);
    return vf ?? assert.fail(`there is no function of ${name}`);
  };
  const flushNeighbours = async (...names: readonly Name[]): Promise<void> => {
    for (const name of names) await guests[name].sh('ip neigh flush dev card0');
  };
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

  await scenario('the drivers find their functions, and a link of 10 Gb/s', async () => {
    for (const name of NAMES) {
      const { guest, interface: device } = on(name);
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
    }
    // A vector for each processor, and one for the mailbox.
    for (const [name, vectors] of [
      ['a', 3],
      ['b', 2],
    ] as const) {
      const kinds = (await interruptsOf(on(name))).map(({ kind }) => kind);
      assert.deepEqual(kinds, Array(vectors).fill('PCI-MSIX'), name);
    }
  });

  await scenario('four guests reach each other, all at once', async () => {
    const hosts = NAMES.map(on);
    await Promise.all(
      hosts.map(async (host, index) => {
        for (const step of [1, 2, 3]) await reaches(host, hosts[(index + step) % 4] ?? host);
      }),
    );
    assert.equal((await ping(on('a'), on('c'), { ipv6: true, deadline: 30 })).received, 3);
    await Promise.all(
      (
        [
          ['a', 'b'],
          ['b', 'c'],
          ['c', 'd'],
          ['d', 'a'],
        ] as const
      ).map(([from, to]) => arrives(on(from), on(to), 8)),
    );
  });

  await scenario('TCP and UDP both ways', async (t) => {
    await streams(on('a'), on('b'), t);
  });

  await scenario('what is sent arrives as it was', async () => {
    for (const [from, to] of BOTH_WAYS) await arrives(on(from), on(to), 32);
  });

  await scenario('a paravirtual card on the same network', async (t) => {
    const [a, d] = mixed();
    await reaches(a, d);
    for (const reverse of [false, true]) {
      const { bytes, gbps } = await iperf(a, d, { seconds: 1, reverse });
      assert.ok(bytes > 0);
      t.diagnostic(`${reverse ? 'to' : 'from'} the function: ${(1000 * gbps).toFixed(0)} Mb/s`);
    }
    await arrives(a, d, 16);
    await arrives(d, a, 16);
  });

  await scenario('offloads are used when on, and not when off', async () => {
    for (const [from, to] of BOTH_WAYS) {
      const [sender, receiver] = [on(from), on(to)];
      const { guest, interface: device } = sender;
      await arrives(sender, receiver, 4);
      await guest.sh(`ethtool -K ${device} tso off tx off sg off gso off gro off`);
      await receiver.guest.sh(`ethtool -K ${device} rx off gro off`);
      await carrier(receiver);
      await arrives(sender, receiver, 4);
      await guest.sh(`ethtool -K ${device} tx on sg on tso on gso on gro on`);
      await receiver.guest.sh(`ethtool -K ${device} rx on gro on`);
      await carrier(receiver);
      assert.equal(await statistic(receiver, 'rx_csum_offload_errors'), 0);
    }
    const [a, d] = mixed();
    await guests.a.sh('ethtool -K card0 tso off tx off gso off');
    await arrives(a, d, 4);
    await guests.a.sh('ethtool -K card0 tx on tso on gso on');
  });

  await scenario('two queues carry traffic; the RSS table is told to who may ask', async () => {
    const byQueue = async (): Promise<readonly number[]> => {
      const figures = await statistics(on('a'));
      return ['tx_queue_0', 'tx_queue_1', 'rx_queue_0', 'rx_queue_1'].map(
        (queue) => figures[`${queue}_packets`] ?? 0,
      );
    };
    const before = await byQueue();
    await iperf(on('b'), on('a'), { seconds: 1, parallel: 8 });
    await iperf(on('a'), on('b'), { seconds: 1, parallel: 8 });
    for (const [index, count] of (await byQueue()).entries()) {
      assert.ok(count > (before[index] ?? 0), `queue ${index}`);
    }
    const rss = await guests.a.sh('ethtool -x card0');
    assert.match(rss, /RSS hash key:\n([0-9a-f]{2}:){39}[0-9a-f]{2}/);
    const { stderr } = await guests.b.run('ethtool -x card0');
    assert.match(stderr, /Operation not permitted/);
  });

  await scenario('counters, registers, rings and moderation make sense to ethtool', async () => {
    const [host, peer] = [on('a'), on('b')];
    const { guest, interface: device } = host;
    await guest.sh(`ethtool -K ${device} tso off gso off`);
    const figures = async () => {
      const [card, vf] = [await statistics(host), (await row('a')).counters];
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
  });

  await scenario('self-tests pass', async () => {
    const parts = { Register: 0, Link: 0 };
    const trapped = hostOn(guests.d, 2, NUMBERS.d, 'card2');
    await Promise.all([selfTest(on('a'), 'online', parts), selfTest(trapped, 'offline', parts)]);
    await carrier(trapped);
    await reaches(on('a'), on('d'));
  });

  await scenario('jumbo frames', async () => {
    const [a, b] = [on('a'), on('b')];
    await jumboFrames(a, b);
    await reaches(a, b);
  });

  await scenario('VLANs inside the guests', async () => {
    const vlan = await addVlan([on('a'), on('b')], 100);
    const [a, b] = [vlan.hosts[0] ?? assert.fail(), vlan.hosts[1] ?? assert.fail()];
    await reaches(a, b);
    await arrives(a, b, 4);
    await arrives(b, a, 4);
    // Who is not in the VLAN does not hear it.
    const shout = async (): Promise<void> => {
      await guests.a.sh('ping -b -c 20 -i 0.02 -w 1 10.0.100.255 >/dev/null 2>&1; true');
    };
    assert.ok((await heardWhile(on('b'), shout)) >= 20, 'a member hears');
    assert.ok((await heardWhile(on('c'), shout)) < 20, 'another does not');
    await vlan.remove();
    await reaches(on('a'), on('b'));
  });

  await scenario('a port VLAN', async () => {
    const words = ['vlan', `${PORT_VLAN}`, 'qos', '3'];
    await sluice.print('vf', 'set', PORT, 'vf', `${VFS.a}`, ...words);
    await set('b', { vlan: PORT_VLAN });
    assert.match(await sluice.print('show', 'vfs'), /^ +vf 0 .*, vlan 10, qos 3, /m);
    for (const name of ['a', 'b'] as const) await carrier(on(name));
    await flushNeighbours('a', 'b', 'c');
    await reaches(on('a'), on('b'));
    await arrives(on('a'), on('b'), 4);
    await isApart(on('c'), on('a'));
    // On the wire they have tags.
    const trunk = hostOn(guests.d, 1, NUMBERS.d, 'card1.10');
    await guests.d.sh(`set -e
      ip addr flush dev card1
      ip link add link card1 name card1.10 type vlan id ${PORT_VLAN}`);
    await addAddresses(trunk);
    await flushNeighbours('a');
    await reaches(mixed()[0], trunk);
    await arrives(mixed()[0], trunk, 2);
    await guests.d.sh('ip link del card1.10');
    // The guest can have none of its own.
    const { code } = await guests.a.run('ip link add link card0 name own type vlan id 7');
    await guests.a.run('ip link del own');
    assert.notEqual(code, 0, 'a VLAN of its own');
    await set('a', { vlan: 0, qos: 0 });
    await set('b', { vlan: 0 });
    for (const name of ['a', 'b'] as const) await carrier(on(name));
    await addAddresses(mixed()[1]);
    await flushNeighbours('a', 'b', 'c');
    await reaches(on('c'), on('a'));
    await reaches(...mixed());
  });

  await scenario('multicast, and promiscuous with and without trust', async () => {
    const [host, peer] = [on('a'), on('b')];
    await peer.guest.sh('ip route replace 239.1.2.3 dev card0');
    const send = (address: string) => (): Promise<void> => callInVain(peer, address);
    const group = send('239.1.2.3');
    assert.ok((await heardWhile(host, group)) < 20, 'a group that nobody joined');
    await guests.a.sh('ip maddress add 01:00:5e:01:02:03 dev card0');
    assert.ok((await heardWhile(host, group)) >= 20, 'a group that was joined');
    await guests.a.sh('ip maddress del 01:00:5e:01:02:03 dev card0');
    assert.ok((await heardWhile(host, group)) < 20, 'a group that was left');
    await peer.guest.sh(`ip neigh replace 10.0.0.99 lladdr ${STRANGER} dev card0`);
    const stranger = send('10.0.0.99');
    await guests.a.sh('ip link set card0 promisc on');
    assert.ok((await heardWhile(host, stranger)) < 20, 'no trust');
    await guests.a.sh('ip link set card0 promisc off');
    await set('a', { trust: true });
    await carrier(host);
    await guests.a.sh('ip link set card0 promisc on');
    assert.ok((await heardWhile(host, stranger)) >= 20, 'trust');
    await guests.a.sh('ip link set card0 promisc off');
    assert.ok((await heardWhile(host, stranger)) < 20, 'not any more');
    await guests.a.sh('ip link set card0 allmulticast on');
    assert.ok((await heardWhile(host, group)) >= 20, 'all groups');
    await guests.a.sh('ip link set card0 allmulticast off');
    await set('a', { trust: false });
    await carrier(host);
    await reaches(peer, host);
  });

  await scenario('another address: refused, allowed, and given', async () => {
    const own = '52:54:00:00:aa:00';
    const choose = (name: Name, mac: string) =>
      guests[name].run(`ip link set card0 address ${mac}`);
    assert.notEqual((await choose('a', own)).code, 0, 'the administrator has given one');
    await set('a', { trust: true });
    await carrier(on('a'));
    assert.equal((await choose('a', own)).code, 0, 'with trust');
    await flushNeighbours('b');
    await reaches(on('b'), on('a'));
    assert.equal((await choose('a', macOf(0, NUMBERS.a))).code, 0);
    await set('a', { trust: false });
    await carrier(on('a'));
    // It was given none.
    assert.equal((await choose('c', own)).code, 0);
    await flushNeighbours('b');
    await reaches(on('b'), on('c'));
    const given = '52:54:00:00:bb:00';
    await set('c', { mac: given });
    await until('the guest to have its address', async () => {
      return (await guests.c.sh('cat /sys/class/net/card0/address')) === given;
    });
    await carrier(on('c'));
    await flushNeighbours('a', 'b');
    await reaches(on('b'), on('c'));
    await reaches(on('b'), on('a'));
  });

  await scenario('spoofed frames are dropped and counted', async () => {
    const frames = { count: 50, mac: macOf(0, NUMBERS.b) };
    const spoofed = async (): Promise<number> => (await row('a')).spoofed;
    for (const lie of [{ sourceMac: STRANGER }, { vlan: 77 }]) {
      const before = await spoofed();
      const heard = await heardWhile(on('b'), () => sendMadeUp(on('a'), { ...frames, ...lie }));
      assert.ok(heard < frames.count, `${heard} heard`);
      await until('the frames to be counted', async () => {
        return (await spoofed()) - before >= frames.count;
      });
    }
    const honest = await heardWhile(on('b'), () => sendMadeUp(on('a'), frames));
    assert.ok(honest >= frames.count);
    await set('a', { spoofchk: false });
    const lie = { ...frames, sourceMac: STRANGER };
    const heard = await heardWhile(on('b'), () => sendMadeUp(on('a'), lie));
    assert.ok(heard >= frames.count, 'not looked for');
    await set('a', { spoofchk: true });
  });

  await scenario('a rate limit is obeyed', async (t) => {
    await set('a', { max_tx_rate: RATE });
    const flood = await startFlood(on('a'), on('b'));
    const sent = async () => ({ at: performance.now(), ...(await sluice.counters('a/net0')) });
    // What a bucket held is gone by then.
    await new Promise((next) => setTimeout(next, 1500));
    const before = await sent();
    await new Promise((next) => setTimeout(next, 4000));
    const after = await sent();
    const bits = 8 * (after.tx_bytes - before.tx_bytes);
    const rate = bits / ((after.at - before.at) * 1000);
    t.diagnostic(`${rate.toFixed(2)} Mb/s of ${RATE}`);
    await flood.end();
    await set('a', { max_tx_rate: 0 });
    assert.ok(Math.abs(rate / RATE - 1) <= 0.05, `${rate} Mb/s`);
  });

  await scenario('the link state that the guest sees', async () => {
    for (const [state, up] of [
      ['disable', false],
      ['enable', true],
      ['disable', false],
      ['auto', true],
    ] as const) {
      await set('a', { state });
      await carrier(on('a'), up);
      if (up) await reaches(on('b'), on('a'));
      else await isApart(on('b'), on('a'));
    }
  });

  await scenario('functions are reset, in the midst of traffic', async () => {
    const flood = await startFlood(on('b'), on('a'));
    for (const method of ['flr', 'bus']) {
      await functionReset(on('a'), method);
      await bringUpCard('a');
      await reaches(on('a'), on('c'));
    }
    // A driver that is not told of it is lost until it starts anew.
    await guests.a.sh('echo flr >/sys/class/net/card0/device/reset_method');
    await guests.a.sh('echo 1 >/sys/class/net/card0/device/reset');
    await reaches(on('b'), on('c'));
    await guests.a.sh('modprobe -r ixgbevf', PATIENCE);
    await guests.a.sh('modprobe ixgbevf', PATIENCE);
    await bringUpCard('a');
    await flood.end();
    await flushNeighbours('b', 'c');
    await reaches(on('a'), on('b'));
    await arrives(on('b'), on('a'), 4);
  });

  await scenario('a guest reboots in the midst of traffic, another dies', async () => {
    await startStream(on('a'), on('b'));
    const moved = async (): Promise<number> => (await sluice.counters('b/net0')).rx_bytes;
    const before = await moved();
    await until('the stream', async () => (await moved()) > before + 2 ** 18);
    await guests.b.kill();
    await sluice.disconnected('b/net0');
    await reaches(on('c'), on('d'));
    guests.b = await startPrinted(t, sluice, 'b');
    await Promise.all([guests.a.reboot(PATIENCE.timeoutMs), guests.b.booted(PATIENCE.timeoutMs)]);
    await Promise.all([bringUpCard('a'), bringUpCard('b')]);
    await flushNeighbours('c', 'd');
    for (const [from, to] of [...BOTH_WAYS, ['c', 'a'], ['b', 'd']] as const) {
      await reaches(on(from), on(to));
    }
    for (const [from, to] of BOTH_WAYS) await arrives(on(from), on(to), 4);
    for (const name of NAMES) {
      assert.doesNotMatch(await kernelLog(guests[name]), /NETDEV WATCHDOG|Tx Unit Hang/);
    }
  });
});
