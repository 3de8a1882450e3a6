/** A guest attached as the manual says: `qemu-system-x86_64 … $(sluice guest qemu-args NAME)`. */
import { dirname } from 'node:path';
import { type QemuGuest, type QemuOptions, startQemu } from '../../src/guest/qemu.ts';
import type { Sluice } from './sluice.ts';
import type { Cleanup } from './testbed.ts';

/** Starts guest `name` of the configuration with what is printed for it; it is killed after the test. */
export async function startPrinted(
  t: Cleanup,
  sluice: Sluice,
  name: string,
  settings: Omit<QemuOptions, 'name' | 'memory' | 'net' | 'disk'> = {},
): Promise<QemuGuest> {
  const printed = (await sluice.print('guest', 'qemu-args', name)).trim().split(' ');
  const guest = startQemu({
    ...settings,
    name,
    // What is printed brings memory of its own, which takes the place of the launcher's.
    memory: 16,
    options: (inside) => {
      const run = dirname(inside(`${sluice.run}/any`));
      return [
        ...(settings.options?.(inside) ?? []),
        ...printed.map((word) => word.replaceAll(sluice.run, run)),
      ];
    },
  });
  t.after(async () => {
    await guest.kill();
  });
  return guest;
}
