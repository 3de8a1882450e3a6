/** Block devices as disks: loop devices, which only root can make. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { SluiceError } from '../base/errors.ts';
import { silentLogger as log } from '../base/log.ts';
import { FileDisk } from './file.ts';
import { describeFileDisk, openFileDisk, resizeFileDisk } from './open/file.ts';
import { DiskClient, testDisk, testLane } from './testing.ts';

const MiB = 1024 * 1024;
const directory = mkdtempSync(join(tmpdir(), 'sluice-device-'));
/** Loop devices by the files that are behind them. */
const devices = new Map<string, string>();
after(() => {
  for (const device of devices.values()) losetup('--detach', device);
  rmSync(directory, { recursive: true });
});

function losetup(...args: string[]): { readonly out: string; readonly error: string | undefined } {
  const { status, stdout, stderr, error } = spawnSync('losetup', args, { encoding: 'utf8' });
  if (error !== undefined) return { out: '', error: error.message };
  return { out: stdout.trim(), error: status === 0 ? undefined : stderr.trim() };
}

/** A device of `bytes` bytes over a file; the same for the same name. @throws why there can be none */
function device(name: string, bytes: number): string {
  const path = join(directory, name);
  if (!existsSync(path)) {
    writeFileSync(path, '');
    truncateSync(path, bytes);
  }
  const known = devices.get(path);
  if (known !== undefined) return known;
  const { out, error } = losetup('--find', '--show', path);
  if (error !== undefined) throw new Error(`no loop device: ${error}`);
  devices.set(path, out);
  return out;
}

function missing(): string | false {
  try {
    device('probe', MiB);
    return false;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const skip = missing();

for (const direct of [false, true]) {
  testDisk(
    `block device${direct ? ' with O_DIRECT' : ''}`,
    async ({ lane, bytes, readonly, place }) => {
      const path = device(`${place}-${direct}`, bytes);
      return new FileDisk(await openFileDisk({ name: 'dev', path, readonly, direct, log }), lane);
    },
    { skip, runs: 5 },
  );
}

test('a device has its own size, gives blocks back, and is had by one alone', {
  skip,
}, async () => {
  const path = device('single', 8 * MiB);
  const file = join(directory, 'single');
  const description = await openFileDisk({ name: 'dev', path, log });
  const report = describeFileDisk(description);
  assert.equal(report.isDevice, true);
  assert.equal(report.bytes, 8 * MiB);
  assert.equal(report.allocatedBytes, undefined);
  assert.throws(() => resizeFileDisk(description, 16 * MiB), /is a block device/);
  await assert.rejects(
    openFileDisk({ name: 'other', path, log, lockWaitMs: 0 }),
    (error) => error instanceof SluiceError && /mounted, or another has it/.test(error.message),
  );

  const disk = new FileDisk(description, testLane());
  const client = new DiskClient(disk, testLane());
  await client.write(0, Buffer.alloc(8 * MiB, 1));
  await client.flush();
  const full = statSync(file).blocks;
  await client.discard(0, 8 * MiB);
  await client.flush();
  assert.ok(disk.info.discardBytes > 0);
  assert.ok(statSync(file).blocks < full / 2, `${statSync(file).blocks} blocks of ${full}`);

  truncateSync(file, 12 * MiB);
  assert.equal(losetup('--set-capacity', path).error, undefined);
  let told = 0;
  disk.onChange(() => told++);
  disk.refreshSize();
  assert.equal(told, 1);
  assert.equal(disk.info.bytes, 12 * MiB);
  client.close();
  disk.close();
});
