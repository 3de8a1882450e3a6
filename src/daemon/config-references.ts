/**
 * What a schema cannot say: names that must exist, things that only one may have, wires that
 * would form a loop. Works on the file's plain values, so that it finds what it can also in a
 * file with other faults.
 */
import type { ConfigPath, ConfigSource } from './config-problems.ts';
import { defaultMac } from './mac-address.ts';
import { suggestion } from './near-miss.ts';

type Mapping = Readonly<Record<string, unknown>>;

function mapping(value: unknown): Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Mapping)
    : {};
}

export function checkReferences(source: ConfigSource): void {
  const root = mapping(source.value);
  const switches = mapping(root['switches']);
  const guests = mapping(root['guests']);
  checkWires(source, switches);
  checkCards(source, guests, switches);
  checkLanes(source, root['lanes'], switches);
}

/** Notes a switch that is named and not there. */
function checkSwitch(
  source: ConfigSource,
  path: ConfigPath,
  name: unknown,
  switches: Mapping,
): void {
  if (typeof name !== 'string' || Object.hasOwn(switches, name)) return;
  const known = Object.keys(switches);
  const there = known.length === 0 ? 'there are no switches' : `there are ${known.join(', ')}`;
  source.report(path, `no switch "${name}"; ${there}${suggestion(name, known)}`);
}

function checkWires(source: ConfigSource, switches: Mapping): void {
  const taps = new Map<string, string>();
  const root = new Map<string, string>();
  const find = (name: string): string => {
    const next = root.get(name);
    return next === undefined ? name : find(next);
  };
  for (const [name, item] of Object.entries(switches)) {
    const wire = mapping(mapping(item)['wire']);
    const path = ['switches', name, 'wire'];
    const { tap, switch: other } = wire;
    if (typeof tap === 'string') {
      const holder = taps.get(tap);
      if (holder !== undefined)
        source.report([...path, 'tap'], `tap ${tap} is the wire of switch ${holder} already`);
      else taps.set(tap, name);
    }
    if (typeof other !== 'string') continue;
    checkSwitch(source, [...path, 'switch'], other, switches);
    const [from, to] = [find(name), find(other)];
    if (from === to)
      source.report(
        [...path, 'switch'],
        `the wires from ${name} to ${other} form a loop, in which frames would go round for ever`,
      );
    else root.set(from, to);
  }
}

function checkCards(source: ConfigSource, guests: Mapping, switches: Mapping): void {
  const holders = new Map<string, string>();
  for (const [name, guest] of Object.entries(guests)) {
    const { net } = mapping(guest);
    if (!Array.isArray(net)) continue;
    for (const [index, item] of net.entries()) {
      const card = mapping(item);
      const path = ['guests', name, 'net', index];
      checkSwitch(source, [...path, 'switch'], card['switch'], switches);
      const mac =
        typeof card['mac'] === 'string' ? card['mac'].toLowerCase() : defaultMac(name, index);
      const at = `${String(card['switch'])} ${mac}`;
      const holder = holders.get(at);
      const port = `${name}/net${index}`;
      if (holder !== undefined)
        source.report(
          [...path, 'mac'],
          `${port} and ${holder} have the same MAC address ${mac} on switch ${String(card['switch'])}`,
        );
      else holders.set(at, port);
    }
  }
}

function checkLanes(source: ConfigSource, lanes: unknown, switches: Mapping): void {
  const count = typeof lanes === 'number' ? lanes : Array.isArray(lanes) ? lanes.length : 1;
  for (const [name, item] of Object.entries(switches)) {
    const { lane } = mapping(item);
    if (typeof lane === 'number' && lane >= count) {
      source.report(
        ['switches', name, 'lane'],
        `no lane ${lane}: there ${count === 1 ? 'is one lane, 0' : `are ${count}, 0 to ${count - 1}`}`,
      );
    }
  }
}
