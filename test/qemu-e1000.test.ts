/**
 * Linux guests of QEMU with emulated 82540EM and 82574L cards: all that the stock drivers e1000 and
 * e1000e and ethtool can do with them, on switches with each other and with a paravirtual card.
 *
 * Guest `a` has the emulated cards behind ports of PCI Express where they belong, `b` is started with the
 * very arguments that `sluice guest qemu-args` prints. Networks 0 and 1 are one switch each.
 */
// suite: takes=140 timeout=900
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { E1000Model } from '../src/device/e1000/function.ts';
import { type QemuGuest, startQemu } from '../src/guest/qemu.ts';
import { addAddresses, bringUp, hostOn, macOf, startStream } from './support/cards.ts';
import {
  arrives,
  callInVain,
  carrier,
  countsAtRest,
  DRIVERS,
  emulatedCardOptions,
  filtersWork,
  hears,
  hearsNot,
  interruptsOf,
  reaches,
  selfTest,
  statistic,
} from './support/emulated-cards.ts';
import { type Host, iperf, ping } from './support/guests.ts';
import { startFlood } from './support/packet-generator.ts';
import { startPrinted } from './support/printed-guest.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { isMatrix, withoutTestbed } from './support/testbed.ts';

/** An 82540EM of `a` and an 82574L of `b`. */
const OLD = 0;
/** An 82574L of `a` and a paravirtual card of `b`. */
const MIXED = 1;
/** An access port, whose card is an 82574L of `a`, and a trunk, whose card is an 82540EM of `b`. */
const VLAN = 2;
const NETWORKS = [OLD, MIXED, VLAN] as const;
type Network = (typeof NETWORKS)[number];
const NUMBERS = { a: 1, b: 2 } as const;
type Name = keyof typeof NUMBERS;

const MODELS = {
  a: { [OLD]: '82540', [MIXED]: '82574', [VLAN]: '82574' },
  b: { [OLD]: '82574', [MIXED]: undefined, [VLAN]: '82540' },
} as const satisfies Record<Name, Record<Network, E1000Model | undefined>>;

const ACCESS_VLAN = 10;
const OTHER_VLAN = 20;
const MTU = 9000;
/** Bytes of IPv4 and ICMP headers. */
const ECHO_HEADERS = 28;
/** Of a stream that is to move something: thousands of frames. */
const STREAM_BYTES = 4 * 2 ** 20;
/** Of the smaller transfers. */
const MEBIBYTES = isMatrix() ? 32 : 8;
/** Frames a second, of which each takes several traps. */
const TRAPPED_FLOOD = 500;
const PATIENCE = { timeoutMs: 180_000 };

function card(name: Name, network: Network) {
  const model = MODELS[name][network];
  const common = { switch: `lan${network}`, mac: macOf(network, NUMBERS[name]) };
  const plug =
    network !== VLAN
      ? {}
      : name === 'a'
        ? { vlan: ACCESS_VLAN }
        : { trunk: [ACCESS_VLAN, OTHER_VLAN] };
  return model === undefined
    ? { method: 'paravirtual' as const, mtu: MTU, ...common }
    : { method: 'emulated' as const, model, ...common, ...plug };
}

const config: SluiceConfig = {
  switches: Object.fromEntries(NETWORKS.map((network) => [`lan${network}`, {}])),
  guests: Object.fromEntries(
    (['a', 'b'] as const).map((name) => [
      name,
      { memory: '384M', net: NETWORKS.map((network) => card(name, network)) },
    ]),
  ),
};

function startFirst(t: TestContext, sluice: Sluice): QemuGuest {
  const guest = startQemu({
    name: 'a',
    memory: 384,
    options: (inside) =>
      emulatedCardOptions(
        NETWORKS.map((network) => ({
          socket: sluice.socket(`a/net${network}`),
          model: MODELS.a[network],
        })),
        inside,
      ),
  });
  t.after(async () => {
    await guest.kill();
  });
  return guest;
}

test('QEMU guests with emulated cards', { skip: withoutTestbed() }, async (t) => {
  const sluice = await Sluice.start(t, config);
  const guests = { a: startFirst(t, sluice), b: await startPrinted(t, sluice, 'b') };
  /** Guest and card on a network. */
  const on = (name: Name, network: Network): Host =>
    hostOn(guests[name], network, NUMBERS[name], `card${network}`);
  const pair = (network: Network): [Host, Host] => [on('a', network), on('b', network)];
  const model = ({ guest, interface: device }: Host): E1000Model | undefined =>
    MODELS[guest.name as Name][Number(device.at(-1)) as Network];
  const bringUpAll = async (name: Name): Promise<void> => {
    // The links come together: each takes its driver seconds.
    for (const network of NETWORKS) await bringUp(guests[name], network, NUMBERS[name]);
    for (const network of NETWORKS) await carrier(on(name, network));
  };
  await Promise.all(Object.values(guests).map((guest) => guest.booted()));
  await Promise.all([bringUpAll('a'), bringUpAll('b')]);
  const portOf = ({ guest, interface: device }: Host): string =>
    `${guest.name}/net${device.at(-1)}`;

  const allReach = async (): Promise<void> => {
    for (const network of [OLD, MIXED] as const) await reaches(...pair(network));
  };
  const scenario = async (name: string, run: (t: TestContext) => Promise<void>): Promise<void> => {
    await t.test(name, async (t) => {
      await run(t);
      await sluice.healthy();
    });
  };
  const EMULATED = [on('a', OLD), on('a', MIXED), on('b', OLD), on('b', VLAN)] as const;

  await scenario('the drivers find their cards, and a link', async () => {
    for (const host of EMULATED) {
      const chip = model(host) ?? assert.fail();
      const { guest, interface: device } = host;
      const driver = await guest.sh(`ethtool -i ${device}`);
      assert.match(driver, new RegExp(`^driver: ${DRIVERS[chip]}$`, 'm'));
      // The version that stands in the EEPROM.
      if (chip === '82574') assert.match(driver, /^firmware-version: 1\.0-0$/m);
      const settings = await guest.sh(`ethtool ${device}`);
      assert.match(settings, /Speed: 1000Mb\/s\n\s+Duplex: Full\n\s+Auto-negotiation: on/);
      assert.match(settings, /Link detected: yes/);
      const eeprom = await guest.sh(`ethtool -e ${device} offset 0 length 6 raw on | xxd -p`);
      const address = await guest.sh(`cat /sys/class/net/${device}/address`);
      assert.equal(eeprom.replace(/..(?!$)/g, '$&:'), address);
    }
  });

  await scenario('emulated and paravirtual cards reach each other', async () => {
    await allReach();
    for (const network of [OLD, MIXED] as const) {
      assert.equal((await ping(...pair(network), { ipv6: true, deadline: 30 })).received, 3);
    }
  });

  await scenario('interrupts come as the driver asks for them', async () => {
    const kinds = async (host: Host): Promise<string[]> =>
      (await interruptsOf(host)).map(({ kind }) => kind);
    assert.deepEqual(await kinds(on('a', OLD)), ['IO-APIC']);
    assert.deepEqual(await kinds(on('a', MIXED)), ['PCI-MSIX', 'PCI-MSIX', 'PCI-MSIX']);
    for (const host of EMULATED) {
      for (const { count } of await interruptsOf(host)) assert.ok(count > 0, host.interface);
    }
  });

  await scenario('TCP both ways', async (t) => {
    for (const network of [OLD, MIXED] as const) {
      for (const { reverse, ipv6 } of [
        { reverse: false, ipv6: false },
        { reverse: true, ipv6: false },
        { reverse: network === MIXED, ipv6: true },
      ]) {
        const options = { bytes: STREAM_BYTES, reverse, ipv6 };
        const { bytes, gbps, retransmits } = await iperf(...pair(network), options);
        assert.ok(bytes > 0);
        t.diagnostic(
          `network ${network} IPv${ipv6 ? 6 : 4} ${reverse ? 'b to a' : 'a to b'}: ${(1000 * gbps).toFixed(0)} Mb/s, ${retransmits} retransmits`,
        );
      }
    }
  });

  await scenario('UDP both ways', async (t) => {
    for (const network of [OLD, MIXED] as const) {
      for (const reverse of [false, true]) {
        const options = { seconds: 1, udpLength: 1400, bitrate: '10M', reverse };
        const { datagrams, lost } = await iperf(...pair(network), options);
        assert.ok(datagrams > lost, `${datagrams} sent, ${lost} lost`);
        t.diagnostic(`network ${network}: ${datagrams} datagrams, ${lost} lost`);
      }
    }
  });

  await scenario('what is sent arrives as it was', async () => {
    await arrives(on('a', OLD), on('b', OLD), 2 * MEBIBYTES);
    await arrives(on('b', OLD), on('a', OLD), MEBIBYTES);
    await arrives(on('a', MIXED), on('b', MIXED), MEBIBYTES);
    await arrives(on('b', MIXED), on('a', MIXED), MEBIBYTES);
  });

  await scenario('offloads are used when on, and not when off', async () => {
    for (const sender of [on('a', OLD), on('b', OLD), on('a', MIXED)]) {
      const receiver = sender.guest === guests.a ? on('b', OLD) : on('a', OLD);
      const to = sender.interface === 'card1' ? on('b', MIXED) : receiver;
      const { guest, interface: device } = sender;
      const segmented = (): Promise<number> => statistic(sender, 'tx_tcp_seg_good');
      const summed = async (): Promise<number> => (await sluice.counters(portOf(to))).csum_frames;
      const [segmentsBefore, sumsBefore] = [await segmented(), await summed()];
      await arrives(sender, to, 2);
      const [segmentsOn, sumsOn] = [await segmented(), await summed()];
      assert.ok(segmentsOn > segmentsBefore, `${guest.name} ${device} sends segments`);
      // A paravirtual receiver needs no checksum.
      if (model(to) !== undefined) assert.ok(sumsOn > sumsBefore, 'the switch makes checksums');
      await guest.sh(`ethtool -K ${device} tso off tx off sg off gso off gro off`);
      await arrives(sender, to, 2);
      assert.equal(await segmented(), segmentsOn, `${guest.name} ${device} sends no segments`);
      await guest.sh(`ethtool -K ${device} tx on sg on tso on gso on gro on`);
    }
    for (const receiver of [on('a', OLD), on('b', OLD), on('a', MIXED)]) {
      const from = receiver.interface === 'card1' ? on('b', MIXED) : on('a', OLD);
      const sender = receiver.guest === from.guest ? on('b', OLD) : from;
      const { guest, interface: device } = receiver;
      const verified = (): Promise<number> => statistic(receiver, 'rx_csum_offload_good');
      await guest.sh(`ethtool -K ${device} rx on`);
      await carrier(receiver);
      const before = await verified();
      await arrives(sender, receiver, 2);
      const withOffload = await verified();
      assert.ok(withOffload > before, `${guest.name} ${device} takes verified frames`);
      await guest.sh(`ethtool -K ${device} rx off`);
      await carrier(receiver);
      const off = await verified();
      await arrives(sender, receiver, 2);
      assert.equal(await verified(), off, `${guest.name} ${device} verifies itself`);
      assert.equal(await statistic(receiver, 'rx_csum_offload_errors'), 0);
      await guest.sh(`ethtool -K ${device} rx on`);
      await carrier(receiver);
    }
  });

  await scenario('the cards count what Sluice counts', async () => {
    for (const network of [OLD, MIXED] as const) {
      const host = on('a', network);
      const peer = on('b', network);
      // Frames that are cut are one frame for the switch.
      await host.guest.sh(`ethtool -K ${host.interface} tso off gso off`);
      const figures = () => countsAtRest(host, () => sluice.counters(portOf(host)));
      const before = await figures();
      const echoes = { count: 50, interval: 0.02, deadline: 30 };
      assert.equal((await ping(host, peer, echoes)).received, echoes.count);
      await arrives(host, peer, 1);
      await arrives(peer, host, 1);
      // The last of it has been counted when nothing changes any more.
      let after = await figures();
      await until('the counters to agree', async () => {
        after = await figures();
        const moved = (name: 'tx_frames' | 'rx_frames'): number =>
          after.ours[name] - before.ours[name];
        const seen = (name: string): number => (after.card[name] ?? 0) - (before.card[name] ?? 0);
        return (
          seen('tx_packets') === moved('tx_frames') && seen('rx_packets') === moved('rx_frames')
        );
      });
      const card = (name: string): number => (after.card[name] ?? 0) - (before.card[name] ?? 0);
      const port = (name: keyof typeof after.ours): number => after.ours[name] - before.ours[name];
      assert.ok(card('tx_packets') > 100 && card('rx_packets') > 100);
      // Silicon counts the check sequence of each frame.
      assert.equal(card('tx_bytes'), port('tx_bytes') + 4 * port('tx_frames'));
      assert.equal(card('rx_bytes'), port('rx_bytes') + 4 * port('rx_frames'));
      assert.equal(card('rx_no_buffer_count'), port('rx_drop_no_buffer'));
      for (const name of ['rx_errors', 'tx_errors', 'rx_crc_errors', 'tx_timeout_count']) {
        assert.equal(after.card[name], 0, name);
      }
      await host.guest.sh(`ethtool -K ${host.interface} tso on gso on`);
    }
  });

  await scenario('registers make sense to ethtool', async () => {
    for (const host of EMULATED) {
      const dump = await host.guest.sh(`ethtool -d ${host.interface}`);
      for (const line of [
        /Set link up: +1/,
        /Duplex: +full/,
        /Link up: +link config/,
        /Link speed: +1000Mb\/s/,
        /Receiver: +enabled/,
        /Broadcast accept mode: +accept/,
        /Long packet: +disabled/,
        /Unicast promiscuous: +disabled/,
        /Receive buffer size: +2048/,
        // 256 descriptors.
        /RDLEN.*0x00001000/,
        /TDLEN.*0x00001000/,
        /Transmitter: +enabled/,
      ]) {
        assert.match(dump, line, `${host.guest.name} ${host.interface}: ${dump}`);
      }
    }
    assert.match(
      await guests.a.sh('ethtool -d card0'),
      /PHY type: +M88\n.*(\n.*)*Link State: +Up\n.*(\n.*)*Speed: +1000 mbps/,
    );
  });

  await scenario('rings, moderation and wake-up are set', async () => {
    for (const host of [on('a', OLD), on('a', MIXED)]) {
      const { guest, interface: device } = host;
      await guest.sh(`ethtool -G ${device} rx 80 tx 4096`);
      const rings = await guest.sh(`ethtool -g ${device}`);
      assert.match(rings, /Current(.*\n)*RX:\s+80\n(.*\n)*TX:\s+4096\n/);
      await carrier(host);
      const peer = on('b', Number(device.at(-1)) as Network);
      await arrives(peer, host, 2);
      await arrives(host, peer, 2);
      await guest.sh(`ethtool -G ${device} rx 256 tx 256`);
      await carrier(host);
      await guest.sh(`ethtool -s ${device} wol g`);
      assert.match(await guest.sh(`ethtool ${device}`), /Wake-on: g/);
      await guest.sh(`ethtool -s ${device} wol d`);
    }
    // The driver of the older card has it as a parameter of the module only.
    const { guest, interface: device } = on('a', MIXED);
    for (const microseconds of [1000, 0, 3]) {
      await guest.sh(`ethtool -C ${device} rx-usecs ${microseconds}`);
      const moderation = await guest.sh(`ethtool -c ${device}`);
      assert.match(moderation, new RegExp(`^rx-usecs:\\s+${microseconds}$`, 'm'));
      await reaches(on('b', MIXED), on('a', MIXED));
    }
  });

  await scenario('self-tests pass', async () => {
    await Promise.all([selfTest(on('a', OLD), 'online'), selfTest(on('b', OLD), 'online')]);
    // One driver lets one ethtool in at a time.
    const offline = async (...hosts: readonly Host[]): Promise<void> => {
      for (const host of hosts) await selfTest(host, 'offline');
    };
    // Each model; the other two cards are the same again.
    await Promise.all(
      isMatrix()
        ? [offline(on('a', OLD), on('a', MIXED)), offline(on('b', OLD), on('b', VLAN))]
        : [offline(on('a', OLD)), offline(on('b', OLD))],
    );
    for (const host of EMULATED) await carrier(host);
    await allReach();
  });

  await scenario('jumbo frames', async () => {
    const setMtu = async (mtu: number, hosts: readonly Host[]): Promise<void> => {
      for (const { guest, interface: device } of hosts) {
        await guest.sh(`ip link set ${device} mtu ${mtu}`);
      }
      for (const host of hosts) await carrier(host);
    };
    const largest = MTU - ECHO_HEADERS;
    // The paravirtual card is told to do so by the configuration.
    await setMtu(MTU, [on('b', MIXED)]);
    const drops = async (): Promise<number[]> => [
      (await sluice.counters(portOf(on('a', MIXED)))).rx_drop_too_big,
      await statistic(on('a', MIXED), 'rx_long_length_errors'),
    ];
    const before = await drops();
    const lost = await ping(on('b', MIXED), on('a', MIXED), {
      size: largest,
      whole: true,
      deadline: 1,
    });
    assert.equal(lost.received, 0, 'a card that was not told takes none');
    for (const [index, count] of (await drops()).entries()) {
      assert.ok(count > (before[index] ?? 0), 'what is too long is counted');
    }
    // All sizes of buffers: packet split with two and three pages, and 2 to 16 KiB in one.
    for (const mtu of isMatrix() ? [2000, 4000, 8000, MTU] : [4000, MTU]) {
      await setMtu(mtu, [...pair(OLD), ...pair(MIXED)]);
      for (const network of [OLD, MIXED] as const) {
        const options = { size: mtu - ECHO_HEADERS, whole: true, deadline: 30 };
        assert.equal((await ping(...pair(network), options)).received, 3, `${network} ${mtu}`);
        await arrives(...pair(network), 2);
        const [a, b] = pair(network);
        await arrives(b, a, 2);
      }
    }
    await setMtu(1500, [...pair(OLD), ...pair(MIXED)]);
    await allReach();
  });

  await scenario('VLANs by tags, put in and taken off by the cards', async () => {
    const tagged = (name: Name): Host => hostOn(guests[name], OLD + 10, NUMBERS[name], 'tagged');
    for (const name of ['a', 'b'] as const) {
      await guests[name].sh(`ip link add link card${OLD} name tagged type vlan id 100`);
      await addAddresses(tagged(name));
    }
    await reaches(tagged('a'), tagged('b'));
    assert.match(await guests.a.sh(`ethtool -d card${OLD}`), /VLAN mode: +enabled\n/);
    await arrives(tagged('a'), tagged('b'), 4);
    await arrives(tagged('b'), tagged('a'), 4);
    // The filter of the 82540EM: a VLAN that the guest has not is not received at all.
    assert.match(await guests.a.sh(`ethtool -d card${OLD}`), /VLAN filter: +enabled/);
    await guests.b.sh(`set -e
      ip link add link card${OLD} name stranger type vlan id 200
      ip addr add 10.0.77.2/24 dev stranger
      ip link set stranger up
      ip neigh replace 10.0.77.1 lladdr ${macOf(OLD, NUMBERS.a)} dev stranger`);
    const call = (): Promise<void> => callInVain(on('b', OLD), '10.0.77.1');
    await hearsNot(on('a', OLD), on('b', OLD), 'a VLAN that it has not', call);
    await guests.a.sh(`ip link add link card${OLD} name stranger type vlan id 200`);
    await guests.a.sh('ip link set stranger up');
    await hears(on('a', OLD), 'a VLAN that was let in', call);
    // Now the driver does it.
    for (const name of ['a', 'b'] as const) {
      await guests[name].sh(`ethtool -K card${OLD} rxvlan off txvlan off`);
      await carrier(on(name, OLD));
    }
    assert.match(await guests.a.sh(`ethtool -d card${OLD}`), /VLAN mode: +disabled\n/);
    await reaches(tagged('a'), tagged('b'));
    await arrives(tagged('a'), tagged('b'), 2);
    for (const name of ['a', 'b'] as const) {
      await guests[name].sh(`ip link del tagged; ip link del stranger
        ethtool -K card${OLD} rxvlan on txvlan on`);
      await carrier(on(name, OLD));
    }
    await reaches(...pair(OLD));
  });

  await scenario("VLANs of the switch's ports", async () => {
    const trunk = (id: number): Host => ({ ...on('b', VLAN), interface: `trunk${id}` });
    await guests.b.sh(`set -e
      ip addr flush dev card${VLAN}
      for id in ${ACCESS_VLAN} ${OTHER_VLAN}; do
        ip link add link card${VLAN} name trunk$id type vlan id $id
        ip link set trunk$id up
      done
      ip addr add ${on('b', VLAN).address}/24 dev trunk${ACCESS_VLAN}`);
    await reaches(on('a', VLAN), trunk(ACCESS_VLAN));
    await arrives(on('a', VLAN), trunk(ACCESS_VLAN), 4);
    await arrives(trunk(ACCESS_VLAN), on('a', VLAN), 4);
    await guests.b.sh(`ip addr flush dev trunk${ACCESS_VLAN}
      ip addr add ${on('b', VLAN).address}/24 dev trunk${OTHER_VLAN}
      ip neigh replace ${on('a', VLAN).address} lladdr ${macOf(VLAN, NUMBERS.a)} dev trunk${OTHER_VLAN}`);
    const before = await statistic(on('a', VLAN), 'rx_packets');
    const { received } = await ping(trunk(OTHER_VLAN), on('a', VLAN), { count: 20, deadline: 1 });
    assert.equal(received, 0);
    assert.ok((await statistic(on('a', VLAN), 'rx_packets')) - before < 20);
  });

  await scenario('multicast and promiscuous filters', async () => {
    for (const [host, peer] of [pair(OLD), [on('b', OLD), on('a', OLD)]] as const) {
      await filtersWork(host, peer);
      await reaches(peer, host);
    }
  });

  await scenario('another address, and the link taken down and up', async () => {
    for (const host of [on('a', OLD), on('a', MIXED)]) {
      const { guest, interface: device } = host;
      const network = Number(device.at(-1)) as Network;
      const peer = on('b', network);
      await guest.sh(`ip link set ${device} address 52:54:00:00:aa:0${network}`);
      await peer.guest.sh(`ip neigh flush dev ${peer.interface}`);
      await reaches(peer, host);
      const learned = (await sluice.show('macs')).find(
        ({ mac }) => mac === `52:54:00:00:aa:0${network}`,
      );
      assert.equal(learned?.port, portOf(host));
      await guest.sh(`ip link set ${device} address ${macOf(network, NUMBERS.a)}`);
      await peer.guest.sh(`ip neigh flush dev ${peer.interface}`);
      await reaches(peer, host);
      await guest.sh(`ip link set ${device} down`);
      assert.equal((await sluice.port(portOf(host))).running, false);
      const before = (await sluice.counters(portOf(host))).rx_drop_link_down;
      await peer.guest.sh(
        `ip neigh replace ${host.address} lladdr ${macOf(network, NUMBERS.a)} dev ${peer.interface}`,
      );
      assert.equal((await ping(peer, host, { deadline: 1 })).received, 0);
      assert.ok((await sluice.counters(portOf(host))).rx_drop_link_down > before);
      await addAddresses(host);
      await guest.sh(`ethtool -r ${device}`);
      await carrier(host);
      await reaches(peer, host);
    }
  });

  await scenario('functions are reset', async () => {
    for (const [host, methods] of [
      [on('a', OLD), ['pm']],
      [on('a', MIXED), ['pm', 'bus']],
    ] as const) {
      const { guest, interface: device } = host;
      const pci = await guest.sh(`readlink -f /sys/class/net/${device}/device`);
      assert.equal(await guest.sh(`cat ${pci}/reset_method`), methods.join(' '));
      for (const method of methods) {
        // The drivers do not know how to live through it: they are to be idle.
        await guest.sh(`set -e
          ip link set ${device} down
          echo ${method} >${pci}/reset_method
          echo 1 >${pci}/reset`);
        await addAddresses(host);
        await carrier(host);
        await reaches(host, on('b', Number(device.at(-1)) as Network));
      }
    }
  });

  await scenario('drivers are unloaded and loaded again, under load', async () => {
    const flood = await startFlood(on('b', OLD), on('a', OLD), TRAPPED_FLOOD);
    await guests.a.sh('modprobe -r e1000 e1000e');
    for (const network of NETWORKS) {
      assert.equal((await sluice.port(`a/net${network}`)).running, false);
    }
    await guests.a.sh('modprobe e1000 && modprobe e1000e IntMode=1,1');
    await bringUpAll('a');
    assert.deepEqual(
      (await interruptsOf(on('a', MIXED))).map(({ kind }) => kind),
      ['PCI-MSI'],
    );
    await flood.end();
    await allReach();
    await arrives(on('a', MIXED), on('b', MIXED), 4);
    await guests.a.sh('modprobe -r e1000e && modprobe e1000e IntMode=0,0');
    await bringUpAll('a');
    assert.deepEqual(
      (await interruptsOf(on('a', MIXED))).map(({ kind }) => kind),
      ['IO-APIC'],
    );
    await arrives(on('b', MIXED), on('a', MIXED), 4);
    await selfTest(on('a', MIXED), 'offline');
    await carrier(on('a', MIXED));
    await allReach();
  });

  await scenario('a guest reboots in the midst of traffic, another dies', async () => {
    await startStream(...pair(OLD));
    await startStream(on('b', MIXED), on('a', MIXED));
    const moved = async (): Promise<number> => (await sluice.counters(`b/net${OLD}`)).rx_bytes;
    const before = await moved();
    await until('the stream', async () => (await moved()) > before + 2 ** 18);
    await guests.b.kill();
    for (const network of NETWORKS) await sluice.disconnected(`b/net${network}`);
    guests.b = await startPrinted(t, sluice, 'b');
    await Promise.all([guests.a.reboot(PATIENCE.timeoutMs), guests.b.booted()]);
    await Promise.all([bringUpAll('a'), bringUpAll('b')]);
    await allReach();
    await arrives(on('a', OLD), on('b', OLD), 8);
    await arrives(on('b', MIXED), on('a', MIXED), 8);
    // What Sluice says of itself.
    assert.deepEqual(
      (await sluice.show('ports')).filter(({ connected, running }) => !connected || !running),
      [],
    );
  });
});
