/**
 * The lane's end of a capture: copies frames into a {@link CaptureRing}, as they pass a port or as
 * a wire of their own. Who reads the ring is in `capture-writer.ts`.
 */

import type { CounterBlock } from '../base/counters.ts';
import { VLAN_ID_MASK, VLAN_TAG_BYTES } from '../spec/ethernet.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';
import type { Burst } from './burst.ts';
import type { CaptureRing } from './capture-ring.ts';
import type { DataPath } from './data-path.ts';
import {
  type FrameObserver,
  newPortCounters,
  OFFLOAD_CSUM,
  OFFLOAD_ECN,
  OFFLOAD_TSO4,
  OFFLOAD_TSO6,
  OFFLOAD_USO4,
  OFFLOAD_USO6,
  PORT_COUNTER_INDEX,
  type Port,
  type PortCounter,
} from './port.ts';

/** Holds any frame; also what tcpdump and Wireshark take by default. */
export const DEFAULT_SNAP_LENGTH = 262_144;

/** Frames to one interface of a capture. Frames of a VLAN are shown with their tag. */
export class CaptureTap implements FrameObserver {
  readonly #ring: CaptureRing;
  readonly #index: number;
  readonly #snapLength: number;

  /** @param index number of the interface in the capture */
  constructor(ring: CaptureRing, index = 0, snapLength = DEFAULT_SNAP_LENGTH) {
    this.#ring = ring;
    this.#index = index;
    this.#snapLength = snapLength;
  }

  frames(burst: Burst, list: Uint8Array, count: number, sent: boolean, now: number): void {
    for (let i = 0; i < count; i++) {
      const slot = list[i] as number;
      const tagged = ((burst.tci[slot] as number) & VLAN_ID_MASK) !== 0;
      this.add(burst, slot, tagged, sent, now);
    }
    this.#ring.notify();
  }

  /** Adds one frame, without waking the reader; false if there was no room. */
  add(burst: Burst, slot: number, tagged: boolean, sent: boolean, now: number): boolean {
    const ring = this.#ring;
    const tagBytes = tagged ? VLAN_TAG_BYTES : 0;
    const original = (burst.frameLength[slot] as number) + tagBytes;
    const length = Math.min(original, this.#snapLength);
    const to = ring.reserve(length, original, this.#index, sent, now);
    if (to < 0) return false;
    const header = tagged ? burst.tag(slot) : (burst.headerAt[slot] as number);
    const inHeader = (burst.headerLength[slot] as number) + tagBytes - NET_HEADER_BYTES;
    const first = Math.min(length, inHeader);
    copy(burst, ring, to, header + NET_HEADER_BYTES, first);
    copyChain(burst, slot, ring, to + first, length - first);
    ring.commit();
    return true;
  }
}

function copy(burst: Burst, ring: CaptureRing, to: number, from: number, length: number): void {
  ring.bytes.set(burst.arena.bytes.subarray(from, from + length), to);
}

/** Copies what follows the header of a frame: up to `length` bytes of its chain from `skip` on. */
function copyChain(
  burst: Burst,
  slot: number,
  ring: CaptureRing,
  to: number,
  length: number,
): void {
  const { chains } = burst;
  const start = chains.moreStart[slot] as number;
  const more = chains.more[slot] as number;
  let skip = burst.skip[slot] as number;
  let target = to;
  let left = length;
  for (let piece = -1; piece < more && left > 0; piece++) {
    const address =
      piece < 0 ? (chains.address[slot] as number) : (chains.moreAddress[start + piece] as number);
    const bytes =
      piece < 0 ? (chains.length[slot] as number) : (chains.moreLength[start + piece] as number);
    if (skip >= bytes) {
      skip -= bytes;
      continue;
    }
    const part = Math.min(left, bytes - skip);
    copy(burst, ring, target, address + skip, part);
    target += part;
    left -= part;
    skip = 0;
  }
}

/** A wire that ends in a capture: takes every frame as it is, and sends none. */
export class CapturePort implements Port {
  readonly name: string;
  readonly counters: CounterBlock<PortCounter>;
  readonly offloads =
    OFFLOAD_CSUM | OFFLOAD_TSO4 | OFFLOAD_TSO6 | OFFLOAD_ECN | OFFLOAD_USO4 | OFFLOAD_USO6;
  readonly #path: DataPath;
  readonly #ring: CaptureRing;
  readonly #tap: CaptureTap;
  readonly #values: Float64Array;

  constructor(
    name: string,
    path: DataPath,
    ring: CaptureRing,
    counters: CounterBlock<PortCounter> = newPortCounters(),
    snapLength = DEFAULT_SNAP_LENGTH,
  ) {
    this.name = name;
    this.counters = counters;
    this.#values = counters.values;
    this.#path = path;
    this.#ring = ring;
    this.#tap = new CaptureTap(ring, 0, snapLength);
  }

  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    const values = this.#values;
    const tagBytes = tagged ? VLAN_TAG_BYTES : 0;
    for (let i = 0; i < count; i++) {
      const slot = frames[i] as number;
      if (this.#tap.add(burst, slot, tagged, false, this.#path.loop.now)) {
        values[RX_FRAMES] = (values[RX_FRAMES] as number) + 1;
        values[RX_BYTES] =
          (values[RX_BYTES] as number) + (burst.frameLength[slot] as number) + tagBytes;
      } else {
        values[RX_DROP_NO_BUFFER] = (values[RX_DROP_NO_BUFFER] as number) + 1;
      }
    }
  }

  flush(): void {
    this.#ring.notify();
  }
}

const RX_FRAMES = PORT_COUNTER_INDEX.rx_frames;
const RX_BYTES = PORT_COUNTER_INDEX.rx_bytes;
const RX_DROP_NO_BUFFER = PORT_COUNTER_INDEX.rx_drop_no_buffer;
