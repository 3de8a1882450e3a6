/**
 * `sluice up` with emulated devices whose VMMs are hostile, or die, over real sockets: messages that never end,
 * clients that are killed in their midst, thousands of connections, answers that nobody reads, DMA by message
 * that nobody answers. The guests beside them go on meanwhile, and nothing that a client does stays when it
 * has gone.
 */
// suite: no-testbed timeout=180
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { SystemError } from '../src/base/errors.ts';
import { closeFd, createEventFd } from '../src/os/fd.ts';
import { connectUnix, type UnixConnection } from '../src/os/unix-socket.ts';
import * as ahci from '../src/spec/ahci.ts';
import * as ata from '../src/spec/ata.ts';
import { E1000_REGISTERS, TCTL_EN } from '../src/spec/e1000.ts';
import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../src/spec/pci.ts';
import * as vfu from '../src/spec/vfio-user.ts';
import { SocketChannel } from '../src/transport/channel.ts';
import { VfioUserClient } from '../src/transport/vfio-user/client.ts';
import {
  encodeMessage,
  encodeVersion,
  MAX_DATA_BYTES,
  payloadOf,
  putU64,
} from '../src/transport/vfio-user/codec.ts';
import { RawCard, rest } from './support/raw-card.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';

const MiB = 1024 * 1024;
const CONNECTIONS = 1000;
/** What a client may make of the lane's memory, all scenarios together. */
const MOST_GROWTH = 96 * MiB;
const FRAMES = 8;
const BAR_BYTES = 128 * 1024;

const config: SluiceConfig = {
  switches: { lan: {} },
  disks: { data: { memory: '16M' } },
  guests: {
    good: { net: [{ method: 'emulated', model: '82540', switch: 'lan' }] },
    other: { net: [{ method: 'emulated', model: '82574', switch: 'lan' }] },
    bad: {
      net: [{ method: 'emulated', model: '82574', switch: 'lan' }],
      disk: [{ method: 'emulated', model: 'ahci', disk: 'data' }],
    },
  },
};

const VERSION = encodeVersion({
  major: 0,
  minor: 0,
  capabilities: {
    maxMessageFds: 16,
    maxDataBytes: MAX_DATA_BYTES,
    pageSizes: 4096,
    maxDmaMaps: 65535,
    writeMultiple: true,
    migration: undefined,
  },
});

function regionRead(id: number, offset: number, count: number): Uint8Array {
  const payload = payloadOf(vfu.REGION_ACCESS_BYTES, (view) => {
    putU64(view, 0, offset);
    view.setUint32(8, vfu.REGION_BAR0, true);
    view.setUint32(12, count, true);
  });
  return encodeMessage(id, vfu.VFIO_USER_REGION_READ, 0, payload);
}

/** Two guests that send each other frames. */
class Traffic {
  readonly #cards: readonly [RawCard, RawCard];
  #number = 0;

  constructor(first: string, second: string) {
    this.#cards = [new RawCard(first), new RawCard(second)];
    for (const card of this.#cards) card.start();
  }

  /** Each sends frames, which the other gets, all of them and in order. */
  check(): void {
    for (const [from, to] of [this.#cards, [...this.#cards].reverse()] as [RawCard, RawCard][]) {
      const sent = Array.from({ length: FRAMES }, () => {
        const frame = Buffer.alloc(64);
        frame.fill(0xff, 0, 6);
        frame.set([0x02, 0, 0, 0, 0, 1], 6);
        frame.writeUInt16BE(0x88b5, 12);
        frame.writeUInt32BE(this.#number++, 14);
        return frame;
      });
      for (const frame of sent) from.send(frame);
      for (const frame of sent) {
        assert.equal(to.receive().readUInt32BE(14), frame.readUInt32BE(14), 'a frame was lost');
      }
    }
  }

  /** Both get a frame that somebody else has sent. */
  expect(frame: Buffer): void {
    for (const card of this.#cards)
      assert.ok(card.receive().subarray(0, frame.length).equals(frame));
  }

  close(): void {
    for (const card of this.#cards) card.close();
  }
}

/** Anonymous memory of a process, in bytes, now. */
function memoryOf(pid: number): number {
  const [, kilobytes] =
    /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kilobytes) * 1024;
}

function descriptorsOf(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** Connects however long the queue is. */
function connect(path: string): UnixConnection {
  for (;;) {
    try {
      return connectUnix(path);
    } catch (error) {
      if (!(error instanceof SystemError && error.errnoName === 'EAGAIN')) throw error;
      rest(1);
    }
  }
}

/** Connects when the former client's connection is over. */
async function takeOver<T>(sluice: Sluice, name: string, open: (socket: string) => T): Promise<T> {
  await gone(sluice, name);
  return open(sluice.socket(name));
}

async function gone(sluice: Sluice, name: string): Promise<void> {
  await until(`the VMM of ${name} to be gone`, async () => {
    const functions = await sluice.show('functions');
    return functions.some((one) => one.function === name && !one.connected);
  });
}

/** Sends all of it, however slowly it is read. False: the server has closed the connection. */
function sendAll(channel: SocketChannel, bytes: Uint8Array): boolean {
  for (let sent = 0; sent < bytes.length; ) {
    const count = channel.send(bytes.subarray(sent), []);
    if (count === -1) return false;
    if (count === 0) rest(1);
    sent += count;
  }
  return true;
}

/** Waits until something was sent that has this command, which is not answered; drops what came. */
function waitFor(channel: SocketChannel, command: number): void {
  const bytes = new Uint8Array(4096);
  for (let turns = 0; turns < 5000; turns++) {
    const received = channel.receive(bytes);
    assert.ok(received.bytes >= 0, 'the server has closed the connection');
    if (received.bytes >= vfu.HEADER_BYTES) {
      assert.equal(new DataView(bytes.buffer).getUint16(2, true), command);
      return;
    }
    rest(1);
  }
  assert.fail('the server asks for no memory');
}

/** A client as a process of its own, killed as soon as it has sent `bytes`. */
async function killAfter(path: string, bytes: Uint8Array): Promise<void> {
  const program = `require('net').connect(process.argv[1], function () {
    this.write(Buffer.from(process.argv[2], 'hex'), () => process.stdout.write('sent'));
  }).resume();`;
  const hex = Buffer.from(bytes).toString('hex');
  const child = spawn(process.execPath, ['-e', program, path, hex], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const closed = once(child, 'close');
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await closed;
}

test('hostile VMMs', async (t) => {
  const sluice = await Sluice.start(t, config);
  const { pid } = sluice;
  const traffic = new Traffic(sluice.socket('good/net0'), sluice.socket('other/net0'));
  t.after(() => traffic.close());
  traffic.check();
  // Asks for the first time here: the connection to the daemon stays.
  await sluice.show('status');
  const before = { memory: memoryOf(pid), descriptors: descriptorsOf(pid) };
  let most = before.memory;
  const card = 'bad/net0';
  const scenario = (name: string, run: (t: TestContext) => void | Promise<void>): Promise<void> =>
    t.test(name, async (inner) => {
      await run(inner);
      most = Math.max(most, memoryOf(pid));
      traffic.check();
      for (const one of ['bad/net0', 'bad/ahci0']) await gone(sluice, one);
      assert.equal(descriptorsOf(pid), before.descriptors, 'descriptors stayed open');
      for (const { device_failures: failures } of (await sluice.show('status')).lanes) {
        assert.equal(failures, 0, sluice.log);
      }
    });

  await scenario('a message that never ends', async () => {
    const write = encodeMessage(2, vfu.VFIO_USER_REGION_WRITE, 0, new Uint8Array(MiB));
    for (const [bytes, fds] of [
      [write.subarray(0, 7), 0],
      [write.subarray(0, vfu.HEADER_BYTES), 0],
      [write.subarray(0, 300_000), 0],
      // As many descriptors as a message may bring, and no end of the message.
      [encodeMessage(2, vfu.VFIO_USER_DMA_MAP, 0, new Uint8Array(32)).subarray(0, 40), 16],
    ] as const) {
      const bad = await takeOver(sluice, card, (socket) => new SocketChannel(connect(socket)));
      sendAll(bad, encodeMessage(1, vfu.VFIO_USER_VERSION, 0, VERSION));
      const fd = createEventFd();
      bad.send(bytes.subarray(0, 7), new Array<number>(fds).fill(fd));
      closeFd(fd);
      assert.ok(sendAll(bad, bytes.subarray(7)));
      traffic.check();
      // Nobody else gets in meanwhile.
      const second = new SocketChannel(connect(sluice.socket(card)));
      await until(
        'a second client to be refused',
        () => second.receive(new Uint8Array(1)).bytes === -1,
      );
      second.close();
      traffic.check();
      bad.close();
    }
  });

  await scenario('clients that are killed in the midst of a message', async () => {
    const version = encodeMessage(1, vfu.VFIO_USER_VERSION, 0, VERSION);
    const read = regionRead(2, 0, 4096);
    for (const rest of [version.subarray(0, 9), Buffer.concat([version, read.subarray(0, 20)])]) {
      await gone(sluice, card);
      await killAfter(sluice.socket(card), rest);
      traffic.check();
    }
  });

  await scenario('a thousand connections', () => {
    for (let i = 0; i < CONNECTIONS; i++) {
      connect(sluice.socket(i % 2 === 0 ? card : 'bad/ahci0')).close();
      if (i % 100 === 0) traffic.check();
    }
  });

  await scenario('answers that nobody reads', async () => {
    const bad = await takeOver(sluice, card, (socket) => new RawCard(socket));
    const { channel } = bad;
    let isOpen = true;
    for (let i = 0; isOpen && i < 1000; i++) {
      isOpen = sendAll(channel, regionRead(i, 0, BAR_BYTES));
      if (i % 20 === 0) traffic.check();
      most = Math.max(most, memoryOf(pid));
    }
    assert.equal(isOpen, false, 'what the client leaves unread has no bound');
    bad.close();
  });

  await scenario('DMA by message that nobody answers', async () => {
    const kick = (bad: RawCard): void => {
      bad.set('TDBAL', 0);
      bad.set('TDLEN', 1024);
      bad.set('TCTL', TCTL_EN);
      bad.client.post(vfu.REGION_BAR0, E1000_REGISTERS.TDT.offset, 4, 3);
      waitFor(bad.channel, vfu.VFIO_USER_DMA_READ);
    };
    const open = (): Promise<RawCard> =>
      takeOver(sluice, card, (socket) => new RawCard(socket, false));
    // The VMM vanishes.
    const first = await open();
    kick(first);
    traffic.check();
    first.close();
    // The guest resets the card, and has its memory taken away, without having answered.
    const second = await open();
    kick(second);
    second.client.reset();
    second.client.unmapAll();
    traffic.check();
    second.client.map({ iova: 0, length: MiB });
    second.client.write(vfu.REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    kick(second);
    second.close();
  });

  await scenario(
    'a disk whose guest vanishes while its command is fetched by message',
    async () => {
      const name = 'bad/ahci0';
      const bar = vfu.REGION_BAR0 + ahci.AHCI_BAR;
      const set = (client: VfioUserClient, register: number, value: number): void =>
        client.write(bar, ahci.AHCI_PORTS + register, 4, value);
      for (let round = 0; round < 3; round++) {
        const channel = await takeOver(sluice, name, (path) => new SocketChannel(connect(path)));
        const client = new VfioUserClient(channel);
        client.negotiate();
        client.map({ iova: 0, length: MiB });
        client.write(vfu.REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        const answer = (command: number): number => {
          waitFor(channel, command);
          return client.read(bar, ahci.AHCI_PORTS + ahci.PX_TFD, 4) & ata.STATUS_BSY;
        };
        set(client, ahci.PX_CLB, 0x1000);
        set(client, ahci.PX_FB, 0x2000);
        client.post(bar, ahci.AHCI_PORTS + ahci.PX_CMD, 4, ahci.PX_CMD_FRE);
        // The drive's signature; its place is never told.
        assert.notEqual(answer(vfu.VFIO_USER_DMA_WRITE), 0);
        if (round === 1) client.reset();
        traffic.check();
        client.close();
      }
      // The next guest finds the drive.
      const channel = await takeOver(sluice, name, (path) => new SocketChannel(connect(path)));
      const client = new VfioUserClient(channel);
      client.negotiate();
      client.write(vfu.REGION_CONFIG, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
      assert.equal(client.read(bar, ahci.AHCI_PORTS + ahci.PX_SSTS, 4), 0x133);
      client.close();
    },
  );

  await scenario('a good guest after all of them', async () => {
    const bad = await takeOver(sluice, card, (socket) => new RawCard(socket));
    bad.start();
    const frame = Buffer.alloc(64, 0xff);
    frame.set([0x02, 0, 0, 0, 0, 9, 0x88, 0xb5], 6);
    bad.send(frame);
    traffic.expect(frame);
    bad.close();
  });

  assert.ok(most - before.memory < MOST_GROWTH, `grew from ${before.memory} to ${most} bytes`);
  await sluice.stop();
});
