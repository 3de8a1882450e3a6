/**
 * A guest with a card of the e1000 family, without a VMM or a kernel: its memory is a file, its driver the few
 * registers that it takes to send frames and to get them.
 */
import assert from 'node:assert/strict';
import { readSync, writeSync } from 'node:fs';
import { closeFd } from '../../src/os/fd.ts';
import { createMemfd } from '../../src/os/mapping.ts';
import { connectUnix } from '../../src/os/unix-socket.ts';
import * as e1000 from '../../src/spec/e1000.ts';
import { PCI_COMMAND, PCI_COMMAND_MASTER, PCI_COMMAND_MEMORY } from '../../src/spec/pci.ts';
import { REGION_BAR0, REGION_CONFIG } from '../../src/spec/vfio-user.ts';
import { SocketChannel } from '../../src/transport/channel.ts';
import { VfioUserClient } from '../../src/transport/vfio-user/client.ts';

const MEMORY_BYTES = 1024 * 1024;
const ENTRIES = 64;
const DESCRIPTOR_BYTES = 16;
const BUFFER_BYTES = 2048;
const [SEND_RING, RECEIVE_RING, SEND_BUFFERS, RECEIVE_BUFFERS] = [0, 0x1000, 0x10000, 0x40000];
const WAIT_MS = 10_000;

const pause = new Int32Array(new SharedArrayBuffer(4));

/** Waits without an event loop, which everything here does without. */
export function rest(ms: number): void {
  Atomics.wait(pause, 0, 0, ms);
}

export class RawCard {
  readonly channel: SocketChannel;
  readonly client: VfioUserClient;
  readonly #fd = createMemfd('sluice-test-guest', MEMORY_BYTES);
  #sent = 0;
  #received = 0;

  /** @param isShared false: the memory has no descriptor, the card reaches it by messages */
  constructor(socket: string, isShared = true) {
    this.channel = new SocketChannel(connectUnix(socket));
    this.client = new VfioUserClient(this.channel, { name: socket });
    this.client.negotiate();
    this.client.map({ iova: 0, length: MEMORY_BYTES, ...(isShared ? { fd: this.#fd } : {}) });
    const command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    this.client.write(REGION_CONFIG, PCI_COMMAND, 2, command);
  }

  set(name: e1000.E1000RegisterName, value: number): void {
    this.client.write(REGION_BAR0, e1000.E1000_REGISTERS[name].offset, 4, value >>> 0);
  }

  get(name: e1000.E1000RegisterName): number {
    return this.client.read(REGION_BAR0, e1000.E1000_REGISTERS[name].offset, 4);
  }

  /** Starts both rings; takes every frame. */
  start(): void {
    this.set('CTRL', e1000.CTRL_SLU);
    this.set('TDBAL', SEND_RING);
    this.set('TDBAH', 0);
    this.set('TDLEN', ENTRIES * DESCRIPTOR_BYTES);
    this.set('TDH', 0);
    this.set('TDT', 0);
    this.set('TCTL', e1000.TCTL_EN);
    const descriptor = Buffer.alloc(DESCRIPTOR_BYTES);
    for (let i = 0; i < ENTRIES; i++) {
      descriptor.writeUInt32LE(RECEIVE_BUFFERS + i * BUFFER_BYTES);
      this.#write(RECEIVE_RING + i * DESCRIPTOR_BYTES, descriptor);
    }
    this.set('RDBAL', RECEIVE_RING);
    this.set('RDBAH', 0);
    this.set('RDLEN', ENTRIES * DESCRIPTOR_BYTES);
    this.set('RDH', 0);
    this.set('RCTL', e1000.RCTL_EN | e1000.RCTL_UPE | e1000.RCTL_BAM);
    this.set('RDT', ENTRIES - 1);
  }

  /** One frame of at most 2048 bytes. */
  send(frame: Uint8Array): void {
    const slot = this.#sent++ % ENTRIES;
    const at = SEND_BUFFERS + slot * BUFFER_BYTES;
    this.#write(at, frame);
    const descriptor = Buffer.alloc(DESCRIPTOR_BYTES);
    descriptor.writeUInt32LE(at);
    descriptor.writeUInt32LE((frame.length | e1000.TXD_EOP | e1000.TXD_RS) >>> 0, 8);
    this.#write(SEND_RING + slot * DESCRIPTOR_BYTES, descriptor);
    this.client.post(REGION_BAR0, e1000.E1000_REGISTERS.TDT.offset, 4, (slot + 1) % ENTRIES);
  }

  /** The next frame that comes. */
  receive(): Buffer {
    const slot = this.#received++ % ENTRIES;
    const descriptor = Buffer.alloc(DESCRIPTOR_BYTES);
    const at = RECEIVE_RING + slot * DESCRIPTOR_BYTES;
    for (const end = Date.now() + WAIT_MS; ; rest(1)) {
      readSync(this.#fd, descriptor, 0, DESCRIPTOR_BYTES, at);
      if (((descriptor[12] ?? 0) & e1000.RXD_DD) !== 0) break;
      assert.ok(Date.now() < end, 'waited in vain for a frame');
    }
    const frame = Buffer.alloc(descriptor.readUInt16LE(8));
    readSync(this.#fd, frame, 0, frame.length, RECEIVE_BUFFERS + slot * BUFFER_BYTES);
    descriptor.fill(0, 8);
    this.#write(at, descriptor);
    this.set('RDT', slot);
    return frame;
  }

  close(): void {
    this.client.close();
    closeFd(this.#fd);
  }

  #write(at: number, bytes: Uint8Array): void {
    assert.equal(writeSync(this.#fd, bytes, 0, bytes.length, at), bytes.length);
  }
}
