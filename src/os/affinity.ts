/** Which processors a thread may run on. */
import { check, libc } from './libc.ts';

/** Binds the calling thread to the given processors (sched_setaffinity(2)). */
export function pinThread(cpus: readonly number[]): void {
  const mask = new Uint8Array(128);
  for (const cpu of cpus) mask[cpu >> 3] = (mask[cpu >> 3] ?? 0) | (1 << (cpu & 7));
  check(libc.sched_setaffinity(0, mask.length, mask), 'sched_setaffinity', cpus.join(','));
}
