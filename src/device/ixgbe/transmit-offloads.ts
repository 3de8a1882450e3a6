/** What transmit descriptors say of offloads (§7.2.3.2.2 to §7.2.3.2.4, §7.2.4, §7.2.5). */
import type { Burst } from '../../net/burst.ts';
import { addCrc32c, CRC32C_START, finishCrc32c } from '../../net/crc32c.ts';
import { IPV4_CHECKSUM, TCP_CHECKSUM, UDP_CHECKSUM } from '../../spec/ethernet.ts';
import {
  IXGBE_TXC_IP_LENGTH,
  IXGBE_TXC_IPV4,
  IXGBE_TXC_L4,
  IXGBE_TXC_L4_LENGTH,
  IXGBE_TXC_L4_LENGTH_SHIFT,
  IXGBE_TXC_L4_SCTP,
  IXGBE_TXC_L4_TCP,
  IXGBE_TXC_MAC_LENGTH,
  IXGBE_TXC_MAC_LENGTH_SHIFT,
  IXGBE_TXC_MSS_SHIFT,
  IXGBE_TXC_VLAN_SHIFT,
  IXGBE_TXD_ADVANCED,
  IXGBE_TXD_CHECKSUM_FIELD_SHIFT,
  IXGBE_TXD_CHECKSUM_START_SHIFT,
  IXGBE_TXD_CONTEXT_SHIFT,
  IXGBE_TXD_CONTEXTS,
  IXGBE_TXD_INSERT_CHECKSUM,
  IXGBE_TXD_IP_CHECKSUM,
  IXGBE_TXD_L4_CHECKSUM,
  IXGBE_TXD_SEGMENT,
} from '../../spec/ixgbe-descriptors.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import {
  applyOffloads,
  CONTEXT_FLAGS,
  CONTEXT_HEADER_BYTES,
  CONTEXT_IP,
  CONTEXT_IP_END,
  CONTEXT_IP_FIELD,
  CONTEXT_IPV4,
  CONTEXT_L4,
  CONTEXT_L4_FIELD,
  CONTEXT_SEGMENT_BYTES,
  CONTEXT_TCP,
  CONTEXT_WORDS,
  headerBytesNeeded,
  needChecksum,
  WORK_IP,
  WORK_L4,
  WORK_SEGMENT,
} from '../transmit-context.ts';

/** Behind the words that all cards have: the tag that VLE puts in. */
export const CONTEXT_TAG = CONTEXT_WORDS;
export const QUEUE_CONTEXT_WORDS = CONTEXT_WORDS + 1;
/** Words of the contexts that a queue keeps. */
export const QUEUE_CONTEXTS_WORDS = IXGBE_TXD_CONTEXTS * QUEUE_CONTEXT_WORDS;

/** A flag of contexts beside CONTEXT_IPV4 and CONTEXT_TCP. */
const CONTEXT_SCTP = 4;
/** Where SCTP's checksum stands in its header, and its bytes (RFC 9260 §3.1). */
const SCTP_CHECKSUM = 8;
const SCTP_CHECKSUM_BYTES = 4;

/** Reads the context descriptor at `at` into the queue's contexts: it says which of them it is. */
export function takeContext(words: Uint32Array, at: number, contexts: Uint32Array): void {
  const lengths = words[at] as number;
  const types = words[at + 2] as number;
  const sizes = words[at + 3] as number;
  const to = contextAt(sizes);
  const mac = (lengths >>> IXGBE_TXC_MAC_LENGTH_SHIFT) & IXGBE_TXC_MAC_LENGTH;
  const transport = mac + (lengths & IXGBE_TXC_IP_LENGTH);
  const tcp = (types & IXGBE_TXC_L4) === IXGBE_TXC_L4_TCP;
  const sctp = (types & IXGBE_TXC_L4) === IXGBE_TXC_L4_SCTP;
  contexts[to + CONTEXT_IP] = mac;
  contexts[to + CONTEXT_IP_FIELD] = mac + IPV4_CHECKSUM;
  contexts[to + CONTEXT_IP_END] = transport - 1;
  contexts[to + CONTEXT_L4] = transport;
  contexts[to + CONTEXT_L4_FIELD] = transport + (tcp ? TCP_CHECKSUM : UDP_CHECKSUM);
  contexts[to + CONTEXT_FLAGS] =
    ((types & IXGBE_TXC_IPV4) !== 0 ? CONTEXT_IPV4 : 0) |
    (tcp ? CONTEXT_TCP : 0) |
    (sctp ? CONTEXT_SCTP : 0);
  contexts[to + CONTEXT_HEADER_BYTES] =
    transport + ((sizes >>> IXGBE_TXC_L4_LENGTH_SHIFT) & IXGBE_TXC_L4_LENGTH);
  contexts[to + CONTEXT_SEGMENT_BYTES] = sizes >>> IXGBE_TXC_MSS_SHIFT;
  contexts[to + CONTEXT_TAG] = lengths >>> IXGBE_TXC_VLAN_SHIFT;
}

/** Where the context stands that the last word of a data or context descriptor names. */
export function contextAt(options: number): number {
  return ((options >>> IXGBE_TXD_CONTEXT_SHIFT) & (IXGBE_TXD_CONTEXTS - 1)) * QUEUE_CONTEXT_WORDS;
}

/** What the first descriptor of a frame asks for: WORK_*. */
export function workOf(command: number, options: number): number {
  if ((command & IXGBE_TXD_ADVANCED) === 0) {
    return (command & IXGBE_TXD_INSERT_CHECKSUM) !== 0 ? WORK_L4 : 0;
  }
  return (
    ((command & IXGBE_TXD_SEGMENT) !== 0 ? WORK_SEGMENT : 0) |
    ((options & IXGBE_TXD_IP_CHECKSUM) !== 0 ? WORK_IP : 0) |
    ((options & IXGBE_TXD_L4_CHECKSUM) !== 0 ? WORK_L4 : 0)
  );
}

/** Bytes of a frame's start that this work needs to be in the slot; 0 if any will do. */
export function slotBytesNeeded(work: number, contexts: Uint32Array, at: number): number {
  return (work & (WORK_IP | WORK_SEGMENT)) === 0 ? 0 : headerBytesNeeded(contexts, at);
}

/**
 * Puts the offloads of frame `slot` into its slot, as {@link applyOffloads}: `command` and `options` are
 * the third and fourth word of its first data or legacy descriptor.
 */
export function applyDescriptors(
  burst: Burst,
  slot: number,
  command: number,
  options: number,
  contexts: Uint32Array,
  at: number,
  shift: number,
): boolean {
  if ((command & IXGBE_TXD_ADVANCED) === 0) {
    const start = ((options >>> IXGBE_TXD_CHECKSUM_START_SHIFT) & 0xff) + shift;
    const field = ((command >>> IXGBE_TXD_CHECKSUM_FIELD_SHIFT) & 0xff) + shift;
    return needChecksum(burst, slot, start, field);
  }
  let work = workOf(command, options);
  const flags = contexts[at + CONTEXT_FLAGS] as number;
  // IPv6 has no checksum of its own.
  if ((flags & CONTEXT_IPV4) === 0) work &= ~WORK_IP;
  if ((flags & CONTEXT_SCTP) !== 0) {
    if ((work & WORK_SEGMENT) !== 0) return false;
    const start = (contexts[at + CONTEXT_L4] as number) + shift;
    if ((work & WORK_L4) !== 0 && !insertCrc32c(burst, slot, start)) return false;
    work &= ~WORK_L4;
  }
  return applyOffloads(burst, slot, work, contexts, at, shift);
}

/**
 * Puts SCTP's checksum in: there is no metadata that would leave it to others. The packet begins at byte
 * `start` of the frame. False if its field is not in the slot.
 */
function insertCrc32c(burst: Burst, slot: number, start: number): boolean {
  const { chains, slots8, arena } = burst;
  const frame = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
  const gathered = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
  const field = start + SCTP_CHECKSUM;
  if (field + SCTP_CHECKSUM_BYTES > gathered) return false;
  slots8.fill(0, frame + field, frame + field + SCTP_CHECKSUM_BYTES);
  let crc = addCrc32c(CRC32C_START, slots8, frame + start, gathered - start);
  let skip = burst.skip[slot] as number;
  const last = chains.more[slot] as number;
  for (let i = -1; i < last; i++) {
    const piece = (chains.moreStart[slot] as number) + i;
    const address = (i < 0 ? chains.address[slot] : chains.moreAddress[piece]) as number;
    const bytes = (i < 0 ? chains.length[slot] : chains.moreLength[piece]) as number;
    if (skip < bytes) crc = addCrc32c(crc, arena.bytes, address + skip, bytes - skip);
    skip = skip > bytes ? skip - bytes : 0;
  }
  const sum = finishCrc32c(crc);
  for (let i = 0; i < SCTP_CHECKSUM_BYTES; i++) slots8[frame + field + i] = sum >>> (8 * i);
  return true;
}
