// suite: takes=8
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import { VirtioNet } from '../../device/virtio-net/virtio-net.ts';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PortPolicy } from '../../net/policy.ts';
import { Switch } from '../../net/switch.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { VhostUserServer } from '../../transport/vhost-user/server.ts';
import { EmbeddedGuests, newFlow } from './launcher.ts';
import type { GuestSpec, RoleSpec } from './protocol.ts';

const MACS = ['52:54:00:00:00:01', '52:54:00:00:00:02', '52:54:00:00:00:03'] as const;

/** A switch with vhost-user ports in this process, whose loop runs in slices between Node's events. */
class Domain {
  readonly directory = mkdtempSync(join(tmpdir(), 'sluice-'));
  readonly loop = new PollLoop({ idlePollUs: 20 });
  readonly path = createDataPath(Arena.create(), this.loop);
  readonly lan = new Switch('lan', this.path);
  readonly devices: VirtioNet[] = [];
  readonly servers: VhostUserServer[] = [];
  #running = true;

  constructor(ports: number, queuePairs: number) {
    for (let i = 0; i < ports; i++) {
      const mac = parseMac(MACS[i] as string);
      const device = new VirtioNet({
        name: `port${i}`,
        path: this.path,
        mac,
        queuePairs,
        log: silentLogger,
      });
      device.owner = this.lan;
      this.lan.addPort(device, new PortPolicy({ mac }, this.loop.now));
      this.loop.addPoller(device);
      this.devices.push(device);
      this.servers.push(
        new VhostUserServer({
          path: this.socket(i),
          device,
          arena: this.path.arena,
          loop: this.loop,
          log: silentLogger,
        }),
      );
    }
    this.#slice();
  }

  socket(index: number): string {
    return join(this.directory, `${index}.sock`);
  }

  close(): void {
    this.#running = false;
    for (const server of this.servers) server.close();
    this.loop.close();
    rmSync(this.directory, { recursive: true });
  }

  #slice(): void {
    if (!this.#running) return;
    this.loop.setTimer(2000, () => this.loop.stop());
    this.loop.run();
    setImmediate(() => this.#slice());
  }
}

function specOf(domain: Domain, index: number, more: Partial<GuestSpec> = {}): GuestSpec {
  return {
    name: `g${index}`,
    socket: domain.socket(index),
    mac: MACS[index] as string,
    ...more,
  };
}

function source(to: number, frame: number, frames: number, rate?: number): RoleSpec {
  return {
    role: 'traffic',
    verifyEvery: 1,
    source: {
      targets: [{ mac: MACS[to] as string, flow: newFlow() }],
      frame,
      frames,
      ...(rate === undefined ? {} : { rate }),
    },
  };
}

/** Waits until `done` holds of what the guests say. */
async function until(
  guests: EmbeddedGuests,
  done: (read: Awaited<ReturnType<EmbeddedGuests['read']>>) => boolean,
): Promise<Awaited<ReturnType<EmbeddedGuests['read']>>> {
  for (;;) {
    const reading = await guests.read();
    if (done(reading)) return reading;
    await new Promise((next) => setTimeout(next, 5));
  }
}

describe('embedded guests over vhost-user sockets', () => {
  let domain: Domain;
  let guests: EmbeddedGuests;
  const lost: [string, string][] = [];

  before(async () => {
    domain = new Domain(3, 2);
    guests = await EmbeddedGuests.start({
      idlePollUs: 20,
      onLost: (guest, reason) => lost.push([guest, reason]),
    });
  });

  after(async () => {
    await guests.close();
    domain.close();
  });

  for (const [name, more, frame] of [
    ['split', {}, 1514],
    ['packed', { wishes: { packed: true } }, 1514],
    ['split, plain', { wishes: { inOrder: false, eventIdx: false, indirect: false } }, 60],
    ['packed, plain', { wishes: { packed: true, inOrder: false, eventIdx: false } }, 60],
    ['split, large frames whole', { frame: 65000 }, 65000],
    [
      'packed, large frames in pieces',
      {
        frame: 65000,
        receiveBytes: 2048,
        wishes: { packed: true },
        sendFrames: 2,
        receiveBuffers: 256,
      },
      65000,
    ],
    ['two queue pairs', { queuePairs: 2 }, 1514],
  ] as const) {
    it(`carries frames both ways and echoes: ${name}`, async () => {
      const pairs = (more as Partial<GuestSpec>).queuePairs ?? 1;
      const infos = [
        await guests.attach(specOf(domain, 0, more)),
        await guests.attach(specOf(domain, 1, more)),
      ];
      for (const info of infos) {
        assert.equal(info.packed, name.startsWith('packed'));
        assert.equal(info.queuePairs, pairs);
      }
      assert.equal(infos[0]?.mac, MACS[0]);
      // So that the switch knows both.
      const hello = (to: number): RoleSpec[] => [source(to, 60, 1)];
      await guests.start({ g0: hello(1), g1: hello(0) });
      await until(guests, ({ guests: all }) =>
        Object.values(all).every((guest) => guest.pairs[0]?.sent === 1),
      );
      await guests.stop();

      // Paced, because nothing holds a source back from overrunning a sink: the machine may be busy.
      const frames = frame > 2000 ? 200 : 2000;
      const rate = frame > 2000 ? 500 : 5000;
      const roles = (to: number): RoleSpec[] =>
        Array.from({ length: pairs }, () => source(to, frame, frames, rate));
      await guests.start({ g0: roles(1), g1: roles(0) });
      const sum = (counts: readonly { readonly received: number }[]): number =>
        counts.reduce((total, { received }) => total + received, 0);
      // A frame that was lost does not come: then the counts stand still.
      let last = 0;
      let still = 0;
      const reading = await until(guests, ({ guests: all }) => {
        const received = Object.values(all).map((guest) => sum(guest.pairs));
        const total = received.reduce((all, count) => all + count, 0);
        still = total === last ? still + 1 : 0;
        last = total;
        return still > 400 || received.every((count) => count >= frames * pairs);
      });
      for (const guest of Object.values(reading.guests)) {
        assert.equal(sum(guest.pairs), frames * pairs);
        for (const counts of guest.pairs) {
          assert.deepEqual(
            [counts.missing, counts.corrupt, counts.badMetadata, counts.duplicates],
            [0, 0, 0, 0],
          );
          assert.equal(counts.verified, counts.received);
        }
      }
      await guests.stop();

      await guests.start({
        g0: [{ role: 'ping', mac: MACS[1], flow: newFlow(), frame }],
        g1: [{ role: 'echo' }],
      });
      const pinged = await until(
        guests,
        ({ guests: all }) => (all['g0']?.pairs[0]?.roundTrips ?? 0) >= 100,
      );
      assert.equal(pinged.guests['g0']?.pairs[0]?.timeouts, 0);
      await guests.stop();
      await guests.detach('g0');
      await guests.detach('g1');
    });
  }

  it('sleeps when nothing moves, and wakes for each frame', async () => {
    await guests.attach(specOf(domain, 0));
    await guests.attach(specOf(domain, 1));
    const idle = await guests.read();
    await new Promise((next) => setTimeout(next, 200));
    const later = await guests.read();
    // Only the reading itself has woken the process.
    assert.ok(later.turns - idle.turns < 5000);
    assert.ok(later.sleeps > idle.sleeps);
    // A frame each 2 ms: both sides sleep in between, and each frame arrives.
    await guests.start({ g0: [source(1, 60, 1)], g1: [source(0, 60, 100, 500)] });
    await until(guests, ({ guests: all }) => all['g0']?.pairs[0]?.received === 100);
    const end = await guests.read();
    assert.ok((end.guests['g0']?.calls ?? 0) > 10);
    assert.ok((end.guests['g1']?.kicks ?? 0) > 10);
    await guests.stop();
    await guests.detach('g0');
    await guests.detach('g1');
  });

  for (const packed of [false, true]) {
    for (const eventIdx of [false, true]) {
      const name = `${packed ? 'packed' : 'split'}${eventIdx ? ', event index' : ''}`;
      it(`loses no wake-up when both ends sleep between frames: ${name}`, async () => {
        await guests.attach(specOf(domain, 0, { wishes: { packed, eventIdx } }));
        await guests.attach(specOf(domain, 1, { wishes: { packed, eventIdx } }));
        // A lost wake-up would be a ping without an answer.
        await guests.start({
          g0: [{ role: 'ping', mac: MACS[1], flow: newFlow(), frame: 60, intervalUs: 1500 }],
          g1: [{ role: 'echo' }],
        });
        const before = await guests.read();
        const reading = await until(
          guests,
          ({ guests: all }) => (all['g0']?.pairs[0]?.roundTrips ?? 0) >= 100,
        );
        assert.equal(reading.guests['g0']?.pairs[0]?.timeouts, 0);
        assert.ok(reading.sleeps - before.sleeps >= 50);
        await guests.stop();
        await guests.detach('g0');
        await guests.detach('g1');
      });
    }
  }

  it('says what is wrong', async () => {
    await assert.rejects(guests.attach(specOf(domain, 0, { socket: '/nonexistent/x.sock' })), {
      message: 'ENOENT: connect /nonexistent/x.sock',
    });
    await assert.rejects(guests.attach(specOf(domain, 0, { mac: 'x' })), { code: 'config' });
    await assert.rejects(guests.detach('nobody'), { code: 'not-found' });
    await guests.attach(specOf(domain, 0));
    await assert.rejects(guests.attach(specOf(domain, 0)), { code: 'state' });
    await assert.rejects(guests.start({ g0: [source(1, 20, 1)] }), { code: 'config' });
    await assert.rejects(guests.start({ g0: [source(1, 9000, 1)] }), { code: 'config' });
    await assert.rejects(guests.attach(specOf(domain, 1, { queuePairs: 3 })), {
      code: 'unsupported',
    });
    await assert.rejects(
      guests.attach(specOf(domain, 1, { frame: 9000, wishes: { segmentation: false } })),
      { code: 'unsupported' },
    );
    await guests.detach('g0');
  });

  it('tells of a device that goes away', async () => {
    await guests.attach(specOf(domain, 2));
    domain.servers[2]?.close();
    const reading = await until(guests, ({ guests: all }) => all['g2']?.failure !== undefined);
    assert.match(reading.guests['g2']?.failure ?? '', /closed by the device/);
    assert.equal(lost.length, 1);
    assert.equal(lost[0]?.[0], 'g2');
    await guests.detach('g2');
  });
});

/** True until a process has ended, whether or not somebody has taken notice of its end (proc(5)). */
function runs(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !['Z', 'X'].includes(stat.at(stat.lastIndexOf(')') + 2) ?? 'X');
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOENT');
    return false;
  }
}

describe('the process of embedded guests', () => {
  it('ends with its launcher', async () => {
    const guests = await EmbeddedGuests.start();
    const { pid } = guests;
    assert.ok(runs(pid));
    await guests.close();
    assert.ok(!runs(pid));
    await assert.rejects(guests.read(), { code: 'state' });
  });

  it('ends when its launcher is killed', async () => {
    const launcher = new URL('./launcher.ts', import.meta.url).href;
    const program = `
      const { EmbeddedGuests } = await import(${JSON.stringify(launcher)});
      const guests = await EmbeddedGuests.start();
      process.stdout.write(String(guests.pid) + '\\n');
      setInterval(() => undefined, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const pid = Number(line.toString());
    assert.ok(runs(pid));
    child.kill('SIGKILL');
    while (runs(pid)) await new Promise((next) => setTimeout(next, 5));
  });
});
