/** Forms of single values of network cards, ports and wires in the configuration file. */
import { z } from 'zod';
import { integer, text } from './config-values.ts';

const MAX_VLAN = 4094;
const MAX_RATE_MBPS = 4_000_000;
/** IFNAMSIZ without the terminating zero (linux/if.h). */
const MAX_INTERFACE_NAME = 15;

export const vlan = integer(1, MAX_VLAN, 'a VLAN id');
export const anyVlan = integer(0, MAX_VLAN, 'a VLAN id (0: none)');
export const trunk = z
  .array(integer(0, MAX_VLAN, 'a VLAN id (0: frames without tag)'), {
    error: 'expected a list of VLAN ids, such as [10, 20]',
  })
  .min(1, { error: 'expected at least one VLAN id' });
export const qos = integer(0, 7, 'a priority');
export const rate = integer(0, MAX_RATE_MBPS, 'a rate in Mb/s (0: no limit)');

export const ZERO_MAC = '00:00:00:00:00:00';

const anyMac = text(
  /^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$/,
  'a unicast MAC address, such as "52:54:00:00:00:01" (in quotes)',
);

export const mac = anyMac.refine((value) => value !== ZERO_MAC, {
  error: 'expected a MAC address that is not all zeros',
});

/** As {@link mac}; zeros take an address back, as iproute2's `vf N mac` has it. */
export const macOrZero = anyMac;

export const tapName = text(
  new RegExp(`^[A-Za-z0-9_.-]{1,${MAX_INTERFACE_NAME}}$`),
  `an interface name of up to ${MAX_INTERFACE_NAME} characters`,
);
