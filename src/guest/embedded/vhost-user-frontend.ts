/** Attaches an embedded guest to a vhost-user socket. */
import { bitMask } from '../../base/bits.ts';
import { describeError, SluiceError } from '../../base/errors.ts';
import { EPOLLET, EPOLLIN, EPOLLRDHUP } from '../../os/epoll.ts';
import { closeFd, createEventFd, signalEventFd } from '../../os/fd.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import type { Kick, QueueLayout } from '../../ring/driver-queue.ts';
import { VHOST_USER_F_PROTOCOL_FEATURES } from '../../spec/vhost-user.ts';
import { VIRTIO_F_VERSION_1 } from '../../spec/virtio.ts';
import { VhostUserClient } from '../../transport/vhost-user/client.ts';
import type { Frontend } from './frontend.ts';

const EXTENSIONS = bitMask(VHOST_USER_F_PROTOCOL_FEATURES);

/** Ring positions of a ring that was just made: 0, and for packed rings both wrap counters set. */
const SPLIT_BASE = 0;
const PACKED_BASE = 0x8000_8000;

interface QueueLines {
  readonly kick: number;
  readonly call: number;
}

export class VhostUserFrontend implements Frontend {
  readonly features: bigint;
  readonly maxQueues: number | undefined;
  calls = 0;
  readonly #client: VhostUserClient;
  readonly #loop: PollLoop;
  readonly #lines: QueueLines[] = [];
  readonly #watched = new Set<number>();
  readonly #onLost: (reason: string) => void;

  constructor(socket: string, loop: PollLoop, onLost: (reason: string) => void) {
    this.#loop = loop;
    this.#onLost = (reason) => onLost(`${socket} ${reason}`);
    this.#client = VhostUserClient.connect(socket);
    try {
      this.#client.negotiate(bitMask(VIRTIO_F_VERSION_1));
      this.features = this.#client.offeredFeatures & ~EXTENSIONS;
      this.maxQueues = this.#client.has('MQ') ? this.#client.getQueueCount() : undefined;
      this.#watch(this.#client.fd, EPOLLIN | EPOLLRDHUP, () => this.#look());
      const { backEndFd } = this.#client;
      if (backEndFd !== -1) this.#watch(backEndFd, EPOLLIN | EPOLLRDHUP, () => this.#look());
    } catch (error) {
      this.#unwatch();
      this.#client.close();
      throw error;
    }
  }

  readConfig(bytes: number): Uint8Array {
    return this.#client.has('CONFIG') ? this.#client.getConfig(0, bytes) : new Uint8Array(0);
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    if (!this.#client.has('CONFIG')) {
      throw new SluiceError('unsupported', 'the device has no configuration space to write');
    }
    this.#client.setConfig(offset, bytes);
  }

  acceptFeatures(features: bigint): void {
    this.#client.setFeatures(features | (this.#client.offeredFeatures & EXTENSIONS));
  }

  shareMemory(fd: number, size: number, guestAddress: number): void {
    this.#client.setMemoryTable([
      { guestAddress, size, userAddress: guestAddress, mmapOffset: 0, fd },
    ]);
  }

  kick(index: number): Kick {
    const { kick } = this.#linesOf(index);
    return { signal: () => signalEventFd(kick) };
  }

  startQueue(index: number, layout: QueueLayout): void {
    const { kick, call } = this.#linesOf(index);
    // Never read: with edge triggering each write is an event of its own.
    this.#watch(call, EPOLLIN | EPOLLET, () => {
      this.calls++;
    });
    this.#client.startRing(index, {
      size: layout.size,
      descriptor: layout.descriptor,
      driver: layout.driver,
      device: layout.device,
      base: layout.packed ? PACKED_BASE : SPLIT_BASE,
      kick,
      call,
    });
    // Without the protocol extension a ring is enabled from the start.
    if ((this.#client.offeredFeatures & EXTENSIONS) !== 0n) this.#client.enableRing(index, true);
  }

  close(): void {
    this.#unwatch();
    this.#client.close();
    for (const { kick, call } of this.#lines) {
      closeFd(kick);
      closeFd(call);
    }
  }

  /** The device's side has sent something, or gone. */
  #look(): void {
    const { backEndFd } = this.#client;
    const reason = this.#whyGone();
    if (reason !== undefined) {
      this.#unwatch();
      this.#onLost(reason);
      return;
    }
    this.#client.serveBackEnd();
    // The client closes the second channel when its other end has gone.
    if (this.#client.backEndFd !== backEndFd) this.#watched.delete(backEndFd);
  }

  /** Why the device's side is of no more use, or undefined. */
  #whyGone(): string | undefined {
    try {
      return this.#client.isAlive() ? undefined : 'was closed by the device';
    } catch (error) {
      return `failed: ${describeError(error)}`;
    }
  }

  #linesOf(index: number): QueueLines {
    let lines = this.#lines[index];
    if (lines === undefined) {
      lines = { kick: createEventFd(), call: createEventFd() };
      this.#lines[index] = lines;
    }
    return lines;
  }

  #watch(fd: number, events: number, handler: () => void): void {
    this.#loop.epoll.add(fd, events, handler);
    this.#watched.add(fd);
  }

  #unwatch(): void {
    for (const fd of this.#watched) this.#loop.epoll.remove(fd);
    this.#watched.clear();
  }
}
