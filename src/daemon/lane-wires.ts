/** The outside of a switch: a tap interface, another switch, a capture file. */

import { SluiceError } from '../base/errors.ts';
import type { LaneHost } from '../engine/lane.ts';
import { CapturePort } from '../net/capture.ts';
import type { CaptureRing } from '../net/capture-ring.ts';
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

/** What a wire is made with. */
export interface WirePlace {
  readonly near: Switch;
  /** The other switch, for a wire between two. */
  readonly far: Switch | undefined;
  /** Where frames go, for a capture. */
  readonly ring: CaptureRing | undefined;
  readonly path: DataPath;
  readonly host: LaneHost<LaneEvent>;
}

/**
 * Plugs a switch into its wire.
 * @throws SluiceError if the wire cannot be made: no such interface, no right to it.
 */
export function plugWire(name: string, wire: WireConfig, place: WirePlace): Wire {
  switch (wire.kind) {
    case 'tap':
      return plugTap(name, wire, wire.tap, place);
    case 'switch':
      return plugSwitch(name, wire, place);
    case 'capture':
      return plugCapture(name, wire, place);
  }
}

function policyOf(wire: WireConfig, { host }: WirePlace): PortPolicy {
  return new PortPolicy({ vlan: wire.vlan, trunk: wire.trunk }, host.loop.now);
}

function plugSwitch(name: string, wire: WireConfig, place: WirePlace): Wire {
  const { near, far, path } = place;
  if (far === undefined) throw new SluiceError('not-found', `${name}: no switch to lead to`);
  const ends = createPatch(name, `${name}:${far.name}`, path);
  const [here, there] = ends;
  near.addPort(here, policyOf(wire, place));
  far.addPort(there, policyOf(wire, place));
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

function plugCapture(name: string, wire: WireConfig, place: WirePlace): Wire {
  const { near, path, ring } = place;
  if (ring === undefined) throw new SluiceError('state', `${name}: no ring to capture into`);
  const port = new CapturePort(name, path, ring);
  near.addPort(port, policyOf(wire, place));
  return {
    kind: 'capture',
    ports: [port],
    switches: [near.name],
    close: () => {
      near.removePort(port);
      ring.close();
    },
  };
}

function plugTap(name: string, wire: WireConfig, tap: string, place: WirePlace): Wire {
  const { near, path, host } = place;
  const port = new TapPort({ name, path, interface: tap, up: true, log: host.log });
  const poller = host.guard(name, port, (error) => {
    host.emit({ kind: 'fault', fault: { port: name, reason: String(error) } });
    port.close();
  });
  near.addPort(port, policyOf(wire, place));
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
