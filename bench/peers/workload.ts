/** What the client sends, and the settings of it that both sides get alike. */

export interface Workload {
  /** Bytes of the Ethernet frame, without FCS. */
  readonly frame: number;
  /** Packed rings (VIRTIO 1.3 §2.8) instead of split ones (§2.7). */
  readonly packed: boolean;
  /** Bursts that each of the two ports sends to begin with; they circulate from then on. */
  readonly bursts: number;
}

/** Entries of each ring. */
export const RING_SIZE = 256;
/** Frames of a burst of testpmd. */
export const BURST = 32;
/** Bursts that fill a ring. */
export const MAX_BURSTS = RING_SIZE / BURST;
/**
 * So many that nobody has to drop one. A switch that copies from ring to ring gives a sent frame's
 * descriptor back just after the frame has arrived, so a client whose ring is full may find no room
 * for the first ones that it sends on.
 */
export const DEFAULT_BURSTS = MAX_BURSTS - 2;

/** The largest frame that fits a buffer of testpmd's default size, 2176 with 128 of headroom. */
const DEFAULT_BUFFER_FRAME = 2048;
/** A 9000-byte frame, a VLAN tag, FCS: and a buffer that takes that in one piece. */
const JUMBO_FRAME = 9018;
const JUMBO_BUFFER = 9344;
const JUMBO_BUFFERS = 8192;

/** The largest frame of a workload. */
export const MAX_FRAME = JUMBO_FRAME - 18;
/** What testpmd can send as one UDP packet. */
export const MIN_FRAME = 64;

export interface WorkloadChoice {
  readonly sizes: readonly number[];
  readonly split: boolean;
  readonly packed: boolean;
  readonly bursts: number;
}

/** Each size with both kinds of rings, unless only one kind is asked for. */
export function chooseWorkloads({ sizes, split, packed, bursts }: WorkloadChoice): Workload[] {
  const kinds = split === packed ? [false, true] : [packed];
  return kinds.flatMap((kind) => sizes.map((frame) => ({ frame, packed: kind, bursts })));
}

/** Frames that circulate, those of both ports. */
export function framesOf({ bursts }: Workload): number {
  return 2 * bursts * BURST;
}

/** `64 B split` */
export function workName({ frame, packed }: Workload): string {
  return `${frame} B ${packed ? 'packed' : 'split'}`;
}

/** Arguments of testpmd for buffers that take a frame in one piece. */
export function memoryArguments({ frame }: Workload): string[] {
  if (frame <= DEFAULT_BUFFER_FRAME) return [];
  return [
    `--mbuf-size=${JUMBO_BUFFER}`,
    `--max-pkt-len=${JUMBO_FRAME}`,
    `--total-num-mbufs=${JUMBO_BUFFERS}`,
  ];
}
