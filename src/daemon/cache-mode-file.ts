/**
 * The cache mode that a guest chose for its disk (VIRTIO 1.3 §5.2.6.2, `writeback`), kept over a
 * restart of Sluice: VMMs do not tell it again, and a guest that turned the cache off relies on it.
 *
 * File: `CONFIGURED CHOSEN`, each `writeback` or `writethrough`. A choice that was made while the
 * configuration said otherwise than now does not count.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { SluiceError } from '../base/errors.ts';
import type { CacheModeStore } from '../device/virtio-blk/virtio-blk.ts';

type CacheMode = 'writeback' | 'writethrough';

export class CacheModeFile implements CacheModeStore {
  readonly #path: string;
  readonly #configured: CacheMode;

  /** @param configured what the guest finds unless it chooses */
  constructor(path: string, configured: CacheMode) {
    this.#path = path;
    this.#configured = configured;
  }

  /** @throws SluiceError `system` if the file is there and cannot be read */
  load(): boolean | undefined {
    let text: string;
    try {
      text = readFileSync(this.#path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw this.#failed('read', error);
    }
    const [configured, chosen] = text.trim().split(' ');
    if (configured !== this.#configured) return undefined;
    return chosen === 'writeback' ? true : chosen === 'writethrough' ? false : undefined;
  }

  /** @throws SluiceError `system` if it cannot be written */
  save(writeback: boolean): void {
    const next = `${this.#path}.new`;
    try {
      // Another process sees the old choice or the new one, and never half of one.
      writeFileSync(next, `${this.#configured} ${writeback ? 'writeback' : 'writethrough'}\n`);
      renameSync(next, this.#path);
    } catch (error) {
      throw this.#failed('write', error);
    }
  }

  #failed(what: string, cause: unknown): SluiceError {
    const { code = 'error' } = cause as NodeJS.ErrnoException;
    return new SluiceError('system', `${code}: ${what} ${this.#path}`, { cause });
  }
}
