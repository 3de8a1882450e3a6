/**
 * A wire to the host's network: a tap interface as a port. Frames and their offload metadata pass
 * as they are; what is delivered is written straight from the sender's memory.
 */

import type { CounterBlock } from '../base/counters.ts';
import { describeError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { EPOLLET, EPOLLIN } from '../os/epoll.ts';
import { IOV_MAX, IoVector } from '../os/io-vector.ts';
import type { Poller } from '../os/poll-loop.ts';
import { TAP_DOWN, TAP_FULL, TAP_WRITTEN, Tap } from '../os/tap.ts';
import { BATCH } from '../ring/chain-batch.ts';
import { VLAN_TAG_BYTES } from '../spec/ethernet.ts';
import { NET_HEADER_BYTES } from '../spec/virtio-net.ts';
import type { Burst } from './burst.ts';
import type { DataPath } from './data-path.ts';
import { MAX_FRAME_BYTES } from './frame.ts';
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
  type PortCounter,
  type PortOwner,
} from './port.ts';

/** Distance of the receive buffers: odd in cache lines, so that their starts do not share a set. */
const BUFFER_BYTES = Math.ceil((NET_HEADER_BYTES + MAX_FRAME_BYTES) / 4096) * 4096 + 64;

/**
 * A read that finds nothing costs a system call: after it, up to this many turns of the loop pass
 * without one, doubling each time. (A wake-up from sleep is always followed by a read.)
 */
const MAX_PAUSE = 32;

export interface TapPortOptions {
  /** Unique in the lane, such as `lan/wire`. */
  readonly name: string;
  readonly path: DataPath;
  /** Name of the host's network interface. */
  readonly interface: string;
  /** Sets the interface up. */
  readonly up?: boolean;
  readonly counters?: CounterBlock<PortCounter>;
  readonly log: Logger;
}

/** To be added to the lane's pollers by its owner. */
export class TapPort implements Port, Poller {
  readonly name: string;
  readonly counters: CounterBlock<PortCounter>;
  readonly offloads: number;
  /** Where the frames go that the host sends. */
  owner: PortOwner | undefined;
  readonly #path: DataPath;
  readonly #tap: Tap;
  readonly #log: Logger;
  readonly #values: Float64Array;
  readonly #list: IoVector;
  /** Receive buffers in memory of the lane, and where the kernel finds them. */
  readonly #buffersAt: number;
  readonly #pointers: readonly bigint[];
  /** Chains of more pieces than a system call takes are brought together here. */
  readonly #bounceAt: number;
  /** The kernel may have frames: it told so, or the last look did not come to an end. */
  #readable = true;
  /** Turns to let pass until the next look, and how many the next pause has. */
  #pause = 0;
  #nextPause = 1;
  #open = true;
  /** The kernel has no such interface any more: what was read from it is still forwarded. */
  #gone = false;

  /** @throws SluiceError that names the interface and the remedy */
  constructor(options: TapPortOptions) {
    const { path } = options;
    this.name = options.name;
    this.counters = options.counters ?? newPortCounters();
    this.#values = this.counters.values;
    this.#path = path;
    this.#log = options.log;
    this.#tap = new Tap({
      name: options.interface,
      headerBytes: NET_HEADER_BYTES,
      up: options.up ?? false,
    });
    this.offloads =
      OFFLOAD_CSUM |
      OFFLOAD_TSO4 |
      OFFLOAD_TSO6 |
      OFFLOAD_ECN |
      (this.#tap.udpSegmentation ? OFFLOAD_USO4 | OFFLOAD_USO6 : 0);
    const { arena } = path;
    this.#list = new IoVector(arena.pointer(0));
    this.#buffersAt = arena.allocate((BATCH + 1) * BUFFER_BYTES, 'sluice-tap');
    this.#pointers = Array.from({ length: BATCH }, (_, i) =>
      arena.pointer(this.#buffersAt + i * BUFFER_BYTES),
    );
    this.#bounceAt = this.#buffersAt + BATCH * BUFFER_BYTES;
    path.loop.epoll.add(this.#tap.fd, EPOLLIN | EPOLLET, () => {
      this.#readable = true;
    });
  }

  /** Name of the host's network interface. */
  get interface(): string {
    return this.#tap.name;
  }

  poll(): number {
    if (!this.#open) return 0;
    if (this.#gone) {
      this.close();
      return 0;
    }
    if (!this.#readable && this.#pause-- > 0) return 0;
    const { burst } = this.#path;
    burst.clear();
    const count = this.#receive(burst);
    if (count === 0) {
      this.#pause = this.#nextPause;
      this.#nextPause = Math.min(2 * this.#nextPause, MAX_PAUSE);
      return 0;
    }
    this.#pause = 0;
    this.#nextPause = 1;
    burst.sourceHeaderBytes = NET_HEADER_BYTES;
    burst.gather();
    this.owner?.forward(this, burst);
    this.owner?.publish();
    return count;
  }

  /** Reads frames until there are none, or the burst is full. */
  #receive(burst: Burst): number {
    const { chains } = burst;
    try {
      while (chains.count < BATCH) {
        const index = chains.count;
        const bytes = this.#tap.read(this.#pointers[index] as bigint, BUFFER_BYTES);
        if (bytes === 0) {
          this.#readable = false;
          return index;
        }
        chains.add(this.#buffersAt + index * BUFFER_BYTES, bytes);
      }
      this.#readable = true;
    } catch (error) {
      this.#log.error('the tap interface is gone', {
        port: this.name,
        interface: this.#tap.name,
        reason: describeError(error),
      });
      this.#gone = true;
    }
    return chains.count;
  }

  /** The descriptor reports each arrival once: what came after the last look wakes the loop. */
  arm(): boolean {
    return this.#open && this.#readable;
  }

  /** Nothing to undo: a report that is not waited for costs nothing. */
  disarm(): void {
    this.#pause = 0;
  }

  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    const values = this.#values;
    if (!this.#open) {
      values[RX_DROP_LINK_DOWN] = (values[RX_DROP_LINK_DOWN] as number) + count;
      return;
    }
    const tagBytes = tagged ? VLAN_TAG_BYTES : 0;
    let frameCount = 0;
    let byteCount = 0;
    for (let i = 0; i < count; i++) {
      const slot = frames[i] as number;
      const length = (burst.frameLength[slot] as number) + tagBytes;
      if (length > MAX_FRAME_BYTES) {
        values[RX_DROP_TOO_BIG] = (values[RX_DROP_TOO_BIG] as number) + 1;
        continue;
      }
      const header = tagged ? burst.tag(slot) : (burst.headerAt[slot] as number);
      this.#gather(burst, slot, header, (burst.headerLength[slot] as number) + tagBytes);
      const result = this.#tap.write(this.#list);
      if (result === TAP_WRITTEN) {
        frameCount++;
        byteCount += length;
        continue;
      }
      const counter =
        result === TAP_FULL
          ? RX_DROP_NO_BUFFER
          : result === TAP_DOWN
            ? RX_DROP_LINK_DOWN
            : RX_DROP_BAD_OFFLOAD;
      values[counter] = (values[counter] as number) + 1;
    }
    values[RX_FRAMES] = (values[RX_FRAMES] as number) + frameCount;
    values[RX_BYTES] = (values[RX_BYTES] as number) + byteCount;
  }

  /** Each frame was written as it was delivered. */
  flush(): void {
    this.#list.clear();
  }

  /** Gives the interface back; one that existed only for this port disappears. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    const { loop, arena } = this.#path;
    loop.epoll.remove(this.#tap.fd);
    this.#tap.close();
    arena.unmap(this.#buffersAt, (BATCH + 1) * BUFFER_BYTES);
  }

  /** Lists where a frame's bytes are: its header, then the chain from `skip` on. */
  #gather(burst: Burst, slot: number, header: number, headerLength: number): void {
    const list = this.#list;
    const { chains } = burst;
    list.clear();
    list.add(header, headerLength);
    let skip = burst.skip[slot] as number;
    const more = chains.more[slot] as number;
    if (more + 2 > IOV_MAX) {
      const rest = (chains.total[slot] as number) - skip;
      burst.copyFromChain(slot, skip, rest, this.#bounceAt);
      burst.copies.flush();
      list.add(this.#bounceAt, rest);
      return;
    }
    const first = chains.length[slot] as number;
    if (skip < first) list.add((chains.address[slot] as number) + skip, first - skip);
    skip = skip > first ? skip - first : 0;
    const start = chains.moreStart[slot] as number;
    for (let i = start; i < start + more; i++) {
      const length = chains.moreLength[i] as number;
      if (skip < length) list.add((chains.moreAddress[i] as number) + skip, length - skip);
      skip = skip > length ? skip - length : 0;
    }
  }
}

const RX_FRAMES = PORT_COUNTER_INDEX.rx_frames;
const RX_BYTES = PORT_COUNTER_INDEX.rx_bytes;
const RX_DROP_NO_BUFFER = PORT_COUNTER_INDEX.rx_drop_no_buffer;
const RX_DROP_LINK_DOWN = PORT_COUNTER_INDEX.rx_drop_link_down;
const RX_DROP_TOO_BIG = PORT_COUNTER_INDEX.rx_drop_too_big;
const RX_DROP_BAD_OFFLOAD = PORT_COUNTER_INDEX.rx_drop_bad_offload;
