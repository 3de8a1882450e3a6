/** Disks that the firmware of a PC boots from. */
import { execFile } from 'node:child_process';
import { basename, dirname } from 'node:path';
import { promisify } from 'node:util';
import { findTestbed } from '../../src/guest/testbed.ts';

const run = promisify(execFile);

const KIBIBYTES = 128 * 1024;

/**
 * Makes a raw image with a FAT file system, in which SYSLINUX starts the testbed's Linux as distributed
 * (packed, unlike what QEMU is given) and the guests' initramfs. Replaces what is there.
 *
 * There is no partition table: the code in front of one loads the partition's first sector over itself, and
 * QEMU's emulated CPU (TCG) goes on with what it has translated, because it learns of no store to guest
 * memory that another process does.
 */
export async function makeBootDisk(image: string, kernelParameters: string): Promise<void> {
  const script = `set -e
    truncate -s 0 "$1" && truncate -s ${KIBIBYTES}K "$1"
    mkfs.fat -F 32 "$1"
    mcopy -i "$1" /boot/vmlinuz-* ::linux
    mcopy -i "$1" /run/testbed/initramfs ::initramfs
    printf '%s\n' 'DEFAULT linux' 'LABEL linux' 'KERNEL linux' 'INITRD initramfs' "APPEND $2" |
      mcopy -i "$1" - ::syslinux.cfg
    syslinux --install "$1"`;
  const place = ['--bind', `${dirname(image)}=disk`];
  const inside = `/run/host/disk/${basename(image)}`;
  const words = ['--', 'sh', '-c', script, 'sh', inside, kernelParameters];
  await run(findTestbed().enter, [...place, ...words]);
}
