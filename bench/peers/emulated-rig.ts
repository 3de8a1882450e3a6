/**
 * What the comparison of emulated devices runs on: `sluice up`, and one guest of QEMU that has each
 * device twice, once QEMU's own and once ours.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { z } from 'zod';
import { parseIperf } from '../../src/bench/iperf-report.ts';
import { gbps } from '../../src/bench/statistics.ts';
import { ControlClient } from '../../src/control/client.ts';
import type { configSchema } from '../../src/daemon/config-schema.ts';
import { type QemuGuest, startQemu } from '../../src/guest/qemu.ts';
import type { Testbed } from '../../src/guest/testbed.ts';
import type { SideName } from './pairs.ts';
import { PeerProcess } from './peer-process.ts';
import { busiestThread, parseProcessor } from './processor-time.ts';

const START_TIMEOUT_MS = 30_000;
const BOOT_TIMEOUT_MS = 180_000;
const IPERF_PORT = 5201;
const MEMORY_MIB = 512;

/**
 * Cards of both sides: ours as the rows name it and how the configuration gives it, QEMU's, and the link of
 * PCI Express that both have; undefined: conventional PCI.
 */
export const CARDS = [
  { name: '82540', kind: 'net', qemu: 'e1000', link: undefined },
  { name: '82574', kind: 'net', qemu: 'e1000e', link: 'x-speed=2_5,x-width=1' },
  // No public model of QEMU's has virtual functions of 10 Gb/s; igb is the youngest that it has.
  { name: 'sriov', kind: 'nic', qemu: 'igb', link: 'x-speed=5,x-width=8' },
  { name: 'direct', kind: 'nic', qemu: 'igb', link: 'x-speed=5,x-width=8' },
] as const;

export type Card = (typeof CARDS)[number];

/** The card of ours in the configuration of the guest. */
function ourCard({ name }: Card, index: number) {
  const mac = macOf(index, 'ours');
  if (name === 'sriov') return { method: 'sriov' as const, nic: 'nic0', port: 0, vf: 0, mac };
  if (name === 'direct') return { method: 'direct' as const, nic: 'nic0', port: 1 };
  return { method: 'emulated' as const, model: name, switch: `lan${index}`, mac };
}

/** A port of the NIC, whose wire is the tap of the card that the guest has by it. */
function ourPort(name: Card['name']) {
  const card = CARDS.findIndex((each) => each.name === name);
  const wire = { tap: tapOf(card, 'ours') };
  return { wire, link: 'none' as const, mac: macOf(card, name === 'direct' ? 'ours' : 'theirs') };
}

type Config = Omit<z.input<typeof configSchema>, 'run'>;

/** `sluice up`, in a directory of its own that is gone afterwards. */
export class SluiceUp implements AsyncDisposable {
  readonly control: ControlClient;
  readonly #directory: string;
  readonly #process: PeerProcess;

  private constructor(directory: string, run: string, process: PeerProcess) {
    this.#directory = directory;
    this.#process = process;
    this.control = new ControlClient(run);
  }

  static async start(program: string, config: Config): Promise<SluiceUp> {
    const directory = mkdtempSync(join(tmpdir(), 'sluice-peers-'));
    const remove = (): void => rmSync(directory, { recursive: true, force: true });
    process.once('exit', remove);
    const run = join(directory, 'run');
    const file = join(directory, 'sluice.yaml');
    writeFileSync(file, stringify({ run, ...config }));
    const up = new PeerProcess({ name: 'sluice', command: [program, 'up', '--json', file] });
    const sluice = new SluiceUp(directory, run, up);
    try {
      await up.until('its sockets', START_TIMEOUT_MS, () =>
        up.answers.includes('"event": "up"') ? true : undefined,
      );
    } catch (error) {
      await sluice[Symbol.asyncDispose]();
      throw error;
    }
    return sluice;
  }

  /** The socket of a function, such as `guest/net0`'s. */
  socket(name: string): string {
    return join(this.#directory, 'run', `${name.replace('/', '-')}.sock`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** How busy the guest's only processor was, as parts of the time. */
export interface GuestProcessor {
  /** In the guest's own eyes: not idle. Its waits for devices that it reads are among it. */
  readonly guest: number;
  /** Its thread of QEMU ran: what is missing to the other, it waited for an answer, a lock or a processor. */
  readonly thread: number;
}

/** What was done, and how often the guest trapped for it where the device is ours. */
export interface Work {
  /** Gb/s or IOPS. */
  readonly value: number;
  /** Frames or requests. */
  readonly units: number;
  readonly traps: { readonly reads: number; readonly writes: number } | undefined;
  readonly processor: GuestProcessor;
}

/** What a program in the guest tells of its work. */
type Told = Pick<Work, 'value' | 'units'>;

export type DiskWork = {
  readonly rw: 'randread' | 'randwrite' | 'read' | 'write';
  readonly bs: number;
  readonly iodepth: number;
};

export interface RigOptions {
  readonly testbed: Testbed;
  readonly program: string;
  readonly diskBytes: number;
  /** Where the files of the disks are. */
  readonly directory: string;
}

/** Host and guest addresses of a card's own network. */
const network = (card: number, side: SideName): string =>
  `10.${card + 1}.${side === 'ours' ? 2 : 1}`;
const macOf = (card: number, side: SideName): string =>
  `52:54:00:0${card}:00:0${side === 'ours' ? 2 : 1}`;
const tapOf = (card: number, side: SideName): string => `${side}${card}`;

/** To be started in a network namespace of its own: it makes taps and gives them addresses. */
export class EmulatedRig implements AsyncDisposable {
  readonly #stack: AsyncDisposableStack;
  readonly #sluice: SluiceUp;
  readonly #guest: QemuGuest;
  /** Names in the guest. */
  #cards = new Map<string, string>();
  #drives: Partial<Record<SideName, string>> = {};

  private constructor(stack: AsyncDisposableStack, sluice: SluiceUp, guest: QemuGuest) {
    this.#stack = stack;
    this.#sluice = sluice;
    this.#guest = guest;
  }

  static async start({ testbed, program, diskBytes, directory }: RigOptions): Promise<EmulatedRig> {
    await using stack = new AsyncDisposableStack();
    const files = mkdtempSync(join(directory, 'sluice-peers-'));
    const remove = (): void => rmSync(files, { recursive: true, force: true });
    process.once('exit', remove);
    stack.defer(remove);
    const [ours, theirs] = ['ours', 'theirs'].map((name) => join(files, `${name}.img`)) as [
      string,
      string,
    ];
    for (const file of [ours, theirs]) {
      const fd = openSync(file, 'wx');
      ftruncateSync(fd, diskBytes);
      closeSync(fd);
    }
    ip('link set lo up');
    const sluice = stack.use(
      await SluiceUp.start(program, {
        switches: Object.fromEntries(
          CARDS.flatMap(({ kind }, card) =>
            kind === 'net' ? [[`lan${card}`, { wire: { tap: tapOf(card, 'ours') } }]] : [],
          ),
        ),
        nics: { nic0: { model: 82599, ports: [ourPort('sriov'), ourPort('direct')] } },
        disks: { disk: { file: ours } },
        guests: {
          guest: {
            net: CARDS.map(ourCard),
            disk: [{ method: 'emulated', model: 'ahci', disk: 'disk' }],
          },
        },
      }),
    );
    for (const card of CARDS.keys()) {
      ip(`tuntap add dev ${tapOf(card, 'theirs')} mode tap vnet_hdr`);
      for (const side of ['theirs', 'ours'] as const) {
        ip(`addr add ${network(card, side)}.1/24 dev ${tapOf(card, side)}`);
        ip(`link set ${tapOf(card, side)} up`);
      }
    }
    const guest = stack.use(
      startQemu({
        name: 'guest',
        testbed,
        memory: MEMORY_MIB,
        tools: true,
        options: (inside) => [
          ...CARDS.flatMap((card, index) => [
            ...qemuCard(card, index),
            ...ourFunction(inside(sluice.socket(`guest/net${index}`)), `n${index}`, card.link),
          ]),
          ...qemuDrive(inside(theirs)),
          ...ourFunction(inside(sluice.socket('guest/ahci0')), 'drives', undefined),
        ],
      }),
    );
    const server = new PeerProcess({
      name: 'iperf3',
      command: [testbed.enter, '--', 'iperf3', '--server', '--port', String(IPERF_PORT)],
    });
    stack.use(server);
    const rig = new EmulatedRig(stack.move(), sluice, guest);
    try {
      await guest.booted(BOOT_TIMEOUT_MS);
      await rig.#prepare();
    } catch (error) {
      await rig[Symbol.asyncDispose]();
      throw error;
    }
    return rig;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }

  async #prepare(): Promise<void> {
    const guest = this.#guest;
    await guest.sh('modprobe -a e1000 e1000e igb ixgbe ixgbevf ahci sd_mod', {
      timeoutMs: BOOT_TIMEOUT_MS,
    });
    for (const card of CARDS.keys()) {
      for (const side of ['theirs', 'ours'] as const) {
        const device = await guest.sh(`until grep -l ${macOf(card, side)} /sys/class/net/*/address
          do sleep 0.1; done | cut -d / -f 5`);
        this.#cards.set(tapOf(card, side), device);
        const peer = network(card, side);
        await guest.sh(`ip addr add ${peer}.2/24 dev ${device} && ip link set ${device} up
          until ping -c 1 -W 1 ${peer}.1 >/dev/null; do :; done`);
      }
    }
    const drives = await guest.sh(`until [ $(ls -d /sys/block/sd? | wc -l) = 2 ]; do sleep 0.1; done
      for drive in /sys/block/sd?; do
        echo $(basename $drive) $(cat $drive/device/model); done`);
    for (const line of drives.split('\n')) {
      const [name = '', ...model] = line.split(' ');
      this.#drives[model.join(' ').startsWith('QEMU') ? 'theirs' : 'ours'] = name;
    }
  }

  /** TCP by one stream, to the guest or from it. */
  async stream(card: number, side: SideName, toGuest: boolean, seconds: number): Promise<Work> {
    const device = this.#cards.get(tapOf(card, side));
    return await this.#work(side, `guest/net${card}`, async () => {
      const before = await this.#frames(device);
      const text = await this.#guest.sh(
        `iperf3 --client ${network(card, side)}.1 --port ${IPERF_PORT} --time ${seconds} --json ${toGuest ? '--reverse' : ''}`,
        { timeoutMs: (seconds + 60) * 1e3 },
      );
      const result = parseIperf(text);
      const units = (await this.#frames(device)) - before;
      return { value: gbps(result.receivedBytes, result.seconds), units };
    });
  }

  /** fio with direct I/O on the whole drive. */
  async requests(work: DiskWork, side: SideName, seconds: number): Promise<Work> {
    const drive = this.#drives[side];
    return await this.#work(side, 'guest/ahci0', async () => {
      const text = await this.#guest.sh(
        `chroot /tools fio --name=work --filename=/dev/${drive} --direct=1 --ioengine=libaio \\
          --rw=${work.rw} --bs=${work.bs} --iodepth=${work.iodepth} --time_based --runtime=${seconds} \\
          --randrepeat=0 --norandommap --output-format=json`,
        { timeoutMs: (seconds + 120) * 1e3 },
      );
      const job = (JSON.parse(text.slice(text.indexOf('{'))) as FioReport).jobs[0];
      const done = work.rw.endsWith('read') ? job?.read : job?.write;
      return { value: done?.iops ?? 0, units: done?.total_ios ?? 0 };
    });
  }

  /** Frames that the guest has counted on an interface, both ways. */
  async #frames(device: string | undefined): Promise<number> {
    const text = await this.#guest.sh(
      `cat /sys/class/net/${device}/statistics/rx_packets /sys/class/net/${device}/statistics/tx_packets`,
    );
    return text.split('\n').reduce((sum, count) => sum + Number(count), 0);
  }

  async #work(side: SideName, name: string, run: () => Promise<Told>): Promise<Work> {
    const before = side === 'ours' ? await this.#traps(name) : undefined;
    const idle = await this.#processorTimes();
    const ran = busiestThread(this.#guest.pid ?? 0);
    const told = await run();
    const thread = ran();
    const ended = await this.#processorTimes();
    const guest = 1 - (ended.idle - idle.idle) / (ended.all - idle.all);
    const processor = { guest, thread };
    if (before === undefined) return { ...told, traps: undefined, processor };
    const after = await this.#traps(name);
    return {
      ...told,
      traps: { reads: after.reads - before.reads, writes: after.writes - before.writes },
      processor,
    };
  }

  /** Of the guest's processor since it booted, in seconds. */
  async #processorTimes(): Promise<{ readonly idle: number; readonly all: number }> {
    const times = parseProcessor(await this.#guest.sh('cat /proc/stat'), 'cpu');
    return { idle: times.idle, all: Object.values(times).reduce((sum, each) => sum + each, 0) };
  }

  async #traps(name: string): Promise<{ readonly reads: number; readonly writes: number }> {
    const functions = await this.#sluice.control.call('functions');
    const counters = functions.find((one) => one.function === name)?.counters;
    return { reads: counters?.trap_reads ?? 0, writes: counters?.trap_writes ?? 0 };
  }
}

interface FioJob {
  readonly iops: number;
  readonly total_ios: number;
}

interface FioReport {
  readonly jobs: readonly { readonly read: FioJob; readonly write: FioJob }[];
}

function ip(words: string): void {
  execFileSync('ip', words.split(' '), { stdio: ['ignore', 'ignore', 'inherit'] });
}

/** QEMU's card, with a tap of the host and all that QEMU does by itself. */
function qemuCard({ qemu, link }: Card, index: number): string[] {
  const tap = tapOf(index, 'theirs');
  return [
    '-netdev',
    `tap,id=${tap},ifname=${tap},script=no,downscript=no`,
    ...rootPort(`q${index}`, link),
    '-device',
    `${qemu},netdev=${tap},mac=${macOf(index, 'theirs')},romfile=,bus=${busOf(`q${index}`, link)}`,
  ];
}

function qemuDrive(file: string): string[] {
  return [
    ...['-device', 'ahci,id=ahci', '-drive'],
    `if=none,id=drive,format=raw,file=${file},cache=writeback,aio=io_uring,discard=unmap`,
    ...['-device', 'ide-hd,drive=drive,bus=ahci.0'],
  ];
}

function ourFunction(path: string, id: string, link: Card['link']): string[] {
  const socket = { path, type: 'unix' };
  const bus = busOf(id, link);
  const device = { driver: 'vfio-user-pci', id: `${id}f`, bus, rombar: 0, socket };
  return [...rootPort(id, link), '-device', JSON.stringify(device)];
}

/** PCI Express cards are behind a port, as on a board; others on the root bus. */
function rootPort(id: string, link: Card['link']): string[] {
  if (link === undefined) return [];
  const slot = id.charCodeAt(0) + Number(id.slice(1));
  return ['-device', `pcie-root-port,id=${id},chassis=${slot},slot=${slot},${link}`];
}

function busOf(id: string, link: Card['link']): string {
  return link === undefined ? 'pcie.0' : id;
}
