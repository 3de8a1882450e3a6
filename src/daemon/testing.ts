/** What tests of the daemon share: one on a configuration of its own, and waiting. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { silentLogger } from '../base/log.ts';
import { loadConfig } from './config.ts';
import { Daemon } from './daemon.ts';

/** A directory with a configuration, and the daemons that are started on it; gone after the test. */
export function stage(t: TestContext, text: string) {
  const path = mkdtempSync(join(tmpdir(), 'sluice-'));
  const file = join(path, 'sluice.yaml');
  const daemons: Daemon[] = [];
  const write = (yaml: string): void => writeFileSync(file, yaml);
  write(text);
  t.after(async () => {
    await Promise.all(daemons.map((daemon) => daemon.stop()));
    rmSync(path, { recursive: true });
  });
  return {
    path,
    write,
    socket: (name: string): string => join(path, 'run', `${name}.sock`),
    start: async (entry?: URL): Promise<Daemon> => {
      const daemon = await Daemon.start(loadConfig(file), silentLogger, entry);
      daemons.push(daemon);
      return daemon;
    },
  };
}

/** Waits for a condition, half a minute at most. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  const end = Date.now() + 30_000;
  while (!(await condition())) {
    if (Date.now() > end) assert.fail(`waited in vain for ${what}`);
    await delay(10);
  }
}
