/** What a change of the configuration means beside the parts that come, change and go. */
import { SluiceError } from '../base/errors.ts';
import type { Config } from './config.ts';
import type { Part } from './difference.ts';
import type { LanePlan } from './lane-plan.ts';
import { cacheModeName, guestMarkName, journalName, removeKeptStates } from './run-directory.ts';
import type { DesiredState } from './vf-requests.ts';

/** Where switches, ports of NICs, and guests with disks run. */
export function placesOf(running: readonly Part[]): LanePlan {
  const switches = new Map<string, number>();
  const guests = new Map<string, number>();
  for (const part of running) {
    if (part.kind === 'switch' || part.kind === 'nic') switches.set(part.name, part.lane);
    if (part.kind === 'device') guests.set(part.guestDisk.guest, part.lane);
  }
  return { switches, guests };
}

/** States of cards and disks that are configured no more: a new one of that name begins anew. */
export function removeOldStates({ run, guests, loose }: DesiredState): void {
  const kept = guests.flatMap(({ net, disk, controllers }) => [
    ...net.map(({ method, port }) =>
      method === 'paravirtual' ? journalName(port) : guestMarkName(port),
    ),
    ...disk.map(({ device }) => cacheModeName(device)),
    ...controllers.map(({ name }) => guestMarkName(name)),
  ]);
  removeKeptStates(run.path, new Set([...kept, ...loose.map(({ port }) => guestMarkName(port))]));
}

/** @throws SluiceError `config` for what only a restart can change. */
export function checkReloadable(now: Config, next: Config): void {
  const fixed = ['run', 'isolation', 'lanes'] as const;
  const changed = fixed.filter((key) => JSON.stringify(now[key]) !== JSON.stringify(next[key]));
  if (changed.length === 0) return;
  throw new SluiceError(
    'config',
    `a reload cannot change ${changed.join(', ')}; nothing was changed`,
    {
      remedy: 'stop Sluice and start it again',
    },
  );
}
