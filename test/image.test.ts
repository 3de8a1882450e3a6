/** Image files by a real qemu-nbd: the disk interface, locks, overlays, the life of the process. */
// suite: cores=0.5 takes=20 timeout=600
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../src/base/errors.ts';
import { NbdDisk } from '../src/block/nbd/nbd-disk.ts';
import { type ImageDisk, type ImageDiskOptions, openImageDisk } from '../src/block/open/image.ts';
import { run } from '../src/block/open/image-tools.ts';
import { DISK_FLUSH, DISK_READ, DISK_WRITE } from '../src/block/requests.ts';
import { DiskClient, testDisk, testLane } from '../src/block/testing.ts';
import { qemuTools, withoutQemuTools } from './support/qemu-tools.ts';
import { socketDirectory } from './support/testbed.ts';

const skip = withoutQemuTools();
const EIO = 5;
const MIB = 1 << 20;

async function createImage(path: string, format: string, bytes: number): Promise<void> {
  await run(qemuTools().img, ['create', '-q', '-f', format, path, String(bytes)]);
}

/** An image that is there for one test. */
async function makeImage(t: TestContext, format = 'qcow2', bytes = MIB): Promise<string> {
  const path = join(socketDirectory(t), `disk.${format}`);
  await createImage(path, format, bytes);
  return path;
}

async function open(
  t: TestContext,
  path: string,
  options: Partial<ImageDiskOptions> = {},
): Promise<ImageDisk> {
  const image = await openImageDisk({
    name: 'data',
    path,
    format: 'qcow2',
    directory: socketDirectory(t),
    tools: qemuTools(),
    lockWaitMs: 0,
    ...options,
  });
  t.after(() => image.process.stop());
  return image;
}

/** Uses an image for a while, and lets it go. */
async function use(image: ImageDisk, body: (client: DiskClient) => Promise<void>): Promise<void> {
  const lane = testLane();
  const disk = new NbdDisk(image.description, lane);
  const client = new DiskClient(disk, lane);
  try {
    await body(client);
  } finally {
    client.close();
    disk.close();
  }
}

function refused(code: string, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof SluiceError, String(error));
    assert.match(error.message, message);
    assert.equal(error.code, code, error.message);
    assert.notEqual(error.remedy, undefined);
    return true;
  };
}

for (const [format, connections] of [
  ['qcow2', 1],
  ['qcow2', 3],
  ['vmdk', 1],
  ['raw', 1],
] as const) {
  const images = new Map<string, { readonly path: string; last?: ImageDisk }>();
  testDisk(
    `image, ${format} over ${connections} connection${connections === 1 ? '' : 's'}`,
    async ({ lane, bytes, readonly, place, test }) => {
      let image = images.get(place);
      if (image === undefined) {
        image = { path: join(socketDirectory(test), `${place}.${format}`) };
        images.set(place, image);
        await createImage(image.path, format, bytes);
      }
      // The former disk at this place is closed; its process still holds the image.
      await image.last?.process.stop();
      const opened = await openImageDisk({
        name: place,
        path: image.path,
        format,
        readonly,
        connections,
        directory: socketDirectory(test),
        tools: qemuTools(),
      });
      image.last = opened;
      test.after(() => opened.process.stop());
      assert.equal(opened.description.connections, connections);
      return new NbdDisk(opened.description, lane);
    },
    { skip, runs: 8 },
  );
}

describe('an image', { skip }, () => {
  it('gives blocks back that are discarded', async (t) => {
    const path = await makeImage(t, 'raw', 8 * MIB);
    await use(await open(t, path, { format: 'raw' }), async (client) => {
      await client.write(0, Buffer.alloc(8 * MIB, 1));
      await client.flush();
      const full = statSync(path).blocks;
      await client.discard(MIB, 4 * MIB);
      await client.flush();
      assert.ok(statSync(path).blocks <= full - (3 * MIB) / 512);
      assert.equal((await client.read(MIB, 4096))[0], 0);
    });
  });

  it('is what it was under an overlay that takes the writes', async (t) => {
    const path = await makeImage(t, 'raw');
    const overlay = join(socketDirectory(t), 'overlay.qcow2');
    for (const expected of [0, 7]) {
      const image = await open(t, path, { format: 'raw', overlay });
      await use(image, async (client) => {
        assert.equal((await client.read(4096, 512))[0], expected);
        await client.write(4096, Buffer.alloc(512, 7));
        await client.flush();
      });
      await image.process.stop();
    }
    assert.ok(readFileSync(path).every((byte) => byte === 0));
    const other = await makeImage(t, 'raw');
    await assert.rejects(
      open(t, other, { format: 'raw', overlay }),
      refused('config', /overlay .* is over .*, not over /),
    );
    await assert.rejects(
      open(t, path, { format: 'qcow2', overlay }),
      refused('config', /takes the image for raw, not qcow2/),
    );
  });

  it('is refused while another has it, and waited for', async (t) => {
    const path = await makeImage(t);
    const first = await open(t, path);
    await assert.rejects(open(t, path), refused('state', /disk data: .*disk\.qcow2: .*lock/));
    await assert.rejects(open(t, path, { readonly: true }), refused('state', /lock/));
    const second = open(t, path, { lockWaitMs: 20_000, name: 'second' });
    await sleep(300);
    await first.process.stop();
    assert.equal((await second).description.name, 'second');
  });

  it('is shared by readers', async (t) => {
    const path = await makeImage(t);
    const [a, b] = [
      await open(t, path, { readonly: true, name: 'a' }),
      await open(t, path, { readonly: true, name: 'b' }),
    ];
    assert.equal(a.description.readonly && b.description.readonly, true);
  });

  it('is refused by name: not there, a directory, another format, an unknown one', async (t) => {
    const path = await makeImage(t, 'raw');
    await assert.rejects(open(t, `${path}.no`), refused('not-found', /ENOENT: image .*raw\.no/));
    await assert.rejects(open(t, socketDirectory(t)), refused('config', /is a directory/));
    await assert.rejects(open(t, path), refused('config', /not in qcow2 format/));
    const unknown = { format: 'probe' as 'raw' };
    await assert.rejects(open(t, path, unknown), refused('config', /image format probe/));
    truncateSync(path, 1000);
    await use(await open(t, path, { format: 'raw' }), async (client) => {
      // QEMU pads an odd file to its sector.
      assert.equal(client.disk.info.bytes, 1024);
      assert.equal((await client.request({ op: DISK_READ, offset: 512, bytes: 512 })).result, 0);
    });
  });

  it('goes on when its process is killed; a flush tells of writes that may be lost', async (t) => {
    const image = await open(t, await makeImage(t));
    await use(image, async (client) => {
      await client.write(0, Buffer.alloc(4096, 1));
      await client.flush();
      const written = Buffer.alloc(4096, 2);
      await client.write(4096, written);
      const { pid } = image.process;
      assert.ok(pid !== undefined);
      process.kill(pid, 'SIGKILL');
      const results: number[] = [];
      for (let i = 0; i < 8; i++) {
        const done = (result: number): void => {
          results.push(result);
        };
        const range = { offset: 8192 + 512 * i, bytes: 512, data: Buffer.alloc(512, 3) };
        client.submit({ op: DISK_WRITE, ...range, done });
      }
      await client.drain();
      assert.deepEqual(results, [0, 0, 0, 0, 0, 0, 0, 0]);
      assert.equal((await client.request({ op: DISK_FLUSH })).result, -EIO);
      await client.flush();
      assert.ok((await client.read(0, 4096)).every((byte) => byte === 1));
      assert.ok((await client.read(8192, 4096)).every((byte) => byte === 3));
      assert.equal(image.process.restarts, 1);
      assert.notEqual(image.process.pid, pid);
    });
  });

  it('has written everything when it is stopped, and its socket is gone', async (t) => {
    const path = await makeImage(t);
    const image = await open(t, path);
    await use(image, async (client) => client.write(0, Buffer.alloc(65_536, 5)));
    const socket = image.description.addresses[0]?.text ?? '';
    assert.equal(existsSync(socket), true);
    await image.process.stop();
    assert.equal(existsSync(socket), false);
    await run(qemuTools().img, ['check', '-q', '-f', 'qcow2', path]);
    await use(await open(t, path), async (client) => {
      assert.ok((await client.read(0, 65_536)).every((byte) => byte === 5));
    });
  });

  it('ends with the process that opened it, killed or not', async (t) => {
    const path = await makeImage(t);
    const options = { name: 'data', path, format: 'qcow2', directory: socketDirectory(t) };
    const program = `
      import { openImageDisk } from ${JSON.stringify(import.meta.resolve('../src/block/open/image.ts'))};
      const options = ${JSON.stringify({ ...options, tools: qemuTools() })};
      const { process: server } = await openImageDisk(options);
      console.log(server.pid);
    `;
    const parent = spawn(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', program],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    t.after(() => parent.kill('SIGKILL'));
    const [line] = (await once(parent.stdout, 'data')) as [Buffer];
    const pid = Number(line.toString());
    assert.ok(existsSync(`/proc/${pid}`));
    parent.kill('SIGKILL');
    // The kernel's lock tells when it has gone.
    const image = await open(t, path, { lockWaitMs: 20_000 });
    assert.ok(image.process.running);
    const state = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : 'Z';
    assert.match(state, /Z/, 'it has ended, though nobody may have asked for its exit code');
  });
});
