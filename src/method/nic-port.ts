/**
 * A port of a NIC as the methods `direct` and `sriov` have it: the card of one 82599, of which guests get
 * functions. It lies in the lane of its guests. Wires the card's functions to those who serve them.
 */

import { SluiceError } from '../base/errors.ts';
import { IxgbeCard } from '../device/ixgbe/card.ts';
import type { LinkSpeed, SlotLimit } from '../device/ixgbe/link-limit.ts';
import type { NicFunction } from '../device/ixgbe/nic-function.ts';
import type { PhysicalFunction } from '../device/ixgbe/physical-function.ts';
import type { VfDescription } from '../device/ixgbe/vf-policy.ts';
import type { VfSettings } from '../device/ixgbe/vf-policy-settings.ts';
import type { VirtualFunction } from '../device/ixgbe/virtual-function.ts';
import type { GuardedPoller } from '../engine/guard.ts';
import type { LaneHost } from '../engine/lane.ts';
import type { Burst } from '../net/burst.ts';
import type { DataPath } from '../net/data-path.ts';

export interface NicPortOptions {
  /** `nic0/0` */
  readonly name: string;
  readonly port: 0 | 1;
  readonly mac: Uint8Array;
  /** Who has the physical function: a guest, or the driver domain. */
  readonly mode: 'direct' | 'sriov';
  /** Virtual functions that there may be. */
  readonly vfs: number;
  readonly link: LinkSpeed;
  /** What the NIC's slot carries, shared by its ports; undefined: as much as it can. */
  readonly slot: SlotLimit | undefined;
  /** Guests' doorbells are memory, not messages. */
  readonly mapped: boolean;
  readonly doorbellPollUs: number;
  /** The card's own code has failed where frames come in. */
  readonly onFailure: (reason: string) => void;
}

/**
 * A card whose receiving side is fenced too: frames come to it in the turn of another port of its switch,
 * which is not to end by this card's failure. A card that failed takes no more frames.
 */
class FencedCard extends IxgbeCard {
  fault: string | null = null;
  onFailure: ((reason: string) => void) | undefined;

  override deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    if (this.fault !== null) return;
    try {
      super.deliver(burst, frames, count, tagged);
    } catch (error) {
      this.#fail(error);
    }
  }

  override flush(): void {
    if (this.fault !== null) return;
    try {
      super.flush();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.fault = error instanceof Error ? error.message : String(error);
    this.onFailure?.(this.fault);
  }
}

/** With more virtual functions than this each has two queue pairs, else four (82599 datasheet §7.10.2.1). */
const MOST_VFS_OF_FOUR = 31;

export class NicPort {
  readonly name: string;
  readonly card: FencedCard;
  /** Queue pairs of each virtual function. */
  readonly vfQueues: 2 | 4;

  constructor(options: NicPortOptions, host: Pick<LaneHost<unknown>, 'log'>, path: DataPath) {
    const { name, port, mac, mode, vfs, link, slot, mapped, doorbellPollUs, onFailure } = options;
    this.name = name;
    this.vfQueues = vfs > MOST_VFS_OF_FOUR ? 2 : 4;
    this.card = new FencedCard({
      name,
      path,
      mode,
      port,
      mac,
      link,
      ...(slot === undefined ? {} : { slot }),
      queuesPerVf: this.vfQueues,
      mapped,
      doorbellPollUs,
      log: host.log,
    });
    this.card.onFailure = onFailure;
  }

  /** Why it takes no more frames; null while it does. */
  get fault(): string | null {
    return this.card.fault;
  }

  /** @throws SluiceError `state` if the driver domain has it */
  physicalFunction(): PhysicalFunction {
    const { pf } = this.card;
    if (pf !== undefined) return pf;
    throw new SluiceError('state', `the driver domain has the physical function of ${this.name}`);
  }

  /**
   * Makes a virtual function. Who serves it polls it.
   * @param mac the address that it has until its guest takes another
   * @throws SluiceError for one that is there already, and settings that cannot be
   */
  createVf(vf: number, mac: Uint8Array, settings: VfSettings): VirtualFunction {
    return this.card.createVf(vf, settings, mac);
  }

  /** Puts settings of a virtual function in place of those before. @throws SluiceError, and none is changed */
  setVf(vf: number, settings: VfSettings): void {
    this.card.replaceVf(vf, settings);
  }

  describeVf(vf: number): VfDescription {
    return this.card.describeVf(vf);
  }

  /** Removes a virtual function that nobody serves any more. */
  removeVf(vf: number): void {
    this.card.removeVf(vf).close();
  }

  /** Gives all memory back; no function of it is served any more. */
  close(): void {
    this.card.close();
  }
}

/**
 * Fences the receiving side of a function: frames come to it in another guest's turn, which is not to end by
 * this function's failure.
 */
export function fence(fn: NicFunction, guard: GuardedPoller): void {
  const { prototype } = fn.constructor as { readonly prototype: NicFunction };
  fn.accept = (
    burst: Burst,
    frames: Uint8Array,
    count: number,
    tagged: boolean,
    local?: boolean,
  ): void => {
    if (guard.failed) return;
    try {
      prototype.accept.call(fn, burst, frames, count, tagged, local);
    } catch (error) {
      guard.fail(error);
    }
  };
  fn.flush = (): void => {
    if (guard.failed) return;
    try {
      prototype.flush.call(fn);
    } catch (error) {
      guard.fail(error);
    }
  };
}
