// suite: takes=9
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { silentLogger } from '../base/log.ts';
import { FileDisk } from './file.ts';
import { type FileDiskOptions, openFileDisk } from './open/file.ts';
import { type TestDiskOptions, testDisk } from './testing.ts';

const onDisk = mkdtempSync(join(tmpdir(), 'sluice-file-'));
const inMemory = mkdtempSync('/dev/shm/sluice-file-');
after(() => {
  for (const directory of [onDisk, inMemory]) rmSync(directory, { recursive: true });
});

function conform(
  name: string,
  directory: string,
  options: Partial<FileDiskOptions> = {},
  more: TestDiskOptions = {},
): void {
  testDisk(
    name,
    async ({ lane, bytes, readonly, place }) => {
      const path = join(directory, `${name.replaceAll(' ', '-')}-${place}`);
      writeFileSync(path, '', { flag: 'a' });
      truncateSync(path, bytes);
      const log = silentLogger;
      return new FileDisk(await openFileDisk({ name, path, readonly, log, ...options }), lane);
    },
    more,
  );
}

conform('file on tmpfs', inMemory);
conform('file', onDisk, {}, { runs: 10 });
conform('file with O_DIRECT', onDisk, { direct: true }, { runs: 10 });
conform(
  'file with O_DIRECT and aligned memory',
  onDisk,
  { direct: true },
  { runs: 10, alignment: 512 },
);
conform('file with blocks of 4 KiB', onDisk, { blockBytes: 4096 }, { runs: 10 });
conform('file without io_uring', onDisk, { engine: 'worker' }, { runs: 10 });
conform('file on tmpfs without io_uring', inMemory, { engine: 'worker' });
