/** The power management capability (PCI Bus Power Management 1.2 §3.2). */
import {
  PCI_CAP_ID_PM,
  PCI_PM_BYTES,
  PCI_PM_CAP_D1,
  PCI_PM_CAP_D2,
  PCI_PM_CAP_DSI,
  PCI_PM_CAP_PME_D0,
  PCI_PM_CAP_PME_D3COLD,
  PCI_PM_CAP_VERSION_3,
  PCI_PM_CAPABILITIES,
  PCI_PM_CONTROL,
  PCI_PM_CONTROL_NO_SOFT_RESET,
  PCI_PM_CONTROL_PME_ENABLE,
  PCI_PM_CONTROL_PME_STATUS,
  PCI_PM_CONTROL_STATE,
} from '../spec/pci.ts';
import type { PciCapability, PciConfigSpace } from './config-space.ts';
import type { PciRegister } from './registers.ts';

/** D0 to D3hot. */
export type PowerState = 0 | 1 | 2 | 3;

export interface PowerManagementOptions {
  readonly at?: number;
  /** States between D0 and D3hot. Default: none. */
  readonly d1?: boolean;
  readonly d2?: boolean;
  /** The function needs its own initialization after D0 uninitialized. Default: false. */
  readonly deviceSpecific?: boolean;
  /** From which states PME# can be asserted: 0 to 3, and 4 for D3cold. Default: none. */
  readonly pme?: readonly number[];
  /** Going from D3hot to D0 keeps all registers. Default: true. */
  readonly noSoftReset?: boolean;
}

export class PowerManagement implements PciCapability {
  readonly name = 'power management';
  readonly id = PCI_CAP_ID_PM;
  readonly bytes = PCI_PM_BYTES;
  readonly at?: number;
  readonly registers: readonly PciRegister[];
  readonly #supported: readonly number[];
  readonly #noSoftReset: boolean;
  #space: PciConfigSpace | undefined;
  #control = 0;
  #state = 0;

  constructor(options: PowerManagementOptions = {}) {
    const { at, d1 = false, d2 = false, pme = [], noSoftReset = true } = options;
    if (at !== undefined) {
      this.at = at;
    }
    this.#supported = [0, ...(d1 ? [1] : []), ...(d2 ? [2] : []), 3];
    this.#noSoftReset = noSoftReset;
    let capabilities = PCI_PM_CAP_VERSION_3;
    capabilities |= options.deviceSpecific === true ? PCI_PM_CAP_DSI : 0;
    capabilities |= (d1 ? PCI_PM_CAP_D1 : 0) | (d2 ? PCI_PM_CAP_D2 : 0);
    for (const state of pme) {
      capabilities |= PCI_PM_CAP_PME_D0 << state;
    }
    const enable = pme.length > 0 ? PCI_PM_CONTROL_PME_ENABLE : 0;
    const status = pme.length > 0 ? PCI_PM_CONTROL_PME_STATUS : 0;
    const rw = PCI_PM_CONTROL_STATE | enable;
    const reset = noSoftReset ? PCI_PM_CONTROL_NO_SOFT_RESET : 0;
    // §3.2.4: what wakes from D3cold has auxiliary power, and keeps these through resets.
    const sticky = (capabilities & PCI_PM_CAP_PME_D3COLD) !== 0 ? enable | status : 0;
    // biome-ignore format: one register a line
    this.registers = [
      { name: 'PMC', offset: PCI_PM_CAPABILITIES, bytes: 2, reset: capabilities, meaning: 'states, PME#' },
      { name: 'PMCSR', offset: PCI_PM_CONTROL, bytes: 2, reset, rw, rw1c: status, sticky, meaning: 'state, No_Soft_Reset, PME#' },
    ];
  }

  get state(): PowerState {
    return this.#state as PowerState;
  }

  bind(space: PciConfigSpace, offset: number): void {
    this.#space = space;
    this.#control = offset + PCI_PM_CONTROL;
    space.onWrite(this.#control, () => this.#written(space));
  }

  reset(): void {
    this.#state = 0;
    this.#space?.setPowered(true);
  }

  /** Sets PME_Status, if the state is one that can. True: PME# is to be asserted. */
  wake(): boolean {
    const space = this.#space;
    if (space === undefined) {
      return false;
    }
    const capabilities = space.get(this.#control - PCI_PM_CONTROL + PCI_PM_CAPABILITIES, 2);
    if ((capabilities & (PCI_PM_CAP_PME_D0 << this.#state)) === 0) {
      return false;
    }
    space.set(this.#control, 2, PCI_PM_CONTROL_PME_STATUS, PCI_PM_CONTROL_PME_STATUS);
    return (space.get(this.#control, 2) & PCI_PM_CONTROL_PME_ENABLE) !== 0;
  }

  #written(space: PciConfigSpace): void {
    const before = this.#state;
    const wanted = space.get(this.#control, 2) & PCI_PM_CONTROL_STATE;
    if (wanted === before) {
      return;
    }
    // §3.2.4, §5.6: a state that is not there is discarded; up is only possible to D0.
    if (!this.#supported.includes(wanted) || (wanted !== 0 && wanted < before)) {
      space.set(this.#control, 2, before, PCI_PM_CONTROL_STATE);
      return;
    }
    this.#state = wanted;
    space.setPowered(wanted === 0);
    if (before === 3 && wanted === 0 && !this.#noSoftReset) {
      space.requestReset('power');
    }
  }
}
