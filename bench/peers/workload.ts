/** What the client sends, and the settings of it that both sides get alike. */

export interface Workload {
  /** Bytes of the Ethernet frame, without FCS. */
  readonly frame: number;
  /** Packed rings (VIRTIO 1.3 §2.8) instead of split ones (§2.7). */
  readonly packed: boolean;
}

/** Entries of each ring. */
export const RING_SIZE = 256;
/** Frames of a burst of testpmd, and bursts that each port sends to begin with. */
export const BURST = 32;
export const FIRST_BURSTS = 8;
/** Frames that circulate, of both ports. */
export const FRAMES = 2 * FIRST_BURSTS * BURST;

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
