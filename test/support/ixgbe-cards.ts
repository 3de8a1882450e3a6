/**
 * Guests with the 82599's functions, and what the stock drivers ixgbe and ixgbevf tell of them.
 */
import assert from 'node:assert/strict';
import type { GuestProcess } from '../../src/guest/guest-process.ts';
import { type QemuGuest, startQemu } from '../../src/guest/qemu.ts';
import { addAddresses, hostOn } from './cards.ts';
import { arrives, carrier, reaches, statistics } from './emulated-cards.ts';
import { type Host, iperf, ping } from './guests.ts';
import type { Sluice } from './sluice.ts';
import type { Cleanup } from './testbed.ts';

/** How long a guest may take for what an emulated processor is slow at. */
export const PATIENCE = { timeoutMs: 180_000 };

export interface IxgbeGuestOptions {
  readonly name: string;
  /** Ports whose sockets are given to it, such as `a/net0`. */
  readonly functions: readonly string[];
  readonly cpus?: number;
  /** With a virtual IOMMU, which remaps interrupts too or not. */
  readonly iommu?: 'interrupts' | 'dma';
  /** Further options of QEMU. */
  readonly options?: (inside: (path: string) => string) => readonly string[];
}

/** A virtual IOMMU, before all other devices. */
export function iommuOptions(kind: 'interrupts' | 'dma'): string[] {
  const remap = kind === 'interrupts' ? 'on' : 'off';
  return [
    ...['-machine', 'kernel-irqchip=split'],
    ...['-device', `intel-iommu,intremap=${remap},caching-mode=on,device-iotlb=on`],
  ];
}

/** What a kernel with a virtual IOMMU is told; relaxed: tests look at registers beside the driver. */
export const IOMMU_PARAMETERS = 'intel_iommu=on iommu=nopt iomem=relaxed';

/** Starts a guest with functions behind ports of the card's own speed; it is killed after the test. */
export function startIxgbeGuest(t: Cleanup, sluice: Sluice, options: IxgbeGuestOptions): QemuGuest {
  const { name, functions, cpus = 1, iommu } = options;
  const guest = startQemu({
    name,
    memory: 320,
    cpus,
    kernelParameters: iommu === undefined ? '' : IOMMU_PARAMETERS,
    options: (inside) => [
      ...(iommu === undefined ? [] : iommuOptions(iommu)),
      ...functions.flatMap((port, index) => [
        '-device',
        `pcie-root-port,id=rp${index},chassis=${index + 1},slot=${index + 1},x-speed=5,x-width=8`,
        '-device',
        JSON.stringify({
          driver: 'vfio-user-pci',
          id: `function${index}`,
          bus: `rp${index}`,
          rombar: 0,
          socket: { path: inside(sluice.socket(port)), type: 'unix' },
        }),
      ]),
      ...(options.options?.(inside) ?? []),
    ],
  });
  t.after(async () => {
    await guest.kill();
  });
  return guest;
}

/** No echo comes back. */
export async function isApart(from: Host, to: Host): Promise<void> {
  const { stdout } = await from.guest.run(`ping -c 3 -i 0.2 -W 0.5 ${to.address}`);
  const way = `${from.guest.name} ${from.interface} to ${to.guest.name}`;
  assert.match(stdout, /^3 packets transmitted, 0 received/m, way);
}

/** What is sent in a stream, and in datagrams. */
const STREAM_BYTES = 2 ** 20;
const DATAGRAM_BYTES = 2 ** 18;

/** TCP over IPv4 and IPv6 and UDP, each of them both ways at once. */
export async function streams(
  a: Host,
  b: Host,
  t: { diagnostic(message: string): void },
): Promise<void> {
  const ways = [false, true];
  const nameOf = (reverse: boolean): string =>
    reverse ? `${b.guest.name} to ${a.guest.name}` : `${a.guest.name} to ${b.guest.name}`;
  const tcp = async (reverse: boolean, ipv6: boolean): Promise<void> => {
    const { bytes, gbps, retransmits } = await iperf(a, b, { bytes: STREAM_BYTES, reverse, ipv6 });
    assert.ok(bytes > 0);
    const family = `IPv${ipv6 ? 6 : 4} ${nameOf(reverse)}`;
    t.diagnostic(`${family}: ${(1000 * gbps).toFixed(0)} Mb/s, ${retransmits} retransmits`);
  };
  const udp = async (reverse: boolean): Promise<void> => {
    const rate = { udpLength: 1400, bitrate: '5M' };
    const { datagrams, lost } = await iperf(a, b, { bytes: DATAGRAM_BYTES, reverse, ...rate });
    assert.ok(datagrams > lost, `${nameOf(reverse)}: ${datagrams} sent, ${lost} lost`);
  };
  await Promise.all(ways.flatMap((reverse) => [tcp(reverse, false), tcp(reverse, true)]));
  await Promise.all(ways.map(udp));
}

/**
 * Data is sent as frames that the card is to cut and to write checksums into while the sender may (TSO), and
 * as frames that want neither when it may not; it arrives either way. Afterwards all offloads are on.
 *
 * @param port whose counters tell what was done for the receiver
 */
export async function segmentation(
  sluice: Sluice,
  sender: Host,
  receiver: Host,
  port = `${receiver.guest.name}/net0`,
): Promise<void> {
  const work = async (): Promise<{ cut: number; segments: number; summed: number }> => {
    const before = await sluice.counters(port);
    await arrives(sender, receiver, 2);
    const after = await sluice.counters(port);
    return {
      cut: after.gso_frames - before.gso_frames,
      segments: after.gso_segments - before.gso_segments,
      summed: after.csum_frames - before.csum_frames,
    };
  };
  const { cut, segments } = await work();
  assert.ok(cut > 10 && segments >= 2 * cut, `${segments} segments of ${cut} frames`);
  await sender.guest.sh(`ethtool -K ${sender.interface} tso off tx off sg off gso off gro off`);
  await receiver.guest.sh(`ethtool -K ${receiver.interface} rx off gro off`);
  await carrier(receiver);
  assert.deepEqual(await work(), { cut: 0, segments: 0, summed: 0 });
  // Checksums alone.
  await sender.guest.sh(`ethtool -K ${sender.interface} tx on`);
  await receiver.guest.sh(`ethtool -K ${receiver.interface} rx on gro on`);
  await carrier(receiver);
  const { summed, ...rest } = await work();
  assert.ok(summed > 100, `${summed} checksums`);
  assert.deepEqual(rest, { cut: 0, segments: 0 });
  await sender.guest.sh(`ethtool -K ${sender.interface} sg on tso on gso on gro on`);
}

/** Sum of the counters of `ethtool -S` whose name a pattern fits. */
export async function sumOf(host: Host, pattern: RegExp): Promise<number> {
  return Object.entries(await statistics(host))
    .filter(([name]) => pattern.test(name))
    .reduce((sum, [, value]) => sum + value, 0);
}

/** Gives cards another MTU, and waits for their links: the drivers reset them. */
export async function changeMtu(hosts: readonly Host[], mtu: number): Promise<void> {
  for (const { guest, interface: device } of hosts) {
    await guest.sh(`ip link set ${device} mtu ${mtu}`);
  }
  for (const host of hosts) await carrier(host);
}

/** Echoes of the largest size that fits, which nobody may take apart. */
async function jumboReaches(from: Host, to: Host, mtu: number): Promise<void> {
  const options = { size: mtu - 28, whole: true, deadline: 30 };
  assert.equal((await ping(from, to, options)).received, 3, `${mtu} from ${from.guest.name}`);
}

/** The largest that the drivers take. */
const LARGEST_MTU = 9710;

/** Frames of 9000 bytes, and of the most that there is, between cards that are told to. */
export async function jumboFrames(a: Host, b: Host, mtus = [9000, LARGEST_MTU]): Promise<void> {
  for (const mtu of mtus) {
    await changeMtu([a, b], mtu);
    await jumboReaches(a, b, mtu);
    await arrives(a, b, 2);
    await arrives(b, a, 2);
  }
  await changeMtu([a, b], 1500);
}

/** Rings of other sizes, and other moderation, which change what goes on and not what arrives. */
export async function ringsAndModeration(host: Host, peer: Host): Promise<void> {
  const { guest, interface: device } = host;
  await guest.sh(`ethtool -G ${device} rx 64 tx 4096`, PATIENCE);
  const rings = await guest.sh(`ethtool -g ${device}`);
  assert.match(rings, /Current(.*\n)*RX:\s+64\n(.*\n)*TX:\s+4096\n/);
  await carrier(host);
  await arrives(peer, host, 2);
  await arrives(host, peer, 2);
  await guest.sh(`ethtool -G ${device} rx 512 tx 512`, PATIENCE);
  for (const microseconds of [500, 0, 1]) {
    await guest.sh(`ethtool -C ${device} rx-usecs ${microseconds}`, PATIENCE);
    const moderation = await guest.sh(`ethtool -c ${device}`);
    assert.match(moderation, new RegExp(`^rx-usecs:\\s+${microseconds}$`, 'm'));
    await carrier(host);
    await reaches(peer, host);
  }
}

/** Interfaces of a VLAN on both hosts' cards, with addresses on a network of their own; and their end. */
export async function addVlan(
  hosts: readonly Host[],
  id: number,
): Promise<{ readonly hosts: readonly Host[]; remove(): Promise<void> }> {
  const tagged = hosts.map((host) => {
    const number = Number(host.address.split('.')[3]);
    return hostOn(host.guest, id % 256, number, `${host.interface}.${id}`);
  });
  for (const [index, { guest, interface: device }] of hosts.entries()) {
    await guest.sh(`ip link add link ${device} name ${device}.${id} type vlan id ${id}`);
    await addAddresses(tagged[index] ?? assert.fail());
  }
  return {
    hosts: tagged,
    remove: async () => {
      for (const { guest, interface: device } of tagged) await guest.sh(`ip link del ${device}`);
    },
  };
}

/** Resets a function as the guest's kernel does when it is told to; the driver is to be idle meanwhile. */
export async function functionReset({ guest, interface: device }: Host, method: string) {
  await guest.sh(
    `set -e
    ip link set ${device} down
    echo ${method} >/sys/class/net/${device}/device/reset_method
    echo 1 >/sys/class/net/${device}/device/reset`,
    PATIENCE,
  );
}

/** Waits for the only card of a driver, configures it for a network, and names it `cardN`. */
export async function bringUpDriver(
  guest: GuestProcess,
  driver: string,
  network: number,
  number: number,
): Promise<Host> {
  const host = hostOn(guest, network, number, `card${network}`);
  await guest.sh(`set -e
    until ls -d /sys/bus/pci/drivers/${driver}/*/net/* >/tmp/found 2>/dev/null; do sleep 0.05; done
    device=$(basename "$(cat /tmp/found)")
    [ "$device" = ${host.interface} ] || { ip link set "$device" down; ip link set "$device" name ${host.interface}; }`);
  await addAddresses(host);
  await carrier(host);
  return host;
}
