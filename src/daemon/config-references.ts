/**
 * What a schema cannot say: names that must exist, things that only one may have, wires that
 * would form a loop. Works on the file's plain values, so that it finds what it can also in a
 * file with other faults.
 */
import { dirname, resolve } from 'node:path';
import { AHCI_MAX_PORTS } from '../spec/ahci.ts';
import { checkCaptures } from './config-captures.ts';
import type { ConfigSource } from './config-problems.ts';
import { NAME_EXPECTED } from './config-values.ts';
import { defaultSerial } from './disk-config.ts';
import { checkFunctions, checkNicWires, macOf, stationsOf } from './nic-references.ts';
import {
  checkNamed,
  DISK_FILES,
  DISKS,
  type Mapping,
  mapping,
  SWITCHES,
  TapHolders,
} from './reference-tools.ts';

export function checkReferences(source: ConfigSource): void {
  const root = mapping(source.value);
  checkNames(source, root);
  const switches = mapping(root['switches']);
  const nics = mapping(root['nics']);
  const guests = mapping(root['guests']);
  const taps = new TapHolders();
  checkWires(source, switches, taps);
  checkNicWires(source, nics, switches, taps);
  checkCards(source, guests, switches, nics);
  checkFunctions(source, guests, nics);
  checkDisks(source, guests, mapping(root['disks']));
  checkLanes(source, root['lanes'], switches);
  checkCaptures(source);
}

/** What every object of JavaScript has: the schema passes over it, and so over all that is in it. */
const HIDDEN_NAME = '__proto__';

function checkNames(source: ConfigSource, root: Mapping): void {
  for (const key of ['switches', 'nics', 'disks', 'guests']) {
    if (Object.hasOwn(mapping(root[key]), HIDDEN_NAME))
      source.report([key, HIDDEN_NAME], NAME_EXPECTED, 'key');
  }
}

function checkWires(source: ConfigSource, switches: Mapping, taps: TapHolders): void {
  const root = new Map<string, string>();
  const find = (name: string): string => {
    const next = root.get(name);
    return next === undefined ? name : find(next);
  };
  for (const [name, item] of Object.entries(switches)) {
    const wire = mapping(mapping(item)['wire']);
    const path = ['switches', name, 'wire'];
    const { tap, switch: other } = wire;
    taps.check(source, [...path, 'tap'], tap, `switch ${name}`);
    if (typeof other !== 'string') continue;
    checkNamed(source, [...path, 'switch'], other, SWITCHES, switches);
    const [from, to] = [find(name), find(other)];
    if (from === to)
      source.report(
        [...path, 'switch'],
        `the wires from ${name} to ${other} form a loop, in which frames would go round for ever`,
      );
    else root.set(from, to);
  }
}

function checkCards(source: ConfigSource, guests: Mapping, switches: Mapping, nics: Mapping): void {
  const holders = new Map<string, string>();
  for (const [name, guest] of Object.entries(guests)) {
    const { net } = mapping(guest);
    if (!Array.isArray(net)) continue;
    for (const [index, item] of net.entries()) {
      const card = mapping(item);
      const path = ['guests', name, 'net', index];
      checkNamed(source, [...path, 'switch'], card['switch'], SWITCHES, switches);
      const place = stationsOf(card, nics);
      if (place === undefined) continue;
      const mac = macOf(name, index, card, nics);
      const at = `${place} ${mac}`;
      const holder = holders.get(at);
      const port = `${name}/net${index}`;
      if (holder !== undefined)
        source.report(
          [...path, 'mac'],
          `${port} and ${holder} have the same MAC address ${mac} on ${place}`,
        );
      else holders.set(at, port);
    }
  }
}

/** A disk that two can write is destroyed by their file systems. */
function checkDisks(source: ConfigSource, guests: Mapping, disks: Mapping): void {
  const writers = new Map<string, string>();
  for (const [name, guest] of Object.entries(guests)) {
    const { disk: list } = mapping(guest);
    if (!Array.isArray(list)) continue;
    checkPorts(source, name, list);
    checkSerials(source, name, list, disks);
    for (const [index, item] of list.entries()) {
      const path = ['guests', name, 'disk', index, 'disk'];
      const { disk, method, cdrom } = mapping(item);
      checkNamed(source, path, disk, DISKS, disks);
      if (typeof disk !== 'string' || isReadonly(disks[disk])) continue;
      if (method === 'emulated' && isOn(cdrom) && Object.hasOwn(disks, disk)) {
        source.report(path, `disk ${disk} of a cdrom can be written: give it readonly: true`);
        continue;
      }
      const device = method === 'emulated' ? `${name}'s disk[${index}]` : `${name}/disk${index}`;
      const writer = writers.get(disk);
      if (writer === undefined) writers.set(disk, device);
      else
        source.report(
          path,
          `disk ${disk} would be written by ${writer} and ${device}, which destroys what is on it: give each a disk of its own, or give ${disk} readonly: true`,
        );
    }
  }
  checkFiles(source, disks);
}

/** Long names may begin alike, and a guest tells its disks apart by their serials (/dev/disk/by-id). */
function checkSerials(
  source: ConfigSource,
  guest: string,
  list: readonly unknown[],
  disks: Mapping,
): void {
  const holders = new Map<string, string>();
  for (const [index, item] of list.entries()) {
    const { disk } = mapping(item);
    if (typeof disk !== 'string' || !Object.hasOwn(disks, disk)) continue;
    const serial = serialOf(disk, disks);
    const holder = holders.get(serial) ?? disk;
    holders.set(serial, holder);
    // Who gives two the same has a reason: paths to one disk.
    if (holder === disk || (isSerialGiven(disk, disks) && isSerialGiven(holder, disks))) continue;
    source.report(
      ['guests', guest, 'disk', index, 'disk'],
      `disks ${holder} and ${disk} have the same serial ${serial}: give one of them another (key serial)`,
    );
  }
}

function serialOf(disk: string, disks: Mapping): string {
  const { serial } = mapping(disks[disk]);
  return typeof serial === 'string' ? serial : defaultSerial(disk);
}

function isSerialGiven(disk: string, disks: Mapping): boolean {
  return mapping(disks[disk])['serial'] !== undefined;
}

/** Each drive has a port of the controller for itself, and there are so many. */
function checkPorts(source: ConfigSource, guest: string, list: readonly unknown[]): void {
  const holders = new Map<unknown, number>();
  let drives = 0;
  for (const [index, item] of list.entries()) {
    const { method, port } = mapping(item);
    if (method !== 'emulated') continue;
    drives++;
    const path = ['guests', guest, 'disk', index];
    if (drives > AHCI_MAX_PORTS) {
      source.report(path, `an AHCI controller has ${AHCI_MAX_PORTS} ports, and this drive none`);
    }
    if (port === undefined) continue;
    const holder = holders.get(port);
    if (holder === undefined) holders.set(port, index);
    else
      source.report(
        [...path, 'port'],
        `port ${String(port)} has the drive disk[${holder}] already`,
      );
  }
}

function isReadonly(disk: unknown): boolean {
  return isOn(mapping(disk)['readonly']);
}

function isOn(value: unknown): boolean {
  return value === true || value === 'on';
}

/** Notes a file that is more than one disk, unless nobody writes it. */
function checkFiles(source: ConfigSource, disks: Mapping): void {
  const holders = new Map<string, { readonly name: string; readonly isWritten: boolean }>();
  for (const [name, disk] of Object.entries(disks)) {
    // Writes to an overlay leave the image below as it is.
    const { overlay } = mapping(disk);
    for (const key of DISK_FILES) {
      const file = mapping(disk)[key];
      if (typeof file !== 'string') continue;
      const isWritten = !isReadonly(disk) && (key !== 'image' || overlay === undefined);
      const path = resolve(dirname(source.file), file);
      const holder = holders.get(path);
      if (holder === undefined) holders.set(path, { name, isWritten });
      else if (holder.isWritten || isWritten)
        source.report(
          ['disks', name, key],
          `disks ${holder.name} and ${name} have the same file ${file}, and one of them writes it`,
        );
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
