/** QEMU's own programs and Sluice keep each other from writing to one image. */
// suite: takes=3
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { SluiceError } from '../src/base/errors.ts';
import { silentLogger as log } from '../src/base/log.ts';
import { FileDisk } from '../src/block/file.ts';
import { openFileDisk } from '../src/block/open/file.ts';
import { testLane } from '../src/block/testing.ts';
import { findTestbed } from '../src/guest/testbed.ts';
import { socketDirectory, withoutTestbed } from './support/testbed.ts';

const SIZE = 1024 * 1024;
const INSIDE = '/run/host/disks/image';
const PATIENCE_MS = 30_000;
const REFUSED = /Failed to get .*lock/;

/** An image that the programs of the testbed see, too. */
class Image {
  readonly directory: string;
  readonly path: string;

  constructor(t: TestContext) {
    this.directory = socketDirectory(t);
    this.path = join(this.directory, 'image');
    writeFileSync(this.path, '');
    truncateSync(this.path, SIZE);
  }

  #command(...command: readonly string[]): string[] {
    return ['--bind', `${this.directory}=disks`, '--', ...command, '-f', 'raw', INSIDE];
  }

  /** Runs a program of QEMU's on the image; its output. */
  run(...command: readonly string[]): string {
    const { stdout, stderr, error } = spawnSync(findTestbed().enter, this.#command(...command), {
      encoding: 'utf8',
      timeout: PATIENCE_MS,
    });
    if (error !== undefined) throw error;
    return stdout + stderr;
  }

  /** Starts a qemu-nbd that has the image open. */
  async hold(...options: readonly string[]): Promise<ChildProcess> {
    const socket = `socket-${performance.now()}`;
    const inside = `/run/host/disks/${socket}`;
    const command = this.#command('qemu-nbd', '--persistent', '-k', inside, ...options);
    const child = spawn(findTestbed().enter, command, { stdio: ['ignore', 'ignore', 'inherit'] });
    // It locks the image before it listens.
    const end = performance.now() + PATIENCE_MS;
    while (!existsSync(join(this.directory, socket))) {
      assert.ok(child.exitCode === null && performance.now() < end, 'qemu-nbd does not start');
      await setTimeout(20);
    }
    return child;
  }

  /** Opens the disk as the daemon does, and lets it go again. */
  async serve(readonly: boolean, waitMs: number, body = (): void => undefined): Promise<void> {
    const options = { name: 'root', path: this.path, readonly, log, lockWaitMs: waitMs };
    const disk = new FileDisk(await openFileDisk(options), testLane());
    try {
      body();
    } finally {
      disk.close();
    }
  }

  /** Expects that the disk cannot be opened, because of qemu-nbd. */
  async refuse(readonly: boolean): Promise<void> {
    await assert.rejects(
      this.serve(readonly, 0),
      (error) =>
        error instanceof SluiceError && error.code === 'state' && /qemu-nbd/.test(error.message),
    );
  }
}

async function stop(child: ChildProcess): Promise<void> {
  const exit = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await exit;
}

describe('locks on images', { skip: withoutTestbed() }, () => {
  test('QEMU does not touch what Sluice writes, and reads what it reads', async (t) => {
    const image = new Image(t);
    await image.serve(false, 0, () => {
      assert.match(image.run('qemu-io', '-c', 'write 0 512'), REFUSED);
      assert.match(image.run('qemu-nbd', '-r', '-k', '/tmp/socket'), REFUSED);
    });
    await image.serve(true, 0, () => {
      assert.match(image.run('qemu-io', '-c', 'write 0 512'), REFUSED);
      assert.match(image.run('qemu-io', '-r', '-c', 'read 0 512'), /read 512\/512/);
    });
    assert.match(image.run('qemu-io', '-c', 'write 0 512'), /wrote 512\/512/);
  });

  test('Sluice does not touch what QEMU writes, and reads what it reads', async (t) => {
    const image = new Image(t);
    const writer = await image.hold();
    await image.refuse(false);
    await image.refuse(true);
    await stop(writer);
    const reader = await image.hold('-r');
    await image.refuse(false);
    await image.serve(true, 0);
    await stop(reader);
    await image.serve(false, PATIENCE_MS);
  });
});
