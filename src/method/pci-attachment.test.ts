import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { silentLogger } from '../base/log.ts';
import { GuardedPoller } from '../engine/guard.ts';
import { DMA_FAULT } from '../memory/dma.ts';
import { DmaFaultLog } from '../memory/dma-faults.ts';
import { DmaFiles } from '../memory/dma-files.ts';
import { closeFd } from '../os/fd.ts';
import { createMemfd } from '../os/mapping.ts';
import { type Poller, PollLoop } from '../os/poll-loop.ts';
import { REGION_BAR0 } from '../spec/vfio-user.ts';
import { VfioUserClient } from '../transport/vfio-user/client.ts';
import { ScratchFunction, testArena } from '../transport/vfio-user/testing.ts';
import { PciAttachment } from './pci-attachment.ts';

/** A function that is polled, and can be made to fail. */
class Polled extends ScratchFunction implements Poller {
  polls = 0;
  broken = false;

  poll(): number {
    this.polls++;
    if (this.broken) throw new Error('a bug in a turn');
    return 0;
  }

  arm(): boolean {
    return false;
  }

  disarm(): void {
    this.polls += 0;
  }

  override readBar(bar: number, offset: number, length: number): number {
    if (this.broken) throw new Error('a bug in a register');
    return super.readBar(bar, offset, length);
  }
}

function bench(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-attachment-'));
  const socket = join(directory, 'f.sock');
  const loop = new PollLoop({ idlePollUs: 0 });
  const device = new Polled();
  const faults = new DmaFaultLog('web/net0');
  const told: string[] = [];
  const attachment = new PciAttachment(
    {
      socket,
      access: { mode: 0o660 },
      onFailure: (reason) => told.push(`failed: ${reason}`),
      onConnection: (connected) => told.push(connected ? 'came' : 'went'),
    },
    { loop, log: silentLogger, guard: (_name, poller, fail) => new GuardedPoller(poller, fail) },
    { device, files: new DmaFiles(testArena()), faults, log: silentLogger },
  );
  const pump = (): void => {
    loop.setTimer(0, () => loop.stop());
    loop.run();
  };
  const clients: VfioUserClient[] = [];
  t.after(() => {
    for (const client of clients) client.close();
    attachment.close(() => undefined);
    pump();
    device.close();
    loop.close();
    rmSync(directory, { recursive: true });
  });
  return {
    socket,
    device,
    faults,
    told,
    attachment,
    pump,
    connect: (): VfioUserClient => {
      const client = VfioUserClient.connect(socket, { timeoutMs: 5000, pump });
      clients.push(client);
      client.negotiate();
      return client;
    },
  };
}

test('what was counted outlives connections; what is of one goes with it', (t) => {
  const { attachment, connect, faults, pump, told } = bench(t);
  assert.deepEqual([attachment.connected, attachment.describe().maps], [false, 0]);
  const first = connect();
  const memory = createMemfd('sluice-test-guest', 8192);
  t.after(() => closeFd(memory));
  first.map({ iova: 0, length: 8192, fd: memory });
  first.read(REGION_BAR0, 0, 4);
  first.read(REGION_BAR0, 4, 4);
  first.write(REGION_BAR0, 8, 4, 1);
  faults.record(0x1000, 16, true, DMA_FAULT.unmapped);
  const before = attachment.describe();
  assert.deepEqual(
    [before.connected, before.busMaster, before.maps, before.memoryBytes],
    [true, true, 1, 8192],
  );
  assert.deepEqual(
    [before.counters.trap_reads, before.counters.trap_writes, before.counters.dma_faults],
    [2, 1, 1],
  );
  first.close();
  pump();
  const between = attachment.describe();
  assert.deepEqual([between.connected, between.maps, between.memoryBytes], [false, 0, 0]);
  assert.deepEqual(between.counters, before.counters);
  connect().read(REGION_BAR0, 0, 4);
  assert.equal(attachment.describe().counters.trap_reads, 3);
  assert.deepEqual(told, ['came', 'went', 'came']);
});

test('an end that is wanted is not told as a VMM that has gone', (t) => {
  const { attachment, connect, pump, socket, told, device } = bench(t);
  connect();
  device.busy = true;
  let closed = false;
  attachment.close(() => {
    closed = true;
  });
  pump();
  assert.equal(existsSync(socket), false);
  assert.equal(closed, false, 'DMA is on its way');
  const { polls } = device;
  pump();
  assert.ok(device.polls > polls, 'it is polled until then');
  device.finish();
  pump();
  assert.equal(closed, true);
  const after = device.polls;
  pump();
  assert.equal(device.polls, after);
  assert.deepEqual(told, ['came']);
});

test('a failure in a trap is answered with ones, then the VMM is disconnected', (t) => {
  const { attachment, connect, pump, told, device } = bench(t);
  const client = connect();
  device.broken = true;
  assert.equal(client.read(REGION_BAR0, 0, 4), 0xffff_ffff);
  pump();
  assert.equal(attachment.connected, false);
  assert.match(attachment.fault ?? '', /^a bug in a (register|turn)$/);
  assert.equal(told.filter((text) => text.startsWith('failed')).length, 1);
  const { polls } = device;
  pump();
  assert.equal(device.polls, polls, 'it is left alone');
});
