/** How the checks of references look at a file's plain values, which need not have the right form. */
import type { ConfigPath, ConfigSource } from './config-problems.ts';
import { suggestion } from './near-miss.ts';

export type Mapping = Readonly<Record<string, unknown>>;

export function mapping(value: unknown): Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Mapping)
    : {};
}

/** Keys of a disk that name files. */
export const DISK_FILES = ['file', 'image', 'overlay'] as const;

/** Notes something that is named and not there. */
export function checkNamed(
  source: ConfigSource,
  path: ConfigPath,
  name: unknown,
  [one, many]: readonly [one: string, many: string],
  all: Mapping,
): void {
  if (typeof name !== 'string' || Object.hasOwn(all, name)) return;
  const known = Object.keys(all);
  const there = known.length === 0 ? `there are no ${many}` : `there are ${known.join(', ')}`;
  source.report(path, `no ${one} "${name}"; ${there}${suggestion(name, known)}`);
}

export const SWITCHES = ['switch', 'switches'] as const;
export const DISKS = ['disk', 'disks'] as const;
export const NICS = ['NIC', 'NICs'] as const;

/** Who has each tap interface: it can be one thing's wire only. */
export class TapHolders {
  readonly #holders = new Map<string, string>();

  /** @param holder such as `switch lan` */
  check(source: ConfigSource, path: ConfigPath, tap: unknown, holder: string): void {
    if (typeof tap !== 'string') return;
    const other = this.#holders.get(tap);
    if (other === undefined) this.#holders.set(tap, holder);
    else source.report(path, `tap ${tap} is the wire of ${other} already`);
  }
}
