/**
 * A Linux guest of QEMU with a PCI function over vfio-user: what the guest sees of it, registers,
 * and DMA, which is refused where the guest has no memory. The guest's memory is a file that the lane
 * maps, or QEMU's own, which the lane reaches by messages.
 */
// suite: timeout=300
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startQemu } from '../src/guest/qemu.ts';
import { socketDirectory, withoutTestbed } from './support/testbed.ts';

const MEMORY_MIB = 256;

for (const [name, memory] of [
  ['a function over vfio-user', []],
  [
    'a function that has no file of its memory',
    [
      ...['-object', `memory-backend-ram,id=private,size=${MEMORY_MIB}M`],
      ...['-machine', 'memory-backend=private'],
    ],
  ],
] as const) {
  test(`a Linux guest uses ${name}`, { skip: withoutTestbed() }, (t) => useFunction(t, memory));
}

async function useFunction(t: TestContext, memory: readonly string[]): Promise<void> {
  const path = join(socketDirectory(t), 'mailbox.sock');
  let log = '';
  const program = join(import.meta.dirname, 'support/vfio-user-function.ts');
  const lane = spawn(process.execPath, ['--no-warnings', program, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => lane.kill('SIGKILL'));
  lane.stdout.setEncoding('utf8');
  await new Promise<void>((resolve, reject) => {
    lane.on('error', reject);
    lane.on('exit', (code) => reject(new Error(`the lane ended with code ${code}`)));
    lane.stdout.on('data', (text: string) => {
      log += text;
      if (log.includes('ready\n')) resolve();
    });
  });
  const guest = startQemu({
    name: 'vfio-user',
    memory: MEMORY_MIB,
    options: (inside) => [
      ...memory,
      '-device',
      'pcie-root-port,id=rp0,slot=1',
      '-device',
      JSON.stringify({
        driver: 'vfio-user-pci',
        id: 'v0',
        bus: 'rp0',
        rombar: 0,
        socket: { path: inside(path), type: 'unix' },
      }),
    ],
  });
  t.after(() => guest.kill());
  await guest.booted();
  const run = async (script: string): Promise<string> => {
    const { code, stdout, stderr } = await guest.run(script);
    assert.equal(code, 0, `${script}: ${stderr}\n${log}`);
    return stdout.trim();
  };
  const device = (await run('grep -l 0x10ff /sys/bus/pci/devices/*/device | xargs dirname')).trim();
  assert.equal(await run(`cat ${device}/vendor ${device}/class`), '0x1af4\n0x088000');
  await run(`echo 1 > ${device}/enable`);
  const bar = Number((await run(`head -n 1 ${device}/resource`)).split(' ')[0]);
  const read = async (offset: number): Promise<number> =>
    Number(await run(`busybox devmem ${bar + offset} 32`));
  const write = (offset: number, value: number): Promise<string> =>
    run(`busybox devmem ${bar + offset} 32 ${value}`);
  assert.equal(await read(0), 0x534c5543);
  await write(4, 0x1234_5678);
  assert.equal(await read(4), 0x1234_5678);
  // Bus mastering is off: nothing is written anywhere.
  await write(8, 0x1000);
  assert.equal(await read(12), 1);
  // Bus Master Enable, beside memory decoding, in the command register.
  await run(`printf '\\006\\000' | dd of=${device}/config bs=2 seek=2 count=1 conv=notrunc`);
  // The first page of memory is the firmware's, and Linux lets it be read.
  await write(8, 0x500);
  assert.equal(await read(12), 1, 'refused with bus mastering on');
  assert.equal(Number(await run('busybox devmem 0x500 32')), 0x1234_5678);
  // Where there is no memory.
  await write(8, 0xe000_0000);
  assert.equal(await read(12), 2);
}
