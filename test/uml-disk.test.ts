/**
 * A Linux guest of User-Mode Linux with disks of `sluice up`: partitions, a file system, verified
 * I/O, discard, resize, a disk that cannot be written, and one that is full.
 */
// suite: takes=25 timeout=900
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../src/base/bits.ts';
import { startUml } from '../src/guest/uml.ts';
import { fioVerify, partition, sectorsOf } from './support/disks.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

/** The guest's disks, in the order in which it has them: vda, vdb … */
const NAMES = ['data', 'fixed', 'limited', 'faulty', 'memory'] as const;
const DATA_BYTES = 256 * MiB;
const GROWN_BYTES = 320 * MiB;
const FIXED_TEXT = 'a disk that cannot be written';

test('a Linux guest of UML with disks', { skip: withoutTestbed() }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-disks-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const image = (name: string): string => join(directory, `${name}.img`);
  for (const name of ['data', 'fixed', 'limited', 'faulty']) {
    writeFileSync(image(name), name === 'fixed' ? FIXED_TEXT : '');
    truncateSync(image(name), name === 'data' ? DATA_BYTES : 64 * MiB);
  }
  const config: SluiceConfig = {
    disks: {
      data: { file: image('data'), serial: 'SLUICE-0001' },
      fixed: { file: image('fixed'), readonly: true },
      limited: { file: image('limited'), iops: 500, burst: 1 },
      faulty: {
        file: image('faulty'),
        faults: { rules: [{ fault: 'error', on: ['write'], from: 2048, to: 4096, errno: 'EIO' }] },
      },
      memory: { memory: '64M' },
    },
    guests: {
      uml: { disk: NAMES.map((disk) => ({ method: 'paravirtual' as const, disk })) },
    },
  };
  const sluice = await Sluice.start(t, config);
  const guest = startUml({
    name: 'uml-disk',
    memory: 256,
    disk: NAMES.map((_, index) => ({ socket: sluice.socket(`uml/disk${index}`) })),
  });
  t.after(async () => {
    await guest.kill();
  });
  await guest.booted();

  await t.test('sizes, serial numbers and limits are those of the configuration', async () => {
    assert.equal(await guest.sh('cat /sys/block/vda/serial'), 'SLUICE-0001');
    assert.equal(await guest.sh('cat /sys/block/vde/serial'), 'memory');
    assert.equal(await sectorsOf(guest, 'vda'), DATA_BYTES / 512);
    assert.equal(await guest.sh('cat /sys/block/vdb/ro'), '1');
    assert.equal(await guest.sh('cat /sys/block/vda/cache_type'), 'write back');
    assert.notEqual(await guest.sh('cat /sys/block/vda/queue/discard_max_bytes'), '0');
    const shown = await sluice.show('disks');
    assert.deepEqual(shown.map(({ disk }) => disk).toSorted(), [...NAMES].toSorted());
  });

  await t.test(
    'a file system in a partition, verified writes and reads, a clean check',
    async () => {
      await partition(guest, 'vda');
      await guest.sh(
        'mkfs.ext4 -q /dev/vda1 && mkdir -p /tmp/m && mount -o discard /dev/vda1 /tmp/m',
      );
      await fioVerify(guest, '/tmp/m/verify', { size: '48M', rw: 'randwrite', bs: '4k' });
      await fioVerify(guest, '/tmp/m/mixed', { size: '48M', rw: 'randrw', bs: '512-64k' });
      await guest.sh('umount /tmp/m && e2fsck -f -n /dev/vda1');
    },
  );

  await t.test('what fstrim gives up is given back to the host', async () => {
    const blocks = (): number => statSync(image('data')).blocks * 512;
    await guest.sh('mount /dev/vda1 /tmp/m && rm /tmp/m/* -rf && sync');
    const before = blocks();
    await guest.sh('fstrim /tmp/m && umount /tmp/m');
    const after = blocks();
    assert.ok(before - after > 64 * MiB, `${before} bytes before, ${after} after`);
    await guest.sh('e2fsck -f -n /dev/vda1');
  });

  await t.test('the guest sees a resize, and grows its file system', async () => {
    await guest.sh('mkfs.ext4 -q -F /dev/vda 200M && mount /dev/vda /tmp/m');
    await guest.sh('head -c 20M /dev/urandom > /tmp/m/kept && sha256sum /tmp/m/kept > /tmp/sum');
    await sluice.print('disk', 'resize', 'data', `${GROWN_BYTES / MiB}M`);
    assert.equal(statSync(image('data')).size, GROWN_BYTES);
    await until(
      'the guest to see the new size',
      async () => (await sectorsOf(guest, 'vda')) === GROWN_BYTES / 512,
    );
    await guest.sh('resize2fs /dev/vda && sha256sum -c /tmp/sum');
    const bytes = Number(await guest.sh('df -B1 --output=size /tmp/m | tail -n 1'));
    assert.ok(bytes > 280 * MiB, `${bytes} bytes after the resize`);
    await guest.sh('umount /tmp/m && e2fsck -f -n /dev/vda');
  });

  await t.test('a disk that cannot be written is refused cleanly, and read', async () => {
    const { code } = await guest.run('dd if=/dev/zero of=/dev/vdb bs=4k count=1 oflag=direct');
    assert.notEqual(code, 0);
    const text = await guest.sh(`head -c ${FIXED_TEXT.length} /dev/vdb`);
    assert.equal(text, FIXED_TEXT);
  });

  await t.test('a limit holds', async () => {
    // What may pass at once first: a second's worth.
    const script = `fio --name=l --filename=/dev/vdc --direct=1 --rw=randread --bs=4k --iodepth=8
      --ioengine=libaio --runtime=6 --time_based --output-format=json`;
    const { jobs } = JSON.parse(await guest.sh(script.replaceAll('\n', ' '))) as {
      jobs: readonly { read: { total_ios: number; runtime: number } }[];
    };
    const { total_ios: total, runtime } = jobs[0]?.read ?? assert.fail('fio has no job');
    const most = 500 * (runtime / 1000) + 500 + 64;
    assert.ok(total > 500 && total <= most, `${total} requests in ${runtime} ms, most ${most}`);
  });

  await t.test("a write error is the guest's error, and nothing else stops", async () => {
    const write = (seek: number): Promise<{ readonly code: number }> =>
      guest.run(`dd if=/dev/zero of=/dev/vdd bs=4k count=1 seek=${seek} oflag=direct`);
    assert.notEqual((await write(256)).code, 0);
    assert.equal((await write(0)).code, 0);
    assert.match(sluice.log, /faulty.*sector/);
    await guest.sh('dd if=/dev/vda of=/dev/null bs=64k count=64 iflag=direct');
  });

  await t.test('a disk in memory keeps what it is given', async () => {
    await fioVerify(guest, '/dev/vde', { size: '64M', rw: 'randwrite', bs: '4k' });
  });

  await t.test('the driver comes and goes', async () => {
    await guest.sh('modprobe -r virtio_blk && ! [ -e /dev/vda ] && modprobe virtio_blk');
    await until(
      'the disks to be back',
      async () => (await guest.run('[ -b /dev/vde ]')).code === 0,
    );
    await guest.sh('e2fsck -f -n /dev/vda');
  });
  await sluice.healthy();
});
