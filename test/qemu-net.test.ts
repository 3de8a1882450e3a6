/**
 * Linux guests of QEMU over `sluice up`: what virtio-net and vhost-user promise, seen by the
 * drivers of a stock kernel.
 *
 * Guests `a` and `b` share a network for each kind of card. `c` is started with the very arguments
 * that `sluice guest qemu-args` prints, and is the one that hangs, reboots and grows.
 */
// suite: takes=140 timeout=900
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type QemuGuest, type QemuNet, startQemu } from '../src/guest/qemu.ts';
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from '../src/spec/virtio.ts';
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_HOST_TSO4,
} from '../src/spec/virtio-net.ts';
import { addAddresses, bringUp, hostOn, macOf, startStream } from './support/cards.ts';
import {
  type Host,
  type IperfOptions,
  iperf,
  negotiated,
  ping,
  transfer,
} from './support/guests.ts';
import { startFlood } from './support/packet-generator.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

/** Networks, which are also the numbers of the cards of `a` and `b`. */
const JUMBO = 0;
const PACKED = 1;
const MIXED = 2;
const BARE = 3;
const VLAN = 4;
const CONNECT = 5;
const NETWORKS = [JUMBO, PACKED, MIXED, BARE, VLAN, CONNECT] as const;
type Network = (typeof NETWORKS)[number];

const MTU = 9000;
const RECONNECT_MS = 100;
/** Of a stream that is to move something: thousands of frames. */
const STREAM_BYTES = 8 * 2 ** 20;
/** Frames a second, which leave an emulated processor time to load a driver. */
const RELOAD_FLOOD = 1000;
/** Bytes that show that a stream goes on. */
const ENOUGH = 2 ** 18;
const NUMBERS = { a: 1, b: 2, c: 3 } as const;
type Name = keyof typeof NUMBERS;

interface Card {
  readonly switch: string;
  readonly queues?: number;
  readonly mtu?: number;
  readonly packed?: boolean;
  readonly vlan?: number;
  readonly trunk?: number[];
  readonly server?: 'listen' | 'connect';
}

function card(name: Name, network: Network, settings: Omit<Card, 'switch'> = {}) {
  return {
    method: 'paravirtual' as const,
    switch: `lan${network}`,
    mac: macOf(network, NUMBERS[name]),
    ...settings,
  };
}

const config: SluiceConfig = {
  switches: Object.fromEntries(NETWORKS.map((network) => [`lan${network}`, {}])),
  guests: {
    ...Object.fromEntries(
      (['a', 'b'] as const).map((name) => [
        name,
        {
          net: [
            card(name, JUMBO, { queues: 2, mtu: MTU }),
            card(name, PACKED, { packed: true }),
            card(name, MIXED),
            card(name, BARE),
            card(name, VLAN, name === 'a' ? { trunk: [10, 20] } : { vlan: 10 }),
            card(name, CONNECT, { packed: true, queues: 2, server: 'connect' }),
          ],
        },
      ]),
    ),
    c: {
      memory: '384M',
      net: [card('c', JUMBO, { packed: true, mtu: MTU }), card('c', VLAN, { vlan: 20 })],
    },
  },
};

function startPeer(name: 'a' | 'b', sluice: Sluice): QemuGuest {
  const settings: readonly Omit<QemuNet, 'socket'>[] = [
    { queues: 2, mtu: MTU },
    { packed: true },
    { offloads: name === 'b' },
    { offloads: false, ringSize: 256, properties: { indirect_desc: false, event_idx: false } },
    // Without mergeable buffers, large frames come into chains.
    name === 'a' ? {} : { properties: { mrg_rxbuf: false } },
    { packed: true, queues: 2, listens: true },
  ];
  return startQemu({
    name,
    cpus: 2,
    net: settings.map((net, network) => ({
      socket: sluice.socket(`${name}/net${network}`),
      mac: macOf(network, NUMBERS[name]),
      ...(net.listens === true ? {} : { reconnectMs: RECONNECT_MS }),
      ...net,
    })),
  });
}

/** A guest attached as the manual says: `qemu-system-x86_64 … $(sluice guest qemu-args c)`. */
async function startAsPrinted(name: 'c', sluice: Sluice): Promise<QemuGuest> {
  const printed = (await sluice.print('guest', 'qemu-args', name)).trim().split(' ');
  assert.ok(printed.some((word) => word.includes(sluice.socket(`${name}/net0`))));
  return startQemu({
    name,
    // What is printed brings memory of its own, which takes the place of the launcher's.
    memory: 16,
    options: (inside) => [
      ...printed.map((word) =>
        word.replaceAll(sluice.run, dirname(inside(sluice.socket(`${name}/net0`)))),
      ),
      // Room for memory to be plugged in.
      ...['-m', '384M,slots=2,maxmem=1G'],
    ],
  });
}

/** Process of the host that is the QEMU of a guest. */
function qemuProcess(guest: QemuGuest): number {
  const stats = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((entry) => {
      try {
        return [readFileSync(`/proc/${entry}/stat`, 'utf8')];
      } catch {
        return []; // It ended meanwhile.
      }
    })
    .map((stat) => ({
      pid: Number.parseInt(stat, 10),
      name: stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')')),
      parent: Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]),
    }));
  const below = new Set([guest.pid]);
  for (let size = 0; size !== below.size; ) {
    size = below.size;
    for (const { pid, parent } of stats) if (below.has(parent)) below.add(pid);
  }
  const qemu = stats.find(({ pid, name }) => below.has(pid) && name.startsWith('qemu-system'));
  return qemu?.pid ?? assert.fail(`guest ${guest.name} has no QEMU`);
}

/** Interrupts of each receive queue of a card. */
async function receiveInterrupts(host: Host): Promise<number[]> {
  const lines = await host.guest.sh(
    `device=$(basename "$(readlink -f /sys/class/net/${host.interface}/device)")
     grep "$device-input" /proc/interrupts`,
  );
  return lines.split('\n').map((line) => {
    const [, ...cells] = line.trim().split(/\s+/);
    return cells
      .slice(
        0,
        cells.findIndex((cell) => !/^\d+$/.test(cell)),
      )
      .reduce((sum, cell) => sum + Number(cell), 0);
  });
}

test('QEMU guests', { skip: withoutTestbed() }, async (t) => {
  const sluice = await Sluice.start(t, config);
  const guests = {
    a: startPeer('a', sluice),
    b: startPeer('b', sluice),
    c: await startAsPrinted('c', sluice),
  };
  t.after(async () => {
    await Promise.all(Object.values(guests).map((guest) => guest.kill()));
  });
  const { a, b, c } = guests;
  const bringUpAll = async (name: 'a' | 'b'): Promise<Host[]> => {
    const hosts: Host[] = [];
    for (const network of NETWORKS) {
      hosts.push(await bringUp(guests[name], network, NUMBERS[name]));
    }
    return hosts;
  };
  const bringUpThird = async (): Promise<void> => {
    await bringUp(c, JUMBO, NUMBERS.c);
    await bringUp(c, VLAN, NUMBERS.c);
  };
  await Promise.all(Object.values(guests).map((guest) => guest.booted()));
  await Promise.all([bringUpAll('a'), bringUpAll('b'), bringUpThird()]);
  await sluice.running(...(await sluice.show('ports')).map(({ port }) => port));

  /** Guest and card on a network. */
  const on = (name: Name, network: Network): Host =>
    hostOn(guests[name], network, NUMBERS[name], `card${network}`);
  const pair = (network: Network): [Host, Host] => [on('a', network), on('b', network)];
  const reaches = async (from: Host, to: Host, count = 3): Promise<void> => {
    const { received } = await ping(from, to, { count });
    assert.equal(received, count, `${from.guest.name} ${from.interface} to ${to.guest.name}`);
  };
  const allReach = async (networks: readonly Network[] = NETWORKS): Promise<void> => {
    for (const network of networks) {
      // On the VLAN network the first is a trunk, without untagged frames.
      if (network !== VLAN) await reaches(...pair(network));
    }
  };
  /** Runs iperf3, which must move something, and prints what it found. */
  const measure = async (
    say: TestContext,
    from: Host,
    to: Host,
    options: IperfOptions = {},
  ): Promise<void> => {
    const { gbps, bytes, retransmits } = await iperf(from, to, { bytes: STREAM_BYTES, ...options });
    assert.ok(bytes > 0);
    const [sender, receiver] = options.reverse === true ? [to, from] : [from, to];
    const what = `${options.ipv6 === true ? 'IPv6' : 'IPv4'} ${from.interface} ${sender.guest.name} to ${receiver.guest.name}`;
    say.diagnostic(`${what}: ${gbps.toFixed(2)} Gb/s, ${retransmits} retransmits`);
  };
  const scenario = async (name: string, run: (t: TestContext) => Promise<void>): Promise<void> => {
    await t.test(name, async (t) => {
      await run(t);
      await sluice.healthy();
    });
  };

  await scenario('guests reach each other over every kind of card', async () => {
    await allReach();
    await reaches(on('c', JUMBO), on('a', JUMBO));
    assert.equal((await ping(...pair(PACKED), { ipv6: true })).received, 3);
  });

  await scenario('drivers negotiate what was configured', async () => {
    for (const host of pair(JUMBO)) {
      assert.equal(await negotiated(host, VIRTIO_F_RING_PACKED), false);
      for (const bit of [
        VIRTIO_F_EVENT_IDX,
        VIRTIO_F_INDIRECT_DESC,
        VIRTIO_NET_F_CSUM,
        VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_HOST_TSO4,
      ]) {
        assert.equal(await negotiated(host, bit), true, `feature ${bit}`);
      }
    }
    for (const host of [...pair(PACKED), ...pair(CONNECT), on('c', JUMBO)]) {
      assert.equal(await negotiated(host, VIRTIO_F_RING_PACKED), true);
    }
    for (const host of pair(BARE)) {
      for (const bit of [
        VIRTIO_F_EVENT_IDX,
        VIRTIO_F_INDIRECT_DESC,
        VIRTIO_NET_F_CSUM,
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_HOST_TSO4,
      ]) {
        assert.equal(await negotiated(host, bit), false, `feature ${bit}`);
      }
    }
    const packed = new Map(
      (await sluice.show('rings'))
        .filter(({ started }) => started)
        .map((ring) => [`${ring.port}`, ring.packed]),
    );
    assert.equal(packed.get(`b/net${PACKED}`), true);
    assert.equal(packed.get(`b/net${JUMBO}`), false);
    assert.equal(packed.get('c/net0'), true);
  });

  await scenario('TCP with all offloads, both ways', async (t) => {
    await measure(t, ...pair(JUMBO));
    await measure(t, ...pair(JUMBO), { reverse: true });
    await measure(t, ...pair(PACKED), { ipv6: true });
    await measure(t, ...pair(CONNECT), { reverse: true, parallel: 2 });
    // Nothing was cut or checksummed for guests that take it as it is.
    const { gso_frames, csum_frames } = await sluice.counters(`b/net${JUMBO}`);
    assert.deepEqual({ gso_frames, csum_frames }, { gso_frames: 0, csum_frames: 0 });
  });

  await scenario('TCP without offloads, both ways', async (t) => {
    await measure(t, ...pair(BARE));
    await measure(t, ...pair(BARE), { reverse: true });
    await measure(t, ...pair(BARE), { ipv6: true });
  });

  await scenario('a guest with offloads sends to one without', async (t) => {
    const before = await sluice.counters(`a/net${MIXED}`);
    await measure(t, on('b', MIXED), on('a', MIXED));
    await measure(t, on('b', MIXED), on('a', MIXED), { ipv6: true });
    const after = await sluice.counters(`a/net${MIXED}`);
    assert.ok(after.gso_frames > before.gso_frames, 'frames were cut');
    assert.ok(after.csum_frames > before.csum_frames, 'checksums were made');
    await measure(t, ...pair(MIXED));
    const { sent, received } = await transfer(on('b', MIXED), on('a', MIXED), { mebibytes: 8 });
    assert.equal(received, sent);
  });

  await scenario('UDP', async (t) => {
    for (const network of [JUMBO, MIXED, PACKED] as const) {
      const [from, to] = pair(network);
      const options = { seconds: 1, udpLength: 1400, bitrate: '20M' };
      const { datagrams, lost } = await iperf(from, to, options);
      assert.ok(datagrams > lost, `${datagrams} sent, ${lost} lost`);
      t.diagnostic(`card${network}: ${datagrams} datagrams, ${lost} lost`);
    }
  });

  await scenario('jumbo frames', async () => {
    for (const host of [...pair(JUMBO), on('c', JUMBO)]) {
      assert.equal(
        await host.guest.sh(`cat /sys/class/net/${host.interface}/mtu`),
        String(MTU),
        'the MTU that the configuration advises',
      );
    }
    const [from, to] = pair(JUMBO);
    const largest = MTU - 28;
    assert.equal((await ping(from, to, { size: largest, whole: true })).received, 3);
    // Without offloads, and with buffers that it takes several of.
    for (const host of pair(BARE)) await host.guest.sh(`ip link set ${host.interface} mtu ${MTU}`);
    assert.equal((await ping(...pair(BARE), { size: largest, whole: true })).received, 3);
    const { sent, received } = await transfer(...pair(BARE), { mebibytes: 4 });
    assert.equal(received, sent);
  });

  await scenario('128 MiB arrive as they were sent', async () => {
    const { sent, received } = await transfer(...pair(JUMBO), { mebibytes: 128 });
    assert.match(sent, /^[0-9a-f]{64}$/);
    assert.equal(received, sent);
  });

  await scenario('two queues carry traffic, and one after ethtool -L', async () => {
    const [from, to] = pair(JUMBO);
    const channels = await from.guest.sh(`ethtool -l ${from.interface}`);
    assert.match(channels, /maximums:.*Combined:\s+2\n.*Current.*Combined:\s+2\b/s);
    const positions = async (port: string): Promise<number[]> =>
      (await sluice.show('rings')).filter((ring) => ring.port === port).map(({ used }) => used);
    /** Which transmit rings of the sender and receive queues of the receiver something moved on. */
    const inUse = async (): Promise<{ tx: boolean[]; rx: boolean[] }> => {
      const rings = await positions(`a/net${JUMBO}`);
      const interrupts = await receiveInterrupts(to);
      for (const cpu of [0, 1]) {
        await from.guest.sh(`taskset -c ${cpu} ping -q -c 10 -i 0.005 ${to.address}`);
      }
      // Sluice spreads flows, of which sixteen are enough.
      await iperf(from, to, { bytes: STREAM_BYTES, parallel: 16 });
      const movedRings = (await positions(`a/net${JUMBO}`)).map((at, ring) => at !== rings[ring]);
      return {
        tx: movedRings.filter((_, ring) => ring % 2 === 1),
        rx: (await receiveInterrupts(to)).map((count, queue) => count > (interrupts[queue] ?? 0)),
      };
    };
    const useQueues = async (count: number): Promise<void> => {
      for (const { guest, interface: device } of [from, to]) {
        await guest.sh(`ethtool -L ${device} combined ${count}`);
      }
    };
    assert.deepEqual(await inUse(), { tx: [true, true], rx: [true, true] });
    await useQueues(1);
    assert.deepEqual(await inUse(), { tx: [true, false], rx: [true, false] });
    await useQueues(2);
    assert.deepEqual(await inUse(), { tx: [true, true], rx: [true, true] });
  });

  await scenario('VLANs are apart, and reached by tags', async (t) => {
    await a.sh(`set -e
      for id in 10 20; do ip link add link card${VLAN} name card${VLAN}.$id type vlan id $id; done`);
    const a10 = hostOn(a, VLAN, NUMBERS.a, `card${VLAN}.10`);
    const a20 = hostOn(a, VLAN + 10, NUMBERS.a, `card${VLAN}.20`);
    const c20 = hostOn(c, VLAN + 10, NUMBERS.c, `card${VLAN}`);
    await a.sh(`ip addr flush dev card${VLAN}`);
    for (const host of [a10, a20, c20]) await addAddresses(host);
    await reaches(a10, on('b', VLAN));
    await reaches(a20, c20);
    await measure(t, a10, on('b', VLAN));
    await measure(t, a10, on('b', VLAN), { reverse: true });
    // Neither by broadcasts, nor by a frame that names the other.
    const stranger = on('c', VLAN);
    const heard = `ip neigh show ${on('b', VLAN).address}; awk '/^Icmp:/ && !n++ {next} /^Icmp:/ {print $2}' /proc/net/snmp`;
    const before = await c.sh(heard);
    assert.equal((await ping(on('b', VLAN), stranger, { count: 1, deadline: 1 })).received, 0);
    await b.sh(
      `ip neigh replace ${stranger.address} lladdr ${macOf(VLAN, NUMBERS.c)} dev card${VLAN}`,
    );
    assert.equal((await ping(on('b', VLAN), stranger, { count: 3, deadline: 1 })).received, 0);
    assert.equal(await c.sh(heard), before, 'it knows neither the address nor of an echo request');
  });

  await scenario('a guest that hangs does not hold up the others', async (t) => {
    const [from, to] = pair(JUMBO);
    const hung = on('c', JUMBO);
    const qemu = qemuProcess(c);
    process.kill(qemu, 'SIGSTOP');
    const flood = await startFlood(from, hung);
    try {
      await until('the hung guest to have no buffers left', async () => {
        return (await sluice.counters('c/net0')).rx_drop_no_buffer > 1000;
      });
      await reaches(from, to, 20);
      await measure(t, from, to);
      await measure(t, from, to, { reverse: true });
    } finally {
      process.kill(qemu, 'SIGCONT');
      await flood.end();
    }
    await reaches(hung, from);
  });

  await scenario('a guest that is stopped and continued goes on where it was', async (t) => {
    const [from, to] = pair(JUMBO);
    const stopped = on('c', JUMBO);
    const stream = await startStream(from, stopped);
    const dropped = (await sluice.counters('c/net0')).rx_drop_link_down;
    await c.qmp('stop');
    const flood = await startFlood(from, stopped);
    await until('frames to the stopped guest', async () => {
      return (await sluice.counters('c/net0')).rx_drop_link_down > dropped;
    });
    await measure(t, from, to);
    await flood.end();
    await c.qmp('cont');
    await sluice.running('c/net0');
    const { sent, received, bytes } = await stream.end();
    assert.ok(bytes > 0);
    assert.equal(received, sent);
  });

  await scenario('a driver is unloaded and loaded again, under load', async () => {
    const flood = await startFlood(...pair(PACKED), RELOAD_FLOOD);
    await b.sh('modprobe -r virtio_net');
    const idle = (await sluice.port(`b/net${JUMBO}`)).running;
    await b.sh('modprobe virtio_net');
    assert.equal(idle, false);
    await bringUpAll('b');
    await flood.end();
    await allReach();
    const { sent, received } = await transfer(...pair(PACKED), { mebibytes: 4 });
    assert.equal(received, sent);
  });

  await scenario('a guest reboots', async () => {
    await c.reboot();
    await bringUpThird();
    await reaches(on('c', JUMBO), on('b', JUMBO));
    const { sent, received } = await transfer(on('c', JUMBO), on('b', JUMBO), { mebibytes: 4 });
    assert.equal(received, sent);
  });

  await scenario('memory is plugged in while the guest runs', async () => {
    const size = 256 * 2 ** 20;
    const { memoryBytes: before, protocolFeatures } = await sluice.port('c/net0');
    // With it QEMU adds a region (ADD_MEM_REG), without it all of them come anew.
    assert.ok(protocolFeatures.includes('CONFIGURE_MEM_SLOTS'), protocolFeatures.join());
    const stream = await startStream(on('a', JUMBO), on('c', JUMBO));
    await c.qmp('object-add', {
      'qom-type': 'memory-backend-memfd',
      id: 'more',
      size,
      share: true,
    });
    await c.qmp('device_add', { driver: 'pc-dimm', id: 'dimm0', memdev: 'more' });
    await until('the memory to be shared', async () => {
      return (await sluice.port('c/net0')).memoryBytes === before + size;
    });
    const { sent, received } = await stream.end();
    assert.equal(received, sent);
    await c.sh(`for state in /sys/devices/system/memory/memory*/state; do
      grep -q online $state || echo online_kernel >$state; done
      [ $(awk '/MemTotal/ {print $2}' /proc/meminfo) -gt ${(before + size / 2) / 1024} ]`);
    // More than the guest had at first: its buffers come to lie in the new memory, too.
    const more = await transfer(on('a', JUMBO), on('c', JUMBO), { mebibytes: 16 });
    assert.equal(more.received, more.sent);
  });

  await scenario('Sluice is killed under traffic, and traffic resumes by itself', async (t) => {
    const networks = [JUMBO, PACKED, BARE, CONNECT] as const;
    const streams = await Promise.all(networks.map((network) => startStream(...pair(network))));
    for (let life = 0; life < 2; life++) {
      for (const network of networks) {
        await until(`the stream over card${network}, life ${life}`, async () => {
          return (await sluice.counters(`b/net${network}`)).rx_bytes > ENOUGH;
        });
      }
      await sluice.kill();
      await sluice.up();
    }
    for (const network of networks) {
      await until(`the stream over card${network} to go on`, async () => {
        return (await sluice.counters(`b/net${network}`)).rx_bytes > ENOUGH;
      });
    }
    for (const [index, stream] of streams.entries()) {
      const { sent, received, bytes } = await stream.end();
      assert.equal(received, sent, `card${networks[index]}`);
      t.diagnostic(`card${networks[index]}: ${bytes} bytes`);
    }
    await allReach();
  });

  await scenario('guests reboot and reload while Sluice is away', async () => {
    await sluice.kill();
    await Promise.all([c.reboot(), b.sh('modprobe -r virtio_net && modprobe virtio_net')]);
    await sluice.up();
    await Promise.all([bringUpAll('b'), bringUpThird()]);
    await allReach();
    await reaches(on('c', JUMBO), on('a', JUMBO));
    const { sent, received } = await transfer(...pair(PACKED), { mebibytes: 4 });
    assert.equal(received, sent);
  });

  await scenario('Sluice ends in order and starts again', async () => {
    await sluice.stop();
    await sluice.up();
    await allReach();
  });
});
