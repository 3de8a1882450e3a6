/**
 * docs/add-a-device.md: its pieces are those of the example, and a guest of Linux that is attached as it says
 * sees the device, rolls from the shell, and from the driver in user space, behind a virtual IOMMU.
 */
// suite: cores=0.5 takes=30 timeout=300
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { startQemu } from '../src/guest/qemu.ts';
import { startDice } from './support/dice.ts';
import { inTools } from './support/disks.ts';
import { withoutTestbed } from './support/testbed.ts';

const root = resolve(import.meta.dirname, '..');
const read = (path: string): string => readFileSync(resolve(root, path), 'utf8');
const page = read('docs/add-a-device.md');

/** The pieces of code of a language, in their order. */
function pieces(language: string): string[] {
  return [...page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, 'gms'))].map(
    ([, text = '']) => text,
  );
}

/** The piece that begins with these words. */
function piece(words: string): string {
  return (
    pieces('sh').find((text) => text.startsWith(words)) ??
    assert.fail(`the document has no commands that begin with ${words}`)
  );
}

/** The values of `-device` on the document's command line. */
function devices(): string[] {
  const command = piece('qemu-system-x86_64');
  assert.match(command, /memory-backend-memfd,.*share=on/);
  return [...command.matchAll(/ -device (?:'([^']+)'|([^ ]+))/g)].map(
    ([, quoted, plain]) => quoted ?? plain ?? '',
  );
}

test('the document shows the whole of the example, in its order', () => {
  const solid = (text: string): string => text.replaceAll(/\n{2,}/g, '\n');
  assert.equal(solid(pieces('ts').join('\n')), solid(read('examples/dice.ts')));
});

test('a Linux guest rolls dice', { skip: withoutTestbed() }, async (t) => {
  const dice = await startDice(t);
  const guest = startQemu({
    name: 'dice',
    memory: 256,
    tools: true,
    kernelParameters: 'intel_iommu=on iommu=pt',
    options: (inside) => [
      ...['-machine', 'kernel-irqchip=split'],
      ...devices().flatMap((device) => [
        '-device',
        device.replace('./dice.sock', inside(dice.path)),
      ]),
    ],
  });
  t.after(async () => {
    await guest.kill();
  });
  await guest.booted();
  const tools = inTools(guest);

  await t.test('from the shell', async () => {
    const printed = (await tools.sh(`set -e\n${piece('lspci -nn')}`)).split('\n');
    assert.match(printed[0] ?? '', /^00:\w\w\.0 System peripheral \[0880\]: .* \[1af4:10f1\]$/);
    const [id, failed, done, numbers, asserted, quiet] = printed.slice(1);
    assert.deepEqual(
      { id, failed, done, asserted, quiet },
      { id: '0x45434944', failed: '0x00000002', done: '0x00000001', asserted: '18', quiet: '10' },
      dice.log(),
    );
    const bytes = Buffer.from((numbers ?? '').slice(2), 'hex');
    assert.equal(bytes.length, 4);
    for (const number of bytes) assert.ok(number >= 1 && number <= 20, `a die shows ${number}`);
  });

  await t.test('by a driver', async () => {
    await guest.sh(`cat >/tmp/dice.pl <<'END'\n${read('examples/dice.pl')}END`);
    const commands = piece('cd /sys/bus/pci').replace('perl dice.pl', 'perl /tmp/dice.pl');
    const [numbers = '', interrupts] = (await tools.sh(`set -e\n${commands}`)).split('\n');
    const values = numbers.split(' ').map(Number);
    assert.equal(values.length, 12);
    for (const number of values) assert.ok(number >= 1 && number <= 20, `a die shows ${number}`);
    assert.equal(interrupts, '1 interrupt');
    // A page of them, of which the last is there too; and more than there are.
    const again = `perl /tmp/dice.pl $(lspci -D -d 1af4:10f1 | cut -d ' ' -f 1)`;
    const many = (await tools.sh(`${again} 4096 1`)).split('\n')[0] ?? '';
    assert.equal(many, new Array<string>(4096).fill('1').join(' '));
    const { code, stderr } = await tools.run(`${again} 4097`);
    assert.notEqual(code, 0);
    assert.match(stderr, /status 2: the dice fell off the table/);
  });
});
