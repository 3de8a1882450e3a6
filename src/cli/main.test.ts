// suite: takes=60
import assert from 'node:assert/strict';
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { until } from '../daemon/testing.ts';
import { EmbeddedGuests, newFlow } from '../guest/embedded/launcher.ts';
import { type CapturedPacket, parseCapture } from '../net/testing-pcapng.ts';
import { noNamespace, Place } from './testing.ts';

const WEB = '52:54:00:00:00:01';
const DB = '52:54:00:00:00:02';
const TWO_GUESTS = `switches: { lan: {} }
guests:
  web: { net: [{ method: paravirtual, switch: lan, mac: "${WEB}" }] }
  db: { net: [{ method: paravirtual, switch: lan, mac: "${DB}" }] }
`;

async function exitCode(child: ChildProcess): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  return child.exitCode;
}

/** Attaches two guests that send each other frames; returns a count of answers. */
async function attachPair(t: TestContext, run: string): Promise<() => Promise<number>> {
  const guests = await EmbeddedGuests.start();
  t.after(() => guests[Symbol.asyncDispose]());
  await guests.attach({ name: 'web', socket: join(run, 'web-net0.sock'), mac: WEB });
  await guests.attach({ name: 'db', socket: join(run, 'db-net0.sock'), mac: DB });
  await guests.start({
    db: [{ role: 'echo' }],
    web: [{ role: 'ping', mac: DB, flow: newFlow(), frame: 100, intervalUs: 1000 }],
  });
  return async () => {
    const { web } = (await guests.read()).guests;
    return web?.pairs[0]?.roundTrips ?? 0;
  };
}

describe('words and exit codes', () => {
  test('--version and --help are no errors', async () => {
    await using place = new Place();
    const version = await place.sluice('--version');
    assert.equal(version.code, 0);
    assert.match(version.stdout, /^\d+\.\d+\.\d+\n$/);
    const help = await place.sluice('--help');
    assert.equal(help.code, 0);
    for (const command of [
      'up',
      'show',
      'reload',
      'down',
      'guest',
      'disk',
      'capture',
      'bench',
      'schema',
    ])
      assert.match(help.stdout, new RegExp(`^  ${command} `, 'm'));
  });

  test('a wrong word is usage: exit code 2, and the nearest right one', async () => {
    await using place = new Place(TWO_GUESTS);
    const command = await place.sluice('shwo');
    assert.equal(command.code, 2);
    assert.match(command.stderr, /unknown command 'shwo'\n\(Did you mean show\?\)/);
    const subject = await place.sluice('show', 'portz');
    assert.equal(subject.code, 2);
    assert.match(
      subject.stderr,
      /Allowed choices are guests, ports, disks, devices, functions, vfs, rings/,
    );
    assert.equal((await place.sluice('up', '--nonsense')).code, 2);
    const json = await place.sluice('show', 'portz', '--json');
    assert.equal(json.code, 2);
    const { error } = JSON.parse(json.stderr) as { error: { code: string; message: string } };
    assert.equal(error.code, 'usage');
    assert.match(error.message, /^command-argument value 'portz'/);
  });

  test('a failure is exit code 1, one line: what, where, remedy; no stack', async () => {
    await using place = new Place(TWO_GUESTS);
    const { code, stderr } = await place.sluice('show');
    assert.equal(code, 1);
    assert.equal(
      stderr,
      `sluice: no sluice runs in ${place.run} (start it with sluice up, or name its file with --config or its directory with --run)\n`,
    );
    const json = await place.sluice('show', '--json');
    assert.equal(json.code, 1);
    assert.equal(JSON.parse(json.stderr).error.code, 'state');
  });

  test('a wrong configuration is told line by line, and nothing is made', async () => {
    await using place = new Place('swiches: {}\nlanes: none\n');
    const { code, stderr } = await place.sluice('up');
    assert.equal(code, 1);
    assert.equal(
      stderr,
      `sluice: ./sluice.yaml:1:1: swiches: unknown key; allowed here: run, isolation, lanes, switches, nics, disks, guests; did you mean "switches"?
sluice: ./sluice.yaml:2:8: lanes: "none" is not valid: expected a number of lanes, 1 to 64, or a list of so many { cpus: [N] }
`,
    );
    assert.deepEqual(readdirSync(place.path), ['sluice.yaml']);
    const missing = await place.sluice('up', 'other.yaml');
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /^sluice: configuration file other\.yaml does not exist \(/);
  });
});

describe('how to attach guests', () => {
  const CARDS = `switches: { lan: {} }
guests:
  web:
    memory: 2G
    net:
      - { method: paravirtual, switch: lan, mac: "${WEB}" }
      - { method: paravirtual, switch: lan, mac: "${DB}", queues: 2, packed: on, mtu: 9000, server: connect }
`;

  test('qemu-args gives each card a socket and a device', async () => {
    await using place = new Place(CARDS);
    const expected = [
      '-m',
      '2048M',
      '-object',
      'memory-backend-memfd,id=sluice-mem,size=2048M,share=on',
      '-machine',
      'memory-backend=sluice-mem',
      '-chardev',
      `socket,id=sluice-net0-socket,path=${place.run}/web-net0.sock,reconnect-ms=1000`,
      '-netdev',
      'vhost-user,id=sluice-net0,chardev=sluice-net0-socket,queues=1',
      '-device',
      `virtio-net-pci,netdev=sluice-net0,mac=${WEB},rx_queue_size=1024,tx_queue_size=1024`,
      '-chardev',
      `socket,id=sluice-net1-socket,path=${place.run}/web-net1.sock,server=on,wait=off`,
      '-netdev',
      'vhost-user,id=sluice-net1,chardev=sluice-net1-socket,queues=2',
      '-device',
      `virtio-net-pci,netdev=sluice-net1,mac=${DB},rx_queue_size=1024,tx_queue_size=1024,mq=on,vectors=6,packed=on,host_mtu=9000`,
    ];
    assert.deepEqual(await place.json('guest', 'qemu-args', 'web'), expected);
    const { stdout } = await place.sluice('guest', 'qemu-args', 'web');
    assert.deepEqual(stdout.trim().split(' '), expected);
  });

  const DISKS = `disks: { root: { file: root.img }, data: { memory: 16M } }
guests:
  web:
    disk:
      - { method: paravirtual, disk: root }
      - { method: paravirtual, disk: data, queues: 4, seg_max: 254, packed: on, server: connect }
`;

  test('qemu-args gives each disk a socket and a device, and boots from the first', async () => {
    await using place = new Place(DISKS);
    const list = (await place.json('guest', 'qemu-args', 'web')) as string[];
    assert.deepEqual(list.slice(6), [
      '-chardev',
      `socket,id=sluice-disk0-socket,path=${place.run}/web-disk0.sock,reconnect-ms=1000`,
      '-device',
      'vhost-user-blk-pci,id=sluice-disk0,chardev=sluice-disk0-socket,num-queues=1,bootindex=1',
      '-chardev',
      `socket,id=sluice-disk1-socket,path=${place.run}/web-disk1.sock,server=on,wait=off`,
      '-device',
      'vhost-user-blk-pci,id=sluice-disk1,chardev=sluice-disk1-socket,num-queues=4,queue-size=256,packed=on',
    ]);
  });

  test('emulated devices: a function for each card, one for all drives; none for User-Mode Linux', async () => {
    await using place = new Place(`switches: { lan: {} }
disks: { root: { file: root.img }, data: { memory: 16M } }
guests:
  web:
    net:
      - { method: paravirtual, switch: lan, mac: "${WEB}" }
      - { method: emulated, model: 82574, switch: lan }
    disk:
      - { method: emulated, model: ahci, disk: root }
      - { method: emulated, model: ahci, disk: data }
`);
    const list = (await place.json('guest', 'qemu-args', 'web')) as string[];
    const socket = (name: string) => ({ path: `${place.run}/web-${name}.sock`, type: 'unix' });
    const functions = list.filter((word) => word.startsWith('{'));
    assert.deepEqual(
      functions.map((word) => JSON.parse(word)),
      ['net1', 'ahci0'].map((name) => ({
        driver: 'vfio-user-pci',
        id: `sluice-${name}`,
        socket: socket(name),
      })),
    );
    assert.ok(list.includes('memory-backend-memfd,id=sluice-mem,size=512M,share=on'));
    assert.ok(list.some((word) => word.startsWith('virtio-net-pci,netdev=sluice-net0')));
    const { stdout } = await place.sluice('guest', 'qemu-args', 'web');
    assert.deepEqual(stdout.trim().split(' '), list);
    const { code, stderr } = await place.sluice('guest', 'uml-args', 'web');
    assert.equal(code, 1);
    assert.match(
      stderr,
      /no PCI, which web\/net1 \(method: emulated\), web\/ahci0\.0 \(method: emulated\), web\/ahci0\.1 \(method: emulated\) would/,
    );
  });

  test('uml-args gives each disk its socket', async () => {
    await using place = new Place(DISKS.replace(', server: connect', ''));
    assert.deepEqual(await place.json('guest', 'uml-args', 'web'), [
      'mem=512M',
      `virtio_uml.device=${place.run}/web-disk0.sock:2`,
      `virtio_uml.device=${place.run}/web-disk1.sock:2`,
    ]);
  });

  test('isolation: strict asks for sealed memory', async () => {
    await using place = new Place(`isolation: strict\n${TWO_GUESTS}`);
    const { stdout } = await place.sluice('guest', 'qemu-args', 'web');
    assert.match(stdout, /share=on,seal=on /);
  });

  test('uml-args; and not for a socket that User-Mode Linux would have to listen on', async () => {
    await using place = new Place(TWO_GUESTS);
    assert.deepEqual(await place.json('guest', 'uml-args', 'db'), [
      'mem=512M',
      `virtio_uml.device=${place.run}/db-net0.sock:1`,
    ]);
    place.write(CARDS);
    const { code, stderr } = await place.sluice('guest', 'uml-args', 'web');
    assert.equal(code, 1);
    assert.match(stderr, /web\/net1 has server: connect/);
  });

  test('an unknown guest is told with those that are there', async () => {
    await using place = new Place(TWO_GUESTS);
    const { code, stderr } = await place.sluice('guest', 'qemu-args', 'wbe');
    assert.equal(code, 1);
    assert.match(stderr, /no guest wbe in .*; it has web, db; did you mean "web"\?/);
  });

  test('a path that a shell would split is refused, and given as JSON', async () => {
    await using place = new Place(`run: "./my run"\n${TWO_GUESTS}`);
    const { code, stderr } = await place.sluice('guest', 'uml-args', 'web');
    assert.equal(code, 1);
    assert.match(stderr, /would be split by a shell/);
    assert.equal(((await place.json('guest', 'uml-args', 'web')) as string[]).length, 2);
  });
});

describe('the daemon', () => {
  test('frames pass between two guests, and show tells of it', async (t) => {
    await using place = new Place(TWO_GUESTS);
    await place.up();
    const roundTrips = await attachPair(t, place.run);
    await until('frames', async () => (await roundTrips()) > 50);
    const ports = (await place.json('show', 'ports')) as {
      port: string;
      running: boolean;
      counters: Record<string, number>;
    }[];
    assert.deepEqual(
      ports.map(({ port, running }) => [port, running]),
      [
        ['web/net0', true],
        ['db/net0', true],
      ],
    );
    assert.ok((ports[0]?.counters['tx_frames'] ?? 0) > 50);
    const rings = (await place.json('show', 'rings')) as { started: boolean }[];
    assert.equal(rings.filter(({ started }) => started).length, 4);
    const macs = (await place.json('show', 'macs')) as { mac: string; port: string }[];
    assert.deepEqual(macs.map(({ mac, port }) => `${mac} ${port}`).toSorted(), [
      `${WEB} web/net0`,
      `${DB} db/net0`,
    ]);
    const text = await place.sluice('show');
    assert.match(
      text.stdout,
      /^GUEST {2}DEVICE .*\nweb +web\/net0 +paravirtual +switch lan, 52:54:00:00:00:01 +running /,
    );
    assert.deepEqual(await place.json('show', 'faults'), []);
    assert.deepEqual(await place.json('show', 'switches'), [
      { switch: 'lan', lane: 0, wire: 'none', ports: ['web/net0', 'db/net0'] },
    ]);
  });

  test('disks are shown and resized', async () => {
    await using place = new Place(
      'disks: { root: { file: root.img, serial: R-1 }, spare: { memory: 1M } }\nguests: { web: { disk: [{ method: paravirtual, disk: root }] } }',
    );
    writeFileSync(join(place.path, 'root.img'), Buffer.alloc(1024 * 1024));
    await place.up();
    const text = await place.sluice('show', 'disks');
    assert.match(
      text.stdout,
      /^DISK .*\nroot +file +1 MiB +read, write +web\/disk0 +\S+ +0 .*\nspare +memory +- +read, write +- /,
    );
    const devices = await place.sluice('show', 'devices');
    assert.match(devices.stdout, /^DEVICE .*\nweb\/disk0 +root +0 +waiting +0 /);
    const guests = await place.sluice('show');
    assert.match(
      guests.stdout,
      /\nweb +web\/disk0 +paravirtual +disk root +waiting +\S+web-disk0\.sock/,
    );
    const info = await place.sluice('disk', 'info', 'root');
    assert.match(info.stdout, /^size +1 MiB \(1048576 bytes\)$/m);
    assert.match(info.stdout, /^serial +R-1$/m);
    assert.match(info.stdout, /^lock +exclusive$/m);
    const grown = (await place.json('disk', 'resize', 'root', '2M')) as { bytes: number };
    assert.equal(grown.bytes, 2 * 1024 * 1024);
    assert.equal(statSync(join(place.path, 'root.img')).size, 2 * 1024 * 1024);
    const smaller = await place.sluice('disk', 'resize', 'root', '1M');
    assert.equal(smaller.code, 1);
    assert.match(smaller.stderr, /ask for that with --shrink/);
    const shrunk = (await place.json('disk', 'resize', 'root', '1M', '--shrink')) as {
      bytes: number;
    };
    assert.equal(shrunk.bytes, 1024 * 1024);
    const unknown = await place.sluice('disk', 'info', 'rot');
    assert.equal(unknown.code, 1);
    assert.match(unknown.stderr, /no disk rot; there are root, spare; did you mean "root"\?/);
    const wrong = await place.sluice('disk', 'resize', 'root', '1000');
    assert.equal(wrong.code, 2);
    assert.match(wrong.stderr, /Expected a size with its unit/);
  });

  test('a reload adds and removes guests and does not disturb the others', async (t) => {
    await using place = new Place(TWO_GUESTS);
    const daemon = await place.up();
    const roundTrips = await attachPair(t, place.run);
    await until('frames', async () => (await roundTrips()) > 10);
    place.write(`${TWO_GUESTS}  extra: { net: [{ method: paravirtual, switch: lan }] }\n`);
    assert.deepEqual(await place.json('reload'), { done: ['add port extra/net0'], failed: [] });
    assert.ok(existsSync(join(place.run, 'extra-net0.sock')));
    const before = await roundTrips();
    await until('more frames', async () => (await roundTrips()) > before + 10);
    // The same by a signal, back again.
    place.write(TWO_GUESTS);
    daemon.kill('SIGHUP');
    await until(
      'the guest to be removed',
      async () => !existsSync(join(place.run, 'extra-net0.sock')),
    );
    const later = await roundTrips();
    await until('more frames', async () => (await roundTrips()) > later + 10);
    assert.deepEqual(await place.json('reload'), { done: [], failed: [] });
  });

  test('a reload of a wrong file changes nothing, and what needs a restart is told', async () => {
    await using place = new Place(TWO_GUESTS);
    await place.up();
    place.write('guests: 7');
    const wrong = await place.sluice('reload');
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /guests: 7 is not valid/);
    assert.match(wrong.stderr, /^sluice: .*name the running daemon's directory: --run DIR\)$/m);
    assert.equal((await place.sluice('show', '--run', place.run)).code, 0);
    place.write(`lanes: 2\n${TWO_GUESTS}`);
    const restart = await place.sluice('reload');
    assert.equal(restart.code, 1);
    assert.match(
      restart.stderr,
      /a reload cannot change lanes; nothing was changed \(stop Sluice and start it again\)/,
    );
    assert.equal(((await place.json('show', 'guests')) as unknown[]).length, 2);
  });

  test('a second daemon in the same run directory is refused, with the pid of the first', async () => {
    await using place = new Place(TWO_GUESTS);
    const first = await place.up();
    const { code, stderr } = await place.sluice('up');
    assert.equal(code, 1);
    assert.match(stderr, new RegExp(`another sluice \\(pid ${first.pid}\\) runs in ${place.run}`));
    assert.equal(((await place.json('show', 'guests')) as unknown[]).length, 2);
  });

  for (const end of ['SIGTERM', 'SIGINT', 'sluice down'] as const) {
    test(`${end} ends it with exit code 0 and removes the sockets`, async () => {
      await using place = new Place(TWO_GUESTS);
      const daemon = await place.up();
      assert.equal(statSync(place.run).mode & 0o777, 0o700);
      assert.equal(statSync(join(place.run, 'control.sock')).mode & 0o777, 0o600);
      if (end === 'sluice down') {
        assert.deepEqual(await place.json('down'), {});
        // It has ended: another one may start.
        assert.ok(!existsSync(join(place.run, 'control.sock')));
      } else daemon.kill(end);
      assert.equal(await exitCode(daemon), 0);
      assert.deepEqual(
        readdirSync(place.run).filter((file) => file.endsWith('.sock')),
        [],
      );
    });
  }

  test('killed and started again, it serves at the same sockets', async (t) => {
    await using place = new Place(TWO_GUESTS);
    const first = await place.up();
    first.kill('SIGKILL');
    await exitCode(first);
    assert.ok(existsSync(join(place.run, 'web-net0.sock')));
    const second = await place.up();
    const roundTrips = await attachPair(t, place.run);
    await until('frames', async () => (await roundTrips()) > 10);
    assert.equal(readFileSync(join(place.run, 'lock'), 'utf8'), `${second.pid}\n`);
  });

  test('what cannot be served ends the start with exit code 1 and leaves no socket', async () => {
    await using place = new Place(TWO_GUESTS);
    // In the place of the second guest's socket there is something else.
    mkdirSync(join(place.run, 'db-net0.sock'), { recursive: true });
    const { code, stderr } = await place.sluice('up');
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^sluice: add port db\/net0: .*db-net0\.sock exists and is not a socket \(move it away\)/m,
    );
    assert.ok(!existsSync(join(place.run, 'web-net0.sock')));
    assert.ok(!existsSync(join(place.run, 'control.sock')));
  });

  test('metrics are in the text format of Prometheus', async () => {
    await using place = new Place(TWO_GUESTS);
    await place.up();
    const { ControlClient } = await import('../control/client.ts');
    const text = await new ControlClient(place.run).text('GET', '/metrics');
    assert.match(
      text,
      /^# TYPE sluice_port_tx_frames_total counter\nsluice_port_tx_frames_total\{port="web\/net0",switch="lan"\} 0$/m,
    );
    assert.match(text, /^sluice_lane_sleeps_total\{lane="0"\} \d+$/m);
    await assert.rejects(new ControlClient(place.run).text('GET', '/v1/nothing'), {
      code: 'not-found',
    });
  });
});

describe('capture', () => {
  /** Whether packets of one guest to the other are among them. */
  const has = (packets: readonly CapturedPacket[], from: string, to: string): boolean => {
    const addresses = Buffer.from(`${to}${from}`.replaceAll(':', ''), 'hex');
    return packets.some(({ data }) => addresses.equals(data.subarray(0, addresses.length)));
  };

  test('writes what passes a port, until interrupted', async (t) => {
    await using place = new Place(TWO_GUESTS);
    await place.up();
    const roundTrips = await attachPair(t, place.run);
    const file = join(place.path, 'web.pcapng');
    const capture = place.start('capture', 'web/net0', '-w', file);
    await until('a capture', async () => existsSync(file) && statSync(file).size > 5000);
    const second = await place.sluice('capture', 'web/net0', '-w', '/dev/null');
    assert.equal(second.code, 1);
    assert.match(second.stderr, /port web\/net0 is being captured already/);
    capture.kill('SIGINT');
    assert.equal(await exitCode(capture), 0);
    const { packets, statistics } = parseCapture(readFileSync(file));
    // The end of the file is there, and so is all before it.
    const [{ received, dropped } = { received: 0n, dropped: 0n }] = statistics;
    assert.equal(received - dropped, BigInt(packets.length));
    // The ping and its echo.
    assert.ok(has(packets, WEB, DB) && has(packets, DB, WEB));
    // The port is free again, and its frames flow on.
    const before = await roundTrips();
    await until('more frames', async () => (await roundTrips()) > before + 10);
    await until('the port to be free', async () => {
      rmSync(file, { force: true });
      const again = place.start('capture', 'web/net0', '-w', file);
      const ended = exitCode(again);
      await until(
        'frames, or its end',
        async () => again.exitCode !== null || (existsSync(file) && statSync(file).size > 5000),
      );
      again.kill('SIGINT');
      return (await ended) === 0;
    });
  });

  test('a port that is not there is told with those that are', async () => {
    await using place = new Place(TWO_GUESTS);
    await place.up();
    const { code, stderr } = await place.sluice('capture', 'web/net1', '-w', '/dev/null');
    assert.equal(code, 1);
    assert.match(
      stderr,
      /no port web\/net1; did you mean "web\/net0"\? \(there are web\/net0, db\/net0\)/,
    );
  });

  test('a wire can be a capture file', async (t) => {
    const config = TWO_GUESTS.replace('lan: {}', 'lan: { wire: { capture: ./all.pcapng } }');
    await using place = new Place(config);
    const daemon = await place.up();
    const roundTrips = await attachPair(t, place.run);
    await until('frames', async () => (await roundTrips()) > 10);
    daemon.kill('SIGTERM');
    assert.equal(await exitCode(daemon), 0);
    const { packets } = parseCapture(readFileSync(join(place.path, 'all.pcapng')));
    // The first ping goes to all ports: nobody has heard of its target yet.
    assert.ok(has(packets, WEB, DB));
  });
});

test('a wire to the host: a tap interface that is there while Sluice runs', {
  skip: noNamespace,
}, async () => {
  await using place = new Place('switches: { lan: { wire: { tap: sluice0 } } }');
  const daemon = await place.up('unshare', '-n');
  const inside = (...words: string[]): string =>
    spawnSync('nsenter', ['-n', '-t', String(daemon.pid), ...words], { encoding: 'utf8' }).stdout;
  assert.match(inside('ip', '-o', 'link', 'show', 'sluice0'), /<[A-Z,_]*\bUP\b/);
  const ports = (await place.json('show', 'ports')) as { port: string; kind: string }[];
  assert.deepEqual(
    ports.map(({ port, kind }) => `${kind} ${port}`),
    ['tap lan/wire'],
  );
  // The host's frames come in: it looks for its neighbours as soon as the link is up.
  inside('ip', 'addr', 'add', '192.0.2.1/24', 'dev', 'sluice0');
  inside('ping', '-c', '1', '-W', '1', '192.0.2.2');
  const [wire] = (await place.json('show', 'ports')) as { counters: Record<string, number> }[];
  assert.ok((wire?.counters['tx_frames'] ?? 0) > 0);
  place.write('switches: { lan: {} }');
  assert.deepEqual(await place.json('reload'), { done: ['remove wire lan/wire'], failed: [] });
  assert.equal(inside('ip', '-o', 'link', 'show', 'sluice0'), '');
});

test('the JSON schema is that of the configuration', async () => {
  await using place = new Place();
  const schema = (await place.json('schema')) as { title: string; properties: object };
  assert.equal(schema.title, 'Sluice configuration');
  assert.deepEqual(Object.keys(schema.properties), [
    'run',
    'isolation',
    'lanes',
    'switches',
    'nics',
    'disks',
    'guests',
  ]);
});
