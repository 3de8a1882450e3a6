/** What an AHCI controller counts, all ports together. */
import { CounterBlock } from '../../base/counters.ts';

/** Requests and bytes are counted when they have succeeded. */
export const AHCI_COUNTERS = [
  'traps',
  'interrupts',
  'commands',
  'queued_commands',
  'reads',
  'read_bytes',
  'writes',
  'write_bytes',
  /** Parts of requests that went through the lane's memory, because the guest's was not to be mapped. */
  'copied_parts',
  /** A drive ended a command with an error. */
  'error_commands',
  /** The disk failed a request: its errno is in the log. */
  'error_io',
  /** Bad pointers and commands that stopped a port. */
  'error_fatal',
  'resets',
] as const;

export type AhciCounter = (typeof AHCI_COUNTERS)[number];

/** Index of a counter in the block's `values`. */
export const AHCI_COUNTER_INDEX = Object.fromEntries(
  AHCI_COUNTERS.map((name, i) => [name, i]),
) as Readonly<Record<AhciCounter, number>>;

export function newAhciCounters(shared?: SharedArrayBuffer): CounterBlock<AhciCounter> {
  return new CounterBlock(AHCI_COUNTERS, shared);
}
