/** A guest's network card as the guest's roles need it, whatever the card is. */
import type { GuestInfo } from './protocol.ts';
import type { RoleContext } from './role.ts';

export interface NetAttachment {
  readonly info: GuestInfo;
  /** One for each pair of queues. */
  readonly contexts: readonly RoleContext[];
  /** Times that the device was told of frames or buffers. */
  readonly kicks: number;
  /** Times that a call, or an interrupt, was noticed. */
  readonly calls: number;
  /** Leaves the device and gives the memory back. */
  close(): void;
}
