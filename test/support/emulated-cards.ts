/**
 * Guests with emulated network cards, and what the stock drivers tell of them.
 */
import assert from 'node:assert/strict';
import type { E1000Model } from '../../src/device/e1000/function.ts';
import type { Host } from './guests.ts';

/** A function behind a vfio-user socket. */
export interface EmulatedCard {
  /** Path of the socket on the host. */
  readonly socket: string;
  readonly model: E1000Model;
}

/** The driver of Linux for each model. */
export const DRIVERS = { '82540': 'e1000', '82574': 'e1000e' } as const satisfies Record<
  E1000Model,
  string
>;

/**
 * QEMU's options for cards: conventional PCI ones on the root bus, the others behind a port. `number` is
 * that of the first card.
 */
export function emulatedCardOptions(
  cards: readonly EmulatedCard[],
  inside: (path: string) => string,
): string[] {
  return cards.flatMap(({ socket, model }, index) => {
    const port = `rp${index}`;
    const device = {
      driver: 'vfio-user-pci',
      id: `e${index}`,
      bus: model === '82574' ? port : 'pcie.0',
      rombar: 0,
      socket: { path: inside(socket), type: 'unix' },
    };
    // A port of the speed of the card: Linux looks for its link after a reset of the bus, where QEMU's
    // faster ports say that there is none.
    const root = `pcie-root-port,id=${port},chassis=${index + 1},slot=${index + 1},x-speed=2_5,x-width=1`;
    return [...(model === '82574' ? ['-device', root] : []), '-device', JSON.stringify(device)];
  });
}

/** Waits until the driver has seen the link. */
export async function carrier({ guest, interface: device }: Host): Promise<void> {
  await guest.sh(
    `until [ "$(cat /sys/class/net/${device}/carrier 2>/dev/null)" = 1 ]; do sleep 0.1; done`,
  );
}

/** What `ethtool -S` prints. */
export async function statistics(host: Host): Promise<Readonly<Record<string, number>>> {
  const text = await host.guest.sh(`ethtool -S ${host.interface}`);
  return Object.fromEntries(
    [...text.matchAll(/^ +([\w.]+): (\d+)$/gm)].map(([, name, value]) => [name, Number(value)]),
  );
}

/** A counter of `ethtool -S`. */
export async function statistic(host: Host, name: string): Promise<number> {
  return (await statistics(host))[name] ?? assert.fail(`${host.interface} has no counter ${name}`);
}

/** Parts of the self-tests of Intel's drivers of physical functions, and what says that all is well. */
const SELF_TEST_PARTS = { Register: 0, Eeprom: 0, Interrupt: 0, Loopback: 0, Link: 0 } as const;

/** Runs the driver's self-test, every part of which is to pass. */
export async function selfTest(
  host: Host,
  mode: 'online' | 'offline',
  parts: Readonly<Record<string, number>> = SELF_TEST_PARTS,
): Promise<void> {
  const { stdout } = await host.guest.run(`ethtool -t ${host.interface} ${mode}`, {
    timeoutMs: 120_000,
  });
  const results = [...stdout.matchAll(/^(\w+) test +\((?:on\/)?offline\)\t (\d+)$/gm)];
  assert.deepEqual(
    Object.fromEntries(results.map(([, name, result]) => [name, Number(result)])),
    parts,
    `${host.guest.name} ${host.interface} ${mode}: ${stdout}`,
  );
  assert.match(stdout, /The test result is PASS/);
}

/** Interrupts that the guest has had of an interface: kinds as Linux names them, and how many. */
export async function interruptsOf(
  host: Host,
): Promise<readonly { readonly kind: string; readonly count: number }[]> {
  const { stdout } = await host.guest.run(
    `grep -E '[ ,]${host.interface}(-|,|$)' /proc/interrupts`,
  );
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [, ...cells] = line.trim().split(/\s+/);
      const kind = cells.findIndex((cell) => !/^\d+$/.test(cell));
      return {
        kind: (cells[kind] ?? '').replace(/^IR-/, '').replace(/-0000:.*$/, ''),
        count: cells.slice(0, kind).reduce((sum, cell) => sum + Number(cell), 0),
      };
    });
}
