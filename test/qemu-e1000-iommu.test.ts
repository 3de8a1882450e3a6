/**
 * Linux guests of QEMU with a virtual IOMMU and emulated cards: each buffer that the drivers give is a map
 * of its own, and what is not mapped any more is refused and told. Interrupts are remapped in guest `a`, not
 * in `b`.
 */
// suite: takes=90 timeout=900
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type QemuGuest, startQemu } from '../src/guest/qemu.ts';
import { addAddresses, bringUp, hostOn, macOf } from './support/cards.ts';
import {
  arrives,
  carrier,
  emulatedCardOptions,
  interruptsOf,
  reaches,
  selfTest,
  statistics,
} from './support/emulated-cards.ts';
import { type Host, iperf, ping } from './support/guests.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

const NETWORKS = [0, 1] as const;
const NUMBERS = { a: 1, b: 2 } as const;
type Name = keyof typeof NUMBERS;
/** Of the cards, by network. */
const MODELS = { a: ['82540', '82574'], b: ['82574', '82540'] } as const;
/** The drivers' largest rings: this many receive buffers, each a map. */
const LARGEST_RING = 4096;
/** Of a stream that is to move something: hundreds of frames. */
const STREAM_BYTES = 2 ** 20;
const PATIENCE = { timeoutMs: 180_000 };
/** Registers of the transmit ring (SDM §13.4.33–38). */
const [TCTL, TDBAL, TDBAH, TDLEN, TDH, TDT] = [0x400, 0x3800, 0x3804, 0x3808, 0x3810, 0x3818];
const DESCRIPTOR_BYTES = 16;

const config: SluiceConfig = {
  switches: { lan0: {}, lan1: {} },
  guests: Object.fromEntries(
    (['a', 'b'] as const).map((name) => [
      name,
      {
        net: NETWORKS.map((network) => ({
          method: 'emulated' as const,
          model: MODELS[name][network],
          switch: `lan${network}`,
          mac: macOf(network, NUMBERS[name]),
        })),
      },
    ]),
  ),
};

interface Refused {
  readonly port: string;
  readonly reason: string;
  readonly dma: { readonly iova: number; readonly length: number; readonly direction: string };
}

test('QEMU guests with a virtual IOMMU', { skip: withoutTestbed() }, async (t) => {
  const sluice = await Sluice.start(t, config);
  const start = (name: Name): QemuGuest => {
    const guest = startQemu({
      name,
      memory: 384,
      // Relaxed: this test looks at registers beside the driver.
      kernelParameters: 'intel_iommu=on iommu=nopt iomem=relaxed',
      options: (inside) => [
        ...['-machine', 'kernel-irqchip=split'],
        '-device',
        `intel-iommu,intremap=${name === 'a' ? 'on' : 'off'},caching-mode=on,device-iotlb=on`,
        ...emulatedCardOptions(
          NETWORKS.map((network) => ({
            socket: sluice.socket(`${name}/net${network}`),
            model: MODELS[name][network],
          })),
          inside,
        ),
      ],
    });
    t.after(async () => {
      await guest.kill();
    });
    return guest;
  };
  const guests = { a: start('a'), b: start('b') };
  const on = (name: Name, network: number): Host =>
    hostOn(guests[name], network, NUMBERS[name], `card${network}`);
  const pair = (network: number): [Host, Host] => [on('a', network), on('b', network)];
  const bringUpAll = async (name: Name): Promise<void> => {
    for (const network of NETWORKS) await bringUp(guests[name], network, NUMBERS[name]);
    for (const network of NETWORKS) await carrier(on(name, network));
  };
  await Promise.all(Object.values(guests).map((guest) => guest.booted(PATIENCE.timeoutMs)));
  await Promise.all([bringUpAll('a'), bringUpAll('b')]);
  const scenario = async (name: string, run: (t: TestContext) => Promise<void>): Promise<void> => {
    await t.test(name, async (t) => {
      await run(t);
      await sluice.healthy();
    });
  };

  await scenario('frames of both kinds of cards arrive', async () => {
    for (const name of ['a', 'b'] as const) {
      assert.match(await guests[name].sh('cat /proc/cmdline'), /intel_iommu=on/);
      await guests[name].sh('[ -d /sys/class/iommu/dmar0 ]');
    }
    for (const network of NETWORKS) {
      await reaches(...pair(network));
      const [a, b] = pair(network);
      await arrives(a, b, 2);
      await arrives(b, a, 2);
      for (const reverse of [false, true]) {
        assert.ok((await iperf(a, b, { bytes: STREAM_BYTES, reverse })).bytes > 0);
      }
      const options = { seconds: 1, udpLength: 1400, bitrate: '2M', reverse: true };
      const { datagrams, lost } = await iperf(a, b, options);
      assert.ok(datagrams > lost);
    }
    for (const { count } of await interruptsOf(on('a', 1))) assert.ok(count > 0);
  });

  await scenario('a ring of 4096 buffers is as many maps', async () => {
    for (const network of NETWORKS) {
      const host = on('a', network);
      await host.guest.sh(`ethtool -G ${host.interface} rx ${LARGEST_RING}`, PATIENCE);
      await carrier(host);
      const functions = JSON.parse(await sluice.print('show', 'functions', '--json')) as {
        readonly function: string;
        readonly maps: number;
      }[];
      const maps = functions.find((each) => each.function === `a/net${network}`)?.maps ?? 0;
      assert.ok(maps > LARGEST_RING / 2, `${maps} maps`);
      await reaches(...pair(network));
      await host.guest.sh(`ethtool -G ${host.interface} rx 256`, PATIENCE);
      await carrier(host);
    }
  });

  await scenario('tagged frames, the statistics and registers that ethtool tells', async () => {
    for (const network of NETWORKS) {
      const tagged = (name: Name): Host =>
        hostOn(guests[name], network + 10, NUMBERS[name], `tagged${network}`);
      for (const name of ['a', 'b'] as const) {
        await guests[name].sh(
          `ip link add link card${network} name tagged${network} type vlan id 100`,
        );
        await addAddresses(tagged(name));
      }
      await reaches(tagged('a'), tagged('b'));
      await arrives(tagged('a'), tagged('b'), 2);
      for (const name of ['a', 'b'] as const) {
        const host = on(name, network);
        const registers = await host.guest.sh(`ethtool -d ${host.interface}`);
        assert.match(registers, /VLAN mode: +enabled\n(.*\n)*.*Receiver: +enabled\n/);
        const counts = await statistics(host);
        assert.ok((counts['tx_packets'] ?? 0) > 100 && (counts['rx_packets'] ?? 0) > 100);
        for (const kind of ['rx_errors', 'tx_errors', 'tx_timeout_count', 'tx_dropped']) {
          assert.equal(counts[kind], 0, `${name} ${host.interface} ${kind}`);
        }
        await host.guest.sh(`ip link del tagged${network}`);
      }
    }
  });

  await scenario('self-tests, jumbo frames, resets and drivers loaded again', async () => {
    // Of each model.
    await Promise.all([selfTest(on('a', 0), 'offline'), selfTest(on('b', 0), 'offline')]);
    for (const network of NETWORKS) {
      for (const { guest, interface: device } of pair(network)) {
        await guest.sh(`ip link set ${device} mtu 9000`);
      }
      for (const host of pair(network)) await carrier(host);
      const jumbo = { size: 8972, whole: true, deadline: 30 };
      assert.equal((await ping(...pair(network), jumbo)).received, 3);
    }
    await guests.b.sh('modprobe -r e1000 e1000e && modprobe -a e1000 e1000e', PATIENCE);
    await guests.a.sh(`for device in card0 card1; do
      ip link set $device mtu 1500 down && echo 1 >/sys/class/net/$device/device/reset || exit; done`);
    await Promise.all([bringUpAll('a'), bringUpAll('b')]);
    for (const network of NETWORKS) await reaches(...pair(network));
  });

  await scenario('a guest that starts anew maps its buffers again', async () => {
    // A frame between the end of the maps and the reset of the card would be refused, and told.
    for (const network of NETWORKS) await guests.a.sh(`ip link set card${network} down`);
    await guests.b.reboot();
    await Promise.all([bringUpAll('a'), bringUpAll('b')]);
    for (const network of NETWORKS) await reaches(...pair(network));
  });

  await t.test('a ring that is not mapped any more is not read', async () => {
    for (const network of NETWORKS) {
      const { guest, interface: device } = on('a', network);
      // The driver goes, and its maps with it; then the card is told of its ring again.
      const ring = await guest.sh(`exec 2>&1; set -e
        path=$(readlink -f /sys/class/net/${device}/device)
        driver=$(readlink -f $path/driver)
        name=$(basename $path)
        bar=$(head -n 1 $path/resource | cut -d ' ' -f 1)
        get() { busybox devmem $(($bar + $1)) 32; }
        put() { busybox devmem $(($bar + $1)) 32 $2; }
        command() { printf $1 | dd of=$path/config bs=2 seek=2 count=1 conv=notrunc 2>/dev/null; }
        low=$(get ${TDBAL})
        high=$(get ${TDBAH})
        echo $name >$driver/unbind
        echo 1 >$path/enable
        # Memory and bus mastering.
        command '\\006\\000'
        put ${TDBAL} $low; put ${TDBAH} $high; put ${TDLEN} 4096; put ${TDH} 0; put ${TCTL} 2
        put ${TDT} 1
        sleep 0.5
        echo $(($high * 4294967296 + $low)) $(get ${TDH})
        put ${TCTL} 0
        command '\\002\\000'
        echo 0 >$path/enable
        echo $name >$driver/bind`);
      const [iova = 0, head] = ring.split(' ').map(Number);
      assert.ok(iova > 0, ring);
      assert.equal(head, 0, 'no descriptor was taken');
      const port = `a/net${network}`;
      let found: Refused | undefined;
      await until('the refusal to be told', async () => {
        const faults = JSON.parse(await sluice.print('show', 'faults', '--json')) as Refused[];
        found = faults.find((fault) => fault.port === port);
        return found !== undefined;
      });
      assert.deepEqual(found?.dma, { iova, length: DESCRIPTOR_BYTES, direction: 'read' });
      assert.match(found?.reason ?? '', /not mapped/);
    }
    // The cards and their neighbours are none the worse for it.
    await bringUpAll('a');
    for (const network of NETWORKS) await reaches(...pair(network));
  });
});
