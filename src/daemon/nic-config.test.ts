import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Config, parseConfig } from './config.ts';
import { ConfigError } from './config-problems.ts';

const NICS = `switches: { lan: {} }
nics:
  nic0:
    model: 82599
    ports:
      - { wire: { switch: lan, trunk: [1, 2] }, link: none, mac: "52:54:00:AA:00:01", vfs: 8 }
      - { wire: { tap: sluice1 } }
    pcie: gen2x8
`;

function parse(net: string, nics = NICS): Config {
  return parseConfig(`${nics}guests:\n  web:\n    net:\n${lines(net)}`, '/etc/sluice/f.yaml');
}

function lines(net: string): string {
  return net
    .trim()
    .split('\n')
    .map((line) => `      - ${line.trim()}\n`)
    .join('');
}

/** What is said to be wrong, without the file's name, line and column. */
function problems(net: string, nics?: string): string[] {
  try {
    parse(net, nics);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message.split('\n').map((line) => line.replace(/^[^:]*:\d+:\d+: /, ''));
  }
  return [];
}

test('ports with their defaults, and who has them', () => {
  const { nicPorts } = parse('{ method: direct, nic: nic0, port: 1 }');
  assert.deepEqual(nicPorts[0], {
    name: 'nic0/0',
    nic: 'nic0',
    port: 0,
    model: '82599',
    mac: '52:54:00:aa:00:01',
    vfs: 8,
    link: 'none',
    pcie: 'gen2x8',
    doorbells: 'mapped',
    doorbellPollUs: 1000,
    mode: 'sriov',
    mirrors: [],
    wire: { kind: 'switch', switch: 'lan', trunk: [1, 2] },
  });
  const [, second] = nicPorts;
  assert.match(second?.mac ?? '', /^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/);
  assert.deepEqual(
    { ...second, mac: '' },
    {
      name: 'nic0/1',
      nic: 'nic0',
      port: 1,
      model: '82599',
      mac: '',
      vfs: 63,
      link: '10G',
      pcie: 'gen2x8',
      doorbells: 'mapped',
      doorbellPollUs: 1000,
      mode: 'direct',
      mirrors: [],
      wire: { kind: 'tap', tap: 'sluice1' },
    },
  );
});

test('functions of guests, with every word of ip link', () => {
  const config = parse(`
    { method: direct, nic: nic0, port: 1, itr: 8000 }
    { method: sriov, nic: nic0, port: 0, vf: 3, itr: 20000, mac: "52:54:00:00:00:0A", vlan: 10, qos: 3, proto: 802.1Q, spoofchk: off, trust: true, max_tx_rate: 1000, min_tx_rate: 100, state: enable, query_rss: on }
    { method: sriov, nic: nic0, port: 0, vf: 4 }`);
  const [whole, part, plain] = config.guests[0]?.net ?? [];
  assert.deepEqual(whole, {
    method: 'direct',
    port: 'web/net0',
    guest: 'web',
    nicPort: 'nic0/1',
    mac: config.nicPorts[1]?.mac,
    itr: 8000,
    socket: '/etc/sluice/run/web-net0.sock',
    server: 'listen',
  });
  assert.ok(part?.method === 'sriov');
  assert.deepEqual(
    { ...part, mac: '' },
    {
      method: 'sriov',
      port: 'web/net1',
      guest: 'web',
      nicPort: 'nic0/0',
      mac: '',
      itr: 20000,
      socket: '/etc/sluice/run/web-net1.sock',
      server: 'listen',
      vf: 3,
      words: {
        mac: '52:54:00:00:00:0a',
        vlan: 10,
        qos: 3,
        proto: '802.1Q',
        max_tx_rate: 1000,
        min_tx_rate: 100,
        spoofchk: false,
        query_rss: true,
        state: 'enable',
        trust: true,
      },
    },
  );
  assert.ok(plain?.method === 'sriov');
  assert.deepEqual(plain.words, {});
  assert.match(plain.mac, /^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/);
});

test('mirroring rules, and what of them cannot be', () => {
  const nic = (port: string): string => `nics: { nic0: { model: 82599, ports: [${port}] } }\n`;
  const text = nic('{ mirrors: [{ vfs: [1, 2], vlans: [0], to: 3 }, { uplink: on, to: 3 }] }');
  const { nicPorts } = parse('{ method: sriov, nic: nic0, port: 0, vf: 1 }', text);
  assert.deepEqual(nicPorts[0]?.mirrors, [
    { pools: [1, 2], uplink: false, downlink: false, vlans: [0], to: 3 },
    { pools: [], uplink: true, downlink: false, vlans: [], to: 3 },
  ]);
  const none = '{ method: sriov, nic: nic0, port: 0, vf: 1 }';
  assert.deepEqual(problems(none, nic('{ vfs: 3, mirrors: [{ vfs: [1], to: 3 }] }')), [
    'nics.nic0.ports[0].mirrors[0]: the port has no virtual function 3: its vfs: 3 makes 0 to 2',
  ]);
  assert.deepEqual(
    problems(none, nic('{ mirrors: [{ to: 1 }, { vfs: [], uplink: off, to: 1 }] }')),
    [
      'nics.nic0.ports[0].mirrors[0]: copies nothing: give some of vfs, uplink, downlink, vlans',
      'nics.nic0.ports[0].mirrors[1]: copies nothing: give some of vfs, uplink, downlink, vlans',
    ],
  );
  assert.match(
    problems(none, nic('{ mirrors: [{ uplink: on }] }')).join('\n'),
    /nics\.nic0\.ports\[0\]\.mirrors\[0\]\.to/,
  );
  const five = Array.from({ length: 5 }, () => '{ uplink: on, to: 0 }').join(', ');
  assert.deepEqual(problems(none, nic(`{ mirrors: [${five}] }`)), [
    'nics.nic0.ports[0].mirrors: a list: expected at most 4 mirroring rules',
  ]);
  assert.deepEqual(
    problems('{ method: direct, nic: nic0, port: 0 }', nic('{ mirrors: [{ uplink: on, to: 0 }] }')),
    [
      'nics.nic0.ports[0].mirrors: nic0/0 has mirrors, which are for virtual functions, and web/net0 has all of it (method: direct)',
    ],
  );
});

describe('what cannot be is told, and what it contradicts:', () => {
  const vf = (number: number, rest = ''): string =>
    `{ method: sriov, nic: nic0, port: 0, vf: ${number}${rest} }`;

  test('a NIC, a port, a function that are not there', () => {
    assert.deepEqual(
      problems(`{ method: direct, nic: nic1, port: 0 }
        { method: sriov, nic: nic0, port: 0, vf: 8 }`),
      [
        'guests.web.net[0].nic: no NIC "nic1"; there are nic0; did you mean "nic0"?',
        'guests.web.net[1].vf: nic0/0 has no virtual function 8: its vfs: 8 makes 0 to 7',
      ],
    );
    const one = 'nics: { nic0: { model: 82599, ports: [{}] } }\n';
    assert.deepEqual(problems('{ method: direct, nic: nic0, port: 1 }', one), [
      'guests.web.net[0].port: nic0 has no port 1: it has one, 0',
    ]);
    assert.deepEqual(problems(vf(63)), [
      'guests.web.net[0].vf: 63 is not valid: expected the number of a virtual function, 0 to 62',
    ]);
  });

  test('a function twice, a port twice, a port whole and shared', () => {
    assert.deepEqual(problems(`${vf(3)}\n${vf(3)}`), [
      'guests.web.net[1].vf: web/net0 and web/net1 would both have nic0/0 vf 3',
    ]);
    const whole = '{ method: direct, nic: nic0, port: 0 }';
    const twice = problems(`${whole}\n${whole}`);
    assert.match(
      twice.join('\n'),
      /net\[1\]\.port: web\/net0 and web\/net1 would both have all of nic0\/0/,
    );
    assert.deepEqual(problems(`${vf(1)}\n${whole}`), [
      'guests.web.net[0].port: web/net1 has all of nic0/0 (method: direct), and web/net0 would have a virtual function of it (method: sriov): the driver domain must own a port to share it',
    ]);
  });

  test('a tap that is a wire already', () => {
    const nics = NICS.replace('lan: {}', 'lan: { wire: { tap: sluice1 } }');
    assert.deepEqual(problems(vf(1), nics), [
      'nics.nic0.ports[1].wire.tap: tap sluice1 is the wire of switch lan already',
    ]);
  });

  test('a switch that is not there; two wires in one', () => {
    assert.deepEqual(problems(vf(1), NICS.replace('switch: lan,', 'switch: lam,')), [
      'nics.nic0.ports[0].wire.switch: no switch "lam"; there are lan; did you mean "lan"?',
    ]);
    assert.deepEqual(problems(vf(1), NICS.replace('switch: lan,', 'switch: lan, tap: t,')), [
      'nics.nic0.ports[0].wire: expected exactly one of switch, tap',
    ]);
  });

  test('one MAC address twice where stations meet: functions, and cards on the switch', () => {
    const mac = 'mac: "52:54:00:00:00:01"';
    assert.deepEqual(
      problems(`${vf(1, `, ${mac}`)}\n{ method: emulated, model: 82574, switch: lan, ${mac} }`),
      [
        'guests.web.net[1].mac: web/net1 and web/net0 have the same MAC address 52:54:00:00:00:01 on switch lan',
      ],
    );
    // The other port has another wire.
    assert.deepEqual(
      problems(`${vf(1, `, ${mac}`)}\n{ method: sriov, nic: nic0, port: 1, vf: 0, ${mac} }`),
      [],
    );
  });

  test('words that contradict each other, the link, or those of other functions', () => {
    const [qos] = problems(vf(1, ', qos: 3'));
    assert.match(qos ?? '', /^guests\.web\.net\[0\]: nic0\/0\/vf1: qos 3 contradicts vlan 0/);
    const [rates] = problems(vf(1, ', min_tx_rate: 20, max_tx_rate: 10'));
    assert.match(rates ?? '', /min_tx_rate 20 contradicts max_tx_rate 10/);
    const [proto] = problems(vf(1, ', vlan: 5, proto: 802.1ad'));
    assert.match(proto ?? '', /proto 802\.1ad/);
    const limited = NICS.replace('link: none, ', '');
    const [sum, ...none] = problems(
      `${vf(1, ', min_tx_rate: 6000')}\n${vf(2, ', min_tx_rate: 6000')}\n${vf(3)}`,
      limited,
    );
    assert.match(sum ?? '', /^guests\.web\.net\[1\]: .*nic0\/0\/vf1, nic0\/0\/vf2.* 12000/);
    assert.deepEqual(none, []);
    assert.deepEqual(
      problems(`${vf(1, ', min_tx_rate: 6000')}\n${vf(2, ', min_tx_rate: 6000')}`),
      [],
      'without a limit of the link',
    );
  });

  test('keys of other methods, a chip that is none, too many ports', () => {
    assert.match(
      problems('{ method: direct, nic: nic0, port: 0, vlan: 3 }').join('\n'),
      /vlan: unknown key; allowed here: method, nic, port, itr/,
    );
    assert.deepEqual(problems(vf(1), NICS.replace('model: 82599', 'model: 82576')), [
      'nics.nic0.model: 82576 is not valid: expected one of 82599',
    ]);
    assert.match(
      problems(vf(1), NICS.replace('    pcie', '      - {}\n    pcie')).join('\n'),
      /nics\.nic0\.ports: a list: expected at most 2 ports/,
    );
  });
});
