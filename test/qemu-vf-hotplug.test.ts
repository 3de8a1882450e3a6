/** A virtual function that is made, and plugged into a running guest of QEMU, which then loses it. */
// suite: timeout=300
import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { startQemu } from '../src/guest/qemu.ts';
import { bringUp, macOf } from './support/cards.ts';
import { carrier } from './support/emulated-cards.ts';
import { Sluice } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

const PORT = 'nic0/0';

test('a function is plugged into a running guest, and taken away', {
  skip: withoutTestbed(),
}, async (t) => {
  const sluice = await Sluice.start(t, {
    switches: { lan: {} },
    nics: { nic0: { model: 82599, ports: [{ wire: { switch: 'lan' }, link: 'none' }] } },
    guests: {
      a: { net: [{ method: 'sriov', nic: 'nic0', port: 0, vf: 0, mac: macOf(0, 1) }] },
    },
  });
  let run = '';
  const guest = startQemu({
    name: 'a',
    memory: 320,
    options: (inside) => {
      run = dirname(inside(join(sluice.run, 'any')));
      const socket = { path: join(run, 'a-net0.sock'), type: 'unix' };
      const port = (index: number): string =>
        `pcie-root-port,id=rp${index},chassis=${index + 1},slot=${index + 1},x-speed=5,x-width=8`;
      return [
        ...['-device', port(0), '-device', port(1), '-device'],
        JSON.stringify({ driver: 'vfio-user-pci', id: 'first', bus: 'rp0', rombar: 0, socket }),
      ];
    },
  });
  t.after(async () => {
    await guest.kill();
  });
  const first = await bringUp(guest, 0, 1);
  await carrier(first);

  await sluice.show('addVf', { nic: PORT, vf: 7, set: { mac: macOf(1, 2) } });
  await guest.qmp('device_add', {
    driver: 'vfio-user-pci',
    id: 'second',
    bus: 'rp1',
    rombar: 0,
    socket: { path: join(run, 'nic0-0-vf7.sock'), type: 'unix' },
  });
  const second = await bringUp(guest, 1, 2);
  await carrier(second);
  const before = (await sluice.counters(`${PORT}/vf7`)).rx_frames;
  // Nobody has this address: the request goes to all.
  await guest.run('ping -c 2 -W 1 10.0.0.77');
  assert.ok((await sluice.counters(`${PORT}/vf7`)).rx_frames > before);

  await sluice.show('removeVf', { nic: PORT, vf: 7 });
  assert.deepEqual(
    (await sluice.show('vfs')).map(({ vf }) => vf),
    [0],
  );
  // The guest, and its other function, go on.
  await carrier(first);
  const sent = (await sluice.counters('a/net0')).tx_frames;
  await guest.run('ping -c 1 -W 1 10.0.0.78');
  assert.ok((await sluice.counters('a/net0')).tx_frames > sent);
});
