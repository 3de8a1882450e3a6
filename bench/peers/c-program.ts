/** Clients in C: compiled in the testbed, where their libraries are, and kept for the next time. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { basename, join } from 'node:path';
import { SluiceError } from '../../src/base/errors.ts';
import { SharedDirectories } from '../../src/guest/guest-process.ts';
import type { Testbed } from '../../src/guest/testbed.ts';

const COMPILER = ['gcc', '-std=gnu11', '-O2', '-Wall', '-Wextra', '-Werror'];

/**
 * The program of a source beside this file: compiled unless the same source was before, for the same tree.
 * @param name of the source, without `.c`
 * @param libraries as the linker's options name them
 * @throws SluiceError `state` with the compiler's words
 */
export function buildProgram(
  testbed: Testbed,
  name: string,
  libraries: readonly string[] = [],
): string {
  const source = join(import.meta.dirname, `${name}.c`);
  const stamp = readFileSync(join(testbed.directory, 'tree/etc/sluice-testbed'));
  const hash = createHash('sha256')
    .update([...COMPILER, ...libraries].join(' '))
    .update(stamp)
    .update(readFileSync(source))
    .digest('hex');
  const directory = join(testbed.directory, 'peers');
  const program = join(directory, `${name}-${hash.slice(0, 16)}`);
  if (existsSync(program)) return program;
  mkdirSync(directory, { recursive: true });
  const shared = new SharedDirectories();
  const unfinished = `${program}.${process.pid}`;
  const files = ['-o', shared.inside(unfinished), shared.inside(source)];
  const command = [...shared.options(), '--', ...COMPILER, ...files, ...libraries];
  const { status, stderr } = spawnSync(testbed.enter, command, { encoding: 'utf8' });
  if (status !== 0) {
    throw new SluiceError('state', `${basename(source)} does not compile:\n${stderr}`, {
      remedy: 'Run scripts/testbed build as root: it brings gcc and the libraries.',
    });
  }
  // Whole or not at all, whoever else builds it.
  renameSync(unfinished, program);
  return program;
}
