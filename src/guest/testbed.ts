/**
 * Where the testbed is (see `scripts/testbed`), and why it cannot be used.
 */
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { SluiceError } from '../base/errors.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** A testbed that can be used. */
export interface Testbed {
  readonly directory: string;
  /** The program that runs a command inside the tree, with mounts and processes of its own. */
  readonly enter: string;
}

/** What QEMU runs the guest's CPU by. */
export type Accelerator = 'kvm' | 'tcg';

/** Where the testbed is or would be: `SLUICE_TESTBED`, else the user's cache directory. */
export function testbedDirectory(environment: Environment = process.env): string {
  const given = environment['SLUICE_TESTBED'];
  if (given !== undefined && given !== '') return given;
  const cache = environment['XDG_CACHE_HOME'];
  const home = environment['HOME'] ?? homedir();
  return join(
    cache !== undefined && cache !== '' ? cache : join(home, '.cache'),
    'sluice',
    'testbed',
  );
}

/** Why guests cannot be started from the testbed, undefined if they can. */
export function missingTestbed(
  environment: Environment = process.env,
  user: number | undefined = process.getuid?.(),
): string | undefined {
  if (process.platform !== 'linux') return `guests need Linux, this is ${process.platform}`;
  if (user !== 0) return 'starting guests from the testbed needs root (chroot, mounts)';
  const directory = testbedDirectory(environment);
  for (const part of ['tree/etc/sluice-testbed', 'guest/stamp', 'guest/enter']) {
    if (!existsSync(join(directory, part))) {
      return `there is no whole testbed at ${directory} (build it with scripts/testbed build)`;
    }
  }
  return undefined;
}

/**
 * The testbed.
 * @throws SluiceError `not-found` where there is none.
 */
export function findTestbed(environment: Environment = process.env): Testbed {
  const reason = missingTestbed(environment);
  if (reason !== undefined) {
    throw new SluiceError('not-found', `testbed: ${reason}`, {
      remedy: 'Run scripts/testbed build as root.',
    });
  }
  const directory = testbedDirectory(environment);
  return { directory, enter: join(directory, 'guest', 'enter') };
}

/** What {@link chooseAccelerator} looks at. */
export interface AcceleratorHost {
  readonly cpuinfo: string;
  readonly kvmUsable: boolean;
}

function thisHost(): AcceleratorHost {
  let kvmUsable = true;
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    // Any reason why it cannot be opened is a reason not to use it.
    kvmUsable = false;
  }
  return { cpuinfo: readFileSync('/proc/cpuinfo', 'utf8'), kvmUsable };
}

/**
 * `SLUICE_ACCEL` if given, else KVM where the CPU itself virtualizes (`vmx`, `svm`), else TCG.
 * A KVM that makes do without (as in some cloud machines, PVM) offers /dev/kvm and creates
 * virtual machines, but hangs in the early code of an ordinary kernel.
 * @throws SluiceError `usage` for another value of `SLUICE_ACCEL`.
 */
export function chooseAccelerator(
  environment: Environment = process.env,
  host: AcceleratorHost = thisHost(),
): Accelerator {
  const given = environment['SLUICE_ACCEL'];
  if (given === 'kvm' || given === 'tcg') return given;
  if (given !== undefined && given !== '') {
    throw new SluiceError('usage', `SLUICE_ACCEL is ${given}`, {
      remedy: 'Set it to kvm or tcg, or leave it unset.',
    });
  }
  return host.kvmUsable && /^flags\s*:.*\b(vmx|svm)\b/m.test(host.cpuinfo) ? 'kvm' : 'tcg';
}
