/**
 * A Linux guest of QEMU with a PCI function over vfio-user whose memory is QEMU's own: the lane reaches it by
 * messages. What the guest sees of the function, registers, and DMA, which is refused where the guest has no
 * memory. (With memory that the lane maps: add-a-device.test.ts.)
 */
// suite: cores=0.5 takes=10 timeout=300
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startQemu } from '../src/guest/qemu.ts';
import { startDice } from './support/dice.ts';
import { withoutTestbed } from './support/testbed.ts';

const MEMORY_MIB = 256;
/** Registers of examples/dice.ts. */
const [ID, SIDES, ADDRESS, ADDRESS_HIGH, ROLL, STATUS] = [0, 4, 8, 12, 16, 20];
const [DONE, FAILED] = [1, 2];

test('a Linux guest uses a function that has no file of its memory', {
  skip: withoutTestbed(),
}, async (t) => {
  const dice = await startDice(t);
  const guest = startQemu({
    name: 'vfio-user',
    memory: MEMORY_MIB,
    options: (inside) => [
      ...['-object', `memory-backend-ram,id=private,size=${MEMORY_MIB}M`],
      ...['-machine', 'memory-backend=private'],
      '-device',
      'pcie-root-port,id=rp0,slot=1',
      '-device',
      JSON.stringify({
        driver: 'vfio-user-pci',
        id: 'v0',
        bus: 'rp0',
        rombar: 0,
        socket: { path: inside(dice.path), type: 'unix' },
      }),
    ],
  });
  t.after(async () => {
    await guest.kill();
  });
  await guest.booted();
  const run = async (script: string): Promise<string> => {
    const { code, stdout, stderr } = await guest.run(script);
    assert.equal(code, 0, `${script}: ${stderr}\n${dice.log()}`);
    return stdout.trim();
  };
  const device = (await run('grep -l 0x10f1 /sys/bus/pci/devices/*/device | xargs dirname')).trim();
  assert.equal(await run(`cat ${device}/vendor ${device}/class`), '0x1af4\n0x088000');
  await run(`echo 1 > ${device}/enable`);
  const bar = Number((await run(`head -n 1 ${device}/resource`)).split(' ')[0]);
  const read = async (offset: number): Promise<number> =>
    Number(await run(`busybox devmem ${bar + offset} 32`));
  const write = (offset: number, value: number): Promise<string> =>
    run(`busybox devmem ${bar + offset} 32 ${value}`);
  /** Rolls four dice that all show the same; what the status is when they have come to rest. */
  const roll = async (sides: number): Promise<number> => {
    await write(STATUS, DONE | FAILED);
    await write(SIDES, sides);
    await write(ROLL, 4);
    // The numbers go by message: the answer comes when it comes.
    const status = `busybox devmem ${bar + STATUS} 32`;
    return Number(await run(`while [ $(($(${status}))) = 0 ]; do sleep 0.01; done; ${status}`));
  };
  assert.equal(await read(ID), 0x4543_4944);
  await write(SIDES, 0);
  assert.equal(await read(SIDES), 6, 'dice without sides');
  await write(ADDRESS, 0x500);
  // Bus mastering is off: nothing is written anywhere.
  assert.equal(await roll(1), FAILED);
  // Bus Master Enable, beside memory decoding, in the command register.
  await run(`printf '\\006\\000' | dd of=${device}/config bs=2 seek=2 count=1 conv=notrunc`);
  // The first page of memory is the firmware's, and Linux lets it be read.
  assert.equal(await roll(1), DONE);
  assert.equal(Number(await run('busybox devmem 0x500 32')), 0x0101_0101);
  // Where there is no memory.
  await write(ADDRESS_HIGH, 0x10);
  assert.equal(await roll(1), FAILED);
  await write(ADDRESS_HIGH, 0xffff_ffff);
  assert.equal(await roll(1), FAILED);
});
