/** Functions of NICs, as the daemon has them. */
// suite: takes=15
import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isMainThread } from 'node:worker_threads';
import { handlersOf } from '../control/views.ts';
import { VirtualFunction } from '../device/ixgbe/virtual-function.ts';
import { VfioUserBus } from '../driver/pci/vfio-user-bus.ts';
import { runLane } from '../engine/lane.ts';
import { EmbeddedGuests, newFlow } from '../guest/embedded/launcher.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { IXGBE_TX_QUEUE_REGISTERS } from '../spec/ixgbe.ts';
import { IXGBE_QUEUE_ENABLE } from '../spec/ixgbe-descriptors.ts';
import { IXGBE_VF_TX_QUEUES } from '../spec/ixgbe-mailbox.ts';
import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../spec/pci.ts';
import type { Daemon } from './daemon.ts';
import type { LaneCommands, LaneEvent } from './lane-commands.ts';
import { DomainLane } from './lane-program.ts';
import { stage, until } from './testing.ts';

const BAD = 'nic0/0/vf6';

/** A VMM that has no guest. */
class Hand {
  readonly bus: VfioUserBus;
  lost = false;
  readonly #loop = new PollLoop();
  #closed = false;

  constructor(t: TestContext, socket: string) {
    this.bus = VfioUserBus.connect(socket, this.#loop, () => {
      this.lost = true;
    });
    t.after(() => {
      this.close();
      this.#loop.close();
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.bus.close();
  }

  look(): void {
    this.#loop.setTimer(0, () => this.#loop.stop());
    this.#loop.run();
  }
}

const MACS = { web: '52:54:00:00:00:01', db: '52:54:00:00:00:02', old: '52:54:00:00:00:03' };
const vf = (number: number, rest = ''): string =>
  `{ method: sriov, nic: nic0, port: 0, vf: ${number}${rest} }`;
const config = (guests: string, port = '{ wire: { switch: lan }, link: none }'): string =>
  `switches: { lan: {} }\nnics: { nic0: { model: 82599, ports: [${port}] } }\nguests: { ${guests} }`;
const SHARED = config(
  `web: { net: [${vf(0, `, mac: "${MACS.web}"`)}] }, db: { net: [${vf(1, `, mac: "${MACS.db}"`)}] }, old: { net: [{ method: paravirtual, switch: lan, mac: "${MACS.old}" }] }`,
);

/** Embedded guests with functions, and a paravirtual one, on one network. */
async function threeGuests(t: TestContext, socket: (name: string) => string) {
  const lost: string[] = [];
  const guests = await EmbeddedGuests.start({ onLost: (guest) => lost.push(guest) });
  t.after(() => guests[Symbol.asyncDispose]());
  for (const name of ['web', 'db', 'old'] as const) {
    await guests.attach({
      name,
      method: name === 'old' ? 'paravirtual' : 'sriov',
      socket: socket(`${name}-net0`),
      mac: MACS[name],
    });
  }
  return { guests, lost };
}

if (!isMainThread) {
  runLane<LaneCommands, LaneEvent>((host) => {
    const { accept } = VirtualFunction.prototype;
    VirtualFunction.prototype.accept = function (...args) {
      if (this.name === BAD) throw new Error('a bug in what it is sent');
      accept.apply(this, args);
    };
    return new DomainLane(host);
  });
} else {
  test('functions are what they are, each on a socket of its own; a whole port too', async (t) => {
    const { socket, start } = stage(
      t,
      config(
        `web: { net: [${vf(3)}] }, big: { net: [{ method: direct, nic: nic0, port: 1, itr: 8000 }] }`,
        '{}, { mac: "52:54:00:00:00:0A" }',
      ),
    );
    const daemon = await start();
    const [part, whole] = ['web-net0', 'big-net0'].map((name) => new Hand(t, socket(name)));
    assert.ok(part && whole);
    assert.equal(part.bus.readConfig(0, 4), 0x10ed_8086);
    assert.equal(whole.bus.readConfig(0, 4), 0x10fb_8086);
    assert.deepEqual(
      (await daemon.functions()).map((item) => [item.function, item.model, item.connected]),
      [
        ['web/net0', '82599 VF', true],
        ['big/net0', '82599', true],
      ],
    );
    assert.deepEqual(
      (await daemon.ports()).map((item) => [item.port, item.switch, item.kind, item.connected]),
      [
        ['nic0/0', '-', 'nic', true],
        ['nic0/1', '-', 'nic', true],
        ['web/net0', 'nic0/0', 'guest', true],
        ['big/net0', 'nic0/1', 'guest', true],
      ],
    );
    const views = handlersOf(daemon, '0', () => undefined);
    assert.deepEqual(
      (await views.guests(undefined)).map(({ net }) => [net[0]?.switch, net[0]?.vf, net[0]?.mac]),
      [
        ['nic0/0', 3, (await views.vfs(undefined))[0]?.address],
        ['nic0/1', null, '52:54:00:00:00:0a'],
      ],
    );
  });

  test('guests with functions and a paravirtual one reach each other; frames are counted', async (t) => {
    const { socket, start } = stage(t, SHARED);
    const daemon = await start();
    const { guests, lost } = await threeGuests(t, socket);
    const flows = { web: newFlow(), db: newFlow(), old: newFlow() };
    const target = (name: keyof typeof MACS) => ({ mac: MACS[name], flow: flows[name] });
    const source = (name: keyof typeof MACS) =>
      [
        {
          role: 'traffic',
          verifyEvery: 1,
          source: { targets: [target(name)], frame: 1000, frames: 200, rate: 20_000 },
        },
      ] as const;
    await guests.start({ web: source('db'), db: source('old'), old: source('web') });
    const sent = (name: string): number => daemon.countersOf(`${name}/net0`).tx_frames;
    const got = (name: string): number => daemon.countersOf(`${name}/net0`).rx_frames;
    await until('all frames', () => ['web', 'db', 'old'].every((name) => got(name) >= 200));
    assert.ok(['web', 'db', 'old'].every((name) => sent(name) >= 200));
    // From function to function frames do not pass the wire.
    const wire = daemon.countersOf('nic0/0');
    assert.ok(wire.rx_frames >= 200 && wire.rx_frames < 400, `${wire.rx_frames}`);
    assert.deepEqual(
      (await daemon.vfs()).map((item) => [
        item.port,
        item.vf,
        item.running,
        item.link,
        item.address,
      ]),
      [
        ['web/net0', 0, true, true, MACS.web],
        ['db/net0', 1, true, true, MACS.db],
      ],
    );
    // What their drivers agreed upon, and asked for.
    assert.deepEqual(
      (await daemon.vfs()).map(({ api, vlans, macvlans }) => ({ api, vlans, macvlans })),
      Array(2).fill({ api: '1.5', vlans: [], macvlans: [] }),
    );
    const rings = (await daemon.rings()).filter(({ port }) => port === 'web/net0');
    assert.ok(rings.some(({ direction, enabled }) => direction === 'tx' && enabled));
    assert.ok(rings.some(({ direction, enabled }) => direction === 'rx' && enabled));
    assert.deepEqual(lost, []);
  });

  test('what a port shows to a function changes by a reload, and nobody is disconnected', async (t) => {
    const { socket, start, write } = stage(t, SHARED);
    const daemon = await start();
    const hand = new Hand(t, socket('web-net0'));
    const mirrored = SHARED.replace(
      'link: none }',
      'link: none, mirrors: [{ vfs: [0], downlink: on, to: 5 }] }',
    );
    for (const text of [mirrored, SHARED]) {
      write(text);
      assert.deepEqual(await daemon.reload(), { done: ['change nic nic0/0'], failed: [] });
    }
    hand.look();
    assert.equal(hand.lost, false);
  });

  test('guests with whole ports reach each other over the switch of their wires', async (t) => {
    const port = (mac: string): string => `{ wire: { switch: lan }, link: none, mac: "${mac}" }`;
    const { socket, start } = stage(
      t,
      config(
        'web: { net: [{ method: direct, nic: nic0, port: 0 }] }, db: { net: [{ method: direct, nic: nic0, port: 1 }] }',
        `${port(MACS.web)}, ${port(MACS.db)}`,
      ),
    );
    const daemon = await start();
    const guests = await EmbeddedGuests.start();
    t.after(() => guests[Symbol.asyncDispose]());
    for (const name of ['web', 'db'] as const) {
      const spec = { name, method: 'direct', socket: socket(`${name}-net0`) } as const;
      assert.equal((await guests.attach({ ...spec, mac: MACS.old })).mac, MACS[name]);
    }
    const source = (to: 'web' | 'db') =>
      [
        {
          role: 'traffic',
          verifyEvery: 1,
          source: {
            targets: [{ mac: MACS[to], flow: newFlow() }],
            frame: 1514,
            frames: 100,
            rate: 20_000,
          },
        },
      ] as const;
    await guests.start({ web: source('db'), db: source('web') });
    const got = (name: string): number => daemon.countersOf(name).rx_frames;
    await until('all frames', () => ['web/net0', 'db/net0'].every((name) => got(name) >= 100));
    // As the switch sees them, with the first, which go to all.
    assert.ok(got('nic0/0') >= 100 && got('nic0/1') >= 100);
  });

  test('words are set under a running guest, and by a reload; a contradiction changes nothing', async (t) => {
    const { socket, start, write } = stage(t, SHARED);
    const daemon = await start();
    const hand = new Hand(t, socket('web-net0'));
    const now = async () => (await daemon.vfs())[0];
    assert.deepEqual([(await now())?.vlan, (await now())?.spoofchk], [0, true]);
    await daemon.setVf('nic0/0', 0, { vlan: 10, qos: 3, proto: '802.1Q' });
    await daemon.setVf('nic0/0', 0, { spoofchk: false });
    assert.deepEqual(
      [(await now())?.vlan, (await now())?.qos, (await now())?.spoofchk],
      [10, 3, false],
    );
    await assert.rejects(daemon.setVf('nic0/0', 0, { vlan: 0 }), /qos 3 contradicts vlan 0/);
    await assert.rejects(
      daemon.setVf('nic0/0', 0, { mac: MACS.db }),
      /db\/net0 and web\/net0 would have the same MAC address/,
    );
    await assert.rejects(daemon.setVf('nic0/0', 9, { vlan: 1 }), { code: 'not-found' });
    assert.deepEqual([(await now())?.vlan, (await now())?.qos], [10, 3]);

    write(SHARED.replace('vf: 0,', 'vf: 0, trust: on,'));
    assert.deepEqual(await daemon.reload(), { done: ['change port web/net0'], failed: [] });
    assert.deepEqual(
      [(await now())?.vlan, (await now())?.spoofchk, (await now())?.trust],
      [10, false, true],
    );
    // The file's VLAN has changed: it rules.
    write(SHARED.replace('vf: 0,', 'vf: 0, vlan: 30,'));
    assert.deepEqual((await daemon.reload()).done, ['change port web/net0']);
    assert.deepEqual(
      [(await now())?.vlan, (await now())?.qos, (await now())?.spoofchk, (await now())?.trust],
      [30, 0, false, false],
    );
    hand.look();
    assert.equal(hand.lost, false);
    assert.equal(hand.bus.readConfig(0, 4), 0x10ed_8086);
  });

  test('functions trade their addresses and shares of the wire by a reload', async (t) => {
    const share = (web: number, db: number): string =>
      SHARED.replace('link: none', 'link: 10G')
        .replace('vf: 0,', `vf: 0, min_tx_rate: ${web},`)
        .replace('vf: 1,', `vf: 1, min_tx_rate: ${db},`);
    const { start, write } = stage(t, share(6000, 3000));
    const daemon = await start();
    const addresses = async () => (await daemon.vfs()).map(({ address }) => address);
    const changes = ['change port web/net0', 'change port db/net0'];
    const { web, db } = MACS;
    const other = '52:54:00:00:00:09';
    write(share(3000, 7000).replace(web, '?').replace(db, web).replace('?', db));
    assert.deepEqual(await daemon.reload(), { done: changes, failed: [] });
    assert.deepEqual(await addresses(), [db, web]);
    // One waits for the other, which comes later.
    write(share(7000, 3000).replace(db, other));
    assert.deepEqual(await daemon.reload(), { done: changes.toReversed(), failed: [] });
    assert.deepEqual(await addresses(), [web, other]);
    assert.deepEqual(
      (await daemon.vfs()).map(({ min_tx_rate }) => min_tx_rate),
      [7000, 3000],
    );
  });

  test('functions come and go, at run time and by reloads; wires go without them', async (t) => {
    const { socket, start, write } = stage(t, SHARED);
    const daemon = await start();
    const kept = new Hand(t, socket('web-net0'));
    const gone = new Hand(t, socket('db-net0'));
    await daemon.addVf('nic0/0', 7, { vlan: 5, qos: 0, proto: '802.1Q' });
    const made = new Hand(t, socket('nic0-0-vf7'));
    assert.equal(made.bus.readConfig(0, 4), 0x10ed_8086);
    assert.deepEqual(
      (await daemon.vfs()).map((item) => [item.function, item.port, item.vlan, item.connected]),
      [
        ['nic0/0/vf0', 'web/net0', 0, true],
        ['nic0/0/vf1', 'db/net0', 0, true],
        ['nic0/0/vf7', 'nic0/0/vf7', 5, true],
      ],
    );
    await assert.rejects(daemon.addVf('nic0/0', 7, {}), { code: 'state' });
    await assert.rejects(daemon.addVf('nic0/0', 1, {}), /db\/net0 has nic0\/0 vf 1 already/);
    await assert.rejects(daemon.removeVf('nic0/0', 1), /is db\/net0 of the configuration/);

    const web = `web: { net: [${vf(0, `, mac: "${MACS.web}"`)}] }`;
    write(config(web, '{ link: none }'));
    assert.deepEqual(await daemon.reload(), {
      done: ['remove port old/net0', 'remove port db/net0', 'remove nic-wire nic0/0'],
      failed: [],
    });
    await until('the function to go', () => {
      gone.look();
      return gone.lost;
    });
    await daemon.removeVf('nic0/0', 7);
    await until('the other to go', () => {
      made.look();
      return made.lost;
    });
    kept.look();
    assert.equal(kept.lost, false);
    assert.deepEqual(
      (await daemon.vfs()).map(({ vf: number }) => number),
      [0],
    );
    // Its number can be had again.
    await daemon.addVf('nic0/0', 7, {});
    new Hand(t, socket('nic0-0-vf7'));

    // The other way to have the port: it is another card then.
    write(config('web: { net: [{ method: direct, nic: nic0, port: 0 }] }'));
    assert.deepEqual((await daemon.reload()).failed, []);
    assert.deepEqual(await daemon.vfs(), []);
    const whole = new Hand(t, socket('web-net0'));
    assert.equal(whole.bus.readConfig(0, 4), 0x10fb_8086);
  });

  test('a VMM that vanishes makes room for the next; one that Sluice left is told of as lost', async (t) => {
    const { socket, start } = stage(t, SHARED);
    const daemon = await start();
    const lost = async (of: Daemon): Promise<readonly boolean[]> => {
      const list = await handlersOf(of, '0', () => undefined).guests(undefined);
      return list.map(({ net }) => net[0]?.lost === true);
    };
    const first = new Hand(t, socket('web-net0'));
    first.close();
    await until('the end of the first', async () => (await daemon.vfs())[0]?.connected === false);
    const second = new Hand(t, socket('web-net0'));
    assert.equal(second.bus.readConfig(0, 4), 0x10ed_8086);
    assert.deepEqual(await lost(daemon), [false, false, false]);
    await daemon.stop();
    second.look();
    assert.equal(second.lost, true);
    assert.deepEqual(await lost(await start()), [true, false, false]);
  });

  test('frames of a port can be captured at its wire, not at a function', async (t) => {
    const { start } = stage(t, SHARED);
    const daemon = await start();
    await assert.rejects(daemon.capture('web/net0', undefined, new PassThrough()), {
      code: 'unsupported',
      message: 'web/net0 is a function of nic0/0, no port of a switch',
      remedy: 'capture nic0/0: what passes its wire',
    });
    const output = new PassThrough();
    const capture = daemon.capture('nic0/0', undefined, output);
    output.resume();
    await delay(50);
    await daemon.stop();
    assert.equal((await capture).frames, 0);
  });

  test('a DMA of a function to where no memory is does not happen, and is told', async (t) => {
    const { socket, start } = stage(t, SHARED);
    const daemon = await start();
    const hand = new Hand(t, socket('web-net0'));
    hand.bus.writeConfig(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    const { TDBAL, TDLEN, TDT, TXDCTL } = IXGBE_TX_QUEUE_REGISTERS;
    for (const [{ offset }, value] of [
      [TDBAL, 0x10_0000],
      [TDLEN, 1024],
      [TXDCTL, IXGBE_QUEUE_ENABLE],
      [TDT, 1],
    ] as const) {
      hand.bus.write(0, IXGBE_VF_TX_QUEUES + offset, 4, value);
    }
    await until('the fault', async () => (await daemon.dmaFaults()).length > 0);
    const [fault] = await daemon.dmaFaults();
    assert.deepEqual(
      [fault?.function, fault?.iova, fault?.direction, fault?.reason],
      ['web/net0', 0x10_0000, 'read', 'not mapped'],
    );
    const [web, db] = await daemon.functions();
    assert.ok((web?.counters.dma_faults ?? 0) > 0);
    assert.equal(db?.counters.dma_faults, 0);
  });

  test('a function whose own code fails is lost to its guest, and to nobody else', async (t) => {
    const { socket, start } = stage(
      t,
      `${SHARED.slice(0, -2)}, bad: { net: [${vf(6, ', mac: "52:54:00:00:00:06"')}] } }`,
    );
    const daemon = await start(new URL(import.meta.url));
    const { guests, lost } = await threeGuests(t, socket);
    await guests.attach({
      name: 'bad',
      method: 'sriov',
      socket: socket('bad-net0'),
      mac: '52:54:00:00:00:06',
    });
    const flow = newFlow();
    await guests.start({
      web: [
        {
          role: 'traffic',
          verifyEvery: 1,
          source: {
            targets: [
              { mac: '52:54:00:00:00:06', flow: newFlow() },
              { mac: MACS.db, flow },
            ],
            frame: 200,
            frames: 100,
            rate: 10_000,
          },
        },
      ],
    });
    await until('its end', () => lost.includes('bad'));
    await until('frames of others', () => daemon.countersOf('db/net0').rx_frames >= 40);
    assert.deepEqual(
      daemon.faults.map(({ port, reason }) => [port, reason]),
      [['bad/net0', 'a bug in what it is sent']],
    );
    assert.deepEqual(lost, ['bad']);
  });
}
