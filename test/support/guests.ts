/**
 * Pairs of real guests, and what tests let them do to each other.
 */
import type { GuestProcess } from '../../src/guest/guest-process.ts';
import { type QemuNet, startQemu } from '../../src/guest/qemu.ts';
import { startUml } from '../../src/guest/uml.ts';
import type { Cleanup } from './testbed.ts';

export type GuestKind = 'qemu' | 'uml';

/** What runs commands: a guest, or a network namespace of the host. */
export type Machine = Pick<GuestProcess, 'run' | 'sh'>;

/** A guest with the address it has on the network under test. */
export interface Host<G extends Machine = GuestProcess> {
  readonly guest: G;
  readonly interface: string;
  /** IPv4, without the prefix length. */
  readonly address: string;
  /** IPv6, without the prefix length. */
  readonly address6: string;
}

export interface HostOptions extends QemuNet {
  readonly name: string;
  /** QEMU only. */
  readonly cpus?: number;
  /** MiB. */
  readonly memory?: number;
  readonly pin?: string;
  readonly kernelParameters?: string;
}

/** Starts a guest with one vhost-user network device; it is killed after the test. */
export function startGuest(t: Cleanup, kind: GuestKind, options: HostOptions): GuestProcess {
  const { name, cpus, memory, pin, kernelParameters, ...net } = options;
  const common = {
    name,
    net: [net],
    ...(memory === undefined ? {} : { memory }),
    ...(pin === undefined ? {} : { pin }),
    ...(kernelParameters === undefined ? {} : { kernelParameters }),
  };
  const guest =
    kind === 'uml'
      ? startUml(common)
      : startQemu({ ...common, ...(cpus === undefined ? {} : { cpus }) });
  t.after(async () => {
    await guest.kill();
  });
  return guest;
}

/**
 * Boots a guest for each of the options, side by side, and gives them 10.0.0.1/24 and fd00::1/64,
 * .2 and ::2 and so on on their first interface.
 */
export async function startHosts(
  t: Cleanup,
  kind: GuestKind,
  options: readonly HostOptions[],
): Promise<Host[]> {
  const guests = options.map((each) => startGuest(t, kind, each));
  return await Promise.all(
    guests.map(async (guest, index) => {
      await guest.booted();
      return await configure(guest, index + 1);
    }),
  );
}

/** Brings the interface up with address number `number` (again, after a reboot or reload). */
export async function configure(
  guest: GuestProcess,
  number: number,
  { device = 'eth0', mtu }: { device?: string; mtu?: number } = {},
): Promise<Host> {
  const address = `10.0.0.${number}`;
  const address6 = `fd00::${number}`;
  await guest.sh(`set -e
    ${mtu === undefined ? '' : `ip link set ${device} mtu ${mtu}`}
    ip addr replace ${address}/24 dev ${device}
    ip addr replace ${address6}/64 dev ${device} nodad
    ip link set ${device} up`);
  return { guest, interface: device, address, address6 };
}

export interface PingResult {
  readonly sent: number;
  /** Replies, up to as many as were asked for. */
  readonly received: number;
}

export interface PingOptions {
  readonly count?: number;
  /** Bytes of payload. */
  readonly size?: number;
  readonly ipv6?: boolean;
  /** Forbid fragmentation: the packet must fit the MTU all the way. */
  readonly whole?: boolean;
  /** Give up after so many seconds; default 10. */
  readonly deadline?: number;
  /** Seconds between two requests; default 0.02. */
  readonly interval?: number;
}

/** Pings until `count` replies have come (which takes the first ones' loss) or the deadline. */
export async function ping(
  from: Host<Machine>,
  to: Pick<Host<Machine>, 'address' | 'address6'>,
  options: PingOptions = {},
): Promise<PingResult> {
  const {
    count = 3,
    size = 56,
    ipv6 = false,
    whole = false,
    deadline = 10,
    interval = 0.02,
  } = options;
  const flags = `-c ${count} -i ${interval} -w ${deadline} -s ${size}${whole ? ' -M do' : ''}`;
  const target = ipv6 ? to.address6 : to.address;
  const { stdout, stderr } = await from.guest.run(`ping ${flags} ${target}`);
  const found = /(\d+) packets transmitted, (\d+) received/.exec(stdout);
  if (found === null) throw new Error(`ping ${target}: ${stdout}${stderr}`);
  // On a busy machine several replies come at once, and ping counts all of them.
  return { sent: Number(found[1]), received: Math.min(Number(found[2]), count) };
}

export interface IperfOptions {
  /** Default 3. */
  readonly seconds?: number;
  /** Sends so much, however long it takes, instead of for some seconds. */
  readonly bytes?: number;
  /** The server sends. */
  readonly reverse?: boolean;
  readonly parallel?: number;
  readonly ipv6?: boolean;
  /** UDP with this many bytes a datagram, else TCP. */
  readonly udpLength?: number;
  /** Bits a second, such as `50M`; for UDP, 0 means as fast as possible. */
  readonly bitrate?: string;
}

export interface IperfResult {
  /** 10^9 bits of payload a second at the receiver. */
  readonly gbps: number;
  readonly bytes: number;
  /** TCP only. */
  readonly retransmits: number;
  /** UDP only. */
  readonly datagrams: number;
  readonly lost: number;
  /** What iperf3 printed. */
  readonly report: unknown;
}

interface IperfSum {
  readonly bytes?: number;
  readonly bits_per_second?: number;
  readonly retransmits?: number;
  readonly packets?: number;
  readonly lost_packets?: number;
}

interface IperfReport {
  readonly error?: string;
  readonly end?: {
    readonly sum?: IperfSum;
    readonly sum_sent?: IperfSum;
    readonly sum_received?: IperfSum;
  };
}

const IPERF_ATTEMPTS = 3;

let lastPort = 5200;

/** Starts an iperf3 server that ends with its first client. -D returns before the server listens. */
export async function serveIperf(guest: Machine, port: number): Promise<void> {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  await guest.sh(`iperf3 -s -1 -D -p ${port}
    until grep -q '${local} 0*:0000 0A' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done`);
}

/**
 * Runs iperf3 between two guests, `client` sending unless `reverse`. What it counts is what the receiver's
 * process has read when the client says that it has done: nothing at all, if a starved guest had no time
 * for it. Then it is run again.
 */
export async function iperf(
  client: Host<Machine>,
  server: Host<Machine>,
  options: IperfOptions = {},
): Promise<IperfResult> {
  for (let attempt = 1; ; attempt++) {
    const report = await runIperf(client, server, options);
    const { sum, sum_sent: sent, sum_received: received } = report.end ?? {};
    const bytes = received?.bytes ?? 0;
    if (bytes === 0 && attempt < IPERF_ATTEMPTS) continue;
    return {
      gbps: (received?.bits_per_second ?? 0) / 1e9,
      bytes,
      retransmits: sent?.retransmits ?? 0,
      datagrams: sum?.packets ?? 0,
      lost: sum?.lost_packets ?? 0,
      report,
    };
  }
}

async function runIperf(
  client: Host<Machine>,
  server: Host<Machine>,
  options: IperfOptions,
): Promise<IperfReport> {
  const { seconds = 3, bytes, reverse = false, parallel = 1, ipv6 = false } = options;
  const { udpLength, bitrate } = options;
  const port = ++lastPort;
  await serveIperf(server.guest, port);
  const length = bytes === undefined ? `-t ${seconds}` : `-n ${bytes}`;
  const flags = [
    `-c ${ipv6 ? server.address6 : server.address} -p ${port} ${length} -P ${parallel} --json`,
    reverse ? '-R' : '',
    udpLength === undefined ? '' : `-u -l ${udpLength} -b ${bitrate ?? '0'}`,
    udpLength === undefined && bitrate !== undefined ? `-b ${bitrate}` : '',
  ];
  const timeoutMs = (seconds + 180) * 1000;
  const { stdout, stderr } = await client.guest.run(`iperf3 ${flags.join(' ')}`, { timeoutMs });
  let report: IperfReport;
  try {
    report = JSON.parse(stdout) as IperfReport;
  } catch (cause) {
    throw new Error(`iperf3 ${flags.join(' ')}: ${stdout}${stderr}`, { cause });
  }
  if (report.error !== undefined) throw new Error(`iperf3 ${flags.join(' ')}: ${report.error}`);
  return report;
}

/** SHA-256 of what was sent and of what arrived. */
export interface Transfer {
  readonly sent: string;
  readonly received: string;
}

/** Sends random bytes over TCP; they lie in the sender's memory meanwhile. */
export async function transfer(
  from: Host<Machine>,
  to: Host<Machine>,
  { mebibytes = 128 }: { mebibytes?: number } = {},
): Promise<Transfer> {
  const port = ++lastPort;
  const timeoutMs = 180_000;
  // The programs have the sockets themselves: nc would move 1 KiB a system call.
  const directory = await to.guest.sh(
    `cd "$(mktemp -d)"
     busybox nc -l -p ${port} -e sh -c 'sha256sum >part; mv part sum' >/dev/null 2>&1 &
     until busybox netstat -ltn | grep -q ':${port} '; do sleep 0.05; done
     pwd`,
  );
  const sent = await from.guest.sh(
    `cd "$(mktemp -d)" && dd if=/dev/urandom of=data bs=1M count=${mebibytes} 2>/dev/null &&
     busybox nc ${to.address} ${port} -e cat data && sha256sum data && rm data`,
    { timeoutMs },
  );
  const received = await to.guest.sh(
    `until [ -e ${directory}/sum ]; do sleep 0.05; done; cat ${directory}/sum`,
    { timeoutMs },
  );
  const digest = (line: string): string => line.split(' ')[0] ?? '';
  return { sent: digest(sent), received: digest(received) };
}

/** Unloads and loads the driver of the interface, which resets the device, and configures it again. */
export async function reloadDriver(host: Host, module = 'virtio_net'): Promise<Host> {
  await host.guest.sh(`modprobe -r ${module} && modprobe ${module}`);
  await linkAppears(host.guest, host.interface);
  return await configure(host.guest, Number(host.address.split('.')[3]), {
    device: host.interface,
  });
}

/** Restarts the guest and configures it again. */
export async function reboot(host: Host): Promise<Host> {
  await host.guest.reboot();
  await linkAppears(host.guest, host.interface);
  return await configure(host.guest, Number(host.address.split('.')[3]), {
    device: host.interface,
  });
}

async function linkAppears(guest: GuestProcess, device: string): Promise<void> {
  await guest.sh(`until [ -e /sys/class/net/${device} ]; do sleep 0.05; done`);
}

/** Whether the device of the interface negotiated a feature bit (virtio 1.3, section 2.2). */
export async function negotiated(host: Host, bit: number): Promise<boolean> {
  const bits = await host.guest.sh(`cat /sys/class/net/${host.interface}/device/features`);
  return bits[bit] === '1';
}
