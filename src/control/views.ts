/** What the control API shows of a daemon: one function an endpoint. */
import { SluiceError } from '../base/errors.ts';
import { placeOf } from '../daemon/config.ts';
import type { Daemon, VfFigures } from '../daemon/daemon.ts';
import type { DiskFigures } from '../daemon/disks.ts';
import { vfWordsOf } from '../daemon/vf-schema.ts';
import type { ApiBody, ApiName, ApiReply } from './api.ts';

export type Handlers = {
  readonly [Name in ApiName]: (body: ApiBody<Name>) => Promise<ApiReply<Name>>;
};

/** @param shutdown begins the end of the daemon. */
export function handlersOf(daemon: Daemon, version: string, shutdown: () => void): Handlers {
  return {
    status: async () => ({
      version,
      pid: process.pid,
      config: daemon.config.file,
      run: daemon.config.run.path,
      uptime_s: (Date.now() - daemon.startedAt) / 1000,
      lanes: await daemon.sampleLanes(),
    }),
    guests: async () => {
      const ports = new Map((await daemon.ports()).map((port) => [port.port, port]));
      const devices = new Map((await daemon.devices()).map((item) => [item.device, item]));
      const lost = new Set(
        (await daemon.functions()).flatMap((item) => (item.lost ? item.function : [])),
      );
      const macs = new Map((await daemon.vfs()).map(({ port, address }) => [port, address]));
      return daemon.config.guests.map(({ name, memoryBytes, net, disk }) => ({
        guest: name,
        memoryBytes,
        net: net.map((card) => ({
          port: card.port,
          method: card.method,
          switch: placeOf(card),
          vf: card.method === 'sriov' ? card.vf : null,
          mac: macs.get(card.port) ?? card.mac,
          socket: card.socket,
          connected: ports.get(card.port)?.connected ?? false,
          running: ports.get(card.port)?.running ?? false,
          lost: lost.has(card.port),
        })),
        disk: disk.map((item) => ({
          device: item.device,
          method: item.method,
          disk: item.disk,
          socket: item.socket,
          connected: devices.get(item.device)?.connected ?? false,
          running: devices.get(item.device)?.running ?? false,
          lost: item.method === 'emulated' && lost.has(item.controller),
        })),
      }));
    },
    ports: async () =>
      (await daemon.ports()).map((port) => ({
        ...port,
        protocolFeatures: [...port.protocolFeatures],
      })),
    disks: async () => (await daemon.disks()).map(diskRow),
    devices: async () =>
      (await daemon.devices()).map((device) => ({
        ...device,
        protocolFeatures: [...device.protocolFeatures],
      })),
    vfs: async () => (await daemon.vfs()).map(vfRow),
    setVf: async ({ nic, vf, set }) => {
      await daemon.setVf(nic, vf, vfWordsOf(set));
      return await vfNow(daemon, nic, vf);
    },
    addVf: async ({ nic, vf, set }) => {
      await daemon.addVf(nic, vf, vfWordsOf(set));
      return await vfNow(daemon, nic, vf);
    },
    removeVf: async ({ nic, vf }) => {
      await daemon.removeVf(nic, vf);
      return {};
    },
    endCapture: async ({ port }) => {
      await daemon.endCapture(port);
      return {};
    },
    resizeDisk: async ({ disk, bytes, shrink }) => {
      await daemon.resizeDisk(disk, bytes, shrink);
      return await diskNow(daemon, disk);
    },
    powerDisk: async ({ disk, on }) => {
      await daemon.powerDisk(disk, on);
      return await diskNow(daemon, disk);
    },
    rings: async () => [...(await daemon.rings())],
    switches: async () => {
      const ports = Map.groupBy(await daemon.ports(), (port) => port.switch);
      return daemon.config.switches.map(({ name, wire }) => {
        const plugged = ports.get(name) ?? [];
        return {
          switch: name,
          lane: daemon.laneOf(name),
          wire: wire === undefined ? 'none' : wireText(wire),
          ports: plugged.map(({ port }) => port),
        };
      });
    },
    macs: async () => [...(await daemon.macs())],
    functions: async () => await daemon.functions(),
    faults: async () =>
      [
        ...daemon.faults.map((fault) => ({ ...fault, dma: null })),
        ...(await daemon.dmaFaults()).map(
          ({ time, function: port, reason, iova, length, direction }) => ({
            time,
            port,
            reason,
            dma: { iova, length, direction },
          }),
        ),
      ].toSorted((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0)),
    reload: async () => {
      const { done, failed } = await daemon.reload();
      return { done: [...done], failed: [...failed] };
    },
    shutdown: async () => {
      shutdown();
      const reason = await daemon.ended;
      if (reason !== undefined) throw reason;
      return {};
    },
  };
}

async function diskNow(daemon: Daemon, name: string): Promise<ApiReply<'disks'>[number]> {
  const now = (await daemon.disks()).find(({ disk }) => disk === name);
  if (now === undefined) throw new SluiceError('not-found', `disk ${name} has gone meanwhile`);
  return diskRow(now);
}

async function vfNow(daemon: Daemon, nic: string, vf: number): Promise<ApiReply<'vfs'>[number]> {
  const now = (await daemon.vfs()).find((other) => other.nic === nic && other.vf === vf);
  if (now === undefined) throw new SluiceError('not-found', `${nic} vf ${vf} has gone meanwhile`);
  return vfRow(now);
}

function vfRow(vf: VfFigures): ApiReply<'vfs'>[number] {
  return { ...vf, mac: vf.mac ?? null, api: vf.api ?? null };
}

function diskRow(disk: DiskFigures): ApiReply<'disks'>[number] {
  return { ...disk, lanes: [...disk.lanes], usedBy: [...disk.usedBy] };
}

function wireText(wire: NonNullable<Daemon['config']['switches'][number]['wire']>): string {
  switch (wire.kind) {
    case 'tap':
      return `tap ${wire.tap}`;
    case 'switch':
      return `switch ${wire.switch}`;
    case 'capture':
      return `capture ${wire.file}`;
  }
}
