/** How much memory the machine has. */
import { readFileSync } from 'node:fs';

const KIB = 1024;
let known: number | undefined;

/**
 * Bytes of memory and swap space (proc_meminfo(5)). A memory file costs nothing until it is written to,
 * so that its size says nothing: no guest can have more than this.
 */
export function machineMemory(): number {
  if (known !== undefined) return known;
  const text = readFileSync('/proc/meminfo', 'utf8');
  const kib = (key: string): number =>
    Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  known = (kib('MemTotal') + kib('SwapTotal')) * KIB;
  return known;
}
