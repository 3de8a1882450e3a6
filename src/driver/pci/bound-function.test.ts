import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { closeFd } from '../../os/fd.ts';
import { createMemfd } from '../../os/mapping.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { PciDevice } from '../../pci/device.ts';
import { Msi } from '../../pci/msi.ts';
import { Msix } from '../../pci/msix.ts';
import { PowerManagement } from '../../pci/power-management.ts';
import { NO_DMA } from '../../pci/testing.ts';
import { PCI_CAP_ID_MSIX, PCI_CAP_ID_PM, PCI_CAP_ID_VENDOR } from '../../spec/pci.ts';
import { Bench } from '../../transport/vfio-user/testing.ts';
import { BoundFunction } from './bound-function.ts';
import { DirectBus } from './testing.ts';
import { VfioUserBus } from './vfio-user-bus.ts';

/** A register; a write of n to it signals vector n, and sets the line while n is odd. */
class Bell extends PciDevice {
  value = 0;

  constructor(kinds: { readonly msi?: boolean; readonly msix?: boolean; readonly pin?: number }) {
    const msix = new Msix({ vectors: 4, bar: 1, tableOffset: 0, pbaOffset: 2048 });
    super({
      name: 'bell',
      identity: { vendor: 0x1af4, device: 0x10ff, classCode: 0, interruptPin: kinds.pin ?? 0 },
      bars: [
        { kind: 'memory32', bytes: 4096 },
        { kind: 'memory32', bytes: 4096 },
      ],
      capabilities: [
        new PowerManagement(),
        ...(kinds.msi === true ? [new Msi({ vectors: 4 })] : []),
        ...(kinds.msix === true ? [msix] : []),
      ],
    });
  }

  protected override readRegister(): number {
    return this.value;
  }

  protected override writeRegister(_bar: number, _at: number, _bytes: number, value: number): void {
    this.value = value;
    this.interrupts.setLevel((value & 1) === 1);
    this.interrupts.signal(value);
  }

  protected override onReset(): void {
    this.value = 0;
  }
}

function bell(kinds: ConstructorParameters<typeof Bell>[0]) {
  const device = new Bell(kinds);
  const bus = new DirectBus(device, NO_DMA);
  return { device, bus, driver: new BoundFunction(bus) };
}

describe('a driver is bound to a function', () => {
  test('which it enables, and recognizes', () => {
    const { bus, driver } = bell({});
    assert.deepEqual([driver.vendor, driver.device, bus.busMaster], [0x1af4, 0x10ff, true]);
    bus.write(0, 0, 4, 6);
    assert.equal(bus.read(0, 0, 4), 6);
    driver.expect(0x1af4, [1, 0x10ff], 'a bell');
    assert.throws(() => driver.expect(0x8086, [0x10ff], 'a drum'), /1af4:10ff, not a drum/);
    driver.close();
    assert.equal(bus.busMaster, false);
  });

  test('finds capabilities, and does not those that are not there', () => {
    const { bus, driver } = bell({ msix: true });
    const at = driver.capability(PCI_CAP_ID_MSIX);
    assert.equal(bus.readConfig(at, 1), PCI_CAP_ID_MSIX);
    assert.equal(bus.readConfig(driver.capability(PCI_CAP_ID_PM), 1), PCI_CAP_ID_PM);
    assert.equal(driver.capability(PCI_CAP_ID_VENDOR), 0);
  });

  test('a list of capabilities in a circle ends', () => {
    const { bus, driver } = bell({ msix: true });
    const read = bus.readConfig.bind(bus);
    bus.readConfig = (offset, bytes) => (offset === 0x40 ? 0x4001 : read(offset, bytes));
    assert.equal(driver.capability(PCI_CAP_ID_VENDOR), 0);
  });

  for (const [kinds, expected, vector] of [
    [{ msi: true, msix: true, pin: 1 }, 'msix', 2],
    [{ msi: true, pin: 1 }, 'msi', 0],
    [{ pin: 1 }, 'intx', 0],
  ] as const) {
    test(`takes the best interrupts: ${expected}`, () => {
      const { bus, driver } = bell(kinds);
      const got: number[] = [];
      assert.equal(
        driver.enableInterrupts(3, (one) => got.push(one)),
        expected,
      );
      bus.write(0, 0, 4, expected === 'intx' ? 1 : vector);
      assert.deepEqual(got, [vector]);
      if (expected === 'intx') {
        bus.unmaskIntx();
        assert.deepEqual(got, [0, 0], 'the line is asserted still');
      }
    });
  }

  test('no interrupts that it can use are an error', () => {
    const { driver } = bell({ pin: 1 });
    const none = (): void => undefined;
    assert.throws(() => driver.enableInterrupts(1, none, ['msix', 'msi']), /no interrupts/);
  });
});

test('over vfio-user, registers, interrupts and memory are those of the function', () => {
  const bench = new Bench({ socket: true });
  const loop = new PollLoop();
  const bus = new VfioUserBus(bench.client, loop, () => undefined);
  const { calls } = bench.function;
  bus.write(0, 8, 4, 0xfeed);
  bus.post(0, 12, 4, 5);
  assert.equal(bus.read(0, 8, 4), 0xfeed);
  assert.equal(bus.read(0, 12, 4), 5);
  bus.writeConfig(0x20, 2, 0x1234);
  assert.equal(bus.readConfig(0x20, 2), 0x1234);
  assert.deepEqual(calls.slice(-5), [
    'write 0+8/4=65261',
    'write 0+12/4=5',
    'read 0+8/4',
    'read 0+12/4',
    'config 32/2=4660',
  ]);
  const got: number[] = [];
  assert.equal(bus.vectors('msix'), 8);
  bus.setVectors('msix', 2, (vector) => got.push(vector));
  bench.function.wiring?.interrupts.signalMsix(1);
  bench.function.wiring?.interrupts.signalMsix(2);
  loop.epoll.wait(0);
  assert.deepEqual(got, [1]);
  const fd = createMemfd('guest', 65536);
  bus.map(0x10000, 65536, fd);
  closeFd(fd);
  const dma = bench.function.wiring?.dma;
  assert.ok((dma?.translate(0x10000, 65536, true) ?? -1) >= 0);
  bus.unmap(0x10000, 65536);
  assert.equal(dma?.translate(0x10000, 65536, true), -1);
  bus.close();
  bench.close();
  loop.close();
});

test('a server that goes away is told', () => {
  const bench = new Bench({ socket: true });
  const lost: string[] = [];
  const loop = new PollLoop();
  const bus = new VfioUserBus(bench.client, loop, (reason) => lost.push(reason));
  bench.session.close();
  loop.epoll.wait(0);
  assert.deepEqual(lost, ['was closed by the device']);
  bus.close();
  bench.close();
  loop.close();
});
