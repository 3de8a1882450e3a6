/** Real interfaces of the host's kernel, in network namespaces made here. Needs root. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { SluiceError } from '../base/errors.ts';
import { loggerTo } from '../base/log.ts';
import { Arena } from '../memory/arena.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { Tap } from '../os/tap.ts';
import type { Burst } from './burst.ts';
import { createDataPath } from './data-path.ts';
import { PortPolicy, type PortPolicyOptions } from './policy.ts';
import type { Port } from './port.ts';
import { Switch } from './switch.ts';
import { TapPort } from './tap.ts';

const reason =
  process.getuid?.() !== 0
    ? 'needs root to make network namespaces'
    : existsSync('/dev/net/tun')
      ? false
      : 'needs /dev/net/tun';

/** A user without rights. */
const NOBODY = 65534;

/** Names are unique to this process: interfaces have 15 characters. */
const unique = (name: string): string => `sl${process.pid % 1_000_000}${name}`;

const loop = new PollLoop();
const path = createDataPath(Arena.create(), loop);

/** Runs the lane's loop in turns with Node's, until the promise is settled. */
async function pumpUntil<T>(promise: Promise<T>): Promise<T> {
  let settled = false;
  const settle = (): void => {
    settled = true;
  };
  promise.then(settle, settle);
  while (!settled) {
    loop.setTimer(1000, () => loop.stop());
    loop.run();
    await new Promise((resolve) => setImmediate(resolve));
  }
  return promise;
}

/** Shows a port of a kernel as one that takes no offloads, so that the switch must do them. */
class PlainPort implements Port {
  readonly offloads = 0;
  readonly #port: Port;

  constructor(port: Port) {
    this.#port = port;
  }
  get name(): string {
    return this.#port.name;
  }
  get counters(): Port['counters'] {
    return this.#port.counters;
  }
  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    for (let i = 0; i < count; i++) {
      const slot = frames[i] as number;
      const at = (burst.headerAt[slot] as number) - burst.slotsAt;
      assert.deepEqual([burst.slots8[at], burst.slots8[at + 1]], [0, 0], 'metadata were delivered');
    }
    this.#port.deliver(burst, frames, count, tagged);
  }
  flush(): void {
    this.#port.flush();
  }
}

interface Host {
  readonly namespace: string;
  readonly port: TapPort;
  readonly mac: string;
}

interface Lan {
  readonly hosts: readonly [Host, Host];
}

/** Two namespaces with a tap each, plugged into one switch. */
function lan(
  context: TestContext,
  options: { plain?: boolean; policies?: readonly [PortPolicyOptions, PortPolicyOptions] } = {},
): Lan {
  const bridge = new Switch('lan', path);
  const hosts = ['a', 'b'].map((letter, index): Host => {
    const namespace = unique(letter);
    const port = new TapPort({
      name: letter,
      path,
      interface: unique(`t${letter}`),
      log: loggerTo(() => undefined),
    });
    const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' });
    ip('netns', 'add', namespace);
    context.after(() => {
      loop.removePoller(port);
      port.close();
      ip('netns', 'del', namespace);
    });
    ip('link', 'set', port.interface, 'netns', namespace);
    const inside = (...args: string[]) => ip('-n', namespace, ...args);
    inside('link', 'set', port.interface, 'up');
    inside('addr', 'add', `10.77.0.${index + 1}/24`, 'brd', '+', 'dev', port.interface);
    inside('addr', 'add', `fd77::${index + 1}/64`, 'dev', port.interface, 'nodad');
    const links = JSON.parse(String(inside('-j', 'link', 'show', port.interface))) as [
      { address: string },
    ];
    const plugged = options.plain === true ? new PlainPort(port) : port;
    port.owner = {
      forward: (_, burst) => bridge.forward(plugged, burst),
      publish: () => bridge.publish(),
    };
    bridge.addPort(plugged, new PortPolicy(options.policies?.[index] ?? {}, loop.now));
    loop.addPoller(port);
    return { namespace, port, mac: links[0].address };
  });
  return { hosts: hosts as [Host, Host] };
}

/** Runs a script of Node's in a namespace; its output, or its error. */
function inNamespace(namespace: string, script: string, ...args: string[]): Promise<string> {
  const child = spawn(
    'ip',
    ['netns', 'exec', namespace, process.execPath, '--input-type=module', '-e', script, ...args],
    { stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000, killSignal: 'SIGKILL' },
  );
  let output = '';
  let complaint = '';
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString();
  });
  child.stderr.on('data', (data: Buffer) => {
    complaint += data.toString();
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(output.trim());
      else reject(new Error(`exit ${code} in ${namespace}: ${complaint}`));
    });
  });
}

const SERVER = `
  import net from 'node:net';
  import { createHash } from 'node:crypto';
  const hash = createHash('sha256');
  const server = net.createServer((socket) => {
    server.close();
    socket.on('data', (data) => hash.update(data));
    socket.on('end', () => { console.log(hash.digest('hex')); socket.end(); });
  });
  server.listen(7777, process.argv[1]);
`;

const CLIENT = `
  import net from 'node:net';
  import { createHash, randomFillSync } from 'node:crypto';
  const data = randomFillSync(Buffer.alloc(8 * 1024 * 1024 + 13));
  const connect = (tries) => {
    const socket = net.connect(7777, process.argv[1], () => socket.end(data));
    socket.on('error', (error) => {
      if (tries === 0) throw error;
      setTimeout(connect, 50, tries - 1);
    });
    socket.resume();
    socket.on('end', () => console.log(createHash('sha256').update(data).digest('hex')));
  };
  connect(100);
`;

/** One datagram to all hosts: a frame at once, without asking for an address first. */
const KNOCK = `
  import dgram from 'node:dgram';
  const socket = dgram.createSocket('udp4');
  socket.bind(0, () => {
    socket.setBroadcast(true);
    socket.send('x', 9, '10.77.0.255', () => setTimeout(() => process.exit(), 200));
  });
`;

/** 8 MiB over TCP from the first host to the second; equal hashes on both ends. */
async function transfer({ hosts: [a, b] }: Lan, address: string): Promise<void> {
  const server = inNamespace(b.namespace, SERVER, address);
  const client = inNamespace(a.namespace, CLIENT, address);
  const [got, sent] = await pumpUntil(Promise.all([server, client]));
  assert.match(sent, /^[0-9a-f]{64}$/);
  assert.equal(got, sent);
}

for (const [family, address] of [
  ['IPv4', '10.77.0.2'],
  ['IPv6', 'fd77::2'],
] as const) {
  test(`TCP over ${family} between two kernels, offloads passed on`, {
    skip: reason,
  }, async (t) => {
    const net = lan(t);
    await transfer(net, address);
    const [a, b] = net.hosts.map(({ port }) => port.counters.snapshot()) as [
      Record<string, number>,
      Record<string, number>,
    ];
    // Far fewer frames than segments: the kernels' large frames passed whole.
    assert.ok((b['rx_bytes'] as number) / (b['rx_frames'] as number) > 3000, JSON.stringify(b));
    assert.equal(a['gso_frames'], 0);
    assert.equal(b['gso_frames'], 0);
    for (const counters of [a, b]) {
      assert.equal(counters['tx_drop_bad_offload'], 0);
      assert.equal(counters['rx_drop_bad_offload'], 0);
    }
  });

  test(`TCP over ${family} between two kernels, segmented by the switch`, {
    skip: reason,
  }, async (t) => {
    const net = lan(t, { plain: true });
    await transfer(net, address);
    const [, b] = net.hosts;
    const counters = b.port.counters.snapshot();
    assert.ok(counters.gso_segments > 4000, JSON.stringify(counters));
    assert.ok(counters.csum_frames > 0);
    assert.ok(counters.rx_bytes / counters.rx_frames <= 1514);
    // Wrong checksums would be dropped by the kernel and sent again: it counts them.
    const snmp = execFileSync('ip', ['netns', 'exec', b.namespace, 'cat', '/proc/net/snmp'], {
      encoding: 'utf8',
    });
    const [names, values] = snmp
      .split('\n')
      .filter((line) => line.startsWith('Tcp:'))
      .map((line) => line.split(' '));
    assert.equal(values?.[names?.indexOf('InCsumErrors') ?? -1], '0');
  });
}

test('two access ports of one VLAN see each other', { skip: reason }, async (t) => {
  await transfer(lan(t, { policies: [{ vlan: 10 }, { vlan: 10 }] }), '10.77.0.2');
});

test('two access ports of different VLANs do not', { skip: reason }, async (t) => {
  const [a, b] = lan(t, { policies: [{ vlan: 10 }, { vlan: 11 }] }).hosts;
  await pumpUntil(inNamespace(a.namespace, KNOCK));
  assert.ok(a.port.counters.snapshot().tx_drop_no_target > 0);
  assert.equal(b.port.counters.snapshot().rx_frames, 0);
});

test('an interface that is down or gone drops and counts, and the lane goes on', {
  skip: reason,
}, async (t) => {
  const net = lan(t);
  const [a, b] = net.hosts;
  const ip = (...args: string[]) => execFileSync('ip', ['-n', b.namespace, ...args]);
  ip('link', 'set', b.port.interface, 'down');
  await pumpUntil(inNamespace(a.namespace, KNOCK));
  assert.ok(b.port.counters.snapshot().rx_drop_link_down > 0);
  ip('link', 'del', b.port.interface);
  const before = b.port.counters.snapshot().rx_drop_link_down;
  await pumpUntil(inNamespace(a.namespace, KNOCK));
  assert.ok(b.port.counters.snapshot().rx_drop_link_down > before);
});

test('closing gives descriptors and the interface back', { skip: reason }, () => {
  const open = () => readdirSync('/proc/self/fd').length;
  const before = open();
  const name = unique('x');
  const port = new TapPort({ name: 'x', path, interface: name, log: loggerTo(() => undefined) });
  assert.ok(existsSync(`/sys/class/net/${name}`));
  assert.throws(
    () => new Tap({ name, headerBytes: 12 }),
    (error) => error instanceof SluiceError && /EBUSY: .*in use/.test(error.message),
  );
  port.close();
  port.close();
  assert.equal(open(), before);
  assert.ok(!existsSync(`/sys/class/net/${name}`));
});

/** What a script prints in a namespace; its argument is the module of {@link Tap}. */
function withTap(namespace: string, script: string): string {
  return execFileSync(
    'ip',
    [
      ...['netns', 'exec', namespace, process.execPath, '--disable-warning=ExperimentalWarning'],
      ...['--input-type=module', '-e', script, new URL('../os/tap.ts', import.meta.url).href],
    ],
    { encoding: 'utf8' },
  ).trim();
}

test('an interface is set up on request', { skip: reason }, (t) => {
  // In a namespace of its own, so that nothing of the host sees it.
  const namespace = unique('u');
  execFileSync('ip', ['netns', 'add', namespace]);
  t.after(() => execFileSync('ip', ['netns', 'del', namespace]));
  const script = `
    const { Tap } = await import(process.argv[1]);
    const tap = new Tap({ name: 'up0', headerBytes: 12, up: true });
    const { readFileSync } = await import('node:fs');
    console.log(readFileSync('/sys/class/net/up0/flags', 'utf8'));
    tap.close();
  `;
  assert.equal(Number(withTap(namespace, script)) & 1, 1);
});

test('a user may use an interface that was made for it, once it is up', { skip: reason }, (t) => {
  const namespace = unique('n');
  execFileSync('ip', ['netns', 'add', namespace]);
  t.after(() => execFileSync('ip', ['netns', 'del', namespace]));
  const inside = (...args: string[]) => execFileSync('ip', ['-n', namespace, ...args]);
  inside('tuntap', 'add', 'dev', 'own0', 'mode', 'tap', 'user', String(NOBODY), 'vnet_hdr');
  const script = `
    const { Tap } = await import(process.argv[1]);
    process.setgroups([]);
    process.setgid(${NOBODY});
    process.setuid(${NOBODY});
    try {
      new Tap({ name: 'own0', headerBytes: 12, up: true }).close();
      console.log('open');
    } catch (error) {
      console.log(error.message, '|', error.remedy);
    }
  `;
  assert.equal(
    withTap(namespace, script),
    'EPERM: may not set the network interface own0 up | set it up before: ip link set own0 up',
  );
  inside('link', 'set', 'own0', 'up');
  assert.equal(withTap(namespace, script), 'open');
});

test('names that no interface can have are refused before anything is opened', () => {
  for (const name of ['', 'sixteen-letters-', 'a b', 'a/b', 'a:b', '.', '..']) {
    assert.throws(
      () => new Tap({ name, headerBytes: 12 }),
      (error) => error instanceof SluiceError && error.code === 'config',
      name,
    );
  }
});

test('an interface that is no tap is refused with a remedy', { skip: reason }, () => {
  assert.throws(
    () => new Tap({ name: 'lo', headerBytes: 12 }),
    (error) =>
      error instanceof SluiceError && error.remedy !== undefined && /lo/.test(error.message),
  );
});
