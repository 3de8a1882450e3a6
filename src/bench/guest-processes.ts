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

/**
 * Starts processes and has `attach` attach each guest in one of them, in turn.
 * @param cpus processors for the guests; undefined leaves it to the kernel
 * @param settings of all processes
 * @throws whatever `attach` throws; the processes are ended then
 */
export async function startGuestProcesses<Guest, Info>(
  guests: readonly Guest[],
  cpus: readonly number[] | undefined,
  attach: (home: EmbeddedGuests, guest: Guest) => Promise<Info>,
  settings: Omit<ProcessOptions, 'cpus'> = {},
): Promise<GuestProcesses<Info>> {
  const places = (cpus ?? [undefined]).slice(0, guests.length);
  const processes: EmbeddedGuests[] = [];
  const lost: string[] = [];
  const onLost = (guest: string, reason: string): void => {
    lost.push(`guest ${guest}: ${reason}`);
  };
  try {
    for (const cpu of places) {
      processes.push(
        await EmbeddedGuests.start({
          onLost,
          ...settings,
          ...(cpu === undefined ? {} : { cpus: [cpu] }),
        }),
      );
    }
    const members: Member<Info>[] = [];
    for (const [index, guest] of guests.entries()) {
      const home = processes[index % processes.length] as EmbeddedGuests;
      members.push({ home, info: await attach(home, guest) });
    }
    return { processes, members, lost };
  } catch (error) {
    await Promise.all(processes.map((process) => process.close()));
    throw error;
  }
}
