/** How each kind of part is added to its lane, changed there, and removed. */
import { SluiceError } from '../base/errors.ts';
import type { Captures } from './captures.ts';
import { type Part, partTitle } from './difference.ts';
import type { Disks } from './disks.ts';
import type { Lane, PortCounters } from './lane-commands.ts';

export class PartRunner {
  readonly #captures: Captures;
  readonly #disks: Disks;
  readonly #stopping: Promise<never>;

  /** @param stopping fails when the daemon is to end, for what would wait long */
  constructor(captures: Captures, disks: Disks, stopping: Promise<never>) {
    this.#captures = captures;
    this.#disks = disks;
    this.#stopping = stopping;
  }

  /** Returns the counters of the ports that came with it. */
  async add(lane: Lane, part: Part): Promise<readonly PortCounters[]> {
    switch (part.kind) {
      case 'switch':
        await lane.request('addSwitch', { name: part.name, ageing: part.ageing });
        return [];
      case 'wire': {
        const { name, wire } = part;
        const ring =
          wire.kind === 'capture' ? await this.#captures.toFile(name, wire.file) : undefined;
        try {
          return await lane.request('addWire', {
            name,
            switch: part.switch,
            wire,
            ring: ring?.shared,
          });
        } catch (error) {
          ring?.close();
          throw error;
        }
      }
      case 'nic':
        return await lane.request('addNic', part.nic);
      case 'nic-wire':
        return await lane.request('plugNic', { nic: part.name, wire: part.wire });
      case 'port':
        return await lane.request('addPort', part.net);
      case 'disk':
        await this.#disks.add(lane, part);
        return [];
      case 'controller':
        await lane.request('addController', part.controller);
        return [];
      case 'device':
        await this.#disks.addDevice(lane, part);
        return [];
    }
  }

  /** Makes a part that runs into this one. */
  async change(lane: Lane, part: Part): Promise<void> {
    if (part.kind === 'port' && part.net.method === 'sriov') {
      await lane.request('setVf', part.net);
      return;
    }
    if (part.kind === 'nic') {
      await lane.request('setMirrors', part.nic);
      return;
    }
    throw new SluiceError('state', `${partTitle(part)} cannot be changed while it runs`);
  }

  async remove(lane: Lane, part: Part): Promise<void> {
    switch (part.kind) {
      case 'switch':
        await lane.request('removeSwitch', part.name);
        return;
      case 'wire':
        await lane.request('removeWire', part.name);
        return;
      case 'nic':
        await lane.request('removeNic', part.name);
        return;
      case 'nic-wire':
        await lane.request('unplugNic', part.name);
        return;
      case 'port':
        await lane.request('removePort', part.name);
        return;
      case 'disk':
        await this.#disks.remove(lane, part);
        return;
      case 'controller':
        await Promise.race([lane.request('removeController', part.name), this.#stopping]);
        return;
      case 'device':
        // Requests to a server that has vanished may take as long as it likes.
        await Promise.race([this.#disks.removeDevice(lane, part), this.#stopping]);
        return;
    }
  }
}
