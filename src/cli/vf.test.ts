// suite: takes=25
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { noNamespace, Place } from './testing.ts';

const CONFIG = `switches: { lan: {} }
nics: { nic0: { model: 82599, ports: [{ wire: { switch: lan } }, {}] } }
guests:
  web: { net: [{ method: sriov, nic: nic0, port: 0, vf: 3, mac: "52:54:00:00:00:03" }] }
  big: { net: [{ method: direct, nic: nic0, port: 1 }] }
`;

describe('how to attach guests with functions of NICs', () => {
  test('qemu-args gives each function a root port of its speed, and a socket', async () => {
    await using place = new Place(CONFIG);
    for (const guest of ['web', 'big']) {
      const list = (await place.json('guest', 'qemu-args', guest)) as string[];
      assert.deepEqual(list.slice(6, 9), [
        '-device',
        'pcie-root-port,id=sluice-net0-port,chassis=100,x-speed=5,x-width=8',
        '-device',
      ]);
      assert.deepEqual(JSON.parse(list[9] ?? ''), {
        driver: 'vfio-user-pci',
        id: 'sluice-net0',
        bus: 'sluice-net0-port',
        socket: { path: `${place.run}/${guest}-net0.sock`, type: 'unix' },
      });
    }
  });

  test('User-Mode Linux has no PCI', async () => {
    await using place = new Place(CONFIG);
    const { code, stderr } = await place.sluice('guest', 'uml-args', 'web');
    assert.equal(code, 1);
    assert.match(stderr, /no PCI, which web\/net0 \(method: sriov\) would need/);
  });
});

test('words of ip link: set, shown, kept over a reload; functions made and removed', async () => {
  await using place = new Place(CONFIG);
  await place.up();
  const set = await place.sluice('vf', 'set', 'nic0/0', 'vf', '3', 'vlan', '10', 'qos', '3');
  assert.equal(set.code, 0, set.stderr);
  assert.match(set.stdout, /^ {4}vf 3 +link\/ether 52:54:00:00:00:03 .*, vlan 10, qos 3, spoof/);
  const more = (await place.json(
    ...['vf', 'set', 'nic0/0', 'vf', '3', 'rate', '1000', 'trust', 'on', 'state', 'disable'],
  )) as Record<string, unknown>;
  assert.deepEqual(
    [more['vlan'], more['qos'], more['max_tx_rate'], more['trust'], more['link']],
    [10, 3, 1000, true, false],
  );
  assert.deepEqual(await place.json('reload'), { done: [], failed: [] });

  const add = await place.sluice('vf', 'add', 'nic0/0', 'vf', '7', 'spoofchk', 'off');
  assert.deepEqual([add.code, add.stdout], [0, `${place.run}/nic0-0-vf7.sock\n`], add.stderr);
  const { stdout } = await place.sluice('show', 'vfs');
  assert.match(stdout, /^nic0\/0:\n {4}vf 3 .*max_tx_rate 1000Mbps.*link-state disable, trust on/);
  assert.match(stdout, /\n {8}nic0\/0\/vf7 waiting, link up\n/);
  assert.match((await place.sluice('show')).stdout, /web +web\/net0 +sriov +nic0\/0 vf 3, 52:54/);
  assert.equal((await place.sluice('vf', 'remove', 'nic0/0', 'vf', '7')).code, 0);
  const left = (await place.json('show', 'vfs')) as { readonly vf: number }[];
  assert.deepEqual(
    left.map(({ vf }) => vf),
    [3],
  );

  const wrong = [
    [['set', 'nic0/0', 'vf', '3', 'vlna', '1'], 2, /vlna is none of .*did you mean "vlan"/],
    [['set', 'nic0/0', 'vf', '4', 'vlan', '1'], 1, /no vf 4; there are nic0\/0\/vf3 \(make it/],
    [['set', 'nic0/0', 'vf', '3', 'min_tx_rate', '2000'], 1, /min_tx_rate 2000 contradicts max_tx/],
    [['remove', 'nic0/0', 'vf', '3', 'vlan', '1'], 2, /vlan 1 is too much/],
  ] as const;
  for (const [words, code, message] of wrong) {
    const outcome = await place.sluice('vf', ...words);
    assert.equal(outcome.code, code, `${words.join(' ')}: ${outcome.stderr}`);
    assert.match(outcome.stderr, message);
  }
  assert.equal((await place.sluice('down')).code, 0);
});

test('a port of a NIC is wired to the host, and then to a switch, while its functions stay', {
  skip: noNamespace,
}, async () => {
  const wired = (wire: string): string => `switches: { lan: {} }
nics: { nic0: { model: 82599, ports: [{ wire: { ${wire} } }] } }
guests: { web: { net: [{ method: sriov, nic: nic0, port: 0, vf: 3 }] } }
`;
  await using place = new Place(wired('tap: sluice0, trunk: [0, 5]'));
  const daemon = await place.up('unshare', '-n');
  const inside = (...words: string[]): string =>
    spawnSync('nsenter', ['-n', '-t', String(daemon.pid), ...words], { encoding: 'utf8' }).stdout;
  interface Row {
    readonly port: string;
    readonly switch: string;
    readonly kind: string;
    readonly counters: Readonly<Record<string, number>>;
  }
  const ports = async (): Promise<Row[]> => (await place.json('show', 'ports')) as Row[];
  assert.deepEqual(
    (await ports()).map((row) => [row.port, row.switch, row.kind]),
    [
      ['nic0/0', 'nic0/0', 'nic'],
      ['nic0/0/wire', 'nic0/0', 'tap'],
      ['web/net0', 'nic0/0', 'guest'],
    ],
  );
  // The host looks for its neighbour: that comes to the port.
  inside('ip', 'addr', 'add', '192.0.2.1/24', 'dev', 'sluice0');
  inside('ping', '-c', '1', '-W', '1', '192.0.2.2');
  const [port, wire] = await ports();
  assert.ok((wire?.counters['tx_frames'] ?? 0) > 0);
  assert.ok((port?.counters['rx_frames'] ?? 0) > 0);
  place.write(wired('switch: lan'));
  assert.deepEqual(await place.json('reload'), {
    done: ['remove nic-wire nic0/0', 'add nic-wire nic0/0'],
    failed: [],
  });
  assert.equal(inside('ip', '-o', 'link', 'show', 'sluice0'), '');
  assert.deepEqual(
    (await ports()).map((row) => [row.port, row.switch]),
    [
      ['nic0/0', 'lan'],
      ['web/net0', 'nic0/0'],
    ],
  );
});
