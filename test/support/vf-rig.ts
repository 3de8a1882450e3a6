/**
 * Four QEMU guests with virtual functions of one port of an 82599, which is plugged into a switch. Guest `a`
 * has two processors; `b` and `d` are started with what `sluice guest qemu-args` prints; `d` has a paravirtual
 * card on the same network and a function of a second card beside its own.
 */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { ApiReply } from '../../src/control/api.ts';
import type { VfDocument } from '../../src/daemon/vf-schema.ts';
import type { QemuGuest, QemuOptions } from '../../src/guest/qemu.ts';
import { addAddresses, bringUp, hostOn, macOf } from './cards.ts';
import { carrier } from './emulated-cards.ts';
import type { Host } from './guests.ts';
import {
  bringUpDriver,
  IOMMU_PARAMETERS,
  iommuOptions,
  PATIENCE,
  startIxgbeGuest,
} from './ixgbe-cards.ts';
import { startPrinted } from './printed-guest.ts';
import { Sluice, type SluiceConfig, until } from './sluice.ts';

export const NUMBERS = { a: 1, b: 2, c: 3, d: 4 } as const;
export type Name = keyof typeof NUMBERS;
export const NAMES = Object.keys(NUMBERS) as Name[];
/** Numbers of the virtual functions. */
export const VFS = { a: 0, b: 1, c: 2, d: 3 } as const;
export const PORT = 'nic0/0';
export const PORT_VLAN = 10;
/** A root port of guest `c` in which nothing is plugged. */
export const FREE_SLOT = 'free';
/** Whether interrupts are remapped too, where there is a virtual IOMMU. */
const IOMMUS = { a: 'interrupts', b: 'dma', c: 'dma', d: 'interrupts' } as const;

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

export class VfRig {
  readonly sluice: Sluice;
  /** The guests have virtual IOMMUs. */
  readonly iommu: boolean;
  readonly #t: TestContext;
  readonly #guests = new Map<Name, QemuGuest>();
  #insideOfC: (path: string) => string = (path) => path;

  private constructor(t: TestContext, sluice: Sluice, iommu: boolean) {
    this.#t = t;
    this.sluice = sluice;
    this.iommu = iommu;
  }

  /** Starts the daemon and the guests, whose cards are up then. All is gone after the test. */
  static async start(t: TestContext, { iommu }: { readonly iommu: boolean }): Promise<VfRig> {
    const rig = new VfRig(t, await Sluice.start(t, config), iommu);
    await Promise.all(
      NAMES.map(async (name) => {
        await rig.boot(name);
        await rig.bringUp(name);
      }),
    );
    return rig;
  }

  /** Starts a guest (again). */
  async boot(name: Name): Promise<void> {
    const guest = await this.#launch(name);
    this.#guests.set(name, guest);
    await guest.booted(PATIENCE.timeoutMs);
  }

  async #launch(name: Name): Promise<QemuGuest> {
    const kind = this.iommu ? IOMMUS[name] : undefined;
    if (name === 'b' || name === 'd') {
      const settings: Pick<QemuOptions, 'kernelParameters' | 'options'> =
        kind === undefined
          ? {}
          : { kernelParameters: IOMMU_PARAMETERS, options: () => iommuOptions(kind) };
      return await startPrinted(this.#t, this.sluice, name, settings);
    }
    return startIxgbeGuest(this.#t, this.sluice, {
      name,
      functions: [`${name}/net0`],
      ...(kind === undefined ? {} : { iommu: kind }),
      ...(name === 'a'
        ? { cpus: 2 }
        : {
            options: (inside) => {
              this.#insideOfC = inside;
              return [
                '-device',
                `pcie-root-port,id=${FREE_SLOT},chassis=50,slot=50,x-speed=5,x-width=8`,
              ];
            },
          }),
    });
  }

  guest(name: Name): QemuGuest {
    return this.#guests.get(name) ?? assert.fail(`guest ${name} does not run`);
  }

  /** A guest and its virtual function. */
  on(name: Name): Host {
    return hostOn(this.guest(name), 0, NUMBERS[name], 'card0');
  }

  /** A path of the host as guest `c`'s QEMU sees it. */
  insideOfC(path: string): string {
    return this.#insideOfC(path);
  }

  /** Guest `c` and the paravirtual card of `d`. */
  mixed(): [Host, Host] {
    return [
      hostOn(this.guest('c'), 1, NUMBERS.c, 'card0'),
      hostOn(this.guest('d'), 1, NUMBERS.d, 'card1'),
    ];
  }

  /** Brings a guest's cards up after a start of its driver. */
  async bringUp(name: Name): Promise<void> {
    const guest = this.guest(name);
    if (name === 'c') await bringUpDriver(guest, 'ixgbevf', 0, NUMBERS[name]);
    else await bringUp(guest, 0, NUMBERS[name]);
    await carrier(this.on(name));
    if (name === 'c') await addAddresses(this.mixed()[0]);
    if (name !== 'd') return;
    // Both cards are on one network, and each answers for itself.
    await guest.sh(`echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
      echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce`);
    for (const network of [1, 2]) await bringUp(guest, network, NUMBERS.d);
  }

  async row(name: Name): Promise<ApiReply<'vfs'>[number]> {
    const rows = await this.sluice.show('vfs');
    const vf = rows.find((each) => each.function === `${PORT}/vf${VFS[name]}`);
    return vf ?? assert.fail(`there is no function of ${name}`);
  }

  /**
   * `ip link set DEV vf N …`, by the driver domain. What makes the guest's driver begin anew is waited for:
   * it comes when the driver looks at its link, which it does while there is one.
   */
  async set(name: Name, words: VfDocument): Promise<void> {
    await this.sluice.show('setVf', { nic: PORT, vf: VFS[name], set: words });
    const { link } = await this.row(name);
    if (!link) return;
    await until(`${name}'s driver to use its function`, async () => {
      return (await this.row(name)).api !== null;
    });
    await carrier(this.on(name));
  }

  async flushNeighbours(...names: readonly Name[]): Promise<void> {
    for (const name of names) await this.guest(name).sh('ip neigh flush dev card0');
  }

  /** A part of the test, after which nothing has failed and no DMA was refused. */
  async scenario(name: string, run: (t: TestContext) => Promise<void>): Promise<void> {
    await this.#t.test(name, async (t) => {
      await run(t);
      await this.sluice.healthy();
    });
  }
}
