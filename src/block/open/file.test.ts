import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  chmodSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { SluiceError } from '../../base/errors.ts';
import { type LogFields, loggerTo } from '../../base/log.ts';
import { FileDisk } from '../file.ts';
import { DISK_READ } from '../requests.ts';
import { DiskClient, testLane } from '../testing.ts';
import {
  abandonFileDisk,
  describeFileDisk,
  type FileDiskDescription,
  type FileDiskOptions,
  openFileDisk,
  resizeFileDisk,
} from './file.ts';

const MiB = 1024 * 1024;
const NOBODY = 65534;
const directory = mkdtempSync(join(tmpdir(), 'sluice-open-'));
after(() => rmSync(directory, { recursive: true }));

const logged: { readonly message: string; readonly fields: LogFields }[] = [];
const log = loggerTo((_level, message, fields) => logged.push({ message, fields }));

let files = 0;

function image(bytes: number, content?: Uint8Array): string {
  const path = join(directory, `image-${files++}`);
  writeFileSync(path, content ?? '');
  truncateSync(path, bytes);
  return path;
}

function open(path: string, options: Partial<FileDiskOptions> = {}): Promise<FileDiskDescription> {
  return openFileDisk({ name: 'root', path, log, lockWaitMs: 0, ...options });
}

function lane(description: FileDiskDescription): FileDisk {
  return new FileDisk(description, testLane());
}

/** Rejects with an error that says what is wrong, and what to do. */
async function refuses(
  opening: Promise<FileDiskDescription>,
  code: SluiceError['code'],
  message: RegExp,
  remedy: RegExp,
): Promise<void> {
  await assert.rejects(opening, (error) => {
    assert.ok(error instanceof SluiceError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, /^disk root: /);
    assert.match(error.message, message);
    assert.match(error.remedy ?? '', remedy);
    return true;
  });
}

/** A process that opens disks as we do, for as long as it lives. */
async function otherProcess(path: string, readonly: boolean): Promise<{ kill(): Promise<void> }> {
  const module = new URL('./file.ts', import.meta.url);
  const child = spawn(
    process.execPath,
    [
      '--input-type=module',
      '--disable-warning=ExperimentalWarning',
      '-e',
      `import { openFileDisk } from ${JSON.stringify(module.href)};
       import { silentLogger as log } from ${JSON.stringify(new URL('../../base/log.ts', import.meta.url).href)};
       await openFileDisk({ name: 'other', path: ${JSON.stringify(path)}, readonly: ${readonly}, log });
       process.stdout.write('open');
       setInterval(() => undefined, 1000);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const exit = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await Promise.race([
    new Promise((resolve) => child.stdout.once('data', resolve)),
    exit.then(() => assert.fail('the other process could not open the disk')),
  ]);
  return {
    kill: () => {
      child.kill('SIGKILL');
      return exit;
    },
  };
}

describe('errors', () => {
  test('a file that is not there', async () => {
    await refuses(open(join(directory, 'none')), 'not-found', /does not exist/, /truncate/);
  });

  test('a file that this user must not write to', async () => {
    const path = image(MiB);
    chmodSync(directory, 0o755);
    chmodSync(path, 0o444);
    const isRoot = process.geteuid?.() === 0;
    // Root may open everything.
    if (isRoot) process.seteuid?.(NOBODY);
    try {
      await refuses(open(path), 'system', /for writing \(EACCES\)/, /readonly/);
      lane(await open(path, { readonly: true })).close();
    } finally {
      if (isRoot) process.seteuid?.(0);
    }
  });

  test('what is no file', async () => {
    const path = join(directory, 'sub');
    mkdirSync(path);
    await refuses(open(path), 'config', /is a directory/, /image file/);
    await refuses(open('/dev/null'), 'config', /neither a file nor a block device/, /image file/);
  });

  test('sizes that no disk has', async () => {
    await refuses(open(image(0)), 'config', /is empty/, /truncate -s 10G/);
    await refuses(open(image(1000)), 'config', /1000 bytes/, /truncate -s %512/);
    const path = image(3 * 512);
    await refuses(open(path, { blockBytes: 4096 }), 'config', /block of 4096/, /%4096/);
    const description = await open(path);
    assert.equal(description.info.bytes, 3 * 512);
    lane(description).close();
  });

  test('leave no descriptor and no lock behind', async () => {
    const path = image(1000);
    const before = openFds();
    for (let i = 0; i < 3; i++) await assert.rejects(open(path));
    assert.equal(openFds(), before);
    truncateSync(path, 1024);
    abandonFileDisk(await open(path));
    assert.equal(openFds(), before);
    lane(await open(path)).close();
    assert.equal(openFds(), before);
  });
});

function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}

test('a disk that is smaller than its partition table is told of', async () => {
  const table = Buffer.alloc(512);
  table[450] = 0x83;
  table.writeUInt32LE(2048, 454);
  table.writeUInt32LE(4096, 458);
  table.writeUInt16BE(0x55aa, 510);
  logged.length = 0;
  lane(await open(image(6144 * 512, table))).close();
  assert.equal(logged.length, 0);
  lane(await open(image(6143 * 512, table))).close();
  assert.equal(logged.length, 1);
  assert.match(logged[0]?.message ?? '', /smaller than its partition table/);
  assert.equal(logged[0]?.fields['needed'], 6144 * 512);
});

test('a readonly file may end within a block: the rest is zeroes', async () => {
  const path = image(1000, Buffer.alloc(1000, 7));
  const disk = lane(await open(path, { readonly: true }));
  assert.equal(disk.info.bytes, 1024);
  assert.equal(disk.info.readonly, true);
  const client = new DiskClient(disk, testLane());
  const read = await client.read(0, 1024);
  assert.ok(read.subarray(0, 1000).every((byte) => byte === 7));
  assert.ok(read.subarray(1000).every((byte) => byte === 0));
  client.close();
  disk.close();
});

test('a file that was cut off below us gives errors, not zeroes', async () => {
  const path = image(MiB, Buffer.alloc(MiB, 7));
  const disk = lane(await open(path));
  const client = new DiskClient(disk, testLane());
  truncateSync(path, MiB / 2);
  const { result } = await client.request({ op: DISK_READ, offset: MiB / 2, bytes: 4096 });
  assert.equal(result, -5);
  client.close();
  disk.close();
});

describe('locks', () => {
  test('one writes alone, several read', async () => {
    const path = image(MiB);
    const writer = await open(path);
    assert.equal(writer.lock, 'exclusive');
    await refuses(open(path), 'state', /is locked by another/, /readonly/);
    await refuses(open(path, { readonly: true }), 'state', /is locked/, /readonly/);
    lane(writer).close();
    const readers = [await open(path, { readonly: true }), await open(path, { readonly: true })];
    assert.equal(readers[0]?.lock, 'shared');
    await refuses(open(path), 'state', /is locked/, /readonly/);
    for (const reader of readers) lane(reader).close();
    lane(await open(path)).close();
  });

  test('another process is named, and is waited for when it has died', async () => {
    const path = image(MiB);
    const other = await otherProcess(path, false);
    await refuses(open(path), 'state', /is locked by another process \(.+, pid \d+\)/, /stop/);
    const opening = open(path, { lockWaitMs: 30_000 });
    await other.kill();
    lane(await opening).close();
  });

  test('another reader stands against a writer only', async () => {
    const path = image(MiB);
    const other = await otherProcess(path, true);
    lane(await open(path, { readonly: true })).close();
    await refuses(open(path), 'state', /is locked/, /readonly/);
    await other.kill();
  });

  test('a disk that was closed can be opened again, whatever its ring still does', async () => {
    const path = image(MiB);
    for (let i = 0; i < 5; i++) {
      const disk = lane(await open(path, { lockWaitMs: 10_000 }));
      const client = new DiskClient(disk, testLane());
      await client.write(0, Buffer.alloc(4096, i));
      client.close();
      disk.close();
    }
  });
});

describe('size', () => {
  test('a growth is announced, and can be used', async () => {
    const description = await open(image(MiB));
    const disk = lane(description);
    let told = 0;
    const listener = disk.onChange(() => told++);
    disk.refreshSize();
    assert.equal(told, 0);
    resizeFileDisk(description, 2 * MiB);
    disk.refreshSize();
    assert.equal(told, 1);
    assert.equal(disk.info.bytes, 2 * MiB);
    const client = new DiskClient(disk, testLane());
    await client.write(2 * MiB - 512, Buffer.alloc(512, 1));
    assert.equal((await client.read(2 * MiB - 512, 512))[0], 1);
    client.close();
    listener.remove();
    disk.refreshSize(MiB);
    resizeFileDisk(description, MiB, true);
    disk.refreshSize();
    assert.equal(told, 1);
    assert.equal(disk.info.bytes, MiB);
    assert.equal(fstatSync(description.fd).size, MiB);
    disk.close();
  });

  test('what no size can be is refused', async () => {
    const description = await open(image(MiB));
    for (const bytes of [0, -512, 1000, Number.NaN, 2 ** 60]) {
      assert.throws(() => resizeFileDisk(description, bytes), SluiceError);
    }
    assert.throws(
      () => resizeFileDisk(description, MiB / 2),
      (error) => error instanceof SluiceError && /--shrink/.test(error.remedy ?? ''),
    );
    assert.equal(fstatSync(description.fd).size, MiB);
    lane(description).close();
    const fixed = await open(description.path, { readonly: true });
    assert.throws(() => resizeFileDisk(fixed, 2 * MiB), /readonly/);
    lane(fixed).close();
  });

  test('what a disk takes of its file system is told', async () => {
    const path = image(8 * MiB);
    const description = await open(path, { engine: 'worker' });
    const disk = lane(description);
    const client = new DiskClient(disk, testLane());
    await client.write(0, Buffer.alloc(4 * MiB, 1));
    await client.flush();
    const { allocatedBytes: full = 0, ...report } = describeFileDisk(description);
    assert.deepEqual(report, {
      path,
      bytes: 8 * MiB,
      isDevice: false,
      readonly: false,
      direct: false,
      engine: 'worker',
      lock: 'exclusive',
    });
    assert.ok(full >= 4 * MiB && full < 8 * MiB, `${full}`);
    await client.discard(0, 4 * MiB);
    const { allocatedBytes: rest = 0 } = describeFileDisk(description);
    assert.ok(rest < MiB, `${rest} bytes after a discard`);
    assert.equal(statSync(path).size, 8 * MiB);
    client.close();
    disk.close();
  });

  test('blocks are kept where discards are off', async () => {
    const description = await open(image(MiB), { discard: false });
    assert.equal(description.info.discardBytes, 0);
    lane(description).close();
  });
});
