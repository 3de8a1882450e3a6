/** QEMU's programs for images: the host's, else the testbed's, run outside of its tree. */
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findQemuTools, type QemuTools } from '../../src/block/open/image.ts';
import { testbedDirectory } from '../../src/guest/testbed.ts';
import { type Cleanup, withoutTestbed } from './testbed.ts';

/** The testbed's dynamic linker with the testbed's libraries: starts its programs where they are. */
function linkerOf(tree: string): readonly string[] {
  const libraries = readdirSync(join(tree, 'usr/lib'))
    .filter((name) => name.endsWith('-linux-gnu'))
    .map((name) => join(tree, 'usr/lib', name));
  for (const directory of libraries) {
    const linker = readdirSync(directory).find((name) => /^ld-linux-.*\.so\.\d+$/.test(name));
    if (linker !== undefined) {
      return [join(directory, linker), '--library-path', libraries.join(':')];
    }
  }
  throw new Error(`no dynamic linker in ${tree}`);
}

function hostTools(): QemuTools | undefined {
  try {
    return findQemuTools();
  } catch {
    return undefined; // The testbed has them.
  }
}

/** The programs. Only where {@link withoutQemuTools} gives no reason. */
export function qemuTools(): QemuTools {
  const host = hostTools();
  if (host !== undefined) return host;
  return { nbd: testbedProgram('qemu-nbd'), img: testbedProgram('qemu-img') };
}

/** The command that runs one of the testbed's programs outside of its tree. */
export function testbedProgram(name: string): readonly string[] {
  const tree = join(testbedDirectory(), 'tree');
  return [...linkerOf(tree), join(tree, 'usr/bin', name)];
}

/** What precedes a command that is to find the programs in PATH: nothing where the host has them. */
export function withQemuTools(t: Cleanup): readonly string[] {
  if (hostTools() !== undefined) return [];
  const { nbd, img } = qemuTools();
  const directory = mkdtempSync(join(tmpdir(), 'sluice-tools-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  for (const [name, command] of Object.entries({ 'qemu-nbd': nbd, 'qemu-img': img })) {
    const path = join(directory, name);
    writeFileSync(path, `#!/bin/sh\nexec ${command.map((word) => `'${word}'`).join(' ')} "$@"\n`);
    chmodSync(path, 0o755);
  }
  return ['env', `PATH=${directory}:${process.env['PATH']}`];
}

/** The `skip` option of a suite that needs them. */
export function withoutQemuTools(): string | false {
  if (hostTools() !== undefined) return false;
  if (existsSync(join(testbedDirectory(), 'tree/usr/bin/qemu-nbd'))) return false;
  return withoutTestbed();
}
