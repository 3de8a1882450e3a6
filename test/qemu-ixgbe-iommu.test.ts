/**
 * Linux guests of QEMU with a virtual IOMMU and functions of an 82599: each buffer that the drivers give is a
 * map of its own, and what is not mapped is refused and told. Each guest has a virtual function (network 0) and
 * owns a port (network 1). Interrupts are remapped in guest `a`, not in `b`.
 */
// suite: timeout=600
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { QemuGuest } from '../src/guest/qemu.ts';
import { addAddresses, bringUp, hostOn, macOf, startStream } from './support/cards.ts';
import { arrives, carrier, interruptsOf, reaches } from './support/emulated-cards.ts';
import type { Host } from './support/guests.ts';
import {
  addVlan,
  functionReset,
  isApart,
  jumboFrames,
  PATIENCE,
  startIxgbeGuest,
  streams,
} from './support/ixgbe-cards.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

const NUMBERS = { a: 1, b: 2 } as const;
type Name = keyof typeof NUMBERS;
const NAMES = Object.keys(NUMBERS) as Name[];
/** A virtual function, and a port. */
const NETWORKS = [0, 1] as const;
type Network = (typeof NETWORKS)[number];
/** Where the first transmit queue's registers are (82599 §8.2.3.9, §8.3.5.5), and what lets it run. */
const TRANSMIT = [0x2000, 0x6000] as const;
const [TDBAL, TDBAH, TDLEN, TDH, TDT, TXDCTL] = [0x00, 0x04, 0x08, 0x10, 0x18, 0x28];
const DMATXCTL = 0x4a80;
const ENABLE = 1 << 25;
/** Where the guest's IOMMU has mapped nothing: Linux gives addresses out from the top of 4 GiB down. */
const UNMAPPED = 0x1234_0000;
const DESCRIPTOR_BYTES = 16;

const config: SluiceConfig = {
  switches: { lan0: {}, lan1: {} },
  nics: {
    nic0: {
      model: 82599,
      ports: [
        { wire: { switch: 'lan0' }, link: 'none' },
        { wire: { switch: 'lan1' }, link: 'none', mac: macOf(1, NUMBERS.a) },
      ],
    },
    nic1: {
      model: 82599,
      ports: [{ wire: { switch: 'lan1' }, link: 'none', mac: macOf(1, NUMBERS.b) }],
    },
  },
  guests: {
    a: {
      memory: '320M',
      net: [
        { method: 'sriov', nic: 'nic0', port: 0, vf: 0, mac: macOf(0, NUMBERS.a) },
        { method: 'direct', nic: 'nic0', port: 1 },
      ],
    },
    b: {
      memory: '320M',
      net: [
        { method: 'sriov', nic: 'nic0', port: 0, vf: 1, mac: macOf(0, NUMBERS.b) },
        { method: 'direct', nic: 'nic1', port: 0 },
      ],
    },
  },
};

test('QEMU guests with a virtual IOMMU and an 82599', { skip: withoutTestbed() }, async (t) => {
  const sluice = await Sluice.start(t, config);
  const start = (name: Name): QemuGuest =>
    startIxgbeGuest(t, sluice, {
      name,
      functions: NETWORKS.map((network) => `${name}/net${network}`),
      cpus: name === 'a' ? 2 : 1,
      iommu: name === 'a' ? 'interrupts' : 'dma',
    });
  const guests = { a: start('a'), b: start('b') };
  const on = (name: Name, network: Network): Host =>
    hostOn(guests[name], network, NUMBERS[name], `card${network}`);
  const pair = (network: Network): [Host, Host] => [on('a', network), on('b', network)];
  const bringUpAll = async (name: Name): Promise<void> => {
    for (const network of NETWORKS) {
      await bringUp(guests[name], network, NUMBERS[name]);
      await carrier(on(name, network));
    }
  };
  const allReach = async (): Promise<void> => {
    for (const network of NETWORKS) await reaches(...pair(network));
  };
  const scenario = async (name: string, run: (t: TestContext) => Promise<void>): Promise<void> => {
    await t.test(name, async (t) => {
      await run(t);
      await sluice.healthy();
    });
  };
  await Promise.all(NAMES.map((name) => guests[name].booted(PATIENCE.timeoutMs)));
  await Promise.all(NAMES.map(bringUpAll));

  await scenario('frames of functions of both kinds arrive', async (t) => {
    for (const name of NAMES) await guests[name].sh('[ -d /sys/class/iommu/dmar0 ]');
    for (const network of NETWORKS) {
      const [a, b] = pair(network);
      await reaches(a, b);
      await arrives(a, b, 4);
      await arrives(b, a, 4);
      await streams(a, b, t, [false]);
      assert.ok((await interruptsOf(a)).every(({ kind }) => kind === 'PCI-MSIX'));
    }
    // Each buffer is a map.
    const functions = await sluice.show('functions');
    for (const network of NETWORKS) {
      const maps = functions.find((each) => each.function === `a/net${network}`)?.maps ?? 0;
      assert.ok(maps > 256, `${maps} maps of network ${network}`);
    }
  });

  await scenario('without offloads, jumbo frames, VLANs of guest and port', async () => {
    for (const network of NETWORKS) {
      const [a, b] = pair(network);
      await a.guest.sh(`ethtool -K ${a.interface} tso off tx off gso off`);
      await arrives(a, b, 2);
      await a.guest.sh(`ethtool -K ${a.interface} tx on tso on gso on`);
      await jumboFrames(a, b, [9000]);
      const vlan = await addVlan([a, b], 100);
      await reaches(vlan.hosts[0] ?? a, vlan.hosts[1] ?? b);
      await vlan.remove();
    }
    const set = (vf: number, id: number): Promise<string> =>
      sluice.print('vf', 'set', 'nic0/0', 'vf', `${vf}`, 'vlan', `${id}`);
    await set(0, 10);
    await carrier(on('a', 0));
    await isApart(...pair(0));
    await set(0, 0);
    await carrier(on('a', 0));
    await reaches(...pair(0));
  });

  await scenario('functions are reset, drivers loaded again, a guest starts anew', async () => {
    for (const network of NETWORKS) {
      await functionReset(on('a', network), 'flr');
      await addAddresses(on('a', network));
      await carrier(on('a', network));
    }
    await guests.b.sh('modprobe -r ixgbe ixgbevf && modprobe -a ixgbe ixgbevf', PATIENCE);
    await bringUpAll('b');
    await allReach();
    await guests.b.reboot(PATIENCE.timeoutMs);
    await bringUpAll('b');
    await allReach();
  });

  await t.test('DMA to a page that is not mapped is refused and told, others go on', async () => {
    for (const network of NETWORKS) {
      const other = network === 0 ? 1 : 0;
      const stream = await startStream(...pair(other));
      const { guest, interface: device } = on('a', network);
      const head = await guest.sh(
        `exec 2>&1; set -e
        path=$(readlink -f /sys/class/net/${device}/device)
        driver=$(readlink -f $path/driver)
        name=$(basename $path)
        bar=$(head -n 1 $path/resource | cut -d ' ' -f 1)
        put() { busybox devmem $(($bar + $1)) 32 $2; }
        queue() { put $((${TRANSMIT[network]} + $1)) $2; }
        command() { printf $1 | dd of=$path/config bs=2 seek=2 count=1 conv=notrunc 2>/dev/null; }
        echo $name >$driver/unbind
        echo 1 >$path/enable
        # Memory and bus mastering.
        command '\\006\\000'
        ${network === 1 ? `put ${DMATXCTL} 1` : ''}
        queue ${TDBAL} ${UNMAPPED}; queue ${TDBAH} 0; queue ${TDLEN} 4096; queue ${TDH} 0
        queue ${TXDCTL} ${ENABLE}
        queue ${TDT} 1
        sleep 0.5
        busybox devmem $(($bar + ${(TRANSMIT[network] ?? 0) + (TDH ?? 0)})) 32
        queue ${TXDCTL} 0
        command '\\002\\000'
        echo 0 >$path/enable
        echo $name >$driver/bind`,
        PATIENCE,
      );
      assert.equal(Number(head), 0, 'no descriptor was taken');
      const faults = await (async () => {
        let found: Awaited<ReturnType<typeof sluice.show<'faults'>>> = [];
        await until('the refusal to be told', async () => {
          found = (await sluice.show('faults')).filter(({ port }) => port === `a/net${network}`);
          return found.length > 0;
        });
        return found;
      })();
      const [first] = faults;
      assert.match(first?.reason ?? '', /not mapped/);
      assert.deepEqual(first?.dma, {
        iova: UNMAPPED,
        length: DESCRIPTOR_BYTES,
        direction: 'read',
      });
      const { sent, received, bytes } = await stream.end();
      assert.equal(received, sent);
      assert.ok(bytes > 0);
      // The function is none the worse for it.
      await bringUpAll('a');
      await allReach();
    }
  });
});
