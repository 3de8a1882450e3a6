/**
 * Disks of a journalling guest lose their power at random moments, and a fresh guest sees whether
 * what was promised is there: every fsync that the first one was told of, and a clean file system. A
 * disk that lies about flushes must be found out by the same looks.
 *
 * SLUICE_TEST_CUTS=N cuts N times instead of 20.
 */
// suite: cores=0.5 takes=75 timeout=900
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { MiB } from '../src/base/bits.ts';
import { Random } from '../src/base/random.ts';
import type { GuestProcess } from '../src/guest/guest-process.ts';
import { startUml } from '../src/guest/uml.ts';
import { Sluice, type SluiceConfig } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

const DISK_BYTES = 96 * MiB;
const WORKERS = 2;
/** How long a look may take on a busy machine. */
const LOOK_MS = 180_000;
/** How long a guest works before the cut, in ms. */
const LEAST_WORK_MS = 300;
const MOST_WORK_MS = 2000;

interface Volume {
  readonly name: string;
  /** In the guest. */
  readonly device: string;
  /** How its file system is made and mounted. */
  readonly make: string;
  readonly mount: string;
  /** The volatile cache; a small one is full now and then. */
  readonly volatile: string;
  readonly lies: boolean;
}

const VOLUMES: readonly Volume[] = [
  {
    name: 'ordered',
    device: '/dev/vda',
    make: '-b 4096 -J size=4',
    mount: 'data=ordered',
    volatile: '64M',
    lies: false,
  },
  {
    name: 'journal',
    device: '/dev/vdb',
    make: '-b 1024 -J size=4',
    mount: 'data=journal',
    volatile: '1M',
    lies: false,
  },
  {
    name: 'liar',
    device: '/dev/vdc',
    make: '-b 4096 -J size=4',
    mount: 'data=ordered',
    volatile: '64M',
    lies: true,
  },
];
const HONEST = VOLUMES.filter(({ lies }) => !lies);
const ROUNDS = Math.ceil(Number(process.env['SLUICE_TEST_CUTS'] ?? 20) / HONEST.length);

/** What a guest was promised before the cut: promises by worker. */
type Promised = ReadonlyMap<string, number>;

const program = readFileSync(new URL('support/promises.pl', import.meta.url), 'utf8');

function workersOf(volume: Volume): string[] {
  return Array.from({ length: WORKERS }, (_, index) => `${volume.name}-${index}`);
}

/** What the workers of a guest said on its console. */
function promisedIn(console: string): Promised {
  const promised = new Map<string, number>();
  for (const [, worker = '', count] of console.matchAll(/^kept (\S+) (\d+)\r?$/gm))
    promised.set(worker, Math.max(promised.get(worker) ?? 0, Number(count)));
  return promised;
}

/** The work of round `round` on a volume, which is mounted. */
async function startWork(guest: GuestProcess, volume: Volume, round: number): Promise<void> {
  const at = `/tmp/${volume.name}`;
  await guest.sh(
    [
      'set -e',
      ...workersOf(volume).map((worker) => `mkdir -p ${at}/${round}/${worker}`),
      'sync',
      `perl /tmp/promises.pl dirty ${at}/${round} >/dev/null 2>&1 &`,
      ...workersOf(volume).map(
        (worker) =>
          `perl /tmp/promises.pl work ${at}/${round}/${worker} ${worker} >/dev/null 2>&1 &`,
      ),
    ].join('\n'),
  );
}

/**
 * What is broken on a volume that lost its power in round `round`, a line each. It is mounted
 * afterwards if nothing is.
 */
async function brokenOn(
  guest: GuestProcess,
  volume: Volume,
  round: number,
  promised: Promised,
): Promise<string> {
  const at = `/tmp/${volume.name}`;
  const mount = `mount -t ext4 -o ${volume.mount} ${volume.device} ${at}`;
  const { code, stdout, stderr } = await guest.run(
    [
      // The journal is replayed by the first mount; the check is of what that leaves.
      `mkdir -p ${at} && ${mount} || exit`,
      ...workersOf(volume).map(
        (worker) =>
          `perl /tmp/promises.pl check ${at}/${round}/${worker} ${worker} ${promised.get(worker) ?? 0}`,
      ),
      `umount ${at} || exit`,
      `e2fsck -f -n ${volume.device} >/tmp/${volume.name}.log 2>&1 || { cat /tmp/${volume.name}.log; exit 1; }`,
      `${mount} && rm -rf ${at}/${round - 1}`,
    ].join('\n'),
    { timeoutMs: LOOK_MS },
  );
  return code === 0 ? stdout : `${stdout}${stderr}exit code ${code}`;
}

test('what was promised before a power cut is there after it', {
  skip: withoutTestbed(),
}, async (t) => {
  const seed = Number(process.env['SLUICE_TEST_SEED'] ?? Date.now() % 2 ** 32);
  t.diagnostic(`repeat the choices with SLUICE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const directory = mkdtempSync(join(tmpdir(), 'sluice-power-cut-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  for (const { name } of VOLUMES) {
    writeFileSync(join(directory, name), '');
    truncateSync(join(directory, name), DISK_BYTES);
  }

  const config = (lying: boolean): SluiceConfig => ({
    disks: Object.fromEntries(
      VOLUMES.map(({ name, volatile, lies }) => [
        name,
        {
          file: join(directory, name),
          faults: {
            volatile,
            seed: random.below(2 ** 31),
            ...(lies && lying
              ? { rules: [{ fault: 'drop' as const, on: ['flush' as const] }] }
              : {}),
          },
        },
      ]),
    ),
    guests: {
      uml: { disk: VOLUMES.map(({ name }) => ({ method: 'paravirtual' as const, disk: name })) },
    },
  });
  const sluice = await Sluice.start(t, config(false));
  let guest: GuestProcess | undefined;
  t.after(async () => {
    await guest?.kill();
  });
  const boot = async (): Promise<GuestProcess> => {
    guest = startUml({
      name: 'uml-power-cut',
      memory: 256,
      disk: VOLUMES.map((_, index) => ({ socket: sluice.socket(`uml/disk${index}`) })),
    });
    await guest.booted();
    await guest.sh(`cat >/tmp/promises.pl <<'END'\n${program}\nEND`);
    return guest;
  };
  /** Takes the power of all disks, and the guest; in either order, or with the daemon's death. */
  const cut = async (running: GuestProcess): Promise<void> => {
    const way = random.below(5);
    if (way === 0) {
      await sluice.kill();
      await running.kill();
      sluice.write(config(true));
      await sluice.up();
      return;
    }
    if (way === 1) await running.kill();
    await Promise.all(
      VOLUMES.map(({ name }) => sluice.show('powerDisk', { disk: name, on: false })),
    );
    await running.kill();
    for (const { name } of VOLUMES) await sluice.show('powerDisk', { disk: name, on: true });
  };

  const first = await boot();
  for (const { name, device, make, mount } of VOLUMES) {
    await first.sh(
      `mkfs.ext4 -q -F ${make} ${device} && mkdir -p /tmp/${name} &&
       mount -t ext4 -o ${mount} ${device} /tmp/${name} && umount /tmp/${name}`,
    );
  }
  await first.kill();
  await sluice.reload(config(true));

  let promised: Promised = new Map();
  let total = 0;
  let lie: string | undefined;
  for (let round = 0; round <= ROUNDS; round++) {
    const running = await boot();
    const inUse = VOLUMES.filter(({ lies }) => !lies || lie === undefined);
    await Promise.all(
      inUse.map(async (volume) => {
        const broken = await brokenOn(running, volume, round - 1, promised);
        if (volume.lies && broken !== '') lie = broken;
        else
          assert.equal(
            broken,
            '',
            `${volume.name} after cut ${round}:\n${running.console.slice(-4000)}`,
          );
      }),
    );
    assert.doesNotMatch(running.console, /EXT4-fs error \(device vd[ab]\)/);
    if (round === ROUNDS) break;
    for (const volume of inUse)
      if (!volume.lies || lie === undefined) await startWork(running, volume, round);
    await delay(LEAST_WORK_MS + random.below(MOST_WORK_MS - LEAST_WORK_MS));
    await cut(running);
    promised = promisedIn(running.console);
    for (const worker of HONEST.flatMap(workersOf)) total += promised.get(worker) ?? 0;
  }
  t.diagnostic(`${ROUNDS * HONEST.length} cuts, ${total} promises`);
  assert.ok(total > 10 * ROUNDS, `only ${total} promises were made`);
  t.diagnostic(`the disk that lies: ${lie?.split('\n')[0] ?? 'not found out'}`);
  assert.ok(lie !== undefined, 'a disk that does not flush was not found out');
  await sluice.healthy();
});
