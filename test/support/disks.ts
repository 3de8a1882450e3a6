/** What tests have guests do to their disks. */
import type { RunOptions } from '../../src/guest/guest-process.ts';
import type { Machine } from './guests.ts';

/**
 * A guest of QEMU that was started with `tools`, as one whose commands are those of the testbed's tree.
 * /tmp is the same, but what one of them mounts, the other does not see.
 */
export function inTools(guest: Machine): Machine {
  const wrapped = (script: string): string =>
    `exec chroot /tools /bin/sh -c '${script.replaceAll("'", `'\\''`)}'`;
  return {
    run: (script: string, options?: RunOptions) => guest.run(wrapped(script), options),
    sh: (script: string, options?: RunOptions) => guest.sh(wrapped(script), options),
  };
}

/** Sectors of 512 bytes of a block device, as the guest's kernel has them. */
export async function sectorsOf(guest: Machine, device: string): Promise<number> {
  return Number(await guest.sh(`cat /sys/block/${device}/size`));
}

/** Makes one partition of all of a disk, `${device}1`. */
export async function partition(guest: Machine, device: string): Promise<void> {
  await guest.sh(
    `printf 'label: dos\\n,,L\\n' | sfdisk -q /dev/${device} && [ -b /dev/${device}1 ]`,
  );
}

export interface VerifyOptions {
  readonly size: string;
  readonly rw: string;
  /** A size or a range of sizes, as fio has it. */
  readonly bs: string;
  readonly iodepth?: number;
  /** So many at once, each on a CPU and in a part of its own, `size` bytes long. Default 1. */
  readonly jobs?: number;
}

/** Has fio write a file or device by blocks with checksums, and read and check them all. */
export async function fioVerify(
  guest: Machine,
  path: string,
  { size, rw, bs, iodepth = 16, jobs = 1 }: VerifyOptions,
): Promise<void> {
  const range = bs.includes('-') ? `--bsrange=${bs}` : `--bs=${bs}`;
  const parts =
    jobs === 1
      ? ''
      : ` --numjobs=${jobs} --offset_increment=${size} --cpus_allowed=0-${jobs - 1} --cpus_allowed_policy=split`;
  await guest.sh(
    [
      `fio --name=verify --filename=${path} --size=${size} --rw=${rw} ${range}${parts}`,
      `--ioengine=libaio --iodepth=${iodepth} --direct=1`,
      '--verify=crc32c --verify_fatal=1 --do_verify=1 --end_fsync=1',
      '--fallocate=none --output=/dev/stderr',
    ].join(' '),
    { timeoutMs: 180_000 },
  );
}
