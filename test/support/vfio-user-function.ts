/**
 * A lane with one PCI function behind a vfio-user socket, for the test with a real guest: a process of
 * its own, because a poll loop runs no event loop of Node's. Prints `ready`, then the log.
 */
import { writeSync } from 'node:fs';
import { loggerTo } from '../../src/base/log.ts';
import { Arena } from '../../src/memory/arena.ts';
import { DMA_REFUSED } from '../../src/memory/dma.ts';
import { DmaFiles } from '../../src/memory/dma-files.ts';
import { PollLoop } from '../../src/os/poll-loop.ts';
import { PciDevice } from '../../src/pci/device.ts';
import { VfioUserServer } from '../../src/transport/vfio-user/server.ts';

const REGISTER_BYTES = 4096;

/**
 * Register 0 tells who it is, 4 holds what is written to it; a write to 8 makes the function write the
 * content of register 4 to the guest physical address that is written. 12 counts refused DMA.
 */
class Mailbox extends PciDevice {
  readonly #lane: number;
  readonly #arena: Arena;
  #scratch = 0;
  #refused = 0;

  constructor(arena: Arena) {
    super({
      name: 'mailbox',
      identity: { vendor: 0x1af4, device: 0x10ff, classCode: 0x088000 },
      bars: [{ kind: 'memory32', bytes: REGISTER_BYTES }],
    });
    this.#arena = arena;
    this.#lane = arena.allocate(REGISTER_BYTES, 'mailbox');
  }

  protected override readRegister(_bar: number, offset: number): number {
    if (offset === 0) return 0x534c_5543;
    if (offset === 4) return this.#scratch;
    return offset === 12 ? this.#refused : 0;
  }

  protected override writeRegister(_bar: number, offset: number, _length: number, value: number) {
    if (offset === 4) this.#scratch = value;
    if (offset !== 8) return;
    this.#arena.view.setUint32(this.#lane, this.#scratch, true);
    if (this.dma.write(value, 4, this.#lane, 0) === DMA_REFUSED) this.#refused++;
  }

  protected override onAttach(): void {
    this.dma.onDone = (_tag, ok) => {
      if (!ok) this.#refused++;
    };
  }

  protected override onReset(): void {
    this.#scratch = 0;
  }
}

const arena = Arena.create();
const loop = new PollLoop();
new VfioUserServer({
  loop,
  log: loggerTo((level, message) => writeSync(1, `${level}: ${message}\n`)),
  path: process.argv[2] as string,
  function: new Mailbox(arena),
  files: new DmaFiles(arena),
});
writeSync(1, 'ready\n');
loop.run();
