// suite: takes=6
import assert from 'node:assert/strict';
import { readFileSync, writeSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isMainThread } from 'node:worker_threads';
import { handlersOf } from '../control/views.ts';
import { E1000 } from '../device/e1000/e1000.ts';
import { VfioUserBus } from '../driver/pci/vfio-user-bus.ts';
import { runLane } from '../engine/lane.ts';
import { closeFd } from '../os/fd.ts';
import { createMemfd } from '../os/mapping.ts';
import { PollLoop } from '../os/poll-loop.ts';
import { AHCI_BAR, AHCI_PORTS, PX_SSTS } from '../spec/ahci.ts';
import { E1000_REGISTERS, TCTL_EN } from '../spec/e1000.ts';
import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../spec/pci.ts';
import type { Daemon } from './daemon.ts';
import type { LaneCommands, LaneEvent } from './lane-commands.ts';
import { DomainLane } from './lane-program.ts';
import { stage, until } from './testing.ts';

const { STATUS, TCTL, TDBAL, TDLEN, TDT } = E1000_REGISTERS;
const MEMORY_BYTES = 65536;
const FRAME_AT = 4096;
const FRAME = new Uint8Array(64).fill(0xff, 0, 6);
/** Legacy transmit descriptor: EOP, IFCS, RS (SDM §3.3.3). */
const COMMAND = 0x0b00_0000;
/** A card of this guest has a bug: reading STATUS fails; another's in what it is sent. */
const BAD = 'bad/net0';
const WORSE = 'worse/net0';

/** A guest that writes registers by hand. */
class Hand {
  readonly bus: VfioUserBus;
  readonly fd = createMemfd('sluice-test-guest', MEMORY_BYTES);
  lost = false;
  readonly #loop = new PollLoop();
  #tail = 0;

  constructor(t: TestContext, socket: string) {
    this.bus = VfioUserBus.connect(socket, this.#loop, () => {
      this.lost = true;
    });
    t.after(() => this.close());
    this.bus.map(0, MEMORY_BYTES, this.fd);
    this.bus.writeConfig(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  }

  look(): void {
    this.#loop.setTimer(0, () => this.#loop.stop());
    this.#loop.run();
  }

  startTransmit(ring: number): void {
    this.bus.write(0, TDBAL.offset, 4, ring);
    this.bus.write(0, TDLEN.offset, 4, 128);
    this.bus.write(0, TCTL.offset, 4, TCTL_EN);
  }

  send(): void {
    writeSync(this.fd, FRAME, 0, FRAME.length, FRAME_AT);
    const descriptor = Uint32Array.of(FRAME_AT, 0, COMMAND | FRAME.length, 0);
    writeSync(this.fd, descriptor, 0, 16, this.#tail * 16);
    this.#tail = (this.#tail + 1) % 8;
    this.bus.write(0, TDT.offset, 4, this.#tail);
  }

  #closed = false;
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.bus.close();
    this.#loop.close();
    closeFd(this.fd);
  }
}

const card = (model: number): string => `{ method: emulated, model: ${model}, switch: lan }`;
const drive = (disk: string, rest = ''): string =>
  `{ method: emulated, model: ahci, disk: ${disk}${rest} }`;
const guests = (list: string): string =>
  `switches: { lan: {} }\ndisks: { a: { memory: 1M }, b: { memory: 1M } }\nguests: { ${list} }`;

if (!isMainThread) {
  runLane<LaneCommands, LaneEvent>((host) => {
    const { readBar, deliver } = E1000.prototype;
    E1000.prototype.readBar = function (bar, offset, length) {
      if (this.name === BAD && offset === STATUS.offset) throw new Error('a bug in a register');
      return readBar.call(this, bar, offset, length);
    };
    E1000.prototype.deliver = function (...args) {
      if (this.name === WORSE) throw new Error('a bug in what it is sent');
      deliver.apply(this, args);
    };
    return new DomainLane(host);
  });
} else {
  test('cards and a controller are what they are, and show what guests do with them', async (t) => {
    const { socket, start } = stage(
      t,
      guests(
        `web: { net: [${card(82574)}, ${card(82540)}], disk: [${drive('a')}, ${drive('b', ', port: 3')}] }`,
      ),
    );
    const daemon = await start();
    const [one, two, disks] = ['web-net0', 'web-net1', 'web-ahci0'].map(
      (name) => new Hand(t, socket(name)),
    );
    assert.ok(one && two && disks);
    assert.equal(one.bus.readConfig(0, 4), 0x10d3_8086);
    assert.equal(two.bus.readConfig(0, 4), 0x100e_8086);
    assert.equal(disks.bus.readConfig(0, 4), 0x2922_8086);
    const detected = [0, 1, 2, 3].map((port) =>
      disks.bus.read(AHCI_BAR, AHCI_PORTS + 0x80 * port + PX_SSTS, 4),
    );
    assert.deepEqual(
      detected.map((status) => status & 0xf),
      [3, 0, 0, 3],
    );
    const functions = await daemon.functions();
    assert.deepEqual(
      functions.map((item) => [item.function, item.model, item.connected, item.maps]),
      [
        ['web/net0', '82574', true, 1],
        ['web/net1', '82540', true, 1],
        ['web/ahci0', 'ahci', true, 1],
      ],
    );
    assert.equal(functions[2]?.busMaster, true);
    // Of the drive registers, and of configuration space.
    assert.equal(functions[2]?.counters.trap_reads, 5);
    assert.deepEqual(
      (await daemon.devices()).map(({ device, disk, running }) => [device, disk, running]),
      [
        ['web/ahci0.0', 'a', true],
        ['web/ahci0.3', 'b', true],
      ],
    );

    const output = new PassThrough();
    const bytes: Buffer[] = [];
    output.on('data', (part: Buffer) => bytes.push(part));
    const capture = daemon.capture('web/net0', undefined, output);
    await delay(50);
    one.startTransmit(0);
    one.send();
    await until('the frame', () => daemon.countersOf('web/net0').tx_frames === 1);
    const ring = (await daemon.rings()).find(({ direction }) => direction === 'tx');
    assert.deepEqual([ring?.port, ring?.size, ring?.avail, ring?.used], ['web/net0', 8, 1, 1]);
    // The other card has not started its driver.
    assert.equal(daemon.countersOf('web/net1').rx_drop_link_down, 1);
    await daemon.stop();
    assert.equal((await capture).frames, 1);
    assert.ok(Buffer.concat(bytes).includes(Buffer.from(FRAME)));
  });

  test('a DMA to where no memory is does not happen, and is told with all there is to tell', async (t) => {
    const { socket, start } = stage(t, guests(`web: { net: [${card(82574)}] }`));
    const daemon = await start();
    const hand = new Hand(t, socket('web-net0'));
    hand.startTransmit(0x10_0000);
    hand.bus.write(0, TDT.offset, 4, 1);
    await until('the fault', async () => (await daemon.dmaFaults()).length > 0);
    const { faults } = handlersOf(daemon, '0', () => undefined);
    const [fault] = await faults(undefined);
    assert.deepEqual([fault?.port, fault?.reason], ['web/net0', 'not mapped']);
    assert.deepEqual(
      [fault?.dma?.iova, fault?.dma?.direction, (fault?.dma?.length ?? 0) >= 16],
      [0x10_0000, 'read', true],
    );
    const age = Date.now() - Date.parse(fault?.time ?? '');
    assert.ok(age >= -1000 && age < 60_000, `${fault?.time}`);
    assert.ok(((await daemon.functions())[0]?.counters.dma_faults ?? 0) > 0);
  });

  test('a reload plugs drives in and out, and takes a card away, while the others run on', async (t) => {
    const both = (net: string, disk: string): string =>
      guests(`web: { net: [${net}], disk: [${disk}] }`);
    const { socket, start, write } = stage(
      t,
      both(`${card(82574)}, ${card(82540)}`, drive('a', ', port: 0')),
    );
    const daemon = await start();
    const kept = new Hand(t, socket('web-net0'));
    const gone = new Hand(t, socket('web-net1'));
    const disks = new Hand(t, socket('web-ahci0'));
    const present = (): number[] =>
      [0, 1].map((port) => disks.bus.read(AHCI_BAR, AHCI_PORTS + 0x80 * port + PX_SSTS, 4) & 0xf);
    assert.deepEqual(present(), [3, 0]);
    write(
      both(
        `${card(82574)}, ${card(82540)}`,
        `${drive('b', ', port: 1')}, ${drive('a', ', port: 0')}`,
      ),
    );
    assert.deepEqual((await daemon.reload()).failed, []);
    assert.deepEqual(present(), [3, 3]);
    write(both(card(82574), drive('b', ', port: 1')));
    const { done } = await daemon.reload();
    assert.ok(done.includes('remove device web/ahci0.0') && done.includes('remove port web/net1'));
    assert.ok(!done.some((action) => action.includes('web/net0') || action.includes('controller')));
    assert.deepEqual(present(), [0, 3]);
    await until('the card to go', () => {
      gone.look();
      return gone.lost;
    });
    assert.equal(kept.bus.readConfig(0, 4), 0x10d3_8086);
  });

  test('a card whose own code fails is lost to its guest, and to nobody else', async (t) => {
    const { socket, start } = stage(
      t,
      guests(['good', 'bad', 'worse'].map((name) => `${name}: { net: [${card(82574)}] }`).join()),
    );
    const daemon = await start(new URL(import.meta.url));
    const [good, bad, worse] = ['good', 'bad', 'worse'].map(
      (name) => new Hand(t, socket(`${name}-net0`)),
    );
    assert.ok(good && bad && worse);
    assert.equal(bad.bus.read(0, STATUS.offset, 4), 0xffff_ffff);
    await until('the end of the connection', () => {
      bad.look();
      return bad.lost;
    });
    good.startTransmit(0);
    good.send();
    await until('the end of the other', () => {
      worse.look();
      return worse.lost;
    });
    good.send();
    await until('frames', () => daemon.countersOf('good/net0').tx_frames === 2);
    assert.deepEqual(
      daemon.faults.map(({ port, reason }) => [port, reason]),
      [
        [BAD, 'a bug in a register'],
        [WORSE, 'a bug in what it is sent'],
      ],
    );
    assert.equal(daemon.lanes()[0]?.device_failures, 2);
    const states = await daemon.functions();
    assert.deepEqual(
      states.map(({ connected, fault }) => [connected, fault === null]),
      [
        [true, true],
        [false, false],
        [false, false],
      ],
    );
  });

  test('a VMM that vanishes leaves nothing behind; one that Sluice left is told of as lost', async (t) => {
    const { socket, start } = stage(
      t,
      guests(`web: { net: [${card(82574)}], disk: [${drive('a')}] }`),
    );
    const daemon = await start();
    const mapped = (): number => readFileSync('/proc/self/maps', 'utf8').split('test-guest').length;
    const before = mapped();
    const first = new Hand(t, socket('web-net0'));
    assert.ok(mapped() > before);
    first.close();
    await until('the memory to be given back', () => mapped() === before);
    const lost = async (of: Daemon) => {
      const [web] = await handlersOf(of, '0', () => undefined).guests(undefined);
      return [web?.net[0]?.lost, web?.disk[0]?.lost];
    };
    const second = new Hand(t, socket('web-net0'));
    assert.deepEqual(await lost(daemon), [false, false]);
    await daemon.stop();
    second.look();
    const next = await start();
    assert.deepEqual(await lost(next), [true, false]);
    const third = new Hand(t, socket('web-net0'));
    assert.deepEqual(await lost(next), [false, false]);
    third.close();
  });
}
