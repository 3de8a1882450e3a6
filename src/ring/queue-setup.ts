/** What the device's side of a ring is made from. The transport has checked nothing yet but sizes of messages. */
import type { AddressSpace } from '../memory/address-space.ts';
import type { Arena } from '../memory/arena.ts';
import type { Direction, Interrupt, RingPosition } from './device-queue.ts';
import type { InflightRegion } from './inflight-region.ts';

export interface QueueSetup {
  readonly arena: Arena;
  /** Where buffer addresses are looked up. */
  readonly memory: AddressSpace;
  readonly size: number;
  readonly packed: boolean;
  /** VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC and VIRTIO_F_IN_ORDER, as negotiated. */
  readonly eventIdx: boolean;
  readonly indirect: boolean;
  readonly inOrder: boolean;
  /** Arena addresses of the three areas, each wholly mapped for its length (`spec/virtio.ts`). */
  readonly descriptor: number;
  readonly driver: number;
  readonly device: number;
  readonly direction: Direction;
  readonly interrupt: Interrupt;
  readonly position: RingPosition;
  /**
   * Two words that outlive the process, where a packed ring keeps its position for a restart (see
   * JOURNAL_BATCH). A split ring has its position in the used index, in guest memory.
   */
  readonly journal?: Int32Array;
  /**
   * The queue's region of an area that outlives the process, where chains that are taken and not
   * finished are noted ("Inflight I/O tracking"; INFLIGHT_SPLIT, INFLIGHT_PACKED). If there are notes
   * already, they tell where the ring stands, and `position` and `journal` do not count.
   */
  readonly inflight?: InflightRegion;
}
