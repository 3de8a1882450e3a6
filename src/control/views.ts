/** What the control API shows of a daemon: one function an endpoint. */
import { SluiceError } from '../base/errors.ts';
import type { Daemon } from '../daemon/daemon.ts';
import type { DiskFigures } from '../daemon/disks.ts';
import type { ApiBody, ApiName, ApiReply } from './api.ts';

export type Handlers = {
  readonly [Name in ApiName]: (body: ApiBody<Name>) => Promise<ApiReply<Name>>;
};

/** @param shutdown begins the end of the daemon, after the reply is on its way. */
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
      return daemon.config.guests.map(({ name, memoryBytes, net, disk }) => ({
        guest: name,
        memoryBytes,
        net: net.map((card) => ({
          port: card.port,
          method: card.method,
          switch: card.switch,
          mac: card.mac,
          socket: card.socket,
          connected: ports.get(card.port)?.connected ?? false,
          running: ports.get(card.port)?.running ?? false,
        })),
        disk: disk.map(({ device, method, disk: of, socket }) => ({
          device,
          method,
          disk: of,
          socket,
          connected: devices.get(device)?.connected ?? false,
          running: devices.get(device)?.running ?? false,
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
    faults: async () => [...daemon.faults],
    reload: async () => {
      const { done, failed } = await daemon.reload();
      return { done: [...done], failed: [...failed] };
    },
    shutdown: () => {
      shutdown();
      return Promise.resolve({});
    },
  };
}

async function diskNow(daemon: Daemon, name: string): Promise<ApiReply<'disks'>[number]> {
  const now = (await daemon.disks()).find(({ disk }) => disk === name);
  if (now === undefined) throw new SluiceError('not-found', `disk ${name} has gone meanwhile`);
  return diskRow(now);
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
