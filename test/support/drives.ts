/** What tests ask guests about SATA drives. */
import assert from 'node:assert/strict';
import type { GuestProcess } from '../../src/guest/guest-process.ts';
import type { Machine } from './guests.ts';
import { until } from './sluice.ts';

/** Loads the drivers of what is behind a controller, which the guest's init does not look for. */
export async function loadDriveModules(guest: Machine): Promise<void> {
  await guest.sh('modprobe -a sd_mod sr_mod sg isofs ext4');
}

/**
 * Makes an ext4 whose inode tables are written at once. The kernel would write them later, while the
 * file system is mounted: as zeros, which fill the image while a test looks how full it is. (To a virtio
 * disk it writes them as holes.)
 */
export const MAKE_EXT4 = 'mkfs.ext4 -q -E lazy_itable_init=0';

/** Name of the block device with this serial number, such as `sda`; undefined if there is none. */
export async function findDrive(guest: Machine, serial: string): Promise<string | undefined> {
  // The page begins with four bytes that are no text (SPC-3 §7.6.10).
  const { stdout } = await guest.run(`cd /sys/block
    for device in sd*; do
      page=$device/device/vpd_pg80
      [ ! -e $page ] || echo $device $(tail -c +5 $page)
    done`);
  const found = stdout.split('\n').find((line) => line.split(' ')[1] === serial);
  return found?.split(' ')[0];
}

/** Waits for the drive with this serial number. Linux names drives in the order in which it finds them. */
export async function driveOf(guest: Machine, serial: string): Promise<string> {
  let found: string | undefined;
  try {
    await until(`drive ${serial}`, async () => {
      found = await findDrive(guest, serial);
      // The node is made when the disk has been looked at.
      return found !== undefined && (await guest.run(`[ -b /dev/${found} ]`)).code === 0;
    });
  } catch (error) {
    const log = await guest.sh('dmesg | grep -E "ahci|ata[0-9]|scsi|sd " | tail -n 60');
    throw new Error(`the guest's kernel says:\n${log}`, { cause: error });
  }
  return found ?? assert.fail();
}

/** Waits until the guest has no drives any more: its driver was taken from it. */
export async function drivesGone(guest: Machine): Promise<void> {
  await guest.sh('while ls /sys/block/sd* >/dev/null 2>&1; do sleep 0.1; done');
}

/** Where the guest's AHCI controller is, such as `0000:00:04.0`. */
export async function controllerOf(guest: Machine): Promise<string> {
  const path = await guest.sh('grep -l 0x010601 /sys/bus/pci/devices/*/class');
  const found = path.trim().split('/').at(-2);
  return found ?? assert.fail(`no AHCI controller: ${path}`);
}

/** libata's port of a drive, such as `ata3`. */
export async function ataPortOf(guest: Machine, device: string): Promise<string> {
  return (
    await guest.sh(`readlink -f /sys/block/${device} | grep -o 'ata[0-9]*' | head -n 1`)
  ).trim();
}

/** Kind of the controller's interrupt as the guest's kernel names it, and how many there have been. */
export async function controllerInterrupts(
  guest: Machine,
): Promise<{ kind: string; count: number }> {
  const line = await guest.sh('grep ahci /proc/interrupts');
  const [, counts = '', kind = ''] = /^ *\d+:((?: +\d+)+) +(\S+)/.exec(line) ?? [];
  const count = counts
    .trim()
    .split(/ +/)
    .reduce((sum, one) => sum + Number(one), 0);
  return { kind, count };
}

/** What smartctl tells with these words, from the guest's tools. */
export async function smartctl(tools: Machine, words: string): Promise<unknown> {
  // Bits of the exit code tell of the drive's state; the report says what they mean.
  const { stdout, stderr } = await tools.run(`smartctl --json ${words}`);
  try {
    return JSON.parse(stdout);
  } catch (cause) {
    throw new Error(`smartctl ${words}: ${stdout}${stderr}`, { cause });
  }
}

/** What the guest's kernel has said since the last call. */
export async function kernelLog(guest: Pick<GuestProcess, 'sh'>): Promise<string> {
  return await guest.sh('dmesg -c');
}
