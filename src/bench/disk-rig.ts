/** What a disk bench is run on: a private driver domain with guests attached to its disks. */
import type { BenchControl } from './bench-control.ts';
import { makeDisks } from './disk-files.ts';
import { type DiskGuests, startDiskGuests } from './disk-guests.ts';
import type { DiskOptions } from './disk-options.ts';
import { allowedCpus, type Placement, placeOn } from './machine.ts';
import { PrivateDomain } from './private-domain.ts';

/** A driver domain with guests on its disks, which are filled, ready for runs. */
export interface DiskRig extends AsyncDisposable {
  readonly domain: PrivateDomain;
  readonly guests: DiskGuests;
  readonly placement: Placement;
}

export async function startDiskRig(options: DiskOptions, control: BenchControl): Promise<DiskRig> {
  const placement = placeOn(allowedCpus());
  control.onStep?.('starting the driver domain');
  const stack = new AsyncDisposableStack();
  try {
    const disks = makeDisks(options);
    stack.defer(() => disks[Symbol.dispose]());
    const domain = stack.use(
      await PrivateDomain.start({
        cpus: placement.lane,
        config: diskConfig(options, disks.documents),
      }),
    );
    control.onStep?.(`starting ${options.guests} guests`);
    const guests = stack.use(
      await startDiskGuests({
        work: options,
        disks: domain.disks,
        bytes: disks.bytes,
        cpus: placement.guests,
      }),
    );
    if (disks.fill) {
      control.onStep?.('filling the disks');
      await guests.fill(control.signal);
    }
    control.signal?.throwIfAborted();
    const owned = stack.move();
    return { domain, guests, placement, [Symbol.asyncDispose]: () => owned.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

/** A disk for each guest. */
function diskConfig(
  { method, packed, numjobs }: DiskOptions,
  documents: readonly object[],
): object {
  const way =
    method === 'emulated' ? { method, model: 'ahci' } : { method, packed, queues: numjobs };
  return {
    disks: Object.fromEntries(documents.map((document, guest) => [`disk${guest}`, document])),
    guests: Object.fromEntries(
      documents.map((_, guest) => [`guest${guest}`, { disk: [{ ...way, disk: `disk${guest}` }] }]),
    ),
  };
}
