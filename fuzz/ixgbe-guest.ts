/** For fuzz targets of the 82599: a guest whose driver does as it should, on any function of the card. */
import assert from 'node:assert/strict';
import { MiB } from '../src/base/bits.ts';
import { TEST_BASE, TestMemory } from '../src/device/e1000/testing.ts';
import type { NicFunction } from '../src/device/ixgbe/nic-function.ts';
import { IxgbeDriver } from '../src/driver/ixgbe/ixgbe-driver.ts';
import { type IxgbeDriverOptions, planIxgbe } from '../src/driver/ixgbe/plan.ts';
import { IxgbevfDriver } from '../src/driver/ixgbevf/ixgbevf-driver.ts';
import type { NetPair } from '../src/driver/net-pair.ts';
import { DirectBus } from '../src/driver/pci/testing.ts';
import type { Arena } from '../src/memory/arena.ts';
import { NET_HEADER_BYTES } from '../src/spec/virtio-net.ts';

/** The shortest that {@link frame} makes unless it is asked for less: what padding leaves as it is. */
const FRAME = 100;
/** Every byte of its payload. */
const FILLING = 7;
const GUEST_BYTES = 2 * MiB;
const OPTIONS: IxgbeDriverOptions = {
  sendBytes: 1514,
  sendFrames: 16,
  receiveBuffers: 64,
  mtu: 1500,
  pairs: 1,
};

/** A frame of a good guest, of an EtherType for experiments. */
export function frame(to: Uint8Array, from: Uint8Array, bytes = FRAME): Buffer {
  const made = Buffer.alloc(Math.max(bytes, 14), FILLING);
  made.set([...to, ...from, 0x88, 0xb5]);
  return made;
}

export class GoodGuest {
  readonly device: NicFunction;
  readonly memory: TestMemory;
  readonly bus: DirectBus;
  readonly driver: IxgbeDriver | IxgbevfDriver;
  readonly pair: NetPair;
  readonly mac: Uint8Array;
  readonly #sendTo: Float64Array;

  /** @param memory of a guest that was here before; none: its own */
  constructor(
    device: NicFunction,
    arena: Arena,
    mac: Uint8Array,
    memory = new TestMemory(arena, GUEST_BYTES),
  ) {
    this.device = device;
    this.mac = mac;
    this.memory = memory;
    this.bus = new DirectBus(device, memory);
    const plan = planIxgbe(OPTIONS, TEST_BASE);
    const driver = device.irqs.intx
      ? new IxgbeDriver(plan, memory.driver, this.bus)
      : new IxgbevfDriver(plan, memory.driver, this.bus, mac);
    driver.start();
    this.driver = driver;
    const [pair] = driver.pairs;
    assert.ok(pair);
    this.pair = pair;
    this.#sendTo = pair.sendPool.addresses();
    const { receive } = pair;
    for (let i = 0; i < receive.pool.count; i++) receive.post(receive.pool.first + i);
    receive.queue.publish();
  }

  send(bytes: Buffer): void {
    const { transmit } = this.pair;
    const at = this.#sendTo[0] as number;
    const whole = Buffer.concat([Buffer.alloc(NET_HEADER_BYTES), bytes]);
    this.memory.bytes(at, whole.length).set(whole);
    assert.ok(transmit.send(this.#sendTo, 0, whole.length, 0), 'no room to send');
    transmit.flush();
    this.device.poll();
    assert.equal(transmit.reap(), 1, 'a frame of a good guest was not sent');
  }

  received(): Buffer[] {
    const { receive } = this.pair;
    const frames: Buffer[] = [];
    for (;;) {
      const count = receive.receive();
      for (let i = 0; i < count; i++) {
        const at = TEST_BASE + (receive.offset[i] as number) + NET_HEADER_BYTES;
        frames.push(Buffer.from(this.memory.bytes(at, receive.length[i] as number)));
      }
      receive.release();
      receive.queue.publish();
      if (count === 0) return frames;
    }
  }

  /** Sends a frame to another good guest, which gets it as it is. Returns all that one got. */
  reach(other: GoodGuest): Buffer[] {
    const wanted = frame(other.mac, this.mac);
    const before = other.received();
    this.received();
    this.send(wanted);
    const got = other.received();
    const isThere = got.some((one) => one.equals(wanted));
    assert.ok(isThere, `${this.device.name} is not heard by ${other.device.name}`);
    assert.deepEqual(this.memory.faults, [], `${this.device.name} had faults`);
    assert.deepEqual(other.memory.faults, [], `${other.device.name} had faults`);
    return [...before, ...got];
  }

  /** Whether an arena address is of its memory. */
  owns(address: number): boolean {
    const { arenaAddress, size } = this.memory.driver;
    return address >= arenaAddress && address < arenaAddress + size;
  }

  close(): void {
    this.bus.close();
  }
}
