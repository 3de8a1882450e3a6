/**
 * The interrupts of a function, as its client has set them up: a descriptor a vector, masks, and what
 * became pending under a mask ("VFIO_USER_DEVICE_SET_IRQS"; struct vfio_irq_set). A vector that the
 * client gave no descriptor for reaches nobody.
 */
import { EINVAL } from '../../os/libc.ts';
import type { InterruptSink, IrqCounts } from '../../pci/function.ts';
import * as vfu from '../../spec/vfio-user.ts';
import type { FdBag } from '../fd-bag.ts';
import { SignalLine } from '../signal-line.ts';
import { expectBytes, type Message, Refusal, u32At } from './codec.ts';

/** struct vfio_irq_info of one type. */
export interface IrqInfo {
  readonly flags: number;
  readonly count: number;
}

/** The vectors of one interrupt type. */
class IrqType {
  readonly count: number;
  readonly flags: number;
  /** Where interrupts go, and where it is told that one was masked or unmasked. */
  readonly trigger: readonly SignalLine[];
  readonly mask: readonly SignalLine[];
  readonly unmask: readonly SignalLine[];
  readonly masked: Uint8Array;
  readonly pending: Uint8Array;

  constructor(count: number, flags: number) {
    const lines = (): SignalLine[] => Array.from({ length: count }, () => new SignalLine());
    this.count = count;
    this.flags = flags;
    this.trigger = lines();
    this.mask = lines();
    this.unmask = lines();
    this.masked = new Uint8Array(count);
    this.pending = new Uint8Array(count);
  }

  clear(): void {
    for (const lines of [this.trigger, this.mask, this.unmask]) {
      for (const line of lines) line.clear();
    }
    this.masked.fill(0);
    this.pending.fill(0);
  }
}

const MESSAGE_FLAGS = vfu.IRQ_INFO_EVENTFD | vfu.IRQ_INFO_MASKABLE;

export class IrqSet implements InterruptSink {
  /** The client emulates the table of MSI-X and the masks of MSI: the function never sees a write to them. */
  readonly keepsMasks = true;
  /** Interrupts that were signalled. */
  signalled = 0;
  readonly #types: readonly IrqType[];
  readonly #intx: IrqType;
  readonly #msi: IrqType;
  readonly #msix: IrqType;
  /** The level of INTx. */
  #asserted = false;

  constructor(counts: IrqCounts) {
    // INTx is masked as it is signalled: who has served the device unmasks it (VFIO, "automasked").
    this.#intx = new IrqType(counts.intx ? 1 : 0, MESSAGE_FLAGS | vfu.IRQ_INFO_AUTOMASKED);
    this.#msi = new IrqType(counts.msi, MESSAGE_FLAGS);
    this.#msix = new IrqType(counts.msix, MESSAGE_FLAGS);
    const none = new IrqType(0, vfu.IRQ_INFO_EVENTFD);
    this.#types = [this.#intx, this.#msi, this.#msix, none, none];
  }

  // From the function

  setIntx(asserted: boolean): void {
    this.#asserted = asserted;
    if (asserted) this.#assertIntx();
  }

  signalMsi(vector: number): void {
    this.#message(this.#msi, vector);
  }

  signalMsix(vector: number): void {
    this.#message(this.#msix, vector);
  }

  #assertIntx(): void {
    const type = this.#intx;
    const line = type.trigger[0];
    if (line === undefined || !line.isAttached || type.masked[0] === 1) return;
    type.masked[0] = 1;
    this.signalled++;
    line.signal();
  }

  #message(type: IrqType, vector: number): void {
    const line = type.trigger[vector];
    if (line === undefined || !line.isAttached) return;
    if (type.masked[vector] === 1) {
      type.pending[vector] = 1;
      return;
    }
    this.signalled++;
    line.signal();
  }

  // From the client

  /** @throws Refusal EINVAL for a type that is none. */
  info(index: number): IrqInfo {
    return this.#type(index);
  }

  /** Vectors of a type that have a descriptor. */
  attached(index: number): number {
    return this.#type(index).trigger.filter((line) => line.isAttached).length;
  }

  /**
   * Does what a SET_IRQS says. What it takes of the descriptors is its own.
   * @throws Refusal EINVAL, and nothing was done.
   */
  set(message: Message, fds: FdBag): void {
    if (message.length < vfu.IRQ_SET_BYTES) expectBytes(message, vfu.IRQ_SET_BYTES);
    const flags = u32At(message, 4);
    const data = flags & vfu.IRQ_SET_DATA_MASK;
    const action = flags & vfu.IRQ_SET_ACTIONS;
    const start = u32At(message, 12);
    const count = u32At(message, 16);
    if (flags !== (data | action) || !isOneBit(data) || !isOneBit(action)) {
      throw new Refusal(EINVAL, `flags 0x${flags.toString(16)}`);
    }
    const index = u32At(message, 8);
    const type = this.#type(index);
    if (start + count > type.count) {
      throw new Refusal(
        EINVAL,
        `vectors ${start} to ${start + count - 1} of ${type.count} of interrupt type ${index}`,
      );
    }
    const hasBooleans = data === vfu.IRQ_SET_DATA_BOOL;
    expectBytes(message, vfu.IRQ_SET_BYTES + (hasBooleans ? count : 0));
    if (data === vfu.IRQ_SET_DATA_EVENTFD) {
      this.#attach(type, action, start, count, fds);
      return;
    }
    if (fds.count > 0) throw new Refusal(EINVAL, `${fds.count} descriptors, expected none`);
    const isAll = start === 0 && count === 0 && data === vfu.IRQ_SET_DATA_NONE;
    if (isAll && action === vfu.IRQ_SET_ACTION_TRIGGER) {
      type.clear();
      return;
    }
    const booleans = message.at + vfu.IRQ_SET_BYTES;
    for (let i = 0; i < count; i++) {
      if (!hasBooleans || message.bytes[booleans + i] !== 0) this.#act(type, action, start + i);
    }
  }

  #attach(type: IrqType, action: number, start: number, count: number, fds: FdBag): void {
    // "If no file descriptors are provided, this de-assigns".
    if (fds.count !== 0 && fds.count !== count) {
      throw new Refusal(EINVAL, `${fds.count} descriptors for ${count} vectors`);
    }
    const lines =
      action === vfu.IRQ_SET_ACTION_TRIGGER
        ? type.trigger
        : action === vfu.IRQ_SET_ACTION_MASK
          ? type.mask
          : type.unmask;
    for (let i = 0; i < count; i++) (lines[start + i] as SignalLine).attach(fds.take());
    if (action !== vfu.IRQ_SET_ACTION_TRIGGER) return;
    type.masked.fill(0, start, start + count);
    type.pending.fill(0, start, start + count);
    if (type === this.#intx && this.#asserted) this.#assertIntx();
  }

  #act(type: IrqType, action: number, vector: number): void {
    if (action === vfu.IRQ_SET_ACTION_TRIGGER) {
      // As the kernel does it: a trial of the client's own, whatever is masked.
      this.signalled++;
      type.trigger[vector]?.signal();
      return;
    }
    const isMask = action === vfu.IRQ_SET_ACTION_MASK;
    const changes = type.masked[vector] !== (isMask ? 1 : 0);
    type.masked[vector] = isMask ? 1 : 0;
    if (changes) (isMask ? type.mask : type.unmask)[vector]?.signal();
    if (isMask) return;
    if (type === this.#intx) {
      if (this.#asserted) this.#assertIntx();
    } else if (type.pending[vector] === 1) {
      type.pending[vector] = 0;
      this.#message(type, vector);
    }
  }

  /** Closes all descriptors: interrupts reach nobody any more. */
  close(): void {
    for (const type of this.#types) type.clear();
  }

  #type(index: number): IrqType {
    const type = this.#types[index];
    if (type === undefined) throw new Refusal(EINVAL, `interrupt type ${index}`);
    return type;
  }
}

function isOneBit(bits: number): boolean {
  return bits !== 0 && (bits & (bits - 1)) === 0;
}
