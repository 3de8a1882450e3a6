/**
 * Which messages must wait until requests in flight are done: those that stop rings, or take memory
 * away that the requests lie in. ("Ring states", and "Front-end message types", in QEMU
 * docs/interop/vhost-user.rst.)
 */
import * as vu from '../../spec/vhost-user.ts';
import type { FrontEndMessage } from './codec.ts';
import type { RingSet } from './ring-set.ts';

/** The index of the ring that a message stops, `all`, or undefined if it stops none. */
export function ringsStoppedBy(
  message: FrontEndMessage,
  rings: RingSet,
): number | 'all' | undefined {
  switch (message.request) {
    case vu.VHOST_USER_GET_VRING_BASE:
    case vu.VHOST_USER_SET_VRING_NUM:
    case vu.VHOST_USER_SET_VRING_BASE:
      return message.index;
    case vu.VHOST_USER_SET_VRING_ADDR:
      return rings.moves(message) ? message.index : undefined;
    case vu.VHOST_USER_SET_FEATURES:
      return rings.isChange(message.value) || rings.broken !== undefined ? 'all' : undefined;
    case vu.VHOST_USER_SET_STATUS:
      return message.value === 0n ? 'all' : undefined;
    case vu.VHOST_USER_SET_MEM_TABLE:
    case vu.VHOST_USER_REM_MEM_REG:
    case vu.VHOST_USER_RESET_DEVICE:
    case vu.VHOST_USER_GET_INFLIGHT_FD:
    case vu.VHOST_USER_SET_INFLIGHT_FD:
      return 'all';
    default:
      return undefined;
  }
}
