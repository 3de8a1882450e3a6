/**
 * Frames whose buffers a guest's IOMMU has not mapped. A driver that works right makes none: beside it, its card
 * is made to send once more what was sent long ago, and to receive into the buffers that this lay in. The driver
 * took them out of the IOMMU when they were sent.
 */
import assert from 'node:assert/strict';
import type { ApiReply } from '../../src/control/api.ts';
import { ETHERNET_HEADER_BYTES, ETHERNET_MIN_FRAME_BYTES } from '../../src/spec/ethernet.ts';
import {
  IXGBE_RX_QUEUES,
  IXGBE_TX_QUEUES,
  IXGBE_RX_QUEUE_REGISTERS as RX,
  IXGBE_TX_QUEUE_REGISTERS as TX,
} from '../../src/spec/ixgbe.ts';
import { IXGBE_DESCRIPTOR_BYTES, IXGBE_QUEUE_ENABLE } from '../../src/spec/ixgbe-descriptors.ts';
import { IXGBE_VF_RX_QUEUES, IXGBE_VF_TX_QUEUES } from '../../src/spec/ixgbe-mailbox.ts';
import { callInVain, reaches } from './emulated-cards.ts';
import type { Host } from './guests.ts';
import { type Sluice, until } from './sluice.ts';

/** Where the first queues of a function are. */
export const FIRST_QUEUES = {
  physical: { rx: IXGBE_RX_QUEUES, tx: IXGBE_TX_QUEUES },
  virtual: { rx: IXGBE_VF_RX_QUEUES, tx: IXGBE_VF_TX_QUEUES },
} as const;

/** Descriptors of frames that were sent. The driver's rings have many more. */
const STALE = 32;

type Refusal = NonNullable<ApiReply<'faults'>[number]['dma']>;

/** Runs `lines` of shell in which `get OFFSET` and `put OFFSET VALUE` reach 32-bit registers of BAR 0. */
function withRegisters(
  { guest, interface: device }: Host,
  lines: readonly string[],
): Promise<string> {
  return guest.sh(`set -e
    bar=$(head -n 1 /sys/class/net/${device}/device/resource | cut -d ' ' -f 1)
    get() { busybox devmem $(($bar + $1)) 32; }
    put() { busybox devmem $(($bar + $1)) 32 $2; }
    ${lines.join('\n')}`);
}

async function read(host: Host, offsets: readonly number[]): Promise<number[]> {
  const printed = await withRegisters(
    host,
    offsets.map((offset) => `get ${offset}`),
  );
  const values = printed.split('\n').map(Number);
  assert.equal(values.length, offsets.length, printed);
  return values;
}

async function write(host: Host, values: readonly (readonly [number, number])[]): Promise<void> {
  await withRegisters(
    host,
    values.map(([offset, value]) => `put ${offset} ${value}`),
  );
}

/** DMA of a port that was refused so far. */
async function refusals(sluice: Sluice, port: string): Promise<Refusal[]> {
  return (await sluice.show('faults')).flatMap(({ port: name, reason, dma }) =>
    name === port && dma !== null && /not mapped/.test(reason) ? [dma] : [],
  );
}

/**
 * Has the first queues of `host` send and receive frames at addresses that are not mapped, and waits
 * until `sluice show faults` tells of both. `peer` sends what is received. The driver goes on afterwards.
 * @param port the function's name in Sluice
 */
export async function useStaleBuffers(
  sluice: Sluice,
  host: Host,
  peer: Host,
  port: string,
  queues: { readonly rx: number; readonly tx: number },
): Promise<void> {
  const tx = (name: keyof typeof TX): number => queues.tx + TX[name].offset;
  const rx = (name: keyof typeof RX): number => queues.rx + RX[name].offset;
  const [baseLow = 0, baseHigh = 0, bytes = 0, tail = 0, transmit = 0] = await read(host, [
    tx('TDBAL'),
    tx('TDBAH'),
    tx('TDLEN'),
    tx('TDT'),
    tx('TXDCTL'),
  ]);
  const ring = baseHigh * 2 ** 32 + baseLow;
  const entries = bytes / IXGBE_DESCRIPTOR_BYTES;
  assert.ok(entries > STALE, `${entries} descriptors`);
  // A frame's buffer, and not the ring, which is mapped as before.
  const isBuffer = ({ iova }: Refusal): boolean => iova < ring || iova >= ring + bytes;
  assert.deepEqual(await refusals(sluice, port), []);

  await write(host, [
    [tx('TXDCTL'), transmit & ~IXGBE_QUEUE_ENABLE],
    [tx('TDH'), (tail + entries - STALE) % entries],
    [tx('TXDCTL'), transmit],
  ]);
  await until('a frame to be sent that is refused', async () => {
    return (await refusals(sluice, port)).some(
      (dma) => dma.direction === 'read' && dma.length >= ETHERNET_HEADER_BYTES && isBuffer(dma),
    );
  });
  await until('the queue to go on', async () => {
    const [head, last] = await read(host, [tx('TDH'), tx('TDT')]);
    return head === last;
  });

  const kept = ['RDBAL', 'RDBAH', 'RDLEN', 'RDH', 'RDT', 'RXDCTL'] as const;
  const before = await read(host, kept.map(rx));
  const control = before.at(-1) ?? 0;
  const disable = [rx('RXDCTL'), control & ~IXGBE_QUEUE_ENABLE] as const;
  await write(host, [
    disable,
    [rx('RDBAL'), baseLow],
    [rx('RDBAH'), baseHigh],
    [rx('RDLEN'), bytes],
    [rx('RDH'), (tail + entries - STALE) % entries],
    [rx('RDT'), tail],
    [rx('RXDCTL'), control],
  ]);
  // Requests for an address that nobody has, which the first queue gets.
  await callInVain(peer, host.address.replace(/[0-9]+$/, '77'));
  await until('a frame to be received that is refused', async () => {
    return (await refusals(sluice, port)).some(
      (dma) => dma.direction === 'write' && dma.length >= ETHERNET_MIN_FRAME_BYTES && isBuffer(dma),
    );
  });
  await write(host, [
    disable,
    ...kept.map((name, index) => [rx(name), before[index] ?? 0] as const),
  ]);
  // The function is none the worse for it.
  await reaches(host, peer);
  await reaches(peer, host);
}

/** Echo requests that go on until they are told to end. */
export interface Echoes {
  end(): Promise<{ readonly sent: number; readonly received: number }>;
}

/** Starts echo requests, some tens a second. */
export async function startEchoes(from: Host, to: Host): Promise<Echoes> {
  const directory = await from.guest.sh(`cd "$(mktemp -d)"
    { while [ ! -e stop ]; do ping -q -c 20 -i 0.02 ${to.address} >>log; done; : >done; } >/dev/null 2>&1 &
    pwd`);
  return {
    async end() {
      const log = await from.guest.sh(
        `cd ${directory}; : >stop; until [ -e done ]; do sleep 0.05; done; cat log`,
      );
      let [sent, received] = [0, 0];
      for (const match of log.matchAll(/(\d+) packets transmitted, (\d+) received/g)) {
        sent += Number(match[1]);
        received += Number(match[2]);
      }
      return { sent, received };
    },
  };
}
