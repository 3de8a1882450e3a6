/** What machines beyond a wire may send: their own network cards know no more than the wire carries. */
import { linkMegabits, wireBitsOf } from '../device/ixgbe/link-limit.ts';
import {
  ETHERNET_DEFAULT_MTU,
  ETHERNET_HEADER_BYTES,
  IPV4_TCP_HEADER_BYTES,
} from '../spec/ethernet.ts';
import type { NetOptions } from './net-options.ts';

const HEADERS = ETHERNET_HEADER_BYTES + IPV4_TCP_HEADER_BYTES;

/**
 * Frames a second, as a source has them (large ones not cut yet), that a port's wire carries; undefined: it
 * has no limit.
 */
export function wireFrameRate({
  link = '10G',
  frame,
}: Pick<NetOptions, 'link' | 'frame'>): number | undefined {
  const megabits = linkMegabits(link);
  if (megabits === undefined) return undefined;
  const isCut = frame > ETHERNET_DEFAULT_MTU + ETHERNET_HEADER_BYTES;
  const segments = isCut
    ? Math.ceil((frame - HEADERS) / (ETHERNET_DEFAULT_MTU - IPV4_TCP_HEADER_BYTES))
    : 1;
  const bytes = frame + (segments - 1) * HEADERS;
  return (megabits * 1e6) / wireBitsOf(segments, bytes);
}
