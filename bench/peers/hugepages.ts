/**
 * Huge pages for DPDK, set up for a run and given back after it (Linux, Documentation/admin-guide/
 * mm/hugetlbpage.rst). DPDK takes them by memfd_create(2), so no hugetlbfs is mounted.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { SluiceError } from '../../src/base/errors.ts';

/** The size of page that the pool below is of, in MiB. */
export const HUGE_PAGE_MIB = 2;
const POOL = '/sys/kernel/mm/hugepages/hugepages-2048kB';

function read(pool: string, name: string): number {
  return Number(readFileSync(`${pool}/${name}`, 'utf8'));
}

/**
 * Makes sure that `mib` MiB of huge pages are free and returns what gives back those that were
 * added. That may be called while pages are in use: the kernel frees them when they no longer are.
 * @throws SluiceError `state` if the machine has too little memory in one piece.
 */
export function reserveHugePages(mib: number, pool = POOL): () => void {
  const need = Math.ceil(mib / HUGE_PAGE_MIB);
  const before = read(pool, 'nr_hugepages');
  const missing = need - read(pool, 'free_hugepages');
  if (missing <= 0) return () => undefined;
  writeFileSync(`${pool}/nr_hugepages`, String(before + missing));
  const got = read(pool, 'nr_hugepages');
  const restore = (): void => {
    // Somebody else who has changed the number since relies on it.
    if (read(pool, 'nr_hugepages') === got) writeFileSync(`${pool}/nr_hugepages`, String(before));
  };
  if (got < before + missing) {
    restore();
    throw new SluiceError(
      'state',
      `huge pages: ${missing} of ${HUGE_PAGE_MIB} MiB are needed, the kernel found ${got - before}`,
      { remedy: 'Free memory, or reserve them at boot with hugepages=N.' },
    );
  }
  return restore;
}
