/** What transmit descriptors say of offloads (SDM §3.3.3, §3.3.6, §3.3.7; DS §7.2.5 to §7.3). */
import type { Burst } from '../../net/burst.ts';
import {
  TXC_IPV4,
  TXC_TCP,
  TXD_CSO_SHIFT,
  TXD_CSS_SHIFT,
  TXD_EXTENDED,
  TXD_IC,
  TXD_POPTS_IXSM,
  TXD_POPTS_TXSM,
  TXD_TSE,
} from '../../spec/e1000.ts';
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
  needChecksum,
  WORK_IP,
  WORK_L4,
  WORK_SEGMENT,
} from '../transmit-context.ts';

/**
 * Reads the context descriptor at `at` into {@link CONTEXT_WORDS} words at `to`. Its words: IP checksum,
 * transport checksum, command and length, MSS.
 */
export function decodeContext(
  from: Uint32Array,
  at: number,
  context: Uint32Array,
  to: number,
): void {
  const ip = from[at] as number;
  const transport = from[at + 1] as number;
  const command = from[at + 2] as number;
  const sizes = from[at + 3] as number;
  context[to + CONTEXT_IP] = ip & 0xff;
  context[to + CONTEXT_IP_FIELD] = (ip >>> 8) & 0xff;
  context[to + CONTEXT_IP_END] = ip >>> 16;
  context[to + CONTEXT_L4] = transport & 0xff;
  context[to + CONTEXT_L4_FIELD] = (transport >>> 8) & 0xff;
  context[to + CONTEXT_FLAGS] =
    ((command & TXC_IPV4) !== 0 ? CONTEXT_IPV4 : 0) | ((command & TXC_TCP) !== 0 ? CONTEXT_TCP : 0);
  context[to + CONTEXT_HEADER_BYTES] = (sizes >>> 8) & 0xff;
  context[to + CONTEXT_SEGMENT_BYTES] = sizes >>> 16;
}

/**
 * Puts the offloads of frame `slot` into its slot: `command` and `options` are the second and third word
 * of its first data or legacy descriptor, its context stands at `at` of `contexts`; `shift` is as in
 * {@link applyOffloads}. False if the offsets do not fit the frame.
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
  if ((command & TXD_EXTENDED) === 0) {
    if ((command & TXD_IC) === 0) return true;
    const start = ((options >>> TXD_CSS_SHIFT) & 0xff) + shift;
    return needChecksum(burst, slot, start, ((command >>> TXD_CSO_SHIFT) & 0xff) + shift);
  }
  const work =
    ((command & TXD_TSE) !== 0 ? WORK_SEGMENT : 0) |
    ((options & TXD_POPTS_IXSM) !== 0 ? WORK_IP : 0) |
    ((options & TXD_POPTS_TXSM) !== 0 ? WORK_L4 : 0);
  return work === 0 || applyOffloads(burst, slot, work, contexts, at, shift);
}
