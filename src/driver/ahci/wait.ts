/** How a driver waits for a register: for so long, then the device is broken. */
import { SluiceError } from '../../base/errors.ts';
import { monotonicNs } from '../../os/clock.ts';
import type { AhciRegisters } from './registers.ts';

/** More than the standard gives a controller or a drive for anything; a busy machine needs some of it. */
const PATIENCE_NS = 20e9;

/** @throws SluiceError `state`: for so long `trouble`, and `over` did not become true. */
export function until(registers: AhciRegisters, trouble: string, over: () => boolean): void {
  let deadline = 0;
  while (!over()) {
    const now = monotonicNs();
    if (deadline === 0) deadline = now + PATIENCE_NS;
    if (now > deadline) throw new SluiceError('state', `${trouble}, for ${PATIENCE_NS / 1e9} s`);
    registers.pause();
  }
}

/** Lets at least so many microseconds pass. */
export function delay(registers: AhciRegisters, us: number): void {
  const end = monotonicNs() + us * 1000;
  while (monotonicNs() < end) registers.pause();
}
