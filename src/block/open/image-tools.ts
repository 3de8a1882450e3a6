/** QEMU's programs for image formats, and what they say when they refuse. */
import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { SluiceError } from '../../base/errors.ts';

const execute = promisify(execFile);

/** Formats that `qemu-nbd --format` is given; each must be named, because guessing lets a guest choose. */
export const IMAGE_FORMATS = [
  'qcow2',
  'qcow',
  'qed',
  'raw',
  'vdi',
  'vhdx',
  'vmdk',
  'vpc',
  'parallels',
] as const;

export type ImageFormat = (typeof IMAGE_FORMATS)[number];

/** How the programs are started: the program, then arguments that precede all others. */
export interface QemuTools {
  readonly nbd: readonly string[];
  readonly img: readonly string[];
}

function findProgram(name: string, path: string): string {
  for (const directory of path.split(delimiter)) {
    const candidate = join(directory, name);
    try {
      accessSync(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not here; the next directory may have it.
    }
  }
  throw new SluiceError('not-found', `there is no ${name} in the directories of PATH`, {
    remedy:
      'install qemu-utils (Debian, Ubuntu), qemu-img (Fedora) or qemu-img and qemu-nbd (others)',
  });
}

/** The programs in the directories of PATH. @throws SluiceError `not-found` */
export function findQemuTools(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): QemuTools {
  const path = environment['PATH'] ?? '';
  return { nbd: [findProgram('qemu-nbd', path)], img: [findProgram('qemu-img', path)] };
}

/** Runs a program to its end. @throws Error of node:child_process, with `stderr` */
export async function run(command: readonly string[], args: readonly string[]): Promise<string> {
  const [program = '', ...first] = command;
  const { stdout } = await execute(program, [...first, ...args], { encoding: 'utf8' });
  return stdout;
}

/** The standard error of what {@link run} threw. */
export function stderrOf(error: unknown): string {
  const { stderr, message } = error as { readonly stderr?: string; readonly message?: string };
  return stderr === undefined || stderr === '' ? (message ?? String(error)) : stderr;
}

/** True for the message of a QEMU program that another one keeps from an image. */
export function isLockMessage(message: string): boolean {
  return /Failed to (get|lock)|another process using the image/i.test(message);
}

/** An error of a QEMU program as one of ours: what it says is passed on. */
export function imageError(subject: string, said: string): SluiceError {
  const text = said
    .split('\n')
    .map((line) => line.replace(/^\S*qemu-(nbd|img): /, '').trim())
    .filter((line) => line !== '')
    .join('; ');
  const message = `${subject}: ${text === '' ? 'no reason given' : text}`;
  if (isLockMessage(said)) {
    return new SluiceError('state', message, {
      remedy: 'stop whoever has the image open, or make both readers (readonly: true)',
    });
  }
  if (/not in .* format|Image is not|Invalid .* header|does not have .* header/i.test(said)) {
    return new SluiceError('config', message, {
      remedy: 'name the format that qemu-img info tells',
    });
  }
  if (/Unknown driver|Unknown file format|unknown format/i.test(said)) {
    return new SluiceError('unsupported', message, {
      remedy: 'this QEMU has no such format: qemu-img --help lists those it has',
    });
  }
  return new SluiceError('state', message);
}
