import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { allowedCpus } from '../../src/bench/machine.ts';
import { commandDiskServer } from './disk-servers.ts';

function place(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-test-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return { directory, cpu: allowedCpus()[0] ?? 0, file: '/there/disk.img', direct: true };
}

test('a command is told what to serve, where and how', async (t) => {
  const tell = 'echo "$FILE $DIRECT $POLL_US."; : >"$SOCKET"; read line';
  for (const [polling, words] of [
    [true, '/there/disk.img 1 10000.\n'],
    [false, '/there/disk.img 1 .\n'],
  ] as const) {
    const { process, socket } = await commandDiskServer(tell).start({ ...place(t), polling });
    t.after(() => process.stop());
    assert.match(socket, /disk\.sock$/);
    assert.equal(await process.until('words', 20_000, () => process.answers || undefined), words);
  }
});

test('a command that ends before it listens is an error with its words', async (t) => {
  const start = commandDiskServer('echo no such file >&2; exit 1').start({
    ...place(t),
    polling: false,
  });
  await assert.rejects(start, { code: 'state', message: /ended \(code 1\).*no such file/s });
});
