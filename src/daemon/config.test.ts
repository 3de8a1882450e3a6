import assert from 'node:assert/strict';
import { linkSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { SluiceError } from '../base/errors.ts';
import { type Config, loadConfig, parseConfig } from './config.ts';
import { ConfigError } from './config-problems.ts';

function parse(text: string, file = '/etc/sluice/sluice.yaml'): Config {
  return parseConfig(text, file);
}

/** The lines of the error that a text gives. */
function problemsOf(text: string, file = 'f.yaml'): string[] {
  try {
    parse(text, file);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    assert.equal(error.code, 'config');
    return error.message.split('\n');
  }
  return [];
}

test('defaults are filled in', () => {
  const config = parse(
    'switches: { lan: }\nguests: { web: { net: [{ method: paravirtual, switch: lan }] } }'.replace(
      'lan: }',
      'lan: {} }',
    ),
  );
  assert.equal(config.file, '/etc/sluice/sluice.yaml');
  assert.deepEqual(config.run, {
    path: '/etc/sluice/run',
    mode: 0o700,
    owner: undefined,
    group: undefined,
  });
  assert.equal(config.isolation, 'normal');
  assert.deepEqual(config.lanes, [{ cpus: undefined, idlePollUs: undefined }]);
  assert.deepEqual(config.switches, [
    { name: 'lan', ageing: 300, lane: undefined, wire: undefined },
  ]);
  const [guest] = config.guests;
  assert.equal(guest?.memoryBytes, 512 * 1024 * 1024);
  const [net] = guest?.net ?? [];
  assert.match(net?.mac ?? '', /^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/);
  assert.deepEqual(
    { ...net, mac: undefined },
    {
      method: 'paravirtual',
      port: 'web/net0',
      guest: 'web',
      switch: 'lan',
      mac: undefined,
      qos: undefined,
      queues: 1,
      mtu: undefined,
      packed: false,
      offloads: ['csum', 'tso4', 'tso6', 'ecn', 'uso'],
      maxTxRate: 0,
      maxRxRate: 0,
      spoofCheck: false,
      server: 'listen',
      socket: '/etc/sluice/run/web-net0.sock',
    },
  );
});

test('every key is read', () => {
  const config = parse(`
run: { path: /run/sluice, mode: "0750", owner: libvirt-qemu, group: 64055 }
isolation: strict
lanes: [{ cpus: [1, 2], idle_poll_us: 20 }, {}]
switches:
  wan: { wire: { tap: sluice0, trunk: [1, 2], vlan: 9 }, ageing: 60, lane: 1 }
  lan: { wire: { switch: wan } }
  log: { wire: { capture: ./all.pcapng } }
  own: { wire: none }
guests:
  web:
    memory: 2G
    net:
      - { method: paravirtual, switch: lan, mac: "52:55:00:AB:00:01", vlan: 10, trunk: [20, 30],
          qos: 5, queues: 4, mtu: 9000, packed: on, offloads: [csum, tso4], max_tx_rate: 1000,
          max_rx_rate: 2000, spoofchk: true, server: connect }
      - { method: paravirtual, switch: lan, offloads: off }
`);
  assert.deepEqual(config.run, {
    path: '/run/sluice',
    mode: 0o750,
    owner: 'libvirt-qemu',
    group: 64055,
  });
  assert.equal(config.isolation, 'strict');
  assert.deepEqual(config.lanes, [
    { cpus: [1, 2], idlePollUs: 20 },
    { cpus: undefined, idlePollUs: undefined },
  ]);
  assert.deepEqual(config.switches, [
    {
      name: 'wan',
      ageing: 60,
      lane: 1,
      wire: { kind: 'tap', tap: 'sluice0', vlan: 9, trunk: [1, 2] },
    },
    { name: 'lan', ageing: 300, lane: undefined, wire: { kind: 'switch', switch: 'wan' } },
    {
      name: 'log',
      ageing: 300,
      lane: undefined,
      wire: { kind: 'capture', file: '/etc/sluice/all.pcapng' },
    },
    { name: 'own', ageing: 300, lane: undefined, wire: undefined },
  ]);
  const [first, second] = config.guests[0]?.net ?? [];
  assert.deepEqual(first, {
    method: 'paravirtual',
    port: 'web/net0',
    guest: 'web',
    switch: 'lan',
    mac: '52:55:00:ab:00:01',
    vlan: 10,
    trunk: [20, 30],
    qos: 5,
    queues: 4,
    mtu: 9000,
    packed: true,
    offloads: ['csum', 'tso4'],
    maxTxRate: 1000,
    maxRxRate: 2000,
    spoofCheck: true,
    server: 'connect',
    socket: '/run/sluice/web-net0.sock',
  });
  assert.ok(second?.method === 'paravirtual');
  assert.deepEqual(second.offloads, []);
});

test('emulated devices: chips as numbers or texts, drives on the ports of one controller', () => {
  const [web] = parse(`switches: { lan: {} }
disks: { a: { memory: 1M }, b: { memory: 1M }, c: { memory: 1M, readonly: on }, d: { memory: 1M } }
guests:
  web:
    net:
      - { method: emulated, model: 82540, switch: lan }
      - { method: emulated, model: "82574", switch: lan }
    disk:
      - { method: emulated, model: ahci, disk: a }
      - { method: paravirtual, disk: b }
      - { method: emulated, model: ahci, disk: c, cdrom: on, port: 0 }
      - { method: emulated, model: ahci, disk: d }`).guests;
  assert.deepEqual(
    web?.net.map((net) => net.method === 'emulated' && net.model),
    ['82540', '82574'],
  );
  assert.deepEqual(
    web.disk.map(({ device }) => device),
    ['web/ahci0.1', 'web/disk1', 'web/ahci0.0', 'web/ahci0.2'],
  );
  assert.deepEqual(
    web.controllers.map(({ name, ports, socket }) => [name, ports, socket.split('/').at(-1)]),
    [['web/ahci0', 6, 'web-ahci0.sock']],
  );
});

test('a default MAC address is the same each time, and another for each card', () => {
  const text = `switches: { lan: {} }
guests:
  a: { net: [{ method: paravirtual, switch: lan }, { method: paravirtual, switch: lan }] }
  b: { net: [{ method: paravirtual, switch: lan }] }`;
  const macs = (): string[] => parse(text).guests.flatMap(({ net }) => net.map(({ mac }) => mac));
  assert.deepEqual(macs(), macs());
  assert.equal(new Set(macs()).size, 3);
});

const card = (rest: string): string =>
  `switches: { lan: {} }\nguests: { web: { net: [{ method: paravirtual, switch: lan, ${rest} }] } }`;

/** What is written -> all lines of the error. */
const WRONG: readonly (readonly [name: string, text: string, lines: readonly string[]])[] = [
  [
    'an unknown key',
    'swiches: {}',
    [
      'f.yaml:1:1: swiches: unknown key; allowed here: run, isolation, lanes, switches, nics, disks, guests; did you mean "switches"?',
    ],
  ],
  [
    'an unknown key far from all',
    'xyzzy: {}',
    [
      'f.yaml:1:1: xyzzy: unknown key; allowed here: run, isolation, lanes, switches, nics, disks, guests',
    ],
  ],
  [
    'an unknown key deep inside',
    `guests:\n  web:\n    memroy: 1G`,
    [
      'f.yaml:3:5: guests.web.memroy: unknown key; allowed here: memory, net, disk; did you mean "memory"?',
    ],
  ],
  [
    'a VLAN id out of range',
    card('vlan: 4095'),
    ['f.yaml:2:66: guests.web.net[0].vlan: 4095 is not valid: expected a VLAN id, 1 to 4094'],
  ],
  [
    'a trunk that is no list',
    card('trunk: 7'),
    [
      'f.yaml:2:67: guests.web.net[0].trunk: 7 is not valid: expected a list of VLAN ids, such as [10, 20]',
    ],
  ],
  [
    'a multicast MAC address',
    card('mac: "01:00:5e:00:00:01"'),
    [
      'f.yaml:2:65: guests.web.net[0].mac: "01:00:5e:00:00:01" is not valid: expected a unicast MAC address, such as "52:54:00:00:00:01" (in quotes)',
    ],
  ],
  [
    'no boolean',
    card('spoofchk: maybe'),
    [
      'f.yaml:2:70: guests.web.net[0].spoofchk: "maybe" is not valid: expected on or off (or true, false)',
    ],
  ],
  [
    'an unknown offload',
    card('offloads: [csum, tso5]'),
    [
      'f.yaml:2:77: guests.web.net[0].offloads[1]: "tso5" is not valid: expected one of csum, tso4, tso6, ecn, uso; did you mean "tso4"?',
    ],
  ],
  [
    'a misspelt isolation',
    'isolation: strikt',
    [
      'f.yaml:1:12: isolation: "strikt" is not valid: expected one of normal, strict; did you mean "strict"?',
    ],
  ],
  [
    'a value where a mapping is wanted',
    'guests: 5',
    ['f.yaml:1:9: guests: 5 is not valid: expected a mapping of guests by name'],
  ],
  [
    'a key without a value',
    'switches:\n  lan:\n',
    ['f.yaml:2:3: switches.lan: empty: expected a mapping, such as { wire: none }'],
  ],
  [
    'a bad name',
    'switches: { "../x": {} }',
    [
      'f.yaml:1:13: switches.../x: expected a name of up to 32 letters, digits, "_", "." and "-", beginning with a letter or digit',
    ],
  ],
  [
    'a mode that YAML would read as a decimal number',
    'run: { mode: 0700 }',
    ['f.yaml:1:14: run.mode: 700 is not valid: expected permission bits in quotes, such as "0700"'],
  ],
  [
    'two wires in one',
    'switches: { lan: { wire: { tap: a, capture: b } } }',
    ['f.yaml:1:20: switches.lan.wire: expected exactly one of tap, switch, capture'],
  ],
  [
    'a long interface name',
    'switches: { lan: { wire: { tap: abcdefghijklmnop } } }',
    [
      'f.yaml:1:33: switches.lan.wire.tap: "abcdefghijklmnop" is not valid: expected an interface name of up to 15 characters',
    ],
  ],
  [
    'a switch that is not there',
    card('x: 1').replace('switch: lan, x: 1', 'switch: lam'),
    ['f.yaml:2:55: guests.web.net[0].switch: no switch "lam"; there are lan; did you mean "lan"?'],
  ],
  [
    'a wire to nowhere',
    'switches: { a: { wire: { switch: b } } }',
    ['f.yaml:1:34: switches.a.wire.switch: no switch "b"; there are a; did you mean "a"?'],
  ],
  [
    'wires in a loop',
    'switches:\n  a: { wire: { switch: b } }\n  b: { wire: { switch: c } }\n  c: { wire: { switch: a } }',
    [
      'f.yaml:4:24: switches.c.wire.switch: the wires from c to a form a loop, in which frames would go round for ever',
    ],
  ],
  [
    'one tap for two switches',
    'switches:\n  a: { wire: { tap: t } }\n  b: { wire: { tap: t } }',
    ['f.yaml:3:21: switches.b.wire.tap: tap t is the wire of switch a already'],
  ],
  [
    'one MAC address for two cards',
    card(
      'mac: "52:54:00:00:00:01" }, { method: paravirtual, switch: lan, mac: "52:54:00:00:00:01"',
    ),
    [
      'f.yaml:2:129: guests.web.net[1].mac: web/net1 and web/net0 have the same MAC address 52:54:00:00:00:01 on switch lan',
    ],
  ],
  [
    'a lane that is not there',
    'lanes: 2\nswitches: { a: { lane: 2 } }',
    ['f.yaml:2:24: switches.a.lane: no lane 2: there are 2, 0 to 1'],
  ],
  [
    'a card of another chip',
    'switches: { lan: {} }\nguests: { web: { net: [{ method: emulated, model: 82599, switch: lan }] } }',
    ['f.yaml:2:51: guests.web.net[0].model: 82599 is not valid: expected one of 82540, 82574'],
  ],
  [
    'what an emulated card has not',
    'switches: { lan: {} }\nguests: { web: { net: [{ method: emulated, model: 82574, switch: lan, queues: 2 }] } }',
    [
      'f.yaml:2:71: guests.web.net[0].queues: unknown key; allowed here: method, model, switch, mac, vlan, trunk, qos, max_tx_rate, max_rx_rate, spoofchk',
    ],
  ],
  [
    'a cdrom that could be written',
    'disks: { iso: { memory: 1M } }\nguests: { web: { disk: [{ method: emulated, model: ahci, disk: iso, cdrom: on }] } }',
    [
      'f.yaml:2:64: guests.web.disk[0].disk: disk iso of a cdrom can be written: give it readonly: true',
    ],
  ],
  [
    'two drives in one port',
    'disks: { a: { memory: 1M }, b: { memory: 1M } }\nguests: { web: { disk: [{ method: emulated, model: ahci, disk: a, port: 1 }, { method: emulated, model: ahci, disk: b, port: 1 }] } }',
    ['f.yaml:2:126: guests.web.disk[1].port: port 1 has the drive disk[0] already'],
  ],
  [
    'what is to come later',
    'controllers: {}\nguests: { web: { disk: [{ method: sriov, vf: 1 }], net: [{ method: vmdq, nic: nic0, vf: 3 }] } }',
    [
      'f.yaml:1:1: controllers: not yet in this version of Sluice',
      'f.yaml:2:35: guests.web.disk[0].method: method sriov is not yet in this version of Sluice; allowed: paravirtual, emulated',
      'f.yaml:2:68: guests.web.net[0].method: method vmdq is not yet in this version of Sluice; allowed: paravirtual, emulated, direct, sriov',
    ],
  ],
  [
    'offloads without what they rest on',
    card('offloads: [tso4]'),
    ['f.yaml:2:70: guests.web.net[0].offloads: tso4 rests on csum: add csum'],
  ],
  [
    'ECN without segmentation of TCP',
    card('offloads: [csum, ecn, uso]'),
    [
      'f.yaml:2:70: guests.web.net[0].offloads: ecn rests on tso4 or tso6: add one of them, or leave ecn out',
    ],
  ],
  [
    'a priority without the tag that carries it',
    card('qos: 5, trunk: [0, 7]'),
    [
      'f.yaml:2:65: guests.web.net[0].qos: without a vlan, whose tag carries the priority: give a vlan, or leave qos out',
    ],
  ],
  [
    'a name that every object has, whatever is in it',
    'disks: { __proto__: { memroy: 1M } }\nguests: { "__proto__": {} }',
    [
      'f.yaml:1:10: disks.__proto__: expected a name of up to 32 letters, digits, "_", "." and "-", beginning with a letter or digit',
      'f.yaml:2:11: guests.__proto__: expected a name of up to 32 letters, digits, "_", "." and "-", beginning with a letter or digit',
    ],
  ],
  [
    'no lanes',
    'lanes: []',
    [
      'f.yaml:1:8: lanes: a list: expected a number of lanes, 1 to 64, or a list of so many { cpus: [N] }',
    ],
  ],
  [
    'owners that no system has',
    'run: { owner: 4294967295, group: "4294967296" }',
    [
      'f.yaml:1:15: run.owner: 4294967295 is not valid: expected a name, or a number, 0 to 4294967294',
      'f.yaml:1:34: run.group: expected a name, or a number, 0 to 4294967294',
    ],
  ],
  [
    'a capture into what Sluice reads or writes',
    `run: ./run
disks:
  d: { file: ./root.img, readonly: on }
  i: { image: a, format: raw, overlay: b }
switches:
  a: { wire: { capture: x/../root.img } }
  b: { wire: { capture: b } }
  c: { wire: { capture: ./f.yaml } }
  d: { wire: { capture: run/control.sock } }
  e: { wire: { capture: run/web-net0.journal } }
  f: { wire: { capture: run/all.pcapng } }`,
    [
      'f.yaml:6:25: switches.a.wire.capture: x/../root.img is the file of disk d, and the capture would overwrite it: name another file',
      'f.yaml:7:25: switches.b.wire.capture: b is the overlay of disk i, and the capture would overwrite it: name another file',
      'f.yaml:8:25: switches.c.wire.capture: ./f.yaml is this configuration file, and the capture would overwrite it: name another file',
      'f.yaml:9:25: switches.d.wire.capture: run/control.sock is of the run directory, and the capture would overwrite it: name another file',
      'f.yaml:10:25: switches.e.wire.capture: run/web-net0.journal is of the run directory, and the capture would overwrite it: name another file',
    ],
  ],
  [
    'one capture file for two wires',
    'switches: { a: { wire: { capture: all } }, b: { wire: { capture: ./all } } }',
    [
      'f.yaml:1:66: switches.b.wire.capture: capture file ./all is the wire of switch a already: name another file',
    ],
  ],
  [
    'two documents',
    'lanes: 1\n---\nlanes: 2',
    [
      'f.yaml:2:1: a second YAML document begins here, and a configuration is one: remove the line with "---"',
    ],
  ],
  [
    'a file that is no YAML',
    'guests: {',
    [
      'f.yaml:1:10: not valid YAML: Flow map in block collection must be sufficiently indented and end with a }',
    ],
  ],
  [
    'a key given twice',
    'lanes: 1\nlanes: 2',
    ['f.yaml:2:1: not valid YAML: Map keys must be unique'],
  ],
  [
    'an empty file',
    '',
    ['f.yaml: empty: expected a mapping of run, isolation, lanes, switches, nics, disks, guests'],
  ],
];

describe('what is wrong is told with line, key, value and what is allowed:', () => {
  for (const [name, text, lines] of WRONG) {
    test(name, () => assert.deepEqual(problemsOf(text), lines));
  }
});

test('all problems are told at once, in the order of the file', () => {
  const lines = problemsOf(`run: { mode: 7 }
lanes: 0
guests:
  web:
    memory: much
    net:
      - { method: paravirtual, switch: lan, vlan: 0 }
      - { method: paravirtual }
`);
  assert.deepEqual(
    lines.map((line) => line.split(':').slice(1, 4).join(':')),
    [
      '1:14: run.mode',
      '2:8: lanes',
      '5:13: guests.web.memory',
      '7:40: guests.web.net[0].switch',
      '7:51: guests.web.net[0].vlan',
      '8:9: guests.web.net[1].switch',
    ],
  );
});

test('a socket path that the kernel would not take is told before anything starts', () => {
  const [line] = problemsOf(card('').replace(/^/, `run: /${'r'.repeat(93)}\n`));
  assert.match(
    line ?? '',
    /f\.yaml:3:\d+: guests\.web\.net\[0\]: its socket path \/r+\/web-net0\.sock has 108 bytes, at most 107 are possible: choose a shorter run directory/,
  );
});

test('the control socket is within the limit, too', () => {
  const [line] = problemsOf(`run: /${'r'.repeat(96)}\n`);
  assert.match(
    line ?? '',
    /^f\.yaml:1:6: run: the control socket's path \/r+\/control\.sock is longer than 107 bytes/,
  );
});

test('a file that is not there', () => {
  assert.throws(
    () => loadConfig('/nowhere/sluice.yaml'),
    (error) => {
      assert.ok(error instanceof SluiceError);
      assert.equal(error.message, 'configuration file /nowhere/sluice.yaml does not exist');
      assert.equal(
        error.remedy,
        'name the file: sluice up FILE, or --config FILE with other commands',
      );
      return true;
    },
  );
});

test('a capture file is known by all its names, links among them', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-'));
  t.after(() => rmSync(directory, { recursive: true }));
  writeFileSync(join(directory, 'root.img'), 'content');
  symlinkSync('root.img', join(directory, 'soft'));
  linkSync(join(directory, 'root.img'), join(directory, 'hard'));
  symlinkSync('.', join(directory, 'here'));
  for (const capture of ['soft', 'hard', 'here/root.img']) {
    const text = `disks: { d: { file: root.img } }\nswitches: { a: { wire: { capture: ${capture} } } }`;
    assert.match(
      problemsOf(text, join(directory, 'f.yaml'))[0] ?? '',
      /switches\.a\.wire\.capture: .* is the file of disk d/,
    );
  }
  const two = 'switches: { a: { wire: { capture: new } }, b: { wire: { capture: here/new } } }';
  assert.match(
    problemsOf(two, join(directory, 'f.yaml'))[0] ?? '',
    /capture file here\/new is the wire of switch a already/,
  );
});

test('paths are relative to the directory of the file', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'some.yaml');
  writeFileSync(file, 'run: ./here\n');
  assert.equal(loadConfig(file).run.path, join(directory, 'here'));
});

test('aliases that multiply, and names that every object has, are told with their place', () => {
  const lines = ['a: &a [x,x,x,x,x,x,x,x,x]'];
  for (const [name, last] of ['ba', 'cb', 'dc', 'ed'].map((pair) => [...pair])) {
    lines.push(`${name}: &${name} [${new Array(9).fill(`*${last}`).join(',')}]`);
  }
  assert.match(problemsOf(lines.join('\n'))[0] ?? '', /^f\.yaml:1:1: not valid YAML: .*alias/);
  assert.deepEqual(
    problemsOf(
      'switches: { lan: {} }\nguests: { web: { net: [{ method: paravirtual, switch: toString }] } }',
    ),
    ['f.yaml:2:55: guests.web.net[0].switch: no switch "toString"; there are lan'],
  );
});
