import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Config, parseConfig } from './config.ts';
import { ConfigError } from './config-problems.ts';

const KINDS =
  'expected a mapping with one of { file: PATH }, { memory: SIZE }, { nbd: URI }, { image: PATH }';

function parse(text: string): Config {
  return parseConfig(text, '/etc/sluice/sluice.yaml');
}

function problemsOf(text: string): string[] {
  try {
    parseConfig(text, 'f.yaml');
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message.split('\n');
  }
  return [];
}

test('defaults are filled in', () => {
  const config = parse(
    'disks: { root: { file: ./root.img } }\nguests: { web: { disk: [{ method: paravirtual, disk: root }] } }',
  );
  assert.deepEqual(config.disks, [
    {
      name: 'root',
      source: { kind: 'file', file: '/etc/sluice/root.img', direct: false },
      readonly: false,
      serial: 'root',
      blockBytes: 512,
      cache: 'writeback',
      discard: true,
      limits: undefined,
      faults: undefined,
      powerCut: undefined,
    },
  ]);
  assert.deepEqual(config.guests[0]?.disk, [
    {
      method: 'paravirtual',
      device: 'web/disk0',
      guest: 'web',
      disk: 'root',
      queues: 1,
      segMax: 126,
      packed: false,
      server: 'listen',
      socket: '/etc/sluice/run/web-disk0.sock',
    },
  ]);
});

test('every key is read', () => {
  const config = parse(`
disks:
  fast: { file: /dev/sdb, direct: on, block_size: 4096, cache: writethrough, discard: off,
          serial: S-1, iops: 5000, iops_read: 4000, iops_write: 3000, bps: 100M, bps_read: 90M,
          bps_write: 80M, burst: 5,
          faults: { seed: 7, volatile: 64M, rules: [{ fault: error, on: [read], from: 8, to: 16, every: 3, probability: 0.5, errno: ENOSPC }, { fault: delay, us: 10, random_us: 5 }] } }
  scratch: { memory: 2G }
  far: { nbd: "nbd://10.0.0.1:10810/x", connections: 4, reconnect: 5, after_loss: fail, readonly: on }
  old: { image: ./old.vmdk, format: vmdk, overlay: ./new.qcow2, direct: on, connections: 2, reconnect: 0 }
guests:
  web:
    disk:
      - { method: paravirtual, disk: fast }
      - { method: paravirtual, disk: far, queues: 4, seg_max: 254, packed: on, server: connect }
`);
  assert.deepEqual(
    config.disks.map(({ source }) => source),
    [
      { kind: 'file', file: '/dev/sdb', direct: true },
      { kind: 'memory', bytes: 2 * 1024 ** 3 },
      {
        kind: 'nbd',
        uri: 'nbd://10.0.0.1:10810/x',
        afterLoss: 'fail',
        connections: 4,
        reconnectMs: 5000,
      },
      {
        kind: 'image',
        file: '/etc/sluice/old.vmdk',
        format: 'vmdk',
        overlay: '/etc/sluice/new.qcow2',
        direct: true,
        connections: 2,
        reconnectMs: 0,
      },
    ],
  );
  const [fast, , far] = config.disks;
  assert.deepEqual(
    { ...fast, source: undefined },
    {
      name: 'fast',
      source: undefined,
      readonly: false,
      serial: 'S-1',
      blockBytes: 4096,
      cache: 'writethrough',
      discard: false,
      limits: {
        iops: 5000,
        iopsRead: 4000,
        iopsWrite: 3000,
        bps: 100 * 1024 ** 2,
        bpsRead: 90 * 1024 ** 2,
        bpsWrite: 80 * 1024 ** 2,
        burst: 5,
      },
      faults: {
        seed: 7,
        rules: [
          {
            fault: 'error',
            on: ['read'],
            from: 8,
            to: 16,
            every: 3,
            probability: 0.5,
            errno: 'ENOSPC',
            randomUs: undefined,
          },
          { fault: 'delay', us: 10, randomUs: 5 },
        ],
      },
      powerCut: { cacheBytes: 64 * 1024 ** 2, seed: 7 },
    },
  );
  assert.equal(far?.readonly, true);
  assert.deepEqual(
    config.guests[0]?.disk.map((disk) => {
      assert.ok(disk.method === 'paravirtual');
      const { device, queues, segMax, packed, server } = disk;
      return [device, queues, segMax, packed, server];
    }),
    [
      ['web/disk0', 1, 126, false, 'listen'],
      ['web/disk1', 4, 254, true, 'connect'],
    ],
  );
});

test('the serial number is made of a long name, and fits', () => {
  const [disk] = parse('disks: { a-very-long-name-for-a-disk: { memory: 1M } }').disks;
  assert.equal(disk?.serial, 'a-very-long-name-for');
});

test('several guests may read one disk that nobody writes', () => {
  const guest = '{ disk: [{ method: paravirtual, disk: cd }] }';
  parse(
    `disks: { cd: { file: a, readonly: on }, same: { file: a, readonly: on } }\nguests: { a: ${guest}, b: ${guest} }`,
  );
});

/** What is written -> all lines of the error. */
const WRONG: readonly (readonly [name: string, text: string, lines: readonly string[]])[] = [
  [
    'an unknown key',
    'disks: { root: { file: a, redonly: on } }',
    [
      'f.yaml:1:27: disks.root.redonly: unknown key; allowed here: file, memory, nbd, image, direct, connections, reconnect, after_loss, format, overlay, readonly, serial, block_size, cache, discard, iops, iops_read, iops_write, bps, bps_read, bps_write, burst, faults; did you mean "readonly"?',
    ],
  ],
  ['no mapping', 'disks: { root: ./a }', [`f.yaml:1:16: disks.root: "./a" is not valid: ${KINDS}`]],
  [
    'a disk of nothing',
    'disks: { root: { readonly: on } }',
    ['f.yaml:1:10: disks.root: expected exactly one of file, memory, nbd, image'],
  ],
  [
    'a disk of two kinds',
    'disks: { root: { file: a, memory: 1G } }',
    ['f.yaml:1:10: disks.root: expected exactly one of file, memory, nbd, image'],
  ],
  [
    'a key of another kind',
    'disks: { root: { memory: 1G, direct: on, format: raw } }',
    [
      'f.yaml:1:38: disks.root.direct: only for file and image, and this disk is of kind memory',
      'f.yaml:1:50: disks.root.format: only for image, and this disk is of kind memory',
    ],
  ],
  [
    'an image without its format',
    'disks: { root: { image: a } }',
    [
      'f.yaml:1:10: disks.root.format: missing: expected one of qcow2, qcow, qed, raw, vdi, vhdx, vmdk, vpc, parallels',
    ],
  ],
  [
    'a size without unit',
    'disks: { root: { memory: 512 } }',
    [
      'f.yaml:1:26: disks.root.memory: 512 is not valid: expected a size with its unit, such as 512M or 2G',
    ],
  ],
  [
    'a size that no number holds',
    'disks: { root: { memory: 99999T } }',
    ['f.yaml:1:26: disks.root.memory: expected a size below 8192T'],
  ],
  [
    'no URI',
    'disks: { root: { nbd: "10.0.0.1:10809" } }',
    [
      'f.yaml:1:23: disks.root.nbd: "10.0.0.1:10809" is not valid: expected a URI, such as "nbd://127.0.0.1:10809/export"',
    ],
  ],
  [
    'a URI with what it cannot have',
    'disks: { root: { nbd: "nbd://a/b?x=1" } }',
    ['f.yaml:1:23: disks.root.nbd: NBD URI nbd://a/b?x=1: unknown parameter x'],
  ],
  [
    'a block size that no disk has',
    'disks: { root: { file: a, block_size: 1000 } }',
    ['f.yaml:1:39: disks.root.block_size: 1000 is not valid: expected 512 or 4096'],
  ],
  [
    'a misspelt cache mode',
    'disks: { root: { file: a, cache: writethru } }',
    [
      'f.yaml:1:34: disks.root.cache: "writethru" is not valid: expected one of writeback, writethrough; did you mean "writethrough"?',
    ],
  ],
  [
    'a long serial number',
    'disks: { root: { file: a, serial: abcdefghijklmnopqrstu } }',
    [
      'f.yaml:1:35: disks.root.serial: "abcdefghijklmnopqrstu" is not valid: expected up to 20 ASCII characters without blanks',
    ],
  ],
  [
    'a burst of nothing',
    'disks: { root: { file: a, burst: 2 } }',
    [
      'f.yaml:1:34: disks.root.burst: without a limit; expected one of iops, iops_read, iops_write, bps, bps_read, bps_write',
    ],
  ],
  [
    'faults that cannot be',
    'disks: { root: { file: a, faults: { rules: [{ fault: delay }, { fault: torn, on: [read] }, { fault: error, errno: EMUCH }, { fault: eror }] } } }',
    [
      'f.yaml:1:45: disks.root.faults.rules[0]: a delay of nothing (give `us`, `random_us` or both)',
      'f.yaml:1:63: disks.root.faults.rules[1]: only writes can be torn (leave `on` out)',
      'f.yaml:1:92: disks.root.faults.rules[2]: EMUCH is no error (give the name of an errno, such as EIO or ENOSPC)',
      'f.yaml:1:133: disks.root.faults.rules[3].fault: "eror" is not valid: expected one of error, torn, drop, delay; did you mean "error"?',
    ],
  ],
  [
    'faults with keys of other kinds',
    'disks: { root: { file: a, faults: { rules: [{ fault: error, us: 5 }, { fault: delay, us: 5, errno: EIO }, { fault: drop, errno: EIO }, { fault: torn, random_us: 1 }] } } }',
    [
      'f.yaml:1:65: disks.root.faults.rules[0].us: only for delay, and this fault is error: leave us out',
      'f.yaml:1:100: disks.root.faults.rules[1].errno: only for error and torn, and this fault is delay: leave errno out',
      'f.yaml:1:129: disks.root.faults.rules[2].errno: only for error and torn, and this fault is drop: leave errno out',
      'f.yaml:1:162: disks.root.faults.rules[3].random_us: only for delay, and this fault is torn: leave random_us out',
    ],
  ],
  [
    'numbers of faults that are out of range, each told once',
    'disks: { root: { file: a, faults: { rules: [{ fault: error, probability: 2 }, { fault: error, every: 0 }] } } }',
    [
      'f.yaml:1:74: disks.root.faults.rules[0].probability: 2 is not valid: expected a share, 0 to 1',
      'f.yaml:1:102: disks.root.faults.rules[1].every: 0 is not valid: expected a number, 1 to 1000000000',
    ],
  ],
  [
    'two disks of a guest with one serial, cut from long names',
    'disks: { a-very-long-name-for-1: { memory: 1M }, a-very-long-name-for-2: { memory: 1M } }\nguests: { web: { disk: [{ method: paravirtual, disk: a-very-long-name-for-1 }, { method: paravirtual, disk: a-very-long-name-for-2 }] } }',
    [
      'f.yaml:2:109: guests.web.disk[1].disk: disks a-very-long-name-for-1 and a-very-long-name-for-2 have the same serial a-very-long-name-for: give one of them another (key serial)',
    ],
  ],
  [
    'faults of nothing, reads that are dropped, a cache that is too large',
    'disks: { root: { file: a, faults: { seed: 1 } }, b: { file: b, faults: { volatile: 17G, rules: [{ fault: drop, on: [read] }] } } }',
    [
      'f.yaml:1:27: disks.root.faults: expected rules, volatile, or both',
      'f.yaml:1:84: disks.b.faults.volatile: expected at most 16G',
      'f.yaml:1:97: disks.b.faults.rules[0]: a read cannot be dropped (leave `read` out of `on`)',
    ],
  ],
  [
    'a volatile cache for what nobody writes',
    'disks: { root: { file: a, readonly: on, faults: { volatile: 1M } } }',
    ['f.yaml:1:41: disks.root.faults: volatile: nothing is written to a disk that is readonly'],
  ],
  [
    'a disk that is not there',
    'disks: { root: { file: a } }\nguests: { web: { disk: [{ method: paravirtual, disk: rot }] } }',
    ['f.yaml:2:54: guests.web.disk[0].disk: no disk "rot"; there are root; did you mean "root"?'],
  ],
  [
    'a disk that two guests write',
    'disks: { root: { file: a } }\nguests:\n  web: { disk: [{ method: paravirtual, disk: root }] }\n  db: { disk: [{ method: paravirtual, disk: root }] }',
    [
      'f.yaml:4:45: guests.db.disk[0].disk: disk root would be written by web/disk0 and db/disk0, which destroys what is on it: give each a disk of its own, or give root readonly: true',
    ],
  ],
  [
    'a file that is two disks',
    'disks: { root: { file: a/b }, cd: { image: ./a/b, format: qcow2, readonly: on } }',
    [
      'f.yaml:1:44: disks.cd.image: disks root and cd have the same file ./a/b, and one of them writes it',
    ],
  ],
  [
    'too many queues',
    'disks: { root: { file: a } }\nguests: { web: { disk: [{ method: paravirtual, disk: root, queues: 257 }] } }',
    [
      'f.yaml:2:68: guests.web.disk[0].queues: 257 is not valid: expected a number of queues, 1 to 256',
    ],
  ],
];

describe('what is wrong is told with line, key, value and what is allowed:', () => {
  for (const [name, text, lines] of WRONG) {
    test(name, () => assert.deepEqual(problemsOf(text), lines));
  }
});

test('two disks of a guest may be given one serial, as paths to the same', () => {
  const text = `disks: { a: { memory: 1M, serial: S }, b: { memory: 1M, serial: S } }
guests: { web: { disk: [{ method: paravirtual, disk: a }, { method: paravirtual, disk: b }] } }`;
  assert.deepEqual(problemsOf(text), []);
});

test('an image below an overlay may be below others, too', () => {
  const overlay = (name: string): string =>
    `${name}: { image: base, format: raw, overlay: ${name}.qcow2 }`;
  assert.deepEqual(problemsOf(`disks: { ${overlay('a')}, ${overlay('b')} }`), []);
});

test("a disk's socket path that the kernel would not take is told", () => {
  const [line] = problemsOf(
    `run: /${'r'.repeat(93)}\ndisks: { root: { file: a } }\nguests: { web: { disk: [{ method: paravirtual, disk: root }] } }`,
  );
  assert.match(
    line ?? '',
    /f\.yaml:3:\d+: guests\.web\.disk\[0\]: its socket path \/r+\/web-disk0/,
  );
});
