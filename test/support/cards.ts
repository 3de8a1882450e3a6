/**
 * Guests with several network cards, each on a network of its own: card N of guest M is
 * 10.0.N.M/24 and fd00:N::M/64, and is known by its MAC address, 52:54:00:00:0N:0M.
 */
import type { GuestProcess } from '../../src/guest/guest-process.ts';
import type { Host } from './guests.ts';

export function macOf(network: number, number: number): string {
  const byte = (value: number): string => value.toString(16).padStart(2, '0');
  return `52:54:00:00:${byte(network)}:${byte(number)}`;
}

/** The host that guest `number` is on a network, over `device`. */
export function hostOn<G extends GuestProcess>(
  guest: G,
  network: number,
  number: number,
  device: string,
): Host<G> {
  return {
    guest,
    interface: device,
    address: `10.0.${network}.${number}`,
    address6: `fd00:${network}::${number}`,
  };
}

/** Gives an interface its addresses on a network and brings it up. */
export async function addAddresses(host: Host): Promise<void> {
  await host.guest.sh(`set -e
    ip addr replace ${host.address}/24 dev ${host.interface}
    ip addr replace ${host.address6}/64 dev ${host.interface} nodad
    ip link set ${host.interface} up`);
}

/** Waits for the card of a guest on a network, configures it, and names it `cardN`. */
export async function bringUp<G extends GuestProcess>(
  guest: G,
  network: number,
  number: number,
): Promise<Host<G>> {
  const mac = macOf(network, number);
  const name = `card${network}`;
  await guest.sh(`set -e
    file=
    while [ -z "$file" ]; do
      file=$(grep -l -x ${mac} /sys/bus/virtio/devices/*/net/*/address /sys/bus/pci/devices/*/net/*/address 2>/dev/null) || sleep 0.05
    done
    device=$(basename "$(dirname "$file")")
    [ "$device" = ${name} ] || { ip link set "$device" down; ip link set "$device" name ${name}; }`);
  const host = hostOn(guest, network, number, name);
  await addAddresses(host);
  return host;
}

/** A stream of random bytes over TCP that goes on until it is told to end. */
export interface Stream {
  /**
   * Ends it; SHA-256 of what was sent and of what arrived, and how much was sent. `receiver` is
   * where the receiving guest runs now, if it has moved.
   */
  end(
    receiver?: GuestProcess,
  ): Promise<{ readonly sent: string; readonly received: string; readonly bytes: number }>;
}

let lastPort = 6200;
const streamTimeoutMs = 120_000;

/** Starts a stream of about a few MiB a second. */
export async function startStream(from: Host, to: Host): Promise<Stream> {
  const port = ++lastPort;
  const listening = await to.guest.sh(`cd "$(mktemp -d)" && mkfifo hold && exec 9<>hold
    { busybox nc -l -p ${port} <hold | sha256sum >part; mv part sum; } >/dev/null 2>&1 &
    until busybox netstat -ltn | grep -q ':${port} '; do sleep 0.05; done
    pwd`);
  const sending = await from.guest.sh(`cd "$(mktemp -d)" && mkfifo copy
    dd if=/dev/urandom of=chunk bs=128k count=1 2>/dev/null
    { tee count <copy | sha256sum >part; mv part sum; } >/dev/null 2>&1 &
    { while [ ! -e stop ]; do cat chunk; sleep 0.02; done | tee copy | busybox nc ${to.address} ${port}; } >/dev/null 2>&1 &
    pwd`);
  const options = { timeoutMs: streamTimeoutMs };
  return {
    async end(receiver = to.guest) {
      await from.guest.sh(`touch ${sending}/stop`);
      const sent = await from.guest.sh(
        `cd ${sending}; until [ -e sum ]; do sleep 0.05; done; cat sum; stat -c %s count; rm count`,
        options,
      );
      const received = await receiver.sh(
        `cd ${listening}; until [ -e sum ]; do sleep 0.05; done; cat sum`,
        options,
      );
      const [sum, bytes] = sent.split('\n');
      return {
        sent: sum?.split(' ')[0] ?? '',
        received: received.split(' ')[0] ?? '',
        bytes: Number(bytes),
      };
    },
  };
}
