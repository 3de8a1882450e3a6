/** Files of capture wires: each start begins them anew, so none may be anything else. */
import { statSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import type { ConfigSource } from './config-problems.ts';
import { DEFAULT_RUN_PATH } from './config-values.ts';
import { DISK_FILES, type Mapping, mapping } from './reference-tools.ts';
import { isMadeInRunDirectory } from './run-directory.ts';

export function checkCaptures(source: ConfigSource): void {
  const root = mapping(source.value);
  const base = dirname(resolve(source.file));
  const taken = filesOf(source.file, mapping(root['disks']), base);
  const run = resolve(base, runPathOf(root['run']));
  const wires = new Map<string, string>();
  for (const [name, item] of Object.entries(mapping(root['switches']))) {
    const { capture } = mapping(mapping(item)['wire']);
    if (typeof capture !== 'string') continue;
    const path = ['switches', name, 'wire', 'capture'];
    const file = resolve(base, capture);
    const identity = identityOf(file);
    const holder = isMadeInRunDirectory(run, file) ? 'of the run directory' : taken.get(identity);
    if (holder !== undefined) {
      source.report(
        path,
        `${capture} is ${holder}, and the capture would overwrite it: name another file`,
      );
    }
    const other = wires.get(identity);
    if (other === undefined) wires.set(identity, name);
    else
      source.report(
        path,
        `capture file ${capture} is the wire of switch ${other} already: name another file`,
      );
  }
}

/** What else the configuration names, by identity: whose it is, in words. */
function filesOf(config: string, disks: Mapping, base: string): Map<string, string> {
  const files = new Map([[identityOf(resolve(config)), 'this configuration file']]);
  for (const [name, disk] of Object.entries(disks)) {
    for (const key of DISK_FILES) {
      const file = mapping(disk)[key];
      if (typeof file === 'string')
        files.set(identityOf(resolve(base, file)), `the ${key} of disk ${name}`);
    }
  }
  return files;
}

function runPathOf(run: unknown): string {
  const path = typeof run === 'string' ? run : mapping(run)['path'];
  return typeof path === 'string' ? path : DEFAULT_RUN_PATH;
}

/** The same for all names of a file, links among them, whether it is there yet or not. */
function identityOf(path: string): string {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    const above = dirname(path);
    return above === path ? path : `${identityOf(above)}/${basename(path)}`;
  }
}
