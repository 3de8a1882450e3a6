/** Disks that the firmware of a PC boots from. */
import { execFile } from 'node:child_process';
import { basename, dirname } from 'node:path';
import { promisify } from 'node:util';
import { findTestbed } from '../../src/guest/testbed.ts';

const run = promisify(execFile);

const SECTOR = 512;
const PARTITION = 2048;
const KIBIBYTES = 128 * 1024;
/** The code of a master boot record; behind it lies the table of partitions. */
const BOOT_CODE = 440;

/**
 * Makes a raw image with one active FAT partition, in which SYSLINUX starts the testbed's Linux as
 * distributed (packed, unlike what QEMU is given) and the guests' initramfs. Replaces what is there.
 */
export async function makeBootDisk(image: string, kernelParameters: string): Promise<void> {
  const script = `set -e
    truncate -s 0 "$1" && truncate -s ${KIBIBYTES}K "$1"
    printf 'label: dos\\n${PARTITION},,c,*\\n' | sfdisk -q "$1"
    dd if=/usr/lib/SYSLINUX/mbr.bin of="$1" conv=notrunc bs=${BOOT_CODE} count=1 status=none
    mkfs.fat -F 32 --offset ${PARTITION} -h ${PARTITION} "$1" ${KIBIBYTES - (PARTITION * SECTOR) / 1024}
    partition="$1@@${PARTITION * SECTOR}"
    mcopy -i "$partition" /boot/vmlinuz-* ::linux
    mcopy -i "$partition" /run/testbed/initramfs ::initramfs
    printf '%s\\n' 'DEFAULT linux' 'LABEL linux' 'KERNEL linux' 'INITRD initramfs' "APPEND $2" |
      mcopy -i "$partition" - ::syslinux.cfg
    syslinux --install --offset ${PARTITION * SECTOR} "$1"`;
  const place = ['--bind', `${dirname(image)}=disk`];
  const inside = `/run/host/disk/${basename(image)}`;
  await run(findTestbed().enter, [
    ...place,
    ...['--', 'sh', '-c', script, 'sh', inside, kernelParameters],
  ]);
}
