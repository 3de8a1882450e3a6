/**
 * A device behind its socket: a vhost-user server, polled in its lane, with what the operator is
 * told of it. Methods wire it to what the device works on.
 */
import { bitMask } from '../base/bits.ts';
import type { Logger } from '../base/log.ts';
import type { VirtioDevice } from '../device/virtio-device.ts';
import type { LaneHost } from '../engine/lane.ts';
import type { Arena } from '../memory/arena.ts';
import type { Isolation } from '../memory/guest-memory.ts';
import type { Poller } from '../os/poll-loop.ts';
import type { SocketAccess } from '../os/unix-socket.ts';
import { VIRTIO_F_RING_PACKED } from '../spec/virtio.ts';
import type { PositionJournal } from '../transport/vhost-user/position-journal.ts';
import { VhostUserServer } from '../transport/vhost-user/server.ts';
import type { SessionDescription } from '../transport/vhost-user/session.ts';

/** How a guest reaches a device, whatever the device is. */
export interface AttachmentOptions {
  readonly socket: string;
  /** Whether Sluice listens on the socket or connects to it. */
  readonly server: 'listen' | 'connect';
  readonly access: SocketAccess;
  readonly isolation: Isolation;
  readonly packed: boolean;
  /** The device or its guest has failed; the guest was disconnected or told. */
  readonly onFailure: (reason: string) => void;
}

/** What a method needs of its lane. */
export type MethodHost = Pick<LaneHost<unknown>, 'guard' | 'log' | 'loop'>;

export interface AttachmentParts {
  /** Name of the device, such as `web/net0`. */
  readonly name: string;
  readonly device: VirtioDevice & Poller;
  readonly arena: Arena;
  readonly log: Logger;
  readonly journal?: PositionJournal;
  /** Features of the device that are not offered, besides packed rings. */
  readonly withheldFeatures?: bigint;
}

/** What is told of an attachment. */
export interface AttachmentState {
  readonly connected: boolean;
  readonly features: string;
  readonly protocolFeatures: readonly string[];
  /** Bytes of memory that the guest shares. */
  readonly memoryBytes: number;
  readonly fault: string | null;
}

export interface AttachmentRing {
  readonly port: string;
  readonly ring: number;
  readonly size: number;
  readonly packed: boolean;
  readonly started: boolean;
  readonly enabled: boolean;
  readonly avail: number;
  readonly used: number;
}

export class Attachment {
  readonly name: string;
  readonly server: VhostUserServer;
  readonly #host: MethodHost;
  readonly #poller: Poller;
  /** What stopped the device: a failure of its own, or the present guest. */
  #failure: string | undefined;
  #broken: string | undefined;

  /** @throws SluiceError if the socket cannot be made. */
  constructor(options: AttachmentOptions, host: MethodHost, parts: AttachmentParts) {
    const { name, device, journal } = parts;
    this.name = name;
    this.#host = host;
    this.server = new VhostUserServer({
      device,
      arena: parts.arena,
      loop: host.loop,
      log: parts.log,
      path: options.socket,
      role: options.server,
      access: options.access,
      isolation: options.isolation,
      ...(journal === undefined ? {} : { journal }),
      withheldFeatures:
        (parts.withheldFeatures ?? 0n) | (options.packed ? 0n : bitMask(VIRTIO_F_RING_PACKED)),
      onConnection: (connected) => {
        this.#broken = undefined;
        if (connected) this.#watchGuest(device, options);
      },
    });
    this.#poller = host.guard(name, device, (error) => {
      // The guest loses the device at once; its rings are not touched any more.
      this.#failure = error instanceof Error ? error.message : String(error);
      this.server.close();
      options.onFailure(this.#failure);
    });
    host.loop.addPoller(this.#poller);
  }

  /** The session tells the guest that it broke its device; this tells the operator. */
  #watchGuest(device: VirtioDevice, options: AttachmentOptions): void {
    const tellGuest = device.onBroken;
    device.onBroken = (reason) => {
      tellGuest?.(reason);
      this.#broken = `the guest broke the device: ${reason.message}`;
      options.onFailure(this.#broken);
    };
  }

  describe(): { readonly state: AttachmentState; readonly rings: readonly AttachmentRing[] } {
    const session: SessionDescription | undefined = this.server.describe();
    return {
      state: {
        connected: session !== undefined,
        features: `0x${(session?.features ?? 0n).toString(16)}`,
        protocolFeatures: session?.protocolFeatures ?? [],
        memoryBytes: (session?.memory ?? []).reduce((sum, { size }) => sum + size, 0),
        fault: this.#failure ?? this.#broken ?? null,
      },
      rings: (session?.rings ?? []).map(({ index, size, packed, started, enabled, position }) => ({
        port: this.name,
        ring: index,
        size,
        packed,
        started,
        enabled,
        avail: position.avail,
        used: position.used,
      })),
    };
  }

  /**
   * Disconnects the guest; the socket disappears at once. A device that has requests of the guest on
   * their way is polled on: `onDrained` is called when they are complete, which may be at once.
   */
  disconnect(onDrained: () => void): void {
    this.server.close(onDrained);
  }

  /** Disconnects the guest, and polls the device no more. */
  close(): void {
    this.server.close();
    this.#host.loop.removePoller(this.#poller);
  }
}
