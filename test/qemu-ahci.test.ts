/**
 * A Linux guest of QEMU with drives of an emulated AHCI controller: what the stock drivers of the kernel
 * (ahci, libata, sd, sr) make of it, when all is well and when it is not. A drive beside the others is at
 * work meanwhile and must notice nothing of their errors.
 */
// suite: takes=110 timeout=900
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../src/base/bits.ts';
import { fioVerify, inTools, partition, sectorsOf } from './support/disks.ts';
import {
  ataPortOf,
  controllerInterrupts,
  controllerOf,
  driveOf,
  drivesGone,
  findDrive,
  kernelLog,
  loadDriveModules,
  MAKE_EXT4,
  smartctl,
} from './support/drives.ts';
import { makeIso } from './support/iso-image.ts';
import { startPrinted } from './support/printed-guest.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { socketDirectory, withoutTestbed } from './support/testbed.ts';

const DATA_BYTES = 192 * MiB;
const SMALL_BYTES = 16 * MiB;
const BLOCK = 4096;
const SERIAL = 'SLUICE-0001';
const FIXED_TEXT = 'a disk that cannot be written';
/** Of the flaky disk: a block of the guest's. */
const BAD_SECTOR = 2048;
const BAD_SECTORS = { from: BAD_SECTOR, to: BAD_SECTOR + 8 };
/** As many as a drive's queue takes beside it. */
const NEIGHBOURS = { from: BAD_SECTOR + 8, to: BAD_SECTOR + 8 * 32 };
const BAD_BLOCK = (BAD_SECTOR * 512) / BLOCK;
/** Requests a second of the drive beside, each way: work all the time, and a processor for the others. */
const STEADY_IOPS = 100;
/** Linux looks for a drive that has gone three times, 5 s apart, before it gives up. */
const PATIENCE = { timeoutMs: 180_000 };

const DRIVES = ['data', 'fixed', 'flaky', 'steady', 'cd'] as const;
const PLUGGED = 'plugged';
/** The first port behind those that are there from the beginning. */
const PLUGGED_DEVICE = `a/ahci0.${DRIVES.length}`;

function makeConfig(image: (name: string) => string, withPlugged: boolean): SluiceConfig {
  const names = withPlugged ? [...DRIVES, PLUGGED] : DRIVES;
  return {
    disks: {
      data: { file: image('data'), serial: SERIAL },
      fixed: { file: image('fixed'), readonly: true },
      flaky: {
        file: image('flaky'),
        faults: {
          rules: [
            { fault: 'error', on: ['read', 'write'], ...BAD_SECTORS },
            // Its neighbours are on their way when it fails.
            { fault: 'delay', on: ['read'], ...BAD_SECTORS, us: 50_000 },
            { fault: 'delay', on: ['read'], ...NEIGHBOURS, us: 150_000 },
          ],
        },
      },
      steady: { file: image('steady') },
      cd: { file: image('cd'), readonly: true },
      plugged: { file: image('plugged') },
    },
    guests: {
      a: {
        memory: '512M',
        disk: names.map((disk) => ({
          method: 'emulated' as const,
          model: 'ahci' as const,
          disk,
          cdrom: disk === 'cd',
        })),
      },
    },
  };
}

interface SmartReport {
  readonly model_name: string;
  readonly serial_number: string;
  readonly user_capacity: { readonly bytes: number };
  readonly rotation_rate: number;
  readonly trim: { readonly supported: boolean };
  readonly smart_status: { readonly passed: boolean };
  readonly smart_support: { readonly available: boolean; readonly enabled: boolean };
  readonly ata_smart_attributes: {
    readonly table: readonly { readonly id: number; readonly raw: { readonly value: number } }[];
  };
}

interface SelfTestLog {
  readonly ata_smart_self_test_log: {
    readonly standard: {
      readonly count: number;
      readonly table?: readonly {
        readonly status: { readonly passed?: boolean; readonly string: string };
        readonly lba?: number;
      }[];
    };
  };
}

interface FioReport {
  readonly jobs: readonly {
    readonly total_err: number;
    readonly read: { readonly total_ios: number };
  }[];
}

test('a QEMU guest with drives of an AHCI controller', { skip: withoutTestbed() }, async (t) => {
  const directory = socketDirectory(t);
  const image = (name: string): string => join(directory, `${name}.img`);
  for (const [name, bytes, text] of [
    ['data', DATA_BYTES, ''],
    ['fixed', SMALL_BYTES, FIXED_TEXT],
    ['steady', SMALL_BYTES, ''],
    [PLUGGED, SMALL_BYTES, ''],
  ] as const) {
    writeFileSync(image(name), text);
    truncateSync(image(name), bytes);
  }
  // Each block of it says where it belongs.
  const flaky = Buffer.alloc(SMALL_BYTES);
  for (let at = 0; at < flaky.length; at += 8) flaky.writeBigUInt64LE(BigInt(at), at);
  writeFileSync(image('flaky'), flaky);
  const track = randomBytes(6 * MiB + 777);
  makeIso(image('cd'), 'SLUICE', { 'TRACK.BIN': track, 'README.TXT': Buffer.from('read me') });

  const sluice = await Sluice.start(t, makeConfig(image, false));
  const guest = await startPrinted(t, sluice, 'a', { cpus: 2, tools: true });
  await guest.booted();
  const tools = inTools(guest);
  await loadDriveModules(guest);
  await guest.sh('mkdir /tmp/m /tmp/cd');
  let steady = await driveOf(guest, 'steady');

  const counters = async (device: string) =>
    (await sluice.show('devices')).find((other) => other.device === device)?.counters ??
    assert.fail(`there is no device ${device}`);
  /** The drive beside has done requests since the last look, and none failed. */
  let before = 0;
  const beside = async (): Promise<void> => {
    await until('the drive beside', async () => {
      const { writes, error_io } = await counters('a/ahci0.3');
      assert.equal(error_io, 0);
      const goesOn = writes > before;
      before = writes;
      return goesOn;
    });
  };
  /** Does this while the drive beside is at work, verified. */
  const withBeside = async (body: () => Promise<void>): Promise<void> => {
    const work = guest.run(
      [
        `fio --name=steady --filename=/dev/${steady} --size=1M --rw=randrw --bs=4k --direct=1`,
        `--iodepth=8 --ioengine=libaio --rate_iops=${STEADY_IOPS} --verify=crc32c --verify_fatal=1 --time_based --runtime=600`,
        '--output=/dev/stderr --trigger-file=/tmp/steady.end --trigger=true',
      ].join(' '),
      { timeoutMs: 700_000 },
    );
    try {
      await beside();
      await body();
      await beside();
    } finally {
      await guest.sh('touch /tmp/steady.end');
      const { code, stderr } = await work;
      assert.equal(code, 0, stderr);
    }
  };
  const scenario = async (name: string, body: () => Promise<void>): Promise<void> => {
    await t.test(name, async () => {
      await kernelLog(guest);
      await body();
      await sluice.healthy();
    });
  };

  await scenario('what the guest sees of them', async () => {
    for (const [serial, bytes, trims] of [
      [SERIAL, DATA_BYTES, true],
      ['fixed', SMALL_BYTES, false],
      ['flaky', SMALL_BYTES, true],
      ['steady', SMALL_BYTES, true],
    ] as const) {
      const device = await driveOf(guest, serial);
      assert.equal(await sectorsOf(guest, device), bytes / 512, serial);
      const facts = await guest.sh(
        `cd /sys/block/${device} && echo $(cat device/vendor device/model) && cat device/queue_depth queue/rotational queue/write_cache &&
         cat queue/logical_block_size queue/discard_max_bytes`,
      );
      const [model, depth, rotational, cache, block, discard] = facts.split('\n');
      assert.equal(model?.trim(), 'ATA Sluice disk', serial);
      assert.deepEqual([depth, rotational, cache, block], ['32', '0', 'write back', '512']);
      assert.equal(Number(discard) > 0, trims, `${serial}: ${discard}`);
    }
    assert.match(await guest.sh('cat /sys/block/sr0/device/model'), /^cdrom/);
    assert.match((await controllerInterrupts(guest)).kind, /MSI/);
  });

  await scenario('a file system in a partition, queued and verified', async () => {
    const data = await driveOf(guest, SERIAL);
    await partition(tools, data);
    await tools.sh(`${MAKE_EXT4} /dev/${data}1 && mount /dev/${data}1 /tmp/m`);
    const options = { size: '4M', iodepth: 32 };
    await fioVerify(tools, '/tmp/m/verify', { ...options, rw: 'randwrite', bs: '4k' });
    await fioVerify(tools, '/tmp/m/mixed', { ...options, rw: 'randrw', bs: '512-512k' });
    await tools.sh(`umount /tmp/m && e2fsck -f -n /dev/${data}1`);
    const { writes, flushes, error_io } = await counters('a/ahci0.0');
    assert.ok(writes > 1000 && flushes > 0, `${writes} writes, ${flushes} flushes`);
    assert.equal(error_io, 0);
  });

  await scenario('what fstrim gives up is given back to the host', async () => {
    const data = await driveOf(guest, SERIAL);
    const allocated = (): number => statSync(image('data')).blocks * 512;
    await tools.sh(
      `mount /dev/${data}1 /tmp/m && head -c 48M /dev/zero > /tmp/m/x && sync`,
      PATIENCE,
    );
    const full = allocated();
    await tools.sh('rm /tmp/m/x && sync && fstrim /tmp/m && umount /tmp/m');
    assert.ok(full - allocated() >= 44 * MiB, `${full} bytes before, ${allocated()} after`);
    await tools.sh(`e2fsck -f -n /dev/${data}1`);
  });

  await scenario('SMART: what smartctl reads, and self-tests', async () => {
    const data = await driveOf(guest, SERIAL);
    const report = (await smartctl(tools, `-a /dev/${data}`)) as SmartReport;
    assert.equal(report.model_name, 'Sluice disk');
    assert.equal(report.serial_number, SERIAL);
    assert.equal(report.user_capacity.bytes, DATA_BYTES);
    assert.equal(report.rotation_rate, 0);
    assert.equal(report.trim.supported, true);
    assert.deepEqual(report.smart_support, { available: true, enabled: true });
    assert.equal(report.smart_status.passed, true);
    const written = report.ata_smart_attributes.table.find(({ id }) => id === 241)?.raw.value;
    assert.equal(written, (await counters('a/ahci0.0')).write_bytes / 512);

    const selfTest = async (serial: string, kind: string) => {
      const device = await driveOf(guest, serial);
      await tools.sh(`smartctl -t ${kind} /dev/${device}`);
      let last: { status: { passed?: boolean; string: string }; lba?: number } | undefined;
      await until('the self-test to end', async () => {
        const log = (await smartctl(tools, `-l selftest /dev/${device}`)) as SelfTestLog;
        last = log.ata_smart_self_test_log.standard.table?.[0];
        return last !== undefined;
      });
      return last;
    };
    const good = await selfTest(SERIAL, 'short');
    assert.equal(good?.status.passed, true, JSON.stringify(good));
    const bad = await selfTest('flaky', 'long');
    assert.equal(bad?.status.passed, false, JSON.stringify(bad));
    assert.equal(bad?.lba, BAD_SECTOR);
  });

  await scenario('a CD is mounted and read, and cannot be taken out meanwhile', async () => {
    await guest.sh('mount -t iso9660 -o ro /dev/sr0 /tmp/cd');
    const sum = (await guest.sh('sha256sum /tmp/cd/track.bin')).split(' ')[0];
    assert.equal(sum, createHash('sha256').update(track).digest('hex'));
    assert.equal(await guest.sh('cat /tmp/cd/readme.txt'), 'read me');
    assert.notEqual((await guest.run('echo x > /tmp/cd/readme.txt')).code, 0);
    assert.notEqual((await tools.run('sg_start --eject /dev/sr0')).code, 0);
    await guest.sh('umount /tmp/cd');
    await tools.sh('sg_start --eject /dev/sr0');
    assert.notEqual((await guest.run('head -c 2048 /dev/sr0')).code, 0);
    await tools.sh('sg_start --load /dev/sr0');
    await until('the CD to be back', async () => {
      return (await guest.run('mount -t iso9660 -o ro /dev/sr0 /tmp/cd')).code === 0;
    });
    await guest.sh('umount /tmp/cd');
  });

  await scenario('a disk that cannot be written is refused cleanly, and read', () =>
    withBeside(async () => {
      const fixed = await driveOf(guest, 'fixed');
      const { code, stderr } = await guest.run(
        `dd if=/dev/zero of=/dev/${fixed} bs=4k count=1 oflag=direct`,
      );
      assert.notEqual(code, 0);
      assert.match(stderr, /Input\/output error/);
      assert.match(await kernelLog(guest), /error: { ABRT }/);
      assert.equal(await guest.sh(`head -c ${FIXED_TEXT.length} /dev/${fixed}`), FIXED_TEXT);
      assert.equal(readFileSync(image('fixed')).indexOf(FIXED_TEXT), 0);
    }),
  );

  await scenario('a bad block fails alone: what was queued with it is done after all', () =>
    withBeside(async () => {
      const device = await driveOf(guest, 'flaky');
      const { stdout } = await tools.run(
        [
          `fio --name=read --filename=/dev/${device} --rw=randread --bs=4k`,
          `--offset=${BAD_BLOCK * BLOCK} --size=${32 * BLOCK}`,
          '--direct=1 --ioengine=libaio --iodepth=32 --continue_on_error=read --output-format=json',
        ].join(' '),
        PATIENCE,
      );
      const [job] = (JSON.parse(stdout) as FioReport).jobs;
      assert.equal(job?.total_err, 1);
      const log = await kernelLog(guest);
      assert.match(log, /failed command: READ FPDMA QUEUED/);
      assert.match(log, /error: { UNC }/);
      // Others were on their way.
      assert.match(log, /SAct 0x[0-9a-f]*(?:[3579a-f][0-9a-f]*|[1248][0-9a-f]*[1-9a-f][0-9a-f]*) /);
      // All blocks but this, as the host wrote them.
      const [end, next] = [BAD_BLOCK * BLOCK, 2 * MiB];
      const behind = end + BLOCK;
      const sum = await guest.sh(
        `{ dd if=/dev/${device} bs=${end} count=1 iflag=direct
         dd if=/dev/${device} bs=${next - behind} skip=${behind} count=1 iflag=direct,skip_bytes
         dd if=/dev/${device} bs=${next} skip=1 iflag=direct; } 2>/dev/null | sha256sum`,
        PATIENCE,
      );
      const rest = createHash('sha256');
      rest.update(flaky.subarray(0, BAD_BLOCK * BLOCK));
      rest.update(flaky.subarray((BAD_BLOCK + 1) * BLOCK));
      assert.equal(sum.split(' ')[0], rest.digest('hex'));

      const write = (block: number) =>
        guest.run(`dd if=/dev/zero of=/dev/${device} bs=4k count=1 seek=${block} oflag=direct`);
      const refused = await write(BAD_BLOCK);
      assert.match(refused.stderr, /Input\/output error/);
      assert.equal((await write(BAD_BLOCK + 1)).code, 0);
    }),
  );

  await scenario('a drive is plugged in, taken out under load, and plugged in again', () =>
    withBeside(async () => {
      const plug = async (): Promise<string> => {
        const { done } = await sluice.reload(makeConfig(image, true));
        assert.ok(
          done.some((line) => line.includes(PLUGGED_DEVICE)),
          done.join(),
        );
        return await driveOf(guest, PLUGGED);
      };
      const device = await plug();
      await fioVerify(tools, `/dev/${device}`, { size: '4M', rw: 'randwrite', bs: '4k' });
      const { write_bytes: written } = await counters(PLUGGED_DEVICE);
      const io = guest.run(
        [
          `fio --name=load --filename=/dev/${device} --size=8M --rw=randwrite --bs=16k --direct=1`,
          '--iodepth=32 --ioengine=libaio --time_based --runtime=600',
        ].join(' '),
        { timeoutMs: 700_000 },
      );
      await until('I/O', async () => (await counters(PLUGGED_DEVICE)).write_bytes > written);
      await sluice.reload(makeConfig(image, false));
      await guest.sh(`while [ -e /sys/block/${device} ]; do sleep 0.2; done`, PATIENCE);
      assert.notEqual((await io).code, 0);
      assert.match(await kernelLog(guest), /SATA link down/);
      assert.equal(await findDrive(guest, PLUGGED), undefined);
      const again = await plug();
      await fioVerify(tools, `/dev/${again}`, { size: '4M', rw: 'randwrite', bs: '4k' });
      await sluice.reload(makeConfig(image, false));
    }),
  );

  await scenario(
    'a drive and its link are suspended, and come back when they are used',
    async () => {
      const data = await driveOf(guest, SERIAL);
      const port = await ataPortOf(guest, data);
      const power = `/sys/class/ata_port/${port}/device/power`;
      const drive = `/sys/block/${data}/device/power`;
      const { flushes } = await counters('a/ahci0.0');
      await guest.sh(
        `echo 100 > ${drive}/autosuspend_delay_ms && echo auto > ${drive}/control
       echo auto > ${power}/control
       until grep -q ^suspended ${power}/runtime_status; do sleep 0.2; done`,
        PATIENCE,
      );
      // STANDBY makes durable what was in the cache.
      assert.ok((await counters('a/ahci0.0')).flushes > flushes);
      const sum = await guest.sh(
        `dd if=/dev/${data} bs=1M count=16 iflag=direct 2>/dev/null | sha256sum`,
        PATIENCE,
      );
      const written = readFileSync(image('data')).subarray(0, 16 * MiB);
      assert.equal(sum.split(' ')[0], createHash('sha256').update(written).digest('hex'));
      assert.match(await kernelLog(guest), new RegExp(`${port}: SATA link up`));
      await guest.sh(`echo on > ${power}/control && echo on > ${drive}/control`, PATIENCE);
      // The link has no states that save power: policies are taken, and nothing is lost by them.
      for (const policy of ['min_power', 'medium_power', 'max_performance']) {
        const file = '/sys/class/scsi_host/*/link_power_management_policy';
        await guest.sh(`for host in ${file}; do echo ${policy} > $host || exit; done`);
        const part = { size: '1M', rw: 'randwrite', bs: '4k' };
        await fioVerify(tools, `/dev/${await driveOf(guest, 'steady')}`, part);
      }
    },
  );

  await scenario(
    'the controller is reset without its driver; then the driver is loaded anew, with INTx',
    async () => {
      const place = await controllerOf(guest);
      const pci = '/sys/bus/pci';
      assert.match(await guest.sh(`cat ${pci}/devices/${place}/reset_method`), /af_flr/);
      await guest.sh(`echo ${place} > ${pci}/drivers/ahci/unbind`, PATIENCE);
      await drivesGone(guest);
      await guest.sh(
        `echo af_flr > ${pci}/devices/${place}/reset_method &&
         echo 1 > ${pci}/devices/${place}/reset && echo ${place} > ${pci}/drivers/ahci/bind`,
        PATIENCE,
      );
      await tools.sh(`e2fsck -f -n /dev/${await driveOf(guest, SERIAL)}1`);
      await guest.sh('rmmod ahci', PATIENCE);
      await drivesGone(guest);
      await guest.sh(`echo 0 > ${pci}/devices/${place}/msi_bus && modprobe ahci`, PATIENCE);
      steady = await driveOf(guest, 'steady');
      const { kind, count } = await controllerInterrupts(guest);
      assert.match(kind, /IO-APIC/);
      const options = { size: '4M', rw: 'randwrite', bs: '4k', iodepth: 32 };
      await fioVerify(tools, `/dev/${steady}`, options);
      assert.ok((await controllerInterrupts(guest)).count > count);
      await tools.sh(`e2fsck -f -n /dev/${await driveOf(guest, SERIAL)}1`);
    },
  );

  await scenario('the guest reboots in the middle of I/O', async () => {
    const { writes } = await counters('a/ahci0.3');
    const io = guest.run(`dd if=/dev/zero of=/dev/${steady} bs=64k oflag=direct`);
    const lost = assert.rejects(io, /restarted/);
    await until('I/O', async () => (await counters('a/ahci0.3')).writes > writes);
    await guest.reboot();
    await lost;
    await loadDriveModules(guest);
    assert.match((await controllerInterrupts(guest)).kind, /MSI/);
    const path = `/dev/${await driveOf(guest, 'steady')}`;
    await fioVerify(tools, path, { size: '4M', rw: 'randwrite', bs: '4k', iodepth: 32 });
    await tools.sh(`e2fsck -f -n /dev/${await driveOf(guest, SERIAL)}1`);
  });
});
