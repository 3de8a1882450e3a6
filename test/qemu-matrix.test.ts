/**
 * Every shape of ring and card that a stock Linux driver can take: split and packed, with what
 * QEMU can withhold withheld, a network for each; then Sluice is killed again and again while all of
 * them are busy.
 */
// suite: timeout=1200
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type QemuGuest, type QemuNet, startQemu } from '../src/guest/qemu.ts';
import { VIRTIO_F_RING_PACKED } from '../src/spec/virtio.ts';
import { bringUp, hostOn, macOf, type Stream, startStream } from './support/cards.ts';
import { type Host, iperf, negotiated, ping, transfer } from './support/guests.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { withoutMatrix } from './support/testbed.ts';

type Shape = Omit<QemuNet, 'socket' | 'packed'>;

const SHAPES: Readonly<Record<string, Shape>> = {
  'all that there is': { queues: 2, mtu: 9000 },
  'no offloads': { offloads: false },
  'buffers that do not merge': { properties: { mrg_rxbuf: false } },
  'buffers that do not merge, no offloads': { offloads: false, properties: { mrg_rxbuf: false } },
  'no indirect tables, small rings': { ringSize: 256, properties: { indirect_desc: false } },
  'no event index': { queues: 2, properties: { event_idx: false } },
  'checksums on the way out only': {
    properties: { guest_csum: false, guest_tso4: false, guest_tso6: false, guest_ecn: false },
  },
};

interface Card extends Shape {
  readonly name: string;
  readonly packed: boolean;
}

/** A card for each; their places are the numbers of the networks. */
const CARDS: readonly Card[] = [false, true].flatMap((packed) =>
  Object.entries(SHAPES).map(([shape, net]) => ({
    name: `${packed ? 'packed' : 'split'}, ${shape}`,
    packed,
    ...net,
  })),
);

const NUMBERS = { a: 1, b: 2 } as const;
type Name = keyof typeof NUMBERS;

const config: SluiceConfig = {
  switches: Object.fromEntries(CARDS.map((_, network) => [`lan${network}`, {}])),
  guests: Object.fromEntries(
    (['a', 'b'] as const).map((name) => [
      name,
      {
        net: CARDS.map(({ packed, queues, mtu }, network) => ({
          method: 'paravirtual' as const,
          switch: `lan${network}`,
          mac: macOf(network, NUMBERS[name]),
          packed,
          ...(queues === undefined ? {} : { queues }),
          ...(mtu === undefined ? {} : { mtu }),
        })),
      },
    ]),
  ),
};

const LIVES = 12;
/** What is busy then: more would wait for a processor, not for Sluice. */
const BUSY: ReadonlySet<string> = new Set([
  'split, all that there is',
  'split, no indirect tables, small rings',
  'packed, all that there is',
  'packed, buffers that do not merge',
  'packed, no indirect tables, small rings',
  'packed, no event index',
]);
/** Bytes that show that a stream goes on. */
const ENOUGH = 2 ** 17;

test('the matrix of QEMU guests', { skip: withoutMatrix() }, async (t) => {
  const sluice = await Sluice.start(t, config);
  const start = (name: Name): QemuGuest => {
    const guest = startQemu({
      name,
      cpus: 2,
      net: CARDS.map(({ name: _, ...net }, network) => ({
        ...net,
        socket: sluice.socket(`${name}/net${network}`),
        mac: macOf(network, NUMBERS[name]),
        reconnectMs: 100,
      })),
    });
    t.after(async () => {
      await guest.kill();
    });
    return guest;
  };
  const guests = { a: start('a'), b: start('b') };
  await Promise.all(Object.values(guests).map((guest) => guest.booted()));
  const on = (name: Name, network: number): Host =>
    hostOn(guests[name], network, NUMBERS[name], `card${network}`);

  for (const [network, { name, packed }] of CARDS.entries()) {
    await t.test(name, async (t) => {
      await Promise.all([bringUp(guests.a, network, 1), bringUp(guests.b, network, 2)]);
      const [a, b] = [on('a', network), on('b', network)];
      assert.equal(await negotiated(a, VIRTIO_F_RING_PACKED), packed);
      assert.equal((await ping(a, b)).received, 3);
      for (const reverse of [false, true]) {
        for (const ipv6 of [false, true]) {
          const { gbps, bytes } = await iperf(a, b, { seconds: 1, reverse, ipv6 });
          assert.ok(bytes > 0);
          t.diagnostic(
            `IPv${ipv6 ? 6 : 4} ${reverse ? 'b to a' : 'a to b'}: ${gbps.toFixed(2)} Gb/s`,
          );
        }
      }
      const { datagrams, lost } = await iperf(a, b, {
        seconds: 1,
        udpLength: 1400,
        bitrate: '20M',
      });
      assert.ok(datagrams > lost);
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const) {
        const { sent, received } = await transfer(from, to, { mebibytes: 8 });
        assert.equal(received, sent);
      }
      await sluice.healthy();
    });
  }

  await t.test('Sluice is killed again and again', async (t) => {
    const networks = [...CARDS.keys()].filter((network) => BUSY.has(CARDS[network]?.name ?? ''));
    assert.equal(networks.length, BUSY.size);
    const streams: Stream[] = [];
    for (const network of networks) {
      streams.push(await startStream(on('a', network), on('b', network)));
    }
    // Besides what is looked at, rings at their fullest.
    for (const network of networks) {
      const port = 7000 + network;
      await guests.b.sh(`iperf3 -s -D -p ${port}`);
      await guests.a.sh(
        `setsid sh -c 'while :; do iperf3 -c ${on('b', network).address} -p ${port} -t 3; sleep 1; done' >/dev/null 2>&1 &`,
      );
    }
    const busy = async (life: number): Promise<void> => {
      for (const network of networks) {
        await until(`traffic of ${CARDS[network]?.name} in life ${life}`, async () => {
          return (await sluice.counters(`b/net${network}`)).rx_bytes > ENOUGH;
        });
      }
    };
    for (let life = 0; life < LIVES; life++) {
      await busy(life);
      await sleep(Math.random() * 500);
      await sluice.healthy();
      await sluice.kill();
      await sluice.up();
    }
    await busy(LIVES);
    for (const [index, stream] of streams.entries()) {
      const name = CARDS[networks[index] ?? 0]?.name ?? '';
      const { sent, received, bytes } = await stream.end();
      assert.equal(received, sent, name);
      t.diagnostic(`${name}: ${bytes} bytes`);
    }
    await sluice.healthy();
  });
});
