/**
 * A wire between two switches of one lane: what is delivered at one end comes in at the other.
 *
 * The payload still stays where its sender has it. Only the headers are copied, into a burst of
 * the wire's own: the far switch may change tags and targets while the near one still has other
 * receivers to serve.
 */
import { Burst } from './burst.ts';
import { appendFrame } from './burst-copy.ts';
import type { DataPath } from './data-path.ts';
import {
  newPortCounters,
  OFFLOAD_CSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
  PORT_COUNTER_INDEX,
  type Port,
  type PortOwner,
} from './port.ts';

/** Room for the headers that segmentation in software writes (`software-offload.ts`). */
const PATCH_SLOT_BYTES = 512;

/** One end of the wire: a port of the switch that it is plugged into. */
export class PatchPort implements Port {
  readonly name: string;
  readonly counters = newPortCounters();
  /** Metadata pass as they are: whoever the frame ends at decides what it can take. */
  readonly offloads =
    OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_ECN | OFFLOAD_USO4 | OFFLOAD_USO6;
  /** The other end. */
  peer: PatchPort | undefined;
  /** The switch that this end is plugged into; frames are dropped while there is none. */
  owner: PortOwner | undefined;
  readonly #burst: Burst;

  constructor(name: string, path: DataPath) {
    this.name = name;
    this.#burst = new Burst(path.arena, path.copies, { slotBytes: PATCH_SLOT_BYTES });
  }

  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    const { values } = this.counters;
    const { peer } = this;
    if (peer?.owner === undefined) {
      values[RX_DROP_LINK_DOWN] = (values[RX_DROP_LINK_DOWN] as number) + count;
      return;
    }
    const out = this.#burst;
    out.clear();
    let bytes = 0;
    for (let i = 0; i < count; i++) bytes += appendFrame(out, burst, frames[i] as number, tagged);
    values[RX_FRAMES] = (values[RX_FRAMES] as number) + count;
    values[RX_BYTES] = (values[RX_BYTES] as number) + bytes;
    peer.owner.forward(peer, out);
  }

  /** The far switch tells its ports when the near one tells its own: after the sender was told. */
  flush(): void {
    this.peer?.owner?.publish();
  }

  /** Gives the wire's memory back. */
  close(): void {
    this.#burst.release();
  }
}

/** The two ends of a wire; give each its owner when it is plugged in. */
export function createPatch(
  nearName: string,
  farName: string,
  path: DataPath,
): readonly [near: PatchPort, far: PatchPort] {
  const near = new PatchPort(nearName, path);
  const far = new PatchPort(farName, path);
  near.peer = far;
  far.peer = near;
  return [near, far];
}

const RX_FRAMES = PORT_COUNTER_INDEX.rx_frames;
const RX_BYTES = PORT_COUNTER_INDEX.rx_bytes;
const RX_DROP_LINK_DOWN = PORT_COUNTER_INDEX.rx_drop_link_down;
