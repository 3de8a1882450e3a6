/** What the figures of a report were measured on. */
import { readFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { z } from 'zod';

export const machineSchema = z.strictObject({
  cpu: z.string().min(1).describe('The model of the processor.'),
  cores: z.int().min(1).describe('Processors that the operating system sees.'),
  node: z.string().min(1).describe('Version of Node.js.'),
  kernel: z.string().min(1).describe('Version of the operating system kernel.'),
});

export type Machine = z.output<typeof machineSchema>;

export function describeMachine(): Machine {
  const all = cpus();
  return {
    // Some virtual machines and arm64 systems name no model.
    cpu: all[0]?.model.trim() || process.arch,
    cores: Math.max(1, all.length),
    node: process.version,
    kernel: release(),
  };
}

/** Expands a list of processors as the kernel writes it: `0-2,5` (cpuset(7), list format). */
export function parseCpuList(text: string): number[] {
  return text
    .trim()
    .split(',')
    .filter((part) => part !== '')
    .flatMap((part) => {
      const [first = 0, last = first] = part.split('-').map(Number);
      return Array.from({ length: last - first + 1 }, (_, index) => first + index);
    });
}

/** The processors that this process may run on (proc(5), /proc/PID/status). */
export function allowedCpus(): number[] {
  const status = readFileSync('/proc/self/status', 'utf8');
  return parseCpuList(/^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? '0');
}

/** Who runs where: undefined leaves it to the kernel. */
export interface Placement {
  readonly lane: readonly number[] | undefined;
  readonly guests: readonly number[] | undefined;
}

/**
 * The lane gets a processor for itself, the last one (the first takes most of a machine's
 * interrupts); guests share the others. With a single processor there is nothing to choose.
 */
export function placeOn(cpus: readonly number[]): Placement {
  const last = cpus.at(-1);
  if (last === undefined || cpus.length < 2) return { lane: undefined, guests: undefined };
  return { lane: [last], guests: cpus.slice(0, -1) };
}

/** Who runs where, each guest by itself: undefined leaves it to the kernel. */
export interface MachinePlacement {
  readonly lane: readonly number[] | undefined;
  readonly guests: readonly (readonly number[] | undefined)[];
}

/**
 * As {@link placeOn} for virtual machines, whose threads wake one another all the time, which takes much
 * longer across processors: each keeps to one, and the lane shares them where there is none left for it.
 */
export function placeMachines(cpus: readonly number[], guests: number): MachinePlacement {
  const { lane, guests: others = cpus } =
    cpus.length > guests ? placeOn(cpus) : { lane: undefined };
  const place = (guest: number): readonly number[] | undefined => {
    const cpu = others[guest % others.length];
    return cpu === undefined || cpus.length === 1 ? undefined : [cpu];
  };
  return { lane, guests: Array.from({ length: guests }, (_, guest) => place(guest)) };
}
