/**
 * Dice as a PCI function: registers, a write into the guest's memory, an interrupt. How it is made stands
 * in docs/add-a-device.md. Serves one guest at a time until it is killed:
 *
 *   scripts/run examples/dice.ts SOCKET
 */
import { randomInt } from 'node:crypto';
import { describeError } from '../src/base/errors.ts';
import { loggerTo } from '../src/base/log.ts';
import { Arena } from '../src/memory/arena.ts';
import { DMA_DONE, DMA_PENDING } from '../src/memory/dma.ts';
import { DmaFiles } from '../src/memory/dma-files.ts';
import { PollLoop } from '../src/os/poll-loop.ts';
import { PciDevice } from '../src/pci/device.ts';
import { Msi } from '../src/pci/msi.ts';
import { advancedFeatures } from '../src/pci/plain-capabilities.ts';
import { VfioUserServer } from '../src/transport/vfio-user/server.ts';

const ID = 0x00; // reads as 'DICE'
const SIDES = 0x04; // of each die, 1 to 255
const ADDRESS = 0x08; // where the numbers go, a byte each
const ADDRESS_HIGH = 0x0c; // its upper half
const ROLL = 0x10; // a write rolls so many dice, 1 to 4096
const STATUS = 0x14; // 1: done, 2: failed; a bit goes when a one is written to it

const MOST_DICE = 4096;
const DONE = 1;
const FAILED = 2;

class Dice extends PciDevice {
  readonly #arena: Arena;
  /** Arena address of the numbers that were rolled last. */
  readonly #numbers: number;
  readonly #registers = new Uint32Array(STATUS / 4 + 1);
  /** The numbers are on their way to the guest. */
  #rolling = false;

  constructor(arena: Arena) {
    super({
      name: 'dice',
      identity: { vendor: 0x1af4, device: 0x10f1, classCode: 0x088000, interruptPin: 1 },
      bars: [{ kind: 'memory32', bytes: 4096 }],
      capabilities: [new Msi({ vectors: 1 }), advancedFeatures()],
    });
    this.#arena = arena;
    this.#numbers = arena.allocate(MOST_DICE, 'dice');
    this.onReset();
  }

  protected readRegister(_bar: number, offset: number, length: number): number {
    return length === 4 && offset % 4 === 0 ? (this.#registers[offset / 4] ?? 0) : 0;
  }

  protected writeRegister(_bar: number, offset: number, length: number, value: number): void {
    if (length !== 4) return;
    if (offset === SIDES && value >= 1 && value <= 255) this.#set(SIDES, value);
    if (offset === ADDRESS || offset === ADDRESS_HIGH) this.#set(offset, value);
    if (offset === ROLL && !this.#rolling) this.#roll(value);
    if (offset === STATUS) this.#setStatus(this.#get(STATUS) & ~value);
  }

  #roll(count: number): void {
    if (count < 1 || count > MOST_DICE) {
      this.#end(false);
      return;
    }
    for (let i = 0; i < count; i++) {
      this.#arena.bytes[this.#numbers + i] = randomInt(1, this.#get(SIDES) + 1);
    }
    const address = this.#get(ADDRESS_HIGH) * 2 ** 32 + this.#get(ADDRESS);
    const outcome = this.dma.write(address, count, this.#numbers, 0);
    if (outcome === DMA_PENDING) this.#rolling = true;
    else this.#end(outcome === DMA_DONE);
  }

  #end(ok: boolean): void {
    this.#rolling = false;
    this.#setStatus(this.#get(STATUS) | (ok ? DONE : FAILED));
    this.interrupts.signal(0);
    this.quiesced();
  }

  #setStatus(status: number): void {
    this.#set(STATUS, status);
    this.interrupts.setLevel(status !== 0);
  }

  #get(offset: number): number {
    return this.#registers[offset / 4] as number;
  }

  #set(offset: number, value: number): void {
    this.#registers[offset / 4] = value;
  }

  protected override onAttach(): void {
    this.dma.onDone = (_tag, ok) => this.#end(ok);
  }

  protected override quiesce(): boolean {
    return !this.#rolling;
  }

  protected onReset(): void {
    this.#registers.fill(0);
    this.#set(ID, 0x4543_4944);
    this.#set(SIDES, 6);
  }
}

const [path] = process.argv.slice(2);
if (path === undefined) {
  console.error('usage: scripts/run examples/dice.ts SOCKET');
  process.exit(2);
}
const arena = Arena.create();
const loop = new PollLoop();
try {
  new VfioUserServer({
    loop,
    log: loggerTo((level, message) => console.log(`${level}: ${message}`)),
    path,
    function: new Dice(arena),
    files: new DmaFiles(arena),
  });
} catch (error) {
  console.error(describeError(error));
  process.exit(1);
}
console.log(`the dice are at ${path}`);
loop.run();
