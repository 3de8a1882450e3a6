/**
 * Crash safety: Sluice is killed with SIGKILL at random moments, again and again, while a Linux guest of
 * QEMU writes checksummed blocks to its disks and reads them back. The guest is to see no more than
 * pauses: no I/O error, each acknowledged write there, each request that was in flight done once.
 *
 * `SLUICE_TEST_KILLS=100` kills more often than the 20 times of every run.
 */
// suite: cores=1.25 takes=100 timeout=900
import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MiB } from '../src/base/bits.ts';
import { Random } from '../src/base/random.ts';
import { startQemu } from '../src/guest/qemu.ts';
import { inTools } from './support/disks.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { socketDirectory, withoutTestbed } from './support/testbed.ts';
import { withoutIoUring } from './support/without-io-uring.ts';

const KILLS = Number(process.env['SLUICE_TEST_KILLS'] ?? 20);
/** Most that a life lasts after each disk has done something in it. */
const LIFE_MS = 700;
/** About what a start takes: within it falls a kill of a daemon that is still recovering. */
const START_MS = 1000;
/** The turn of lives: of so many, these end before the daemon serves, or soon after, */
const TURN = 8;
const SHORT_LIVES: readonly number[] = [2, 3, 6];
/** and these have no io_uring, and a thread that reads and writes in its place. */
const LIVES_WITHOUT_IO_URING: readonly number[] = [1, 5];
const RECONNECT_MS = 50;
const LOAD_TIMEOUT_MS = 600_000;

/** Requests that take long, and end in any order: many are in flight at every moment. */
const SLOW = { rules: [{ fault: 'delay' as const, us: 1000, random_us: 20_000 }] };

/** What is written and not flushed is lost in a kill, although it was acknowledged. */
const FORGETFUL = { volatile: '16M' };

interface KillDisk {
  readonly name: string;
  readonly packed: boolean;
  /** Words of fio besides those of all. */
  readonly load: string;
  readonly faults?: NonNullable<SluiceConfig['disks']>[string]['faults'];
}

/** The guest's disks in order: vda, vdb … The last one shows that what is lost is found out. */
const DISKS: readonly KillDisk[] = [
  { name: 'split', packed: false, load: '--directory=/tmp/m --unlink=1 --fsync=64' },
  { name: 'packed', packed: true, load: '--filename=/dev/vdb --verify_backlog=64' },
  { name: 'slow-split', packed: false, load: '--filename=/dev/vdc', faults: SLOW },
  { name: 'slow-packed', packed: true, load: '--filename=/dev/vdd', faults: SLOW },
  { name: 'forgetful', packed: false, load: '--filename=/dev/vde', faults: FORGETFUL },
];

const JOBS = 2;
const JOB_BYTES = MiB;
/** Rounds of one process of fio: it takes an emulated CPU seconds to load one. */
const ROUNDS = 6;
const LOAD = [
  `fio --rw=randwrite --bsrange=512-16k --size=${JOB_BYTES} --numjobs=${JOBS} --thread`,
  '--ioengine=libaio --iodepth=16 --direct=1 --fallocate=none --group_reporting --output-format=terse',
  '--verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0',
].join(' ');

/**
 * Script that writes blocks with checksums in rounds, reads all of a round's and checks them, until
 * there is /tmp/stop. Prints how many rounds were done.
 */
function loadScript(name: string, load: string): string {
  const parts = load.includes('--filename') ? `--offset_increment=${2 * JOB_BYTES}` : '';
  return `cd /tmp && done=0
    until [ -e stop ]; do
      rounds=$(for i in $(seq ${ROUNDS}); do echo "--name=r$i --stonewall --randseed=$((done + i))"; done)
      ${LOAD} ${load} ${parts} --output=${name}.log $rounds 2>${name}.err || { cat ${name}.log; grep -v 'multiple writers' ${name}.err; dmesg | tail; exit 1; }
      done=$((done + ${ROUNDS}))
    done
    echo $done`;
}

test('kills under load', { skip: withoutTestbed() }, async (t) => {
  const seed = Number(process.env['SLUICE_TEST_SEED'] ?? Date.now() % 2 ** 32);
  t.diagnostic(`repeat the choices with SLUICE_TEST_SEED=${seed}`);
  const random = new Random(seed);
  const directory = socketDirectory(t);
  const forbidden = withoutIoUring(join(directory, 'filter'));
  const image = (name: string): string => join(directory, `${name}.img`);
  for (const { name } of DISKS) {
    writeFileSync(image(name), '');
    truncateSync(image(name), 64 * MiB);
  }
  const config: SluiceConfig = {
    disks: Object.fromEntries(
      DISKS.map(({ name, faults }) => [
        name,
        { file: image(name), ...(faults === undefined ? {} : { faults }) },
      ]),
    ),
    guests: {
      g: {
        disk: DISKS.map(({ name: disk, packed }) => ({
          method: 'paravirtual' as const,
          ...{ disk, packed, queues: 2 },
        })),
      },
    },
  };
  const sluice = await Sluice.start(t, config);
  const guest = startQemu({
    name: 'kill',
    cpus: 2,
    tools: true,
    disk: DISKS.map(({ packed }, index) => ({
      socket: sluice.socket(`g/disk${index}`),
      queues: 2,
      packed,
      reconnectMs: RECONNECT_MS,
    })),
  });
  t.after(async () => {
    await guest.kill();
  });
  await guest.booted();
  const tools = inTools(guest);
  await guest.sh('mkdir -p /tmp/m && modprobe ext4');
  await tools.sh('mkfs.ext4 -q /dev/vda && mount /dev/vda /tmp/m');

  const failures = new Map<string, string>();
  const loads = DISKS.map(async ({ name, load }) => {
    const timeoutMs = LOAD_TIMEOUT_MS;
    try {
      return { name, rounds: Number(await tools.sh(loadScript(name, load), { timeoutMs })) };
    } catch (error) {
      failures.set(name, String(error));
      return { name, rounds: 0 };
    }
  });
  const checkLoads = (): void => {
    for (const [name, failure] of failures) assert.equal(name, 'forgetful', failure);
  };
  /** Waits until so many bytes were written to each disk since Sluice was started. */
  const writes = async (bytes: number): Promise<void> => {
    await until('each disk to be written', async () => {
      checkLoads();
      const devices = await sluice.show('devices');
      return devices.every(
        ({ disk, counters: { write_bytes: written } }) => written >= bytes || disk === 'forgetful',
      );
    });
  };

  for (let kill = 0; kill < KILLS; kill++) {
    if (SHORT_LIVES.includes(kill % TURN)) {
      const started = sluice.up().then(
        () => undefined,
        (error: unknown) => error,
      );
      await sleep(random.below(START_MS));
      await sluice.kill();
      const error = await started;
      if (error !== undefined) assert.match(String(error), /sluice ended \(SIGKILL\)/);
      continue;
    }
    const isForbidden = LIVES_WITHOUT_IO_URING.includes(kill % TURN);
    if (kill > 0) await sluice.up(isForbidden ? forbidden : []);
    if (isForbidden) {
      const engines = (await sluice.show('disks')).map(({ details }) => details['engine']);
      assert.deepEqual(new Set(engines), new Set(['worker']));
    }
    await writes(1);
    await sleep(random.below(LIFE_MS));
    await sluice.kill();
  }
  await sluice.up();
  // The round that the last kill fell into has been checked when the next one is written.
  await writes(2 * JOBS * JOB_BYTES);
  await guest.sh('touch /tmp/stop');
  const ended = await Promise.all(loads);
  checkLoads();
  for (const { name, rounds } of ended) {
    t.diagnostic(`${name}: ${rounds} rounds`);
    assert.ok(rounds > 0 || name === 'forgetful', name);
  }

  await t.test('what a disk has lost is found out', () => {
    assert.match(failures.get('forgetful') ?? '', /verify: /);
  });

  await t.test('requests were in flight when it was killed', () => {
    for (const [index, { name, faults }] of DISKS.entries()) {
      const pattern = new RegExp(`g/disk${index}.*takes (\\d+) requests up again`, 'g');
      const found = [...sluice.log.matchAll(pattern)].map(([, count]) => Number(count));
      t.diagnostic(`${name}: ${found.join(' ')} in flight`);
      // Of those that are done at once there may have been none.
      if (faults === SLOW) assert.ok(found.length > 0, name);
    }
  });

  await t.test('the guest has seen no error, and its file system is clean', async () => {
    const messages = await guest.sh('dmesg');
    assert.doesNotMatch(
      messages,
      /I\/O error|EXT4-fs (error|warning)|blocked for more than|BUG|WARNING/,
    );
    await tools.sh('umount /tmp/m && e2fsck -f -n /dev/vda');
  });
  await sluice.healthy();
});
