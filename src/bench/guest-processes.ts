/** The processes of a bench's embedded guests: one for each processor that they may use. */
import { EmbeddedGuests, type ProcessOptions } from '../guest/embedded/launcher.ts';

/** A guest, and the process that it is in. */
export interface Member<Info> {
  readonly home: EmbeddedGuests;
  readonly info: Info;
}

export interface GuestProcesses<Info> {
  readonly processes: readonly EmbeddedGuests[];
  readonly members: readonly Member<Info>[];
  /** Guests that lost their device; filled as it happens. */
  readonly lost: readonly string[];
}

/** Processes without guests yet. Whoever starts them ends them. */
export interface GuestHomes {
  readonly processes: readonly EmbeddedGuests[];
  readonly lost: readonly string[];
}

/** For guests that are no embedded ones. */
export const NO_HOMES: GuestHomes = { processes: [], lost: [] };

/**
 * Starts processes for so many guests, one for each processor that they may use.
 * @param cpus processors for the guests; undefined leaves it to the kernel
 * @param settings of all processes
 * @throws SluiceError if one does not come up; none is left then
 */
export async function startGuestHomes(
  guests: number,
  cpus: readonly number[] | undefined,
  settings: Omit<ProcessOptions, 'cpus'> = {},
): Promise<GuestHomes> {
  const places = (cpus ?? [undefined]).slice(0, guests);
  const processes: EmbeddedGuests[] = [];
  const lost: string[] = [];
  const onLost = (guest: string, reason: string): void => {
    lost.push(`guest ${guest}: ${reason}`);
  };
  try {
    for (const cpu of places) {
      const own = cpu === undefined ? {} : { cpus: [cpu] };
      processes.push(await EmbeddedGuests.start({ onLost, ...settings, ...own }));
    }
    return { processes, lost };
  } catch (error) {
    await endGuestHomes({ processes, lost });
    throw error;
  }
}

export async function endGuestHomes({ processes }: GuestHomes): Promise<void> {
  await Promise.all(processes.map((process) => process.close()));
}

/**
 * Has `attach` attach each guest in one of the processes, in turn.
 * @throws whatever `attach` throws; the processes are ended then
 */
export async function settleGuests<Guest, Info>(
  homes: GuestHomes,
  guests: readonly Guest[],
  attach: (home: EmbeddedGuests, guest: Guest) => Promise<Info>,
): Promise<GuestProcesses<Info>> {
  const { processes, lost } = homes;
  try {
    const members: Member<Info>[] = [];
    for (const [index, guest] of guests.entries()) {
      const home = processes[index % processes.length] as EmbeddedGuests;
      members.push({ home, info: await attach(home, guest) });
    }
    return { processes, members, lost };
  } catch (error) {
    await endGuestHomes(homes);
    throw error;
  }
}

/** As {@link startGuestHomes} and {@link settleGuests} one after the other. */
export async function startGuestProcesses<Guest, Info>(
  guests: readonly Guest[],
  cpus: readonly number[] | undefined,
  attach: (home: EmbeddedGuests, guest: Guest) => Promise<Info>,
): Promise<GuestProcesses<Info>> {
  return await settleGuests(await startGuestHomes(guests.length, cpus), guests, attach);
}
