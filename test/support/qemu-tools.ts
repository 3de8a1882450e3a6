/** QEMU's programs for images: the host's, else the testbed's, run outside of its tree. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { findQemuTools, type QemuTools } from '../../src/block/image.ts';
import { testbedDirectory } from '../../src/guest/testbed.ts';
import { withoutTestbed } from './testbed.ts';

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
  const tree = join(testbedDirectory(), 'tree');
  const linker = linkerOf(tree);
  const program = (name: string): readonly string[] => [...linker, join(tree, 'usr/bin', name)];
  return { nbd: program('qemu-nbd'), img: program('qemu-img') };
}

/** The `skip` option of a suite that needs them. */
export function withoutQemuTools(): string | false {
  if (hostTools() !== undefined) return false;
  if (existsSync(join(testbedDirectory(), 'tree/usr/bin/qemu-nbd'))) return false;
  return withoutTestbed();
}
