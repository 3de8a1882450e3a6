/**
 * Linux guests of User-Mode Linux over `sluice up`: all that a user's guests do to a network, on
 * one boot of two guests with a card for each kind of port.
 */
// suite: cores=1 takes=90 timeout=900
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { type GuestProcess, SharedDirectories } from '../src/guest/guest-process.ts';
import { findTestbed } from '../src/guest/testbed.ts';
import { startUml, umlCommand } from '../src/guest/uml.ts';
import type { PortCounter } from '../src/net/port.ts';
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_IN_ORDER, VIRTIO_F_VERSION_1 } from '../src/spec/virtio.ts';
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_MRG_RXBUF,
} from '../src/spec/virtio-net.ts';
import { bringUp, macOf } from './support/cards.ts';
import {
  type Host,
  type IperfOptions,
  type IperfResult,
  iperf,
  negotiated,
  ping,
  serveIperf,
  transfer,
} from './support/guests.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

/** Networks, which are also the numbers of the guests' cards. */
const FULL = 0;
const MIXED = 1;
const ACCESS = 2;
const TRUNK = 3;
const LIMITED = 4;
const NETWORKS = [FULL, MIXED, ACCESS, TRUNK, LIMITED] as const;

const A = 1;
const B = 2;
const C = 3;
const TX_MBPS = 50;
const RX_MBPS = 20;
/** A whole frame, and one with its VLAN's tag, at the usual MTU. */
const PLAIN_FRAME = 1514;
const TAGGED_FRAME = 1518;
const JUMBO_MTU = 9000;
const IPV4_ICMP_HEADERS = 28;
const FLOOD_PORT = 5999;
/** Of guests that do not get their processors: less is sent and received then. */
const ATTEMPTS = 10;
/** Of a stream that is to move something: thousands of frames. */
const STREAM_BYTES = 32 * 2 ** 20;

const card = { method: 'paravirtual' as const };
const config: SluiceConfig = {
  switches: { lan: {}, mixed: {}, vlans: {}, limited: {} },
  guests: {
    a: {
      net: [
        { ...card, switch: 'lan', mac: macOf(FULL, A) },
        { ...card, switch: 'mixed', mac: macOf(MIXED, A) },
        { ...card, switch: 'vlans', mac: macOf(ACCESS, A), vlan: 10 },
        { ...card, switch: 'vlans', mac: macOf(TRUNK, A), trunk: [10, 20] },
        {
          ...card,
          switch: 'limited',
          mac: macOf(LIMITED, A),
          spoofchk: 'on',
          max_tx_rate: TX_MBPS,
          max_rx_rate: RX_MBPS,
        },
      ],
    },
    b: {
      net: [
        { ...card, switch: 'lan', mac: macOf(FULL, B) },
        { ...card, switch: 'mixed', mac: macOf(MIXED, B), offloads: 'off' },
        { ...card, switch: 'vlans', mac: macOf(ACCESS, B), vlan: 10 },
        { ...card, switch: 'vlans', mac: macOf(TRUNK, B), vlan: 20, offloads: 'off' },
        { ...card, switch: 'limited', mac: macOf(LIMITED, B) },
      ],
    },
    c: { net: [{ ...card, switch: 'lan', mac: macOf(FULL, C) }] },
  },
};

test('two UML guests', { skip: withoutTestbed() }, async (t) => {
  const sluice = await Sluice.start(t, config);
  const cardsOf = (name: string, networks: readonly number[]): { socket: string }[] =>
    networks.map((network) => ({ socket: sluice.socket(`${name}/net${network}`) }));
  const start = (name: string, networks: readonly number[]): GuestProcess => {
    const guest = startUml({ name, net: cardsOf(name, networks) });
    t.after(async () => {
      await guest.kill();
    });
    return guest;
  };
  const configure = async (guest: GuestProcess, number: number): Promise<Host[]> => {
    await guest.booted();
    const hosts: Host[] = [];
    for (const network of NETWORKS) hosts.push(await bringUp(guest, network, number));
    return hosts;
  };
  const guests = [start('a', NETWORKS), start('b', NETWORKS)] as const;
  const [as, bs] = await Promise.all([configure(guests[0], A), configure(guests[1], B)]);
  const pair = (network: number): [Host, Host] => {
    const [a, b] = [as[network], bs[network]];
    assert.ok(a !== undefined && b !== undefined);
    return [a, b];
  };

  /** Counters of a port that an action adds to. */
  const counting = async <Result>(
    port: string,
    action: () => Promise<Result>,
  ): Promise<{ result: Result; added: Record<PortCounter, number> }> => {
    const before = await sluice.counters(port);
    const result = await action();
    const after = await sluice.counters(port);
    const names = Object.keys(after) as PortCounter[];
    const added = Object.fromEntries(names.map((name) => [name, after[name] - before[name]]));
    return { result, added: added as Record<PortCounter, number> };
  };
  const measure = async (
    label: string,
    from: Host,
    to: Host,
    options: IperfOptions = {},
  ): Promise<IperfResult> => {
    const { seconds, udpLength } = options;
    const isTimed = seconds !== undefined || udpLength !== undefined;
    const length = isTimed ? { seconds: 1 } : { bytes: STREAM_BYTES };
    const result = await iperf(from, to, { ...length, ...options });
    const losses =
      options.udpLength === undefined
        ? `${result.retransmits} retransmits`
        : `${result.lost} of ${result.datagrams} lost`;
    t.diagnostic(`${label}: ${result.gbps.toFixed(2)} Gb/s, ${losses}`);
    assert.ok(result.bytes > 0, `${label}: nothing arrived`);
    return result;
  };

  await t.test('the driver takes what it is offered', async () => {
    const [a] = pair(FULL);
    const features = {
      VIRTIO_F_VERSION_1,
      VIRTIO_F_EVENT_IDX,
      VIRTIO_F_IN_ORDER,
      VIRTIO_NET_F_MRG_RXBUF,
      VIRTIO_NET_F_CSUM,
      VIRTIO_NET_F_HOST_TSO4,
      VIRTIO_NET_F_GUEST_TSO4,
      VIRTIO_NET_F_HOST_USO,
    };
    for (const [name, bit] of Object.entries(features)) assert.ok(await negotiated(a, bit), name);
    const [, b] = pair(MIXED);
    for (const bit of [VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4])
      assert.equal(await negotiated(b, bit), false);
  });

  await t.test('sluice guest uml-args prints what started the guests', async () => {
    const words = JSON.parse(await sluice.print('guest', 'uml-args', 'a', '--json')) as string[];
    assert.equal(words.length, 1 + NETWORKS.length);
    const command = umlCommand({ name: 'a', net: cardsOf('a', NETWORKS) }, (path) => path);
    for (const word of words) assert.ok(command.includes(word), word);
  });

  await t.test('ping, both ways, IPv4 and IPv6', async () => {
    const [a, b] = pair(FULL);
    for (const ipv6 of [false, true]) {
      assert.equal((await ping(a, b, { ipv6 })).received, 3);
      assert.equal((await ping(b, a, { ipv6 })).received, 3);
    }
  });

  await t.test('TCP with all offloads: segments cross whole, both ways', async () => {
    const [a, b] = pair(FULL);
    for (const reverse of [false, true]) {
      const { result, added } = await counting('a/net0', () =>
        measure(reverse ? 'TCP b to a' : 'TCP a to b', a, b, { reverse }),
      );
      const way = reverse ? 'rx' : 'tx';
      assert.ok(added[`${way}_bytes`] >= result.bytes);
      assert.ok(added[`${way}_bytes`] / added[`${way}_frames`] > PLAIN_FRAME);
      assert.equal(added.gso_frames + added.csum_frames, 0);
      assert.ok(result.retransmits * PLAIN_FRAME < result.bytes / 10);
    }
    const { bytes } = await measure('TCP over IPv6', a, b, { ipv6: true });
    assert.ok(bytes > 0);
  });

  await t.test('TCP between a guest with offloads and one without, both ways', async () => {
    const [a, b] = pair(MIXED);
    const { added } = await counting('b/net1', () => measure('TCP, cut in software', a, b));
    assert.ok(added.gso_frames > 0 && added.gso_segments > added.gso_frames);
    assert.ok(added.rx_bytes / added.rx_frames <= PLAIN_FRAME);
    await measure('TCP, cut in software, IPv6', a, b, { ipv6: true });
    await measure('TCP, plain sender', a, b, { reverse: true });
    const { sent, received } = await transfer(a, b, { mebibytes: 16 });
    assert.match(sent, /^[0-9a-f]{64}$/);
    assert.equal(received, sent);
  });

  await t.test('TCP without any offload, both ways', async () => {
    const [a, b] = pair(MIXED);
    const offloads = 'tx off sg off tso off gso off gro off';
    await a.guest.sh(`ethtool -K ${a.interface} ${offloads}`);
    for (const reverse of [false, true]) {
      const { added } = await counting('a/net1', () =>
        measure(`TCP without offloads, ${reverse ? 'b to a' : 'a to b'}`, a, b, { reverse }),
      );
      for (const way of ['rx', 'tx'] as const)
        assert.ok(added[`${way}_bytes`] / added[`${way}_frames`] <= PLAIN_FRAME);
      assert.equal(added.gso_frames + added.csum_frames, 0);
    }
  });

  await t.test('UDP, IPv4 and IPv6', async () => {
    const [a, b] = pair(FULL);
    for (const ipv6 of [false, true]) {
      const udp = { udpLength: 1400, bitrate: '10M', ipv6 };
      // What iperf3 has not got may have found the guest's socket full: these bytes got to the guest. (Frames
      // tell nothing: with segmentation offload one carries several datagrams.)
      const parts: number[] = [];
      do {
        const { result: sender, added: receiver } = await counting('b/net0', () =>
          counting('a/net0', () => measure(`UDP${ipv6 ? ' over IPv6' : ''}`, a, b, udp)),
        );
        const known = receiver.rx_frames + receiver.rx_drop_no_buffer;
        assert.ok(known >= sender.added.tx_frames, `${known} of ${sender.added.tx_frames} frames`);
        parts.push(receiver.rx_bytes / (sender.result.datagrams * udp.udpLength));
        // A guest that does not get its processor has no buffers.
      } while ((parts.at(-1) ?? 0) < 0.9 && parts.length < ATTEMPTS);
      assert.ok((parts.at(-1) ?? 0) >= 0.9, `parts that arrived: ${parts.join(', ')}`);
    }
    // One datagram of many fragments.
    assert.equal((await ping(a, b, { size: 60_000 })).received, 3);
  });

  await t.test('128 MiB arrive as they were sent', async () => {
    const { sent, received } = await transfer(...pair(FULL));
    assert.match(sent, /^[0-9a-f]{64}$/);
    assert.equal(received, sent);
  });

  await t.test('jumbo frames', async () => {
    const hosts = pair(FULL);
    const setMtu = async (mtu: number): Promise<void> => {
      for (const { guest, interface: name } of hosts)
        await guest.sh(`ip link set ${name} mtu ${mtu}`);
    };
    const whole = { size: JUMBO_MTU - IPV4_ICMP_HEADERS, whole: true };
    assert.equal((await ping(...hosts, { ...whole, deadline: 1 })).received, 0);
    await setMtu(JUMBO_MTU);
    assert.equal((await ping(...hosts, whole)).received, 3);
    const [a, b] = hosts;
    await a.guest.sh(`ethtool -K ${a.interface} tso off gso off`);
    const { added } = await counting('a/net0', () => measure('TCP in jumbo frames', a, b));
    const size = added.tx_bytes / added.tx_frames;
    assert.ok(size > JUMBO_MTU / 2 && size <= JUMBO_MTU + 14, `${size} bytes a frame`);
    await a.guest.sh(`ethtool -K ${a.interface} tso on gso on`);
    await setMtu(1500);
  });

  await t.test('VLANs: access ports, and a trunk', async () => {
    const [accessA, accessB] = pair(ACCESS);
    const [trunkA, accessB20] = pair(TRUNK);
    assert.equal((await ping(accessA, accessB)).received, 3, 'within VLAN 10');

    // From VLAN 10 to VLAN 20, with no need of an answer to ARP.
    const a = accessA.guest;
    const b = accessB.guest;
    await a.sh(`ip addr add 10.0.9.1/24 dev ${accessA.interface}
      ip neigh replace 10.0.9.2 lladdr ${macOf(TRUNK, B)} dev ${accessA.interface}`);
    await b.sh(`ip addr add 10.0.9.2/24 dev ${accessB20.interface}
      ip neigh replace 10.0.9.1 lladdr ${macOf(ACCESS, A)} dev ${accessB20.interface}`);
    const separated = { address: '10.0.9.2', address6: '' };
    assert.equal((await ping(accessA, separated, { deadline: 1 })).received, 0);
    const back = { address: '10.0.9.1', address6: '' };
    assert.equal((await ping(accessB20, back, { deadline: 1 })).received, 0);

    const { added } = await counting('a/net3', async () => {
      assert.equal((await ping(trunkA, accessB20, { deadline: 1 })).received, 0, 'no tag');
    });
    assert.ok(added.tx_drop_vlan > 0);

    await a.sh('modprobe 8021q');
    const tagged = async (vlan: number, peer: Host): Promise<[Host, Host]> => {
      const name = `${trunkA.interface}.${vlan}`;
      await a.sh(`set -e
        ip link add link ${trunkA.interface} name ${name} type vlan id ${vlan}
        ip addr add 10.1.${vlan}.1/24 dev ${name}
        ip link set ${name} up`);
      await b.sh(`ip addr add 10.1.${vlan}.2/24 dev ${peer.interface}`);
      return [
        { guest: a, interface: name, address: `10.1.${vlan}.1`, address6: '' },
        { ...peer, address: `10.1.${vlan}.2` },
      ];
    };
    const vlan10 = await tagged(10, accessB);
    assert.equal((await ping(...vlan10)).received, 3, 'VLAN 10 over the trunk');
    const vlan20 = await tagged(20, accessB20);
    assert.equal((await ping(...vlan20)).received, 3, 'VLAN 20 over the trunk');
    const vlan30 = await tagged(30, accessB20);
    const foreign = await counting('a/net3', () => ping(...vlan30, { deadline: 1 }));
    assert.equal(foreign.result.received, 0, 'a VLAN that the trunk does not carry');
    assert.ok(foreign.added.tx_drop_vlan > 0);

    for (const reverse of [false, true]) {
      const way = reverse ? 'tag put in' : 'tag taken off';
      await measure(`TCP, ${way}`, ...vlan10, { reverse });
      await measure(`TCP, ${way}, one side without offloads`, ...vlan20, { reverse });
    }
    await a.sh(`ethtool -K ${trunkA.interface} tso off gso off`);
    const plain = await counting('a/net3', () => measure('TCP, tagged', ...vlan10));
    const size = plain.added.tx_bytes / plain.added.tx_frames;
    assert.ok(size > PLAIN_FRAME / 2 && size <= TAGGED_FRAME, `${size} bytes a frame`);
    const { sent, received } = await transfer(...vlan20, { mebibytes: 8 });
    assert.equal(received, sent);
  });

  await t.test('spoofchk drops what comes from another address', async () => {
    const [a, b] = pair(LIMITED);
    const rename = async (mac: string): Promise<void> => {
      await a.guest.sh(`set -e
        ip link set ${a.interface} down
        ip link set ${a.interface} address ${mac}
        ip link set ${a.interface} up`);
    };
    assert.equal((await ping(a, b)).received, 3);
    await rename('52:54:00:12:34:56');
    const { result, added } = await counting('a/net4', () => ping(a, b, { deadline: 1 }));
    assert.equal(result.received, 0);
    assert.ok(added.tx_drop_spoof > 0);
    await rename(macOf(LIMITED, A));
    assert.equal((await ping(a, b)).received, 3);
  });

  await t.test('rates are limited', async () => {
    const [a, b] = pair(LIMITED);
    await assertRate(TX_MBPS, async () => {
      const { gbps } = await measure(`TCP at most ${TX_MBPS} Mb/s`, a, b, { seconds: 2 });
      return gbps * 1000;
    });
    // A datagram's frame has 42 bytes of headers, which count too.
    const udp = { udpLength: 1400, bitrate: `${3 * RX_MBPS}M`, seconds: 2 };
    let [dropped, lost] = [0, 0];
    await assertRate(RX_MBPS, async () => {
      const { result, added } = await counting('a/net4', () =>
        measure(`UDP at most ${RX_MBPS} Mb/s`, b, a, udp),
      );
      dropped += added.rx_drop_rate;
      lost += result.lost;
      return (result.gbps * 1000 * 1442) / 1400;
    });
    assert.ok(dropped > 0 && lost > 0, `${dropped} dropped, ${lost} lost`);
  });

  await t.test('a capture is what was on the port', async () => {
    const [a, b] = pair(FULL);
    const file = join(sluice.directory, 'a.pcapng');
    const capture = await sluice.capture('a/net0', file);
    assert.equal((await ping(a, b, { count: 5 })).received, 5);
    await capture.end();
    const filter = `icmp and host ${a.address} and host ${b.address}`;
    const { status, stdout, stderr } = readCapture(file, filter);
    assert.equal(status, 0, stderr);
    assert.doesNotMatch(stderr, /truncated|bad/);
    assert.match(stderr, /EN10MB/);
    const lines = stdout.trim().split('\n');
    assert.equal(lines.filter((line) => line.includes('ICMP echo request')).length, 5, stdout);
    assert.equal(lines.filter((line) => line.includes('ICMP echo reply')).length, 5, stdout);
  });

  await t.test('the driver is unloaded and loaded again', async () => {
    const [guest] = guests;
    await guest.sh('modprobe -r virtio_net');
    await until('the ports to stop', async () => !(await sluice.port('a/net0')).running);
    await guest.sh('modprobe virtio_net');
    as.splice(0, as.length, ...(await configure(guest, A)));
    const [a, b] = pair(FULL);
    assert.equal((await ping(a, b)).received, 3);
    assert.equal((await ping(b, a)).received, 3);
    await measure('TCP after a reload', a, b);
  });

  await t.test('a guest restarts', async () => {
    const [guest] = guests;
    await guest.reboot();
    as.splice(0, as.length, ...(await configure(guest, A)));
    const [a, b] = pair(FULL);
    assert.equal((await ping(a, b)).received, 3);
    await measure('TCP after a restart', a, b);
  });

  await t.test('a guest is killed in the middle of traffic, and a new one comes', async () => {
    const [a, b] = pair(FULL);
    const first = start('c', [FULL]);
    await first.booted();
    await bringUp(first, FULL, C);
    // It sends and is sent to when it dies.
    await serveIperf(b.guest, FLOOD_PORT);
    await first.sh(
      `setsid iperf3 -c ${b.address} -p ${FLOOD_PORT} -u -b 50M --bidir -t 60 >/dev/null 2>&1 &`,
    );
    const progress = async (port: string): Promise<void> => {
      const { tx_frames, rx_frames } = await sluice.counters(port);
      await until(`traffic of ${port}`, async () => {
        const now = await sluice.counters(port);
        return now.tx_frames > tx_frames + 100 && now.rx_frames > rx_frames + 100;
      });
    };
    await progress('c/net0');
    const between = measure('TCP while another guest dies', a, b, { seconds: 4 });
    // Whether it fails is heard of when it is awaited.
    between.catch(() => undefined);
    await progress('a/net0');
    await first.kill();
    await sluice.disconnected('c/net0');
    assert.equal((await sluice.port('c/net0')).running, false);
    await progress('a/net0');
    await between;
    await b.guest.sh('busybox killall iperf3');

    const second = start('c', [FULL]);
    await second.booted();
    const again = await bringUp(second, FULL, C);
    assert.equal((await ping(again, a)).received, 3);
    assert.equal((await ping(b, again)).received, 3);
  });

  await t.test('all went well', async () => {
    await sluice.healthy();
    assert.doesNotMatch(sluice.log, /"level":"error"/);
    for (const guest of guests) assert.doesNotMatch(guest.console, /WARNING|BUG:|Call Trace/);
    const table = await sluice.print('show', 'ports');
    for (const port of ['a/net0', 'b/net4', 'c/net0'])
      assert.match(table, new RegExp(`${port}.*running`));
    await sluice.stop();
  });
});

/**
 * Never more than 10% above the limit, and once as much as 10% below it: less may be all that a guest
 * sent which did not get its processor.
 */
async function assertRate(limit: number, measureMbps: () => Promise<number>): Promise<void> {
  const found: number[] = [];
  while (found.length < ATTEMPTS) {
    const rate = await measureMbps();
    assert.ok(rate <= 1.1 * limit, `${rate} Mb/s, allowed are ${limit}`);
    if (rate >= 0.9 * limit) return;
    found.push(rate);
  }
  assert.fail(`${found.join(', ')} Mb/s, expected ${limit}`);
}

/** Runs the testbed's tcpdump on a capture file. */
function readCapture(file: string, filter: string) {
  const shared = new SharedDirectories();
  const command = ['tcpdump', '-n', '-r', shared.inside(file), filter];
  return spawnSync(findTestbed().enter, [...shared.options(), '--', ...command], {
    encoding: 'utf8',
  });
}
