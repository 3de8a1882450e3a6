/**
 * Linux guests of QEMU with disks of `sluice up`: what virtio-blk and vhost-user promise, seen by the
 * drivers of a stock kernel and by a PC's firmware.
 *
 * Guest `a` has a disk of each kind. `b` is started with the very arguments that `sluice guest qemu-args`
 * prints, and is the one that is paused and reboots. `c` is a PC: its firmware boots Linux from a disk.
 */
// suite: takes=100 timeout=900
import assert from 'node:assert/strict';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../src/base/bits.ts';
import { run } from '../src/block/open/image-tools.ts';
import type { ApiReply } from '../src/control/api.ts';
import { cacheModeName } from '../src/daemon/run-directory.ts';
import { QEMU_KERNEL_PARAMETERS, type QemuGuest, startQemu } from '../src/guest/qemu.ts';
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from '../src/spec/virtio.ts';
import {
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_WRITE_ZEROES,
} from '../src/spec/virtio-blk.ts';
import { makeBootDisk } from './support/boot-disk.ts';
import { fioVerify, inTools, partition, sectorsOf } from './support/disks.ts';
import type { Machine } from './support/guests.ts';
import { qemuTools, withQemuTools } from './support/qemu-tools.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { socketDirectory, withoutTestbed } from './support/testbed.ts';

const DATA_BYTES = 192 * MiB;
const GROWN_BYTES = 256 * MiB;
const SMALL_BYTES = 64 * MiB;
const FIXED_TEXT = 'a disk that cannot be written';
const SERIAL = 'SLUICE-0001';
const RECONNECT_MS = 100;

/** Disks that `a` starts with: vda, vdb … */
const DISKS = [
  { disk: 'data', queues: 2, packed: false },
  { disk: 'packed', queues: 1, packed: true },
  { disk: 'image', queues: 1, packed: false },
  { disk: 'memory', queues: 2, packed: true },
  { disk: 'fixed', queues: 1, packed: false },
] as const;
/** The next disk of `a`, which is plugged into this root port while it runs. */
const PLUGGED = { disk: 'plugged', queues: 2, packed: true } as const;
const ROOT_PORT = 'port0';

type Counters = ApiReply<'devices'>[number]['counters'];

/** A guest attached as the manual says: `qemu-system-x86_64 … $(sluice guest qemu-args b)`. */
async function startAsPrinted(name: 'b', sluice: Sluice): Promise<QemuGuest> {
  const printed = (await sluice.print('guest', 'qemu-args', name)).trim().split(' ');
  assert.ok(printed.some((word) => word.includes(sluice.socket(`${name}/disk0`))));
  return startQemu({
    name,
    cpus: 2,
    tools: true,
    // What is printed brings memory of its own, which takes the place of the launcher's.
    memory: 16,
    options: (inside) =>
      printed.map((word) =>
        word.replaceAll(sluice.run, dirname(inside(sluice.socket(`${name}/disk0`)))),
      ),
  });
}

/** Whether the device of a disk negotiated a feature bit (virtio 1.3, section 2.2). */
async function negotiated(guest: Machine, device: string, bit: number): Promise<boolean> {
  return (await guest.sh(`cat /sys/block/${device}/device/features`))[bit] === '1';
}

/** Writes a block of a disk and has it made durable. */
async function writeDurably(guest: Machine, device: string): Promise<void> {
  await guest.sh(
    `dd if=/dev/zero of=/dev/${device} bs=4k count=1 oflag=direct conv=notrunc,fsync 2>/dev/null`,
  );
}

test('QEMU guests with disks', { skip: withoutTestbed() }, async (t) => {
  const directory = socketDirectory(t);
  const image = (name: string): string => join(directory, `${name}.img`);
  const makeRaw = (name: string, bytes: number, text = ''): { file: string } => {
    writeFileSync(image(name), text);
    truncateSync(image(name), bytes);
    return { file: image(name) };
  };
  await run(qemuTools().img, ['create', '-q', '-f', 'qcow2', image('image'), `${SMALL_BYTES}`]);
  await makeBootDisk(image('system'), QEMU_KERNEL_PARAMETERS);
  const method = 'paravirtual' as const;
  const config: SluiceConfig = {
    disks: {
      data: { ...makeRaw('data', DATA_BYTES), serial: SERIAL },
      packed: makeRaw('packed', SMALL_BYTES),
      image: { image: image('image'), format: 'qcow2' },
      memory: { memory: '64M' },
      fixed: { ...makeRaw('fixed', SMALL_BYTES, FIXED_TEXT), readonly: true },
      plugged: makeRaw('plugged', SMALL_BYTES),
      printed: makeRaw('printed', SMALL_BYTES),
      connect: makeRaw('connect', SMALL_BYTES),
      system: { file: image('system') },
    },
    guests: {
      a: { disk: [...DISKS, PLUGGED].map((disk) => ({ method, ...disk })) },
      b: {
        memory: '384M',
        disk: [
          { method, disk: 'printed', packed: true, queues: 2, seg_max: 254 },
          { method, disk: 'connect', server: 'connect' },
        ],
      },
      c: { disk: [{ method, disk: 'system' }] },
    },
  };
  const sluice = await Sluice.start(t, config, { wrapper: withQemuTools(t) });
  let inside = (path: string): string => path;
  const guests = {
    a: startQemu({
      name: 'a',
      cpus: 2,
      tools: true,
      disk: DISKS.map(({ queues, packed }, index) => ({
        socket: sluice.socket(`a/disk${index}`),
        reconnectMs: RECONNECT_MS,
        ...{ queues, packed },
      })),
      options: (hostPath) => {
        inside = hostPath;
        return ['-device', `pcie-root-port,id=${ROOT_PORT},slot=1`];
      },
    }),
    b: await startAsPrinted('b', sluice),
    c: startQemu({
      name: 'c',
      firmware: true,
      disk: [{ socket: sluice.socket('c/disk0'), bootIndex: 0 }],
    }),
  };
  t.after(async () => {
    await Promise.all(Object.values(guests).map((guest) => guest.kill()));
  });
  const { a, b, c } = guests;
  await Promise.all([a.booted(), b.booted()]);
  // Their driver may still be looking at them.
  await a.sh('until [ -s /sys/block/vde/serial ] && [ -d /sys/block/vde/mq ]; do sleep 0.1; done');
  const aTools = inTools(a);
  const bTools = inTools(b);
  await Promise.all([a.sh('modprobe ext4 && mkdir /tmp/m'), b.sh('mkdir /tmp/m')]);

  const counters = async (name: string): Promise<Counters> => {
    const device = (await sluice.show('devices')).find((other) => other.device === name);
    return device?.counters ?? assert.fail(`there is no device ${name}`);
  };
  const scenario = async (name: string, body: () => Promise<void>): Promise<void> => {
    await t.test(name, async () => {
      await body();
      await sluice.healthy();
    });
  };

  await scenario('sizes, serial numbers and features are those of the configuration', async () => {
    assert.equal(await sectorsOf(a, 'vda'), DATA_BYTES / 512);
    for (const [index, { disk, queues, packed }] of DISKS.entries()) {
      const device = `vd${'abcde'[index]}`;
      const script = `cd /sys/block/${device} && echo $(cat serial) && ls mq | wc -l && cat device/features`;
      const [serial, count, features = ''] = (await a.sh(script)).split('\n');
      assert.equal(serial, disk === 'data' ? SERIAL : disk);
      assert.equal(count, String(queues), disk);
      for (const [bit, wanted] of [
        [VIRTIO_F_RING_PACKED, packed],
        [VIRTIO_F_INDIRECT_DESC, true],
        [VIRTIO_F_EVENT_IDX, true],
        [VIRTIO_BLK_F_FLUSH, true],
        [VIRTIO_BLK_F_MQ, queues > 1],
        [VIRTIO_BLK_F_CONFIG_WCE, true],
        [VIRTIO_BLK_F_RO, disk === 'fixed'],
        [VIRTIO_BLK_F_DISCARD, disk !== 'fixed'],
        [VIRTIO_BLK_F_WRITE_ZEROES, disk !== 'fixed'],
      ] as const) {
        assert.equal(features[bit], wanted ? '1' : '0', `${disk}: feature ${bit}`);
      }
    }
  });

  await scenario('a file system in a partition, verified I/O over two queues', async () => {
    await partition(aTools, 'vda');
    await aTools.sh('mkfs.ext4 -q /dev/vda1 && mount /dev/vda1 /tmp/m');
    const positions = async (): Promise<number[]> =>
      (await sluice.show('rings')).filter(({ port }) => port === 'a/disk0').map(({ used }) => used);
    const before = await positions();
    await fioVerify(aTools, '/tmp/m/verify', { size: '8M', rw: 'randwrite', bs: '4k', jobs: 2 });
    const moved = (await positions()).map((used, ring) => used !== before[ring]);
    assert.deepEqual(moved, [true, true]);
    await fioVerify(aTools, '/tmp/m/mixed', { size: '8M', rw: 'randrw', bs: '512-128k' });
    await aTools.sh('umount /tmp/m && e2fsck -f -n /dev/vda1');
  });

  await scenario('what fstrim gives up is given back to the host', async () => {
    const allocated = (): number => statSync(image('data')).blocks * 512;
    await aTools.sh('mount /dev/vda1 /tmp/m && head -c 64M /dev/zero > /tmp/m/x && sync');
    const before = allocated();
    await aTools.sh('rm /tmp/m/x && sync && fstrim /tmp/m && umount /tmp/m');
    const after = allocated();
    assert.ok(before - after >= 60 * MiB, `${before} bytes before, ${after} after`);
    await aTools.sh('e2fsck -f -n /dev/vda1');
  });

  await scenario('the guest sees a resize, and grows its file system', async () => {
    await aTools.sh(
      `mkfs.ext4 -q -F /dev/vda ${DATA_BYTES / MiB}M && mount /dev/vda /tmp/m
       head -c 8M /dev/urandom > /tmp/m/kept && sha256sum /tmp/m/kept > /tmp/sum`,
    );
    await sluice.print('disk', 'resize', 'data', `${GROWN_BYTES / MiB}M`);
    await until('the guest to see the new size', async () => {
      return (await sectorsOf(a, 'vda')) === GROWN_BYTES / 512;
    });
    await aTools.sh('resize2fs /dev/vda && sha256sum -c /tmp/sum');
    const bytes = Number(await aTools.sh('df -B1 --output=size /tmp/m | tail -n 1'));
    assert.ok(bytes > DATA_BYTES, `${bytes} bytes after the resize`);
    await aTools.sh('umount /tmp/m && e2fsck -f -n /dev/vda');
  });

  await scenario('packed rings, a qcow2 image and memory keep what they are given', async () => {
    await Promise.all([
      fioVerify(aTools, '/dev/vdb', { size: '8M', rw: 'randrw', bs: '512-64k' }),
      fioVerify(aTools, '/dev/vdd', { size: '4M', rw: 'randwrite', bs: '4k', jobs: 2 }),
      aTools.sh('mkfs.ext4 -q /dev/vdc && mount /dev/vdc /tmp/m'),
    ]);
    await fioVerify(aTools, '/tmp/m/verify', { size: '8M', rw: 'randwrite', bs: '4k' });
    await aTools.sh('umount /tmp/m && e2fsck -f -n /dev/vdc');
  });

  await scenario('a disk that cannot be written is refused cleanly, and read', async () => {
    assert.equal(await a.sh('cat /sys/block/vde/ro'), '1');
    const { code } = await a.run('dd if=/dev/zero of=/dev/vde bs=4k count=1 oflag=direct');
    assert.notEqual(code, 0);
    assert.equal(await a.sh(`head -c ${FIXED_TEXT.length} /dev/vde`), FIXED_TEXT);
    assert.equal(readFileSync(image('fixed')).indexOf(FIXED_TEXT), 0);
  });

  await scenario('the guest turns its cache off, and every write is durable', async () => {
    const modeFile = join(sluice.run, cacheModeName('a/disk1'));
    const setMode = (mode: string): Promise<string> =>
      a.sh(`echo '${mode}' > /sys/block/vdb/cache_type && cat /sys/block/vdb/cache_type`);
    const before = await counters('a/disk1');
    await writeDurably(a, 'vdb');
    const cached = await counters('a/disk1');
    assert.ok(cached.flushes > before.flushes);
    assert.equal(await setMode('write through'), 'write through');
    assert.match(readFileSync(modeFile, 'utf8'), / writethrough$/m);
    // Without a flush of the guest's own: none would tell it more than the writes did.
    const off = await counters('a/disk1');
    await writeDurably(a, 'vdb');
    const durable = await counters('a/disk1');
    assert.ok(durable.writes > off.writes);
    assert.equal(durable.flushes, off.flushes);
    assert.equal(await setMode('write back'), 'write back');
    assert.match(readFileSync(modeFile, 'utf8'), / writeback$/m);
  });

  await scenario('a driver is unloaded and loaded again', async () => {
    await a.sh('modprobe -r virtio_blk && ! [ -e /dev/vda ]');
    assert.deepEqual(
      (await sluice.show('devices'))
        .filter(({ device }) => /^a\/disk[0-4]$/.test(device))
        .map(({ running }) => running),
      DISKS.map(() => false),
    );
    await a.sh('modprobe virtio_blk');
    await until('the disks to be back', async () => (await a.run('[ -b /dev/vde ]')).code === 0);
    await aTools.sh('e2fsck -f -n /dev/vda && e2fsck -f -n /dev/vdc');
  });

  await scenario('a disk is plugged in, taken out under I/O, and plugged in again', async () => {
    const socket = inside(sluice.socket(`a/disk${DISKS.length}`));
    const plug = async (): Promise<void> => {
      const backend = {
        type: 'socket',
        data: { addr: { type: 'unix', data: { path: socket } }, server: false },
      };
      await a.qmp('chardev-add', { id: 'plug', backend });
      await a.qmp('device_add', {
        driver: 'vhost-user-blk-pci',
        id: PLUGGED.disk,
        chardev: 'plug',
        bus: ROOT_PORT,
        'num-queues': PLUGGED.queues,
        packed: PLUGGED.packed,
      });
      await until('the guest to have the disk', async () => {
        const { stdout } = await a.run('cat /sys/block/vdf/serial');
        return stdout.trim() === PLUGGED.disk;
      });
    };
    const unplug = async (): Promise<void> => {
      const deleted = (): number => a.events.filter((name) => name === 'DEVICE_DELETED').length;
      const before = deleted();
      await a.qmp('device_del', { id: PLUGGED.disk });
      await until('the device to be gone', () => deleted() > before);
      await a.qmp('chardev-remove', { id: 'plug' });
      assert.notEqual((await a.run('[ -e /sys/block/vdf ]')).code, 0);
    };
    await plug();
    await fioVerify(aTools, '/dev/vdf', { size: '4M', rw: 'randwrite', bs: '4k', jobs: 2 });
    const written = (await counters('a/disk5')).write_bytes;
    const io = a.run('dd if=/dev/zero of=/dev/vdf bs=16k oflag=direct');
    await until('I/O', async () => (await counters('a/disk5')).write_bytes > written);
    await unplug();
    assert.notEqual((await io).code, 0);
    await plug();
    await fioVerify(aTools, '/dev/vdf', { size: '4M', rw: 'randwrite', bs: '4k' });
    await unplug();
  });

  await scenario('the arguments that are printed attach disks', async () => {
    assert.equal(await negotiated(b, 'vda', VIRTIO_F_RING_PACKED), true);
    assert.equal(await b.sh('ls /sys/block/vda/mq | wc -l'), '2');
    assert.equal(await b.sh('cat /sys/block/vda/queue/max_segments'), '254');
    await fioVerify(bTools, '/dev/vda', { size: '8M', rw: 'randwrite', bs: '4k-1m', jobs: 2 });
    await fioVerify(bTools, '/dev/vdb', { size: '4M', rw: 'randwrite', bs: '4k' });
  });

  await scenario('a guest is paused and continued in the middle of I/O', async () => {
    const options = { size: '8M', rw: 'randwrite', bs: '4k' };
    const io = Promise.all([
      fioVerify(bTools, '/dev/vda', { ...options, jobs: 2 }),
      fioVerify(bTools, '/dev/vdb', options),
    ]);
    for (let pause = 0; pause < 3; pause++) {
      const before = await counters('b/disk0');
      await until('I/O', async () => (await counters('b/disk0')).writes > before.writes);
      await b.qmp('stop');
      await until('the rings to stop', async () => {
        const rings = (await sluice.show('rings')).filter(({ port }) => port.startsWith('b/'));
        return rings.every(({ started }) => !started);
      });
      await b.qmp('cont');
    }
    await io;
  });

  await scenario('a guest reboots in the middle of I/O', async () => {
    const io = b.run(
      'for disk in vda vdb; do dd if=/dev/zero of=/dev/$disk bs=64k oflag=direct & done; wait',
    );
    const lost = assert.rejects(io, /restarted/);
    const before = await counters('b/disk1');
    await until('I/O', async () => (await counters('b/disk1')).writes > before.writes);
    await b.reboot();
    await lost;
    await fioVerify(bTools, '/dev/vda', { size: '4M', rw: 'randwrite', bs: '4k', jobs: 2 });
    await fioVerify(bTools, '/dev/vdb', { size: '4M', rw: 'randwrite', bs: '4k' });
  });

  await scenario('the firmware boots Linux from a disk', async () => {
    await c.booted();
    assert.equal(await c.sh('cat /sys/block/vda/serial'), 'system');
    assert.match(await c.sh('cat /proc/cmdline'), /BOOT_IMAGE=linux.*console=ttyS0/);
    // What SYSLINUX and the firmware read is far more than Linux does to find the partitions.
    assert.ok((await counters('c/disk0')).read_bytes > 32 * MiB);
    await c.sh('dd if=/dev/vda of=/dev/null bs=1M');
  });

  await scenario('Sluice ends in order and starts again; the guests go on', async () => {
    await a.sh('echo "write through" > /sys/block/vdb/cache_type');
    await sluice.stop();
    await run(qemuTools().img, ['check', '-q', image('image')]);
    await sluice.up();
    await writeDurably(a, 'vdb');
    // The guest relies on what it chose, and QEMU does not tell it again.
    const { writes, flushes } = await counters('a/disk1');
    assert.ok(writes > 0);
    assert.equal(flushes, 0);
    await Promise.all([
      aTools.sh('e2fsck -f -n /dev/vdc'),
      fioVerify(aTools, '/dev/vdb', { size: '4M', rw: 'randwrite', bs: '4k' }),
      fioVerify(bTools, '/dev/vdb', { size: '4M', rw: 'randwrite', bs: '4k' }),
    ]);
  });
});
