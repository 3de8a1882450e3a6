import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SharedDirectories } from './guest-process.ts';
import { type QemuNet, qemuCommand } from './qemu.ts';
import { umlCommand } from './uml.ts';

/** The argument of the option whose argument starts so. */
function argument(command: readonly string[], option: string, start: string): string {
  const at = command.findIndex(
    (word, index) => word.startsWith(start) && command[index - 1] === option,
  );
  return command[at] ?? assert.fail(`no ${option} ${start} in ${command.join(' ')}`);
}

function commandFor(net: QemuNet): string[] {
  return qemuCommand({ name: 'g', net: [net] }, 'tcg', (path) => `/inside${path}`);
}

test('directories of sockets are shared once each, under names without meaning', () => {
  const shared = new SharedDirectories();
  assert.equal(shared.inside('/run/a/x.sock'), '/run/host/0/x.sock');
  assert.equal(shared.inside('/run/b/x.sock'), '/run/host/1/x.sock');
  assert.equal(shared.inside('/run/a/../a/y.sock'), '/run/host/0/y.sock');
  assert.deepEqual(shared.options(), ['--bind', '/run/a=0', '--bind', '/run/b=1']);
});

test('a plain network device keeps QEMU’s defaults but for long rings', () => {
  const command = commandFor({ socket: '/a.sock', mac: '52:54:00:00:00:01' });
  assert.equal(argument(command, '-chardev', 'socket,id=c0'), 'socket,id=c0,path=/inside/a.sock');
  assert.equal(argument(command, '-netdev', 'vhost-user'), 'vhost-user,id=n0,chardev=c0,queues=1');
  assert.equal(
    argument(command, '-device', 'virtio-net-pci'),
    'virtio-net-pci,id=net0,netdev=n0,romfile=,mac=52:54:00:00:00:01,rx_queue_size=1024,tx_queue_size=1024',
  );
});

test('queues, packed rings, MTU, reconnection and properties reach QEMU', () => {
  const command = commandFor({
    socket: '/a,b.sock',
    queues: 2,
    packed: true,
    ringSize: 256,
    mtu: 9000,
    reconnectMs: 100,
    properties: { in_order: true, csum: false },
  });
  assert.equal(
    argument(command, '-chardev', 'socket,id=c0'),
    'socket,id=c0,path=/inside/a,,b.sock,reconnect-ms=100',
  );
  assert.match(argument(command, '-netdev', 'vhost-user'), /,queues=2$/);
  const device = argument(command, '-device', 'virtio-net-pci');
  for (const property of [
    'mq=on',
    'vectors=6',
    'packed=on',
    'rx_queue_size=256',
    'host_mtu=9000',
  ]) {
    assert.ok(device.includes(`,${property},`), `${property} in ${device}`);
  }
  assert.ok(device.endsWith(',in_order=on,csum=off'), device);
});

test('without offloads none is left, in either direction', () => {
  const device = argument(
    commandFor({ socket: '/a', offloads: false }),
    '-device',
    'virtio-net-pci',
  );
  for (const name of ['csum', 'host_tso4', 'host_uso', 'guest_csum', 'guest_tso6', 'guest_uso6']) {
    assert.ok(device.includes(`,${name}=off`), `${name} in ${device}`);
  }
});

test('QEMU listens where it is told to', () => {
  const command = commandFor({ socket: '/a', listens: true });
  assert.match(argument(command, '-chardev', 'socket,id=c0'), /,server=on,wait=off$/);
});

test('a disk has a queue and QEMU’s defaults, or what it is told', () => {
  const command = qemuCommand(
    {
      name: 'g',
      disk: [
        { socket: '/a' },
        {
          socket: '/b',
          queues: 2,
          packed: true,
          ringSize: 256,
          reconnectMs: 50,
          bootIndex: 0,
          properties: { serial: 'S' },
        },
      ],
    },
    'tcg',
    (path) => `/inside${path}`,
  );
  assert.equal(argument(command, '-chardev', 'socket,id=b0'), 'socket,id=b0,path=/inside/a');
  assert.equal(
    argument(command, '-device', 'vhost-user-blk-pci,id=disk0'),
    'vhost-user-blk-pci,id=disk0,chardev=b0,num-queues=1',
  );
  assert.equal(
    argument(command, '-chardev', 'socket,id=b1'),
    'socket,id=b1,path=/inside/b,reconnect-ms=50',
  );
  assert.equal(
    argument(command, '-device', 'vhost-user-blk-pci,id=disk1'),
    'vhost-user-blk-pci,id=disk1,chardev=b1,num-queues=2,queue-size=256,packed=on,bootindex=0,serial=S',
  );
});

test('the firmware boots, or QEMU starts the kernel itself', () => {
  const words = (firmware: boolean): string[] =>
    qemuCommand({ name: 'g', firmware, kernelParameters: 'quiet' }, 'tcg', (path) => path);
  assert.match(argument(words(false), '-append', 'console=ttyS0'), / quiet$/);
  for (const option of ['-kernel', '-initrd', '-append']) {
    assert.ok(words(false).includes(option), option);
    assert.ok(!words(true).includes(option), option);
  }
  for (const firmware of [true, false]) {
    assert.equal(argument(words(firmware), '-boot', ''), 'strict=on');
  }
});

test('a User-Mode Linux guest gets its devices by virtio id', () => {
  const command = umlCommand(
    {
      name: 'g',
      memory: 128,
      pin: '1',
      net: [{ socket: '/n' }],
      disk: [{ socket: '/b' }],
      devices: [{ socket: '/r', id: 4 }],
    },
    (path) => `/inside${path}`,
  );
  assert.deepEqual(command.slice(0, 4), ['taskset', '--cpu-list', '1', 'linux.uml']);
  assert.ok(command.includes('mem=128M'));
  assert.deepEqual(
    command.filter((word) => word.startsWith('virtio_uml')),
    [
      'virtio_uml.device=/inside/n:1',
      'virtio_uml.device=/inside/b:2',
      'virtio_uml.device=/inside/r:4',
    ],
  );
});
