/** The outside of a switch: a tap interface, another switch, a capture file. */

import { SluiceError } from '../base/errors.ts';
import type { LaneHost } from '../engine/lane.ts';
import type { DataPath } from '../net/data-path.ts';
import { createPatch } from '../net/patch.ts';
import { PortPolicy } from '../net/policy.ts';
import type { Port } from '../net/port.ts';
import type { Switch } from '../net/switch.ts';
import { TapPort } from '../net/tap.ts';
import type { WireConfig } from './config.ts';
import type { LaneEvent } from './lane-commands.ts';

export interface Wire {
  readonly kind: WireConfig['kind'];
  /** Its ends in this lane, and the switch that each is plugged into. */
  readonly ports: readonly Port[];
  readonly switches: readonly string[];
  close(): void;
}

/**
 * Plugs a switch into its wire.
 * @param far the other switch, for a wire between two
 * @throws SluiceError if the wire cannot be made: no such interface, no right to it.
 */
export function plugWire(
  name: string,
  wire: WireConfig,
  near: Switch,
  far: Switch | undefined,
  path: DataPath,
  host: LaneHost<LaneEvent>,
): Wire {
  const policy = (): PortPolicy =>
    new PortPolicy({ vlan: wire.vlan, trunk: wire.trunk }, host.loop.now);
  switch (wire.kind) {
    case 'tap':
      return plugTap(name, wire.tap, near, policy(), path, host);
    case 'switch': {
      if (far === undefined)
        throw new SluiceError('not-found', `${name}: no switch ${wire.switch}`);
      const ends = createPatch(name, `${name}:${far.name}`, path);
      const [here, there] = ends;
      near.addPort(here, policy());
      far.addPort(there, policy());
      here.owner = near;
      there.owner = far;
      return {
        kind: 'switch',
        ports: ends,
        switches: [near.name, far.name],
        close: () => {
          near.removePort(here);
          far.removePort(there);
          here.close();
          there.close();
        },
      };
    }
    case 'capture':
      throw new SluiceError('unsupported', `${name}: capture wires`);
  }
}

function plugTap(
  name: string,
  tap: string,
  near: Switch,
  policy: PortPolicy,
  path: DataPath,
  host: LaneHost<LaneEvent>,
): Wire {
  const port = new TapPort({ name, path, interface: tap, up: true, log: host.log });
  const poller = host.guard(name, port, (error) => {
    host.emit({ kind: 'fault', fault: { port: name, reason: String(error) } });
    port.close();
  });
  near.addPort(port, policy);
  port.owner = near;
  host.loop.addPoller(poller);
  return {
    kind: 'tap',
    ports: [port],
    switches: [near.name],
    close: () => {
      host.loop.removePoller(poller);
      near.removePort(port);
      port.close();
    },
  };
}
