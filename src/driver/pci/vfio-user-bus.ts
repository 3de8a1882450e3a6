/** A PCI function behind a vfio-user socket, as a VMM reaches it for its guest. */
import { describeError } from '../../base/errors.ts';
import { EPOLLET, EPOLLIN, EPOLLRDHUP } from '../../os/epoll.ts';
import { closeAll, createEventFd } from '../../os/fd.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import {
  IRQ_INTX,
  IRQ_MSI,
  IRQ_MSIX,
  IRQ_SET_ACTION_TRIGGER,
  IRQ_SET_ACTION_UNMASK,
  IRQ_SET_DATA_NONE,
  REGION_BAR0,
  REGION_CONFIG,
} from '../../spec/vfio-user.ts';
import { VfioUserClient } from '../../transport/vfio-user/client.ts';
import { BarWindows, type MappedArea } from './bar-windows.ts';
import type { InterruptKind, PciBus } from './bus.ts';

const IRQ_TYPES = { intx: IRQ_INTX, msi: IRQ_MSI, msix: IRQ_MSIX } as const;

export class VfioUserBus implements PciBus {
  readonly #client: VfioUserClient;
  readonly #loop: PollLoop;
  readonly #windows = new BarWindows((bar, map) => this.#withAreas(bar, map));
  #kind: InterruptKind | undefined;
  #eventFds: readonly number[] = [];
  /** The socket is in the loop. */
  #watched = false;

  /**
   * Over a client that has not agreed on the version yet, and is the bus's from now on. `onLost` is
   * called once if the server goes away later.
   */
  constructor(client: VfioUserClient, loop: PollLoop, onLost: (reason: string) => void) {
    this.#client = client;
    this.#loop = loop;
    try {
      client.negotiate();
      if (client.fd === -1) return;
      loop.epoll.add(client.fd, EPOLLIN | EPOLLRDHUP, () => this.#look(onLost));
      this.#watched = true;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  static connect(socket: string, loop: PollLoop, onLost: (reason: string) => void): VfioUserBus {
    const client = VfioUserClient.connect(socket);
    return new VfioUserBus(client, loop, (reason) => onLost(`${socket} ${reason}`));
  }

  readConfig(offset: number, bytes: number): number {
    return this.#client.read(REGION_CONFIG, offset, bytes);
  }

  writeConfig(offset: number, bytes: number, value: number): void {
    this.#client.write(REGION_CONFIG, offset, bytes, value);
  }

  read(bar: number, offset: number, bytes: number): number {
    return this.#client.read(REGION_BAR0 + bar, offset, bytes);
  }

  write(bar: number, offset: number, bytes: number, value: number): void {
    this.#client.write(REGION_BAR0 + bar, offset, bytes, value);
  }

  post(bar: number, offset: number, bytes: number, value: number): void {
    this.#client.post(REGION_BAR0 + bar, offset, bytes, value);
  }

  window(bar: number, offset: number, bytes: number): Uint32Array | undefined {
    return this.#windows.find(bar, offset, bytes);
  }

  map(iova: number, bytes: number, fd: number): void {
    this.#client.map({ iova, length: bytes, fd });
  }

  unmap(iova: number, bytes: number): void {
    this.#client.unmap(iova, bytes);
  }

  vectors(kind: InterruptKind): number {
    return this.#client.irqInfo(IRQ_TYPES[kind]).count;
  }

  setVectors(kind: InterruptKind, count: number, onInterrupt: (vector: number) => void): void {
    this.#clearVectors();
    const fds = Array.from({ length: count }, createEventFd);
    this.#eventFds = fds;
    for (const [vector, fd] of fds.entries()) {
      // Never read: with edge triggering each write is an event of its own.
      this.#loop.epoll.add(fd, EPOLLIN | EPOLLET, () => onInterrupt(vector));
    }
    this.#client.setVectors(IRQ_TYPES[kind], fds);
    this.#kind = kind;
  }

  unmaskIntx(): void {
    this.#client.setIrqs(IRQ_INTX, IRQ_SET_DATA_NONE | IRQ_SET_ACTION_UNMASK, 0, 1);
  }

  reset(): void {
    this.#client.reset();
  }

  close(): void {
    if (this.#watched) this.#loop.epoll.remove(this.#client.fd);
    this.#watched = false;
    this.#client.close();
    this.#windows.release();
    this.#dropEventFds();
  }

  #withAreas<T>(bar: number, map: (areas: readonly MappedArea[]) => T): T {
    const { areas, fileOffset, fds } = this.#client.regionInfo(REGION_BAR0 + bar);
    try {
      if (areas.length === 0) return map([]);
      const fd = fds.peek(0);
      return map(areas.map((area) => ({ ...area, fd, fdOffset: fileOffset + area.offset })));
    } finally {
      fds.close();
    }
  }

  #clearVectors(): void {
    if (this.#kind === undefined) return;
    const flags = IRQ_SET_DATA_NONE | IRQ_SET_ACTION_TRIGGER;
    this.#client.setIrqs(IRQ_TYPES[this.#kind], flags, 0, 0);
    this.#kind = undefined;
    this.#dropEventFds();
  }

  #dropEventFds(): void {
    for (const fd of this.#eventFds) this.#loop.epoll.remove(fd);
    closeAll(this.#eventFds);
    this.#eventFds = [];
  }

  /** The server has sent something, or gone. */
  #look(onLost: (reason: string) => void): void {
    let reason: string | undefined;
    try {
      if (!this.#client.serve()) reason = 'was closed by the device';
    } catch (error) {
      reason = `failed: ${describeError(error)}`;
    }
    if (reason === undefined) return;
    this.#loop.epoll.remove(this.#client.fd);
    this.#watched = false;
    onLost(reason);
  }
}
