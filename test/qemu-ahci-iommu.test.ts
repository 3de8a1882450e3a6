/**
 * A guest of QEMU that is a PC with a virtual IOMMU: its firmware boots Linux from a drive of an emulated AHCI
 * controller, each buffer of the drivers is a map of its own, and what is not mapped is refused and told.
 */
// suite: takes=70 timeout=900
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../src/base/bits.ts';
import { QEMU_KERNEL_PARAMETERS } from '../src/guest/qemu.ts';
import * as ahci from '../src/spec/ahci.ts';
import { makeBootDisk } from './support/boot-disk.ts';
import { fioVerify, inTools, partition } from './support/disks.ts';
import {
  controllerInterrupts,
  controllerOf,
  driveOf,
  drivesGone,
  kernelLog,
  loadDriveModules,
  MAKE_EXT4,
  smartctl,
} from './support/drives.ts';
import { makeIso } from './support/iso-image.ts';
import { startPrinted } from './support/printed-guest.ts';
import { Sluice, until } from './support/sluice.ts';
import { socketDirectory, withoutTestbed } from './support/testbed.ts';

const DATA_BYTES = 128 * MiB;
const SMALL_BYTES = 16 * MiB;
const BAD_SECTOR = 2048;
/** Drives in the order of the ports. */
const DRIVES = ['system', 'data', 'flaky', 'cd'] as const;
const DATA_PORT = ahci.AHCI_PORTS + DRIVES.indexOf('data') * ahci.AHCI_PORT_BYTES;
/** Where the guest's IOMMU has mapped nothing: Linux gives addresses out from the top of 4 GiB down. */
const UNMAPPED = 0x1234_0000;
const PATIENCE = { timeoutMs: 180_000 };
// Relaxed: this test looks at registers beside the driver.
const KERNEL_PARAMETERS = `${QEMU_KERNEL_PARAMETERS} intel_iommu=on iommu=nopt iomem=relaxed`;

test('a PC with a virtual IOMMU and AHCI drives', { skip: withoutTestbed() }, async (t) => {
  const directory = socketDirectory(t);
  const image = (name: string): string => join(directory, `${name}.img`);
  for (const [name, bytes] of [
    ['data', DATA_BYTES],
    ['flaky', SMALL_BYTES],
  ] as const) {
    writeFileSync(image(name), '');
    truncateSync(image(name), bytes);
  }
  const track = randomBytes(4 * MiB + 777);
  makeIso(image('cd'), 'SLUICE', { 'TRACK.BIN': track });
  await makeBootDisk(image('system'), KERNEL_PARAMETERS);
  const rule = { fault: 'error', on: ['read'], from: BAD_SECTOR, to: BAD_SECTOR + 8 } as const;
  const sluice = await Sluice.start(t, {
    disks: {
      system: { file: image('system') },
      data: { file: image('data') },
      flaky: { file: image('flaky'), faults: { rules: [{ ...rule, on: [...rule.on] }] } },
      cd: { file: image('cd'), readonly: true },
    },
    guests: {
      pc: {
        memory: '512M',
        disk: DRIVES.map((disk) => ({
          method: 'emulated' as const,
          model: 'ahci' as const,
          disk,
          cdrom: disk === 'cd',
        })),
      },
    },
  });
  const guest = await startPrinted(t, sluice, 'pc', {
    tools: true,
    firmware: true,
    options: () => [
      // Drives have no boot index of QEMU's: SeaBIOS takes the first that there is.
      ...['-boot', 'strict=off'],
      ...['-machine', 'kernel-irqchip=split'],
      ...['-device', 'intel-iommu,intremap=on,caching-mode=on,device-iotlb=on'],
    ],
  });
  const tools = inTools(guest);
  const counters = async (port: number) =>
    (await sluice.show('devices')).find(({ device }) => device === `pc/ahci0.${port}`)?.counters ??
    assert.fail(`there is no drive ${port}`);
  const scenario = async (name: string, body: () => Promise<void>): Promise<void> => {
    await t.test(name, async () => {
      await kernelLog(guest);
      await body();
      await sluice.healthy();
    });
  };
  await guest.booted(PATIENCE.timeoutMs);

  await scenario('the firmware boots Linux from a drive, and Linux remaps its DMA', async () => {
    assert.match(await guest.sh('cat /proc/cmdline'), /BOOT_IMAGE=linux.*intel_iommu=on/);
    // What SYSLINUX and the firmware read is far more than Linux does to find the partitions.
    assert.ok((await counters(0)).read_bytes > 32 * MiB);
    await guest.sh('[ -d /sys/class/iommu/dmar0 ] && mkdir /tmp/m /tmp/cd');
    await loadDriveModules(guest);
    for (const name of DRIVES.slice(0, 3)) await driveOf(guest, name);
    assert.match((await controllerInterrupts(guest)).kind, /^IR-PCI-MSI/);
    const functions = await sluice.show('functions');
    const maps = functions.find((each) => each.function === 'pc/ahci0')?.maps ?? 0;
    // Without an IOMMU there are a handful.
    assert.ok(maps > 50, `${maps} maps`);
  });

  await scenario('a file system, verified I/O, what fstrim gives back, a CD, SMART', async () => {
    const data = await driveOf(guest, 'data');
    await partition(tools, data);
    await tools.sh(`${MAKE_EXT4} /dev/${data}1 && mount /dev/${data}1 /tmp/m`, PATIENCE);
    const options = { size: '2M', iodepth: 32 };
    await fioVerify(tools, '/tmp/m/verify', { ...options, rw: 'randwrite', bs: '4k' });
    await fioVerify(tools, '/tmp/m/mixed', { ...options, rw: 'randrw', bs: '512-512k' });
    const allocated = (): number => statSync(image('data')).blocks * 512;
    await tools.sh('head -c 32M /dev/zero > /tmp/m/x && sync', PATIENCE);
    const full = allocated();
    await tools.sh('rm /tmp/m/x && sync && fstrim /tmp/m && umount /tmp/m', PATIENCE);
    assert.ok(full - allocated() >= 28 * MiB, `${full} bytes before, ${allocated()} after`);
    await tools.sh(`e2fsck -f -n /dev/${data}1`, PATIENCE);

    await guest.sh('mount -t iso9660 -o ro /dev/sr0 /tmp/cd');
    const sum = (await guest.sh('sha256sum /tmp/cd/track.bin && umount /tmp/cd')).split(' ')[0];
    assert.equal(sum, createHash('sha256').update(track).digest('hex'));

    const report = (await smartctl(tools, `-a /dev/${data}`)) as {
      readonly smart_status: { readonly passed: boolean };
    };
    assert.equal(report.smart_status.passed, true);
  });

  await scenario('a bad block is an error of its own drive', async () => {
    const flaky = await driveOf(guest, 'flaky');
    const { stderr } = await guest.run(
      `dd if=/dev/${flaky} of=/dev/null bs=4k count=1 skip=${BAD_SECTOR / 8} iflag=direct`,
    );
    assert.match(stderr, /Input\/output error/);
    assert.match(await kernelLog(guest), /error: { UNC }/);
    const read = (device: string): Promise<string> =>
      guest.sh(`dd if=/dev/${device} of=/dev/null bs=1M count=1 iflag=direct`);
    for (const name of ['flaky', 'data', 'system']) await read(await driveOf(guest, name));
  });

  await scenario(
    'the controller is reset, its driver loaded anew, the guest booted again',
    async () => {
      const place = await controllerOf(guest);
      const pci = '/sys/bus/pci';
      await guest.sh(`echo ${place} > ${pci}/drivers/ahci/unbind`, PATIENCE);
      await drivesGone(guest);
      await guest.sh(
        `echo 1 > ${pci}/devices/${place}/reset && echo ${place} > ${pci}/drivers/ahci/bind`,
        PATIENCE,
      );
      await tools.sh(`e2fsck -f -n /dev/${await driveOf(guest, 'data')}1`, PATIENCE);
      await guest.sh('rmmod ahci', PATIENCE);
      await drivesGone(guest);
      await guest.sh('modprobe ahci', PATIENCE);
      const path = `/dev/${await driveOf(guest, 'flaky')}`;
      const { writes } = await counters(2);
      const io = guest.run(`dd if=/dev/zero of=${path} bs=64k oflag=direct`);
      const lost = assert.rejects(io, /restarted/);
      await until('I/O', async () => (await counters(2)).writes > writes);
      const { read_bytes } = await counters(0);
      await guest.reboot();
      await lost;
      assert.ok((await counters(0)).read_bytes - read_bytes > 32 * MiB);
      await loadDriveModules(guest);
      await tools.sh(`e2fsck -f -n /dev/${await driveOf(guest, 'data')}1`, PATIENCE);
    },
  );

  await t.test('DMA to a page that is not mapped is refused and told', async () => {
    const place = await controllerOf(guest);
    const data = await driveOf(guest, 'data');
    await kernelLog(guest);
    // The command list of the drive's port: what it has a command in is not the guest's to give.
    const read = guest.run(
      `bar=$(sed -n ${ahci.AHCI_BAR + 1}p /sys/bus/pci/devices/${place}/resource | cut -d ' ' -f 1)
       register=$((bar + ${DATA_PORT + ahci.PX_CLB}))
       list=$(busybox devmem $register 32)
       busybox devmem $register 32 ${UNMAPPED}
       dd if=/dev/${data} of=/dev/null bs=4k count=1 iflag=direct &
       until dmesg | grep -q 'host bus error'; do sleep 0.1; done
       busybox devmem $register 32 $list
       wait $!`,
      PATIENCE,
    );
    const other = await driveOf(guest, 'system');
    await guest.sh(`dd if=/dev/${other} of=/dev/null bs=1M count=4 iflag=direct`, PATIENCE);
    // With its list back the drive does what it was asked for after all.
    const { code, stderr } = await read;
    assert.equal(code, 0, stderr);
    assert.match(await kernelLog(guest), /host bus error/);
    const [first, ...more] = await sluice.show('faults');
    assert.equal(first?.port, 'pc/ahci0');
    assert.match(first?.reason ?? '', /not mapped/);
    for (const { dma } of [first, ...more]) {
      assert.equal(dma?.direction, 'read');
      assert.equal(dma?.length, ahci.AHCI_HEADER_BYTES);
      const slot = (dma?.iova ?? 0) - UNMAPPED;
      assert.ok(slot >= 0 && slot < ahci.AHCI_MAX_SLOTS * ahci.AHCI_HEADER_BYTES, `${dma?.iova}`);
    }
    await tools.sh(`e2fsck -f -n /dev/${data}1`, PATIENCE);
  });
});
