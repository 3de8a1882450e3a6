/** For tests: a guest with an emulated card on a switch in the same thread, without a socket between them. */
import { MiB } from '../../base/bits.ts';
import { E1000 } from '../../device/e1000/e1000.ts';
import type { E1000Model } from '../../device/e1000/function.ts';
import { type Reach, TEST_BASE, TestMemory } from '../../device/e1000/testing.ts';
import {
  E1000Driver,
  type E1000DriverOptions,
  planE1000,
} from '../../driver/e1000/e1000-driver.ts';
import { DirectBus } from '../../driver/pci/testing.ts';
import { PortPolicy } from '../../net/policy.ts';
import { GuestRam } from './guest-ram.ts';
import type { InProcessSwitch } from './in-process.ts';
import type { RoleContext } from './role.ts';

const MEMORY_BYTES = 8 * MiB;

export class InProcessCard {
  readonly device: E1000;
  readonly bus: DirectBus;
  readonly memory: TestMemory;
  readonly driver: E1000Driver;
  readonly context: RoleContext;
  readonly #lan: InProcessSwitch;

  constructor(
    lan: InProcessSwitch,
    mac: Uint8Array,
    model: E1000Model,
    options: E1000DriverOptions,
    reach: Reach = 'mapped',
  ) {
    const { path } = lan;
    this.#lan = lan;
    this.device = new E1000({ name: `card-${mac[5] ?? 0}`, model, path, mac });
    this.memory = new TestMemory(path.arena, MEMORY_BYTES);
    this.memory.reach = reach;
    this.bus = new DirectBus(this.device, this.memory);
    const memory = this.memory.driver;
    this.driver = new E1000Driver(planE1000(options, TEST_BASE), memory, this.bus);
    this.driver.start();
    this.device.owner = lan.switch;
    lan.switch.addPort(this.device, new PortPolicy({ mac }, path.loop.now));
    this.context = {
      ram: new GuestRam(memory),
      pair: this.driver.pair,
      loop: path.loop,
      mac: this.driver.mac,
      mtu: options.mtu,
      sendWindow: options.sendFrames,
    };
  }

  /** One turn of the device. Returns frames moved. */
  poll(): number {
    const work = this.device.poll();
    this.memory.settle();
    return work;
  }

  release(): void {
    this.#lan.switch.removePort(this.device);
    this.bus.close();
    this.device.close();
  }
}
