/** For tests: guests with functions of an 82599 on a switch in the same thread, without a socket between them. */
import { MiB } from '../../base/bits.ts';
import { type Reach, TEST_BASE, TestMemory } from '../../device/e1000/testing.ts';
import { IxgbeCard, type IxgbeCardOptions } from '../../device/ixgbe/card.ts';
import type { NicFunction } from '../../device/ixgbe/nic-function.ts';
import { IxgbeDriver } from '../../driver/ixgbe/ixgbe-driver.ts';
import { type IxgbeDriverOptions, planIxgbe } from '../../driver/ixgbe/plan.ts';
import { IxgbevfDriver } from '../../driver/ixgbevf/ixgbevf-driver.ts';
import { DirectBus } from '../../driver/pci/testing.ts';
import { PortPolicy } from '../../net/policy.ts';
import { GuestRam } from './guest-ram.ts';
import type { InProcessSwitch } from './in-process.ts';
import type { RoleContext } from './role.ts';

const MEMORY_BYTES = 8 * MiB;

/** A port of a card, plugged into a switch. */
export class InProcessPort {
  readonly card: IxgbeCard;
  readonly guests: InProcessFunction[] = [];
  readonly #lan: InProcessSwitch;

  constructor(
    lan: InProcessSwitch,
    options: Pick<IxgbeCardOptions, 'name' | 'mode' | 'mac'> & Partial<IxgbeCardOptions>,
  ) {
    const { path } = lan;
    this.#lan = lan;
    this.card = new IxgbeCard({ path, port: 0, link: 'none', ...options });
    this.card.owner = lan.switch;
    lan.switch.addPort(this.card, new PortPolicy({}, path.loop.now));
  }

  /** A guest with the physical function. */
  direct(options: IxgbeDriverOptions, reach?: Reach): InProcessFunction {
    const { pf } = this.card;
    if (pf === undefined) throw new TypeError('the port is the driver domain’s');
    return this.#keep(new InProcessFunction(this.#lan, pf, options, reach));
  }

  /** A guest with a virtual function. */
  virtual(
    index: number,
    options: IxgbeDriverOptions,
    settings: Parameters<IxgbeCard['createVf']>[1] = {},
    reach?: Reach,
  ): InProcessFunction {
    const vf = this.card.createVf(index, settings);
    return this.#keep(new InProcessFunction(this.#lan, vf, options, reach));
  }

  /** One turn of all functions. Returns frames moved. */
  poll(): number {
    return this.guests.reduce((work, guest) => work + guest.poll(), 0);
  }

  release(): void {
    this.#lan.switch.removePort(this.card);
    for (const guest of this.guests.splice(0)) guest.bus.close();
    for (const [index, vf] of this.card.vfs) {
      this.card.removeVf(index);
      vf.close();
    }
    this.card.close();
  }

  #keep(guest: InProcessFunction): InProcessFunction {
    this.guests.push(guest);
    return guest;
  }
}

/** Functions that were made: each that is given no address takes one of its own. */
let made = 0;

/** A guest with a function of its own. */
export class InProcessFunction {
  readonly device: NicFunction;
  readonly bus: DirectBus;
  readonly memory: TestMemory;
  readonly driver: IxgbeDriver | IxgbevfDriver;
  readonly contexts: readonly RoleContext[];

  constructor(
    { path }: InProcessSwitch,
    device: NicFunction,
    options: IxgbeDriverOptions,
    reach: Reach = 'mapped',
  ) {
    this.device = device;
    this.memory = new TestMemory(path.arena, MEMORY_BYTES);
    this.memory.reach = reach;
    this.bus = new DirectBus(device, this.memory);
    const memory = this.memory.driver;
    const plan = planIxgbe(options, TEST_BASE);
    // A virtual function has no interrupt line, and its physical function has one.
    this.driver = device.irqs.intx
      ? new IxgbeDriver(plan, memory, this.bus)
      : new IxgbevfDriver(plan, memory, this.bus, Uint8Array.of(0x52, 0x54, 0, 0, 9, ++made));
    this.driver.start();
    const ram = new GuestRam(memory);
    const { mac } = this.driver;
    const { mtu, sendFrames: sendWindow } = options;
    this.contexts = this.driver.pairs.map((pair) => ({
      ram,
      pair,
      loop: path.loop,
      mac,
      mtu,
      sendWindow,
    }));
  }

  /** Of the first pair of queues. */
  get context(): RoleContext {
    const [first] = this.contexts;
    if (first === undefined) throw new TypeError('no queues');
    return first;
  }

  poll(): number {
    const work = this.device.poll();
    this.memory.settle();
    return work;
  }
}
