/**
 * What a port does with the commands that a guest issues (AHCI §5.3): fetches them, has the drive say
 * what they mean, has the disk move the data, and tells the guest.
 *
 * A slot goes from state to state until something must be waited for: memory that is reached by
 * messages, or the disk. What was waited for takes it up again. Nothing is waited for in a trap.
 */
import { TWO_32 } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { DiskSink } from '../../block/disk.ts';
import { DISK_DISCARD, DISK_FLUSH, DISK_READ, DISK_WRITE } from '../../block/requests.ts';
import type { Arena } from '../../memory/arena.ts';
import { DMA_DONE, DMA_FAULT, DMA_PENDING, DMA_REFUSED, type DmaSpace } from '../../memory/dma.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import * as ahci from '../../spec/ahci.ts';
import * as ata from '../../spec/ata.ts';
import { type AtaDevice, type PortBuffer, STATUS_READY, Taskfile } from './ata-device.ts';
import * as slot from './command-slots.ts';
import { CommandSlots, PRD_WINDOW, SLOT_MEMORY } from './command-slots.ts';
import { AHCI_COUNTER_INDEX as COUNT } from './counters.ts';
import { DataMover, MOVE_END, MOVE_OVERFLOW, MOVE_REQUEST, MOVE_WAITS } from './data-mover.ts';
import { DiskWay, OWN_SLOT } from './disk-way.ts';
import { Endings } from './endings.ts';
import type { PortRegisters } from './port-registers.ts';
import { QueuedTags, TELL_FAILED, TELL_REFUSED } from './queued-tags.ts';
import { FIS_SCRATCH, ReceiveArea } from './receive-area.ts';
import { TEST_BYTES } from './smart.ts';

/** Data that go through the lane's memory, at once. */
const BUFFER_BYTES = 64 * 1024;
/** Memory of the lane that an engine needs. */
export const ENGINE_MEMORY =
  ahci.AHCI_MAX_SLOTS * SLOT_MEMORY + BUFFER_BYTES + TEST_BYTES + FIS_SCRATCH;
const HIGH_LIMIT = 2 ** 21;

/** Neither done nor pending: the disk, or another slot, goes on with it. */
const WAITS = MOVE_WAITS;

/** What a DMA's tag says beside the slot (bits 4:0) and the port (from bit 8 on): 0 is the slot's. */
const KIND_SHIFT = 5;
const KIND_DEVICE_BITS = 1;
const KIND_SIGNATURE = 2;
export const TAG_PORT_SHIFT = 8;

/** What an engine needs of its controller. */
export interface EngineHost {
  readonly name: string;
  readonly arena: Arena;
  readonly loop: PollLoop;
  readonly log: Logger;
  readonly counters: Float64Array;
  readonly space: DmaSpace | undefined;
  /** No DMA is to begin. */
  readonly held: boolean;
}

export class CommandEngine implements DiskSink {
  /** IOVA of the command list. */
  readonly commandList = new Float64Array(1);
  readonly receive: ReceiveArea;
  device: AtaDevice | undefined;
  /** ST is set. */
  running = false;
  private readonly host: EngineHost;
  private readonly regs: PortRegisters;
  private readonly slots: CommandSlots;
  private readonly mover: DataMover;
  private readonly endings: Endings;
  private readonly view: DataView;
  private readonly task = new Taskfile();
  private readonly buffer: PortBuffer;
  private readonly testAt: number;
  private readonly tagBase: number;
  private disk: DiskWay | undefined;
  private readonly queued: QueuedTags;
  /** A fatal error: no command is issued until ST is cleared (§6.2.2). */
  private halted = false;
  /** The slot that is being fetched, or whose command is not queued; or -1. */
  private current = -1;
  private last = 0;
  /** Slots in use; those for which the disk or a DMA is on its way; those that can go on at the next poll. */
  private taken = 0;
  private external = 0;
  private parked = 0;
  private signatureTelling = false;
  /** SRST was set. */
  private inReset = false;

  constructor(host: EngineHost, port: number, regs: PortRegisters, memory: number) {
    this.host = host;
    this.regs = regs;
    this.view = host.arena.view;
    this.slots = new CommandSlots(memory);
    const bufferAt = memory + ahci.AHCI_MAX_SLOTS * SLOT_MEMORY;
    this.buffer = { view: this.view, at: bufferAt, bytes: BUFFER_BYTES };
    this.testAt = bufferAt + BUFFER_BYTES;
    this.receive = new ReceiveArea(host.arena, this.testAt + TEST_BYTES);
    this.mover = new DataMover(this.slots, this.buffer);
    this.endings = new Endings(regs, this.receive, this.slots);
    this.tagBase = port << TAG_PORT_SHIFT;
    const tag = this.tagBase | (KIND_DEVICE_BITS << KIND_SHIFT);
    this.queued = new QueuedTags(regs, this.receive, tag);
  }

  /** No DMA is on its way. */
  get quiet(): boolean {
    return this.external === 0 && !this.queued.telling && !this.signatureTelling;
  }

  /** Nothing at all is on its way: the drive can be taken out. */
  get idle(): boolean {
    return this.quiet && (this.disk?.inFlight ?? 0) === 0;
  }

  /** A drive is plugged in. The port must be empty. */
  plug(device: AtaDevice): void {
    const { host } = this;
    this.device = device;
    device.plug(this.buffer);
    if (device.disk !== undefined) this.disk = new DiskWay(host, device, this, this.testAt);
  }

  /** The drive is taken out. @throws SluiceError `state` unless {@link idle} */
  unplug(): void {
    if (!this.idle) throw new SluiceError('state', `${this.host.name}: a busy drive is taken out`);
    this.device?.plug(undefined);
    this.device = undefined;
    this.disk?.close();
    this.disk = undefined;
  }

  /** ST was cleared, or the link went: what is under way ends silently. Done when {@link quiet}. */
  stop(): void {
    const { slots } = this;
    this.running = false;
    this.halted = false;
    this.inReset = false;
    this.current = -1;
    this.parked = 0;
    this.queued.forget();
    for (let i = 0; i < ahci.AHCI_MAX_SLOTS; i++) {
      if ((this.external & (1 << i)) !== 0) slots.dropped[i] = 1;
      else if (slots.state[i] !== slot.SLOT_FREE) this.free(i);
    }
  }

  /** What could not go on, because of a hold or the buffer, does now. */
  private resume(): void {
    let { parked } = this;
    this.parked = 0;
    while (parked !== 0) {
      const i = 31 - Math.clz32(parked & -parked);
      parked &= parked - 1;
      this.step(i);
    }
  }

  poll(): number {
    const { disk } = this;
    let work = disk?.poll() ?? 0;
    this.parked |= this.mover.woken;
    this.mover.woken = 0;
    if (this.parked !== 0 && !this.host.held) this.resume();
    work += this.issue();
    if (disk !== undefined) {
      disk.readOwn();
      disk.send();
      // At once, so that what the disk did inline is not told a turn later.
      if (work > 0) {
        work += disk.poll();
        disk.send();
      }
    }
    this.tellQueued();
    if (this.mover.copied > 0) {
      this.count(COUNT.copied_parts, this.mover.copied);
      this.mover.copied = 0;
    }
    return work;
  }

  /** The lane wants to sleep. True if there is work. */
  arm(): boolean {
    const ready = (this.parked | this.mover.woken) !== 0 && !this.host.held;
    const spins = ready || this.queued.holding || this.next() !== 0;
    return (this.disk?.arm() ?? false) || spins;
  }

  disarm(): void {
    this.disk?.disarm();
  }

  /** The disk has done a request. */
  complete(i: number, result: number): void {
    if (i === OWN_SLOT) {
      this.disk?.endOwn(result);
      return;
    }
    const { slots } = this;
    this.external &= ~(1 << i);
    if (result < 0) {
      this.count(COUNT.error_io, 1);
      this.disk?.noteFailure(i, result);
    }
    if (slots.dropped[i] === 1) {
      this.free(i);
    } else if (result < 0) {
      this.finish(i, result);
      this.step(i);
    } else {
      this.endRequest(i);
      this.step(i);
    }
  }

  /** A DMA that was pending is over. */
  dmaDone(tag: number, ok: boolean): void {
    const i = tag & 31;
    switch ((tag >> KIND_SHIFT) & 7) {
      case KIND_DEVICE_BITS:
        this.afterTelling(this.queued.end(ok));
        return;
      case KIND_SIGNATURE:
        this.signatureTelling = false;
        if (!ok) this.regs.raise(ahci.PX_IS_HBFS);
        this.endings.toldSignature(this.device);
        return;
      default:
        this.external &= ~(1 << i);
        if (this.slots.dropped[i] === 1) this.free(i);
        else if (ok) this.step(i);
        else this.fail(i, ahci.PX_IS_HBFS);
    }
  }

  /** The drive tells what it is, after a COMRESET. */
  tellSignature(): void {
    const { device, endings } = this;
    const dma = this.host.space;
    if (device === undefined || dma === undefined) return;
    const tag = this.tagBase | (KIND_SIGNATURE << KIND_SHIFT);
    const outcome = endings.tellSignature(device, dma, tag);
    this.signatureTelling = outcome === DMA_PENDING;
    if (outcome === DMA_REFUSED) this.regs.raise(ahci.PX_IS_HBFS);
    if (outcome !== DMA_PENDING) endings.toldSignature(device);
  }

  /** Slots whose commands can be taken. */
  private next(): number {
    if (!this.running || this.halted || this.queued.failed || this.current >= 0) return 0;
    if (this.host.held || this.host.space === undefined) return 0;
    if ((this.regs.status & (ata.STATUS_BSY | ata.STATUS_DRQ)) !== 0) return 0;
    return this.regs.get(ahci.PX_CI) & ~this.taken;
  }

  /** Takes commands until one must be waited for. Returns how many. */
  private issue(): number {
    let work = 0;
    for (let ready = this.next(); ready !== 0; ready = this.next()) {
      // In turn, from the one behind the last (§5.3.4, pSlotLoc).
      const above = this.last === 31 ? 0 : ready & (-1 << (this.last + 1));
      const from = above !== 0 ? above : ready;
      const i = 31 - Math.clz32(from & -from);
      this.last = i;
      this.current = i;
      this.taken |= 1 << i;
      this.regs.clearBits(ahci.PX_CMD, ahci.PX_CMD_CCS_MASK);
      this.regs.setBits(ahci.PX_CMD, i << ahci.PX_CMD_CCS_SHIFT);
      this.slots.begin(i);
      this.count(COUNT.commands, 1);
      work++;
      this.step(i);
    }
    return work;
  }

  private step(i: number): void {
    const { host, slots } = this;
    const dma = host.space;
    while (slots.state[i] !== slot.SLOT_FREE) {
      if (host.held || dma === undefined) {
        this.parked |= 1 << i;
        return;
      }
      const outcome = this.advance(i, dma);
      if (outcome === DMA_DONE) continue;
      if (outcome === DMA_PENDING) this.external |= 1 << i;
      else if (outcome === DMA_REFUSED) this.fail(i, ahci.PX_IS_HBFS);
      return;
    }
  }

  /** One step. {@link DMA_DONE}: the next may follow. */
  private advance(i: number, dma: DmaSpace): number {
    const { slots } = this;
    switch (slots.state[i]) {
      case slot.SLOT_FETCH_HEADER: {
        slots.state[i] = slot.SLOT_FETCH_TABLE;
        const at = (this.commandList[0] as number) + i * ahci.AHCI_HEADER_BYTES;
        return dma.read(at, ahci.AHCI_HEADER_BYTES, slots.headerAt(i), this.tagBase | i);
      }
      case slot.SLOT_FETCH_TABLE:
        return this.fetchTable(i, dma);
      case slot.SLOT_EXECUTE:
        return this.execute(i, dma);
      case slot.SLOT_FETCH_PRDS: {
        const first = slots.prd[i] as number;
        const count = Math.min((slots.prds[i] as number) - first, PRD_WINDOW);
        slots.windowStart[i] = first;
        slots.windowCount[i] = count;
        slots.state[i] = slots.after[i] as number;
        const at = (slots.table[i] as number) + ahci.AHCI_TABLE_PRDT + first * ahci.AHCI_PRD_BYTES;
        return dma.read(at, count * ahci.AHCI_PRD_BYTES, slots.prdAt(i, first), this.tagBase | i);
      }
      case slot.SLOT_BEGIN:
        return this.begin(i);
      case slot.SLOT_PART:
        return this.movePart(i, dma);
      case slot.SLOT_MOVE:
        return this.afterMove(i, this.mover.move(i, dma, this.tagBase | i));
      case slot.SLOT_TELL_COUNT: {
        slots.state[i] = slot.SLOT_TELL_FIS;
        const done = slots.done[i] as number;
        if (done === 0) return DMA_DONE;
        const from = slots.headerAt(i) + ahci.AHCI_HEADER_PRDBC;
        this.view.setUint32(from, done, true);
        const list = this.commandList[0] as number;
        const at = list + i * ahci.AHCI_HEADER_BYTES + ahci.AHCI_HEADER_PRDBC;
        return dma.write(at, 4, from, this.tagBase | i);
      }
      case slot.SLOT_TELL_FIS:
        return this.tell(i, dma);
      case slot.SLOT_TOLD:
        this.told(i);
        return WAITS;
      default:
        return WAITS;
    }
  }

  private fetchTable(i: number, dma: DmaSpace): number {
    const { slots, view } = this;
    const at = slots.headerAt(i);
    const flags = view.getUint32(at + ahci.AHCI_HEADER_FLAGS, true);
    const low = view.getUint32(at + ahci.AHCI_HEADER_TABLE, true);
    const high = view.getUint32(at + ahci.AHCI_HEADER_TABLE + 4, true);
    const count = flags >>> ahci.AHCI_HEADER_PRDTL_SHIFT;
    const window = Math.min(count, PRD_WINDOW);
    const bytes = ahci.AHCI_TABLE_PRDT + window * ahci.AHCI_PRD_BYTES;
    if (high >= HIGH_LIMIT) {
      dma.fault(0, bytes, false, DMA_FAULT.address);
      return DMA_REFUSED;
    }
    slots.header[i] = flags;
    slots.prds[i] = count;
    slots.windowStart[i] = 0;
    slots.windowCount[i] = window;
    // Bits 6:0 are reserved (§4.2.2).
    slots.table[i] = high * TWO_32 + low - (low % ahci.AHCI_TABLE_ALIGNMENT);
    slots.state[i] = slot.SLOT_EXECUTE;
    return dma.read(slots.table[i] as number, bytes, slots.tableAt(i), this.tagBase | i);
  }

  /** The command is in memory of the lane: has the drive say what it is. */
  private execute(i: number, dma: DmaSpace): number {
    const { slots, view, device, regs, task } = this;
    const at = slots.tableAt(i) + ahci.AHCI_TABLE_CFIS;
    const length = (slots.header[i] as number) & ahci.AHCI_HEADER_CFL_MASK;
    const isFis = view.getUint8(at) === ata.FIS_H2D && length * 4 >= ata.FIS_H2D_BYTES;
    if (!isFis || device === undefined) return this.fail(i, ahci.PX_IS_IFS);
    if ((view.getUint8(at + ata.H2D_FLAGS) & ata.H2D_FLAG_COMMAND) === 0) {
      return this.control(i, view.getUint8(at + ata.H2D_CONTROL), device);
    }
    // In reset a drive takes no commands: the link would time out.
    if (this.inReset) return this.fail(i, ahci.PX_IS_IFS);
    task.load(view, at);
    task.packetAt = slots.tableAt(i) + ahci.AHCI_TABLE_ACMD;
    const others = this.queued.some;
    device.execute(task, slots, i, others);
    slots.state[i] = slot.SLOT_BEGIN;
    if (slots.protocol[i] === slot.PROTOCOL_QUEUED) return this.accept(i, device, dma);
    if (others) this.dropOthers(i);
    regs.setTaskfile(ata.STATUS_BSY | STATUS_READY, 0);
    return DMA_DONE;
  }

  /** A control FIS: software reset (SATA §11.4), or nothing. */
  private control(i: number, control: number, device: AtaDevice): number {
    const { slots, regs } = this;
    if ((control & ata.CONTROL_SRST) !== 0) {
      this.dropOthers(i);
      this.inReset = true;
      const clears = ((slots.header[i] as number) & ahci.AHCI_HEADER_CLEAR_BUSY) !== 0;
      if (!clears) regs.setTaskfile(ata.STATUS_BSY | STATUS_READY, 0);
    } else if (this.inReset) {
      this.inReset = false;
      device.reset(false);
      device.showSignature();
      slots.protocol[i] = slot.PROTOCOL_SIGNATURE;
      slots.state[i] = slot.SLOT_TELL_FIS;
      return DMA_DONE;
    }
    regs.clearBits(ahci.PX_CI, 1 << i);
    this.free(i);
    return WAITS;
  }

  /** The drive has a queued command: the host may issue the next. */
  private accept(i: number, device: AtaDevice, dma: DmaSpace): number {
    const { slots, regs } = this;
    const tag = slots.tag[i] as number;
    const isDouble = this.queued.has(tag);
    this.count(COUNT.queued_commands, 1);
    regs.clearBits(ahci.PX_CI, 1 << i);
    this.current = -1;
    if (isDouble) device.refuse();
    if (isDouble || slots.action[i] === slot.ACTION_NONE) {
      this.failQueued(i, device);
      return WAITS;
    }
    this.queued.add(tag, this.host.loop.now);
    const toGuest = slots.action[i] === slot.ACTION_DISK_IN;
    this.receive.queuedData(device, tag, toGuest, slots.left[i] as number, dma);
    return DMA_DONE;
  }

  /** Begins what the drive asks for. */
  private begin(i: number): number {
    const { slots } = this;
    const table = this.disk?.table;
    switch (slots.action[i]) {
      case slot.ACTION_DISK_IN:
      case slot.ACTION_DISK_OUT:
        slots.state[i] = slot.SLOT_PART;
        return DMA_DONE;
      case slot.ACTION_BUFFER_IN:
      case slot.ACTION_BUFFER_OUT:
        slots.part[i] = slots.left[i] as number;
        slots.moved[i] = 0;
        slots.state[i] = slot.SLOT_MOVE;
        return DMA_DONE;
      case slot.ACTION_VERIFY:
        return this.submitBuffer(i, DISK_READ);
      case slot.ACTION_FLUSH:
        table?.begin(i, DISK_FLUSH, 0, 0, 0);
        this.submit(i);
        return WAITS;
      case slot.ACTION_RANGES:
        if (this.device?.nextRange(slots, i) !== true) {
          this.finish(i, 0);
          return DMA_DONE;
        }
        table?.begin(i, DISK_DISCARD, 0, slots.offset[i] as number, slots.part[i] as number);
        this.submit(i);
        return WAITS;
      default:
        slots.state[i] = slot.SLOT_TELL_COUNT;
        return DMA_DONE;
    }
  }

  /** The disk is to read or write the guest's memory, as much as one request can. */
  private movePart(i: number, dma: DmaSpace): number {
    const table = this.disk?.table;
    const block = this.device?.disk?.info.blockBytes;
    if (table === undefined || block === undefined) return this.fail(i, ahci.PX_IS_IFS);
    return this.afterMove(i, this.mover.part(i, dma, table, block));
  }

  /** What the mover says that it could not do itself. */
  private afterMove(i: number, outcome: number): number {
    switch (outcome) {
      case MOVE_REQUEST:
        this.submit(i);
        return WAITS;
      case MOVE_OVERFLOW:
        return this.fail(i, ahci.PX_IS_OFS);
      case MOVE_END:
        if (this.slots.action[i] === slot.ACTION_DISK_OUT) return this.submitBuffer(i, DISK_WRITE);
        this.mover.release(i);
        this.endPart(i);
        return DMA_DONE;
      default:
        return outcome;
    }
  }

  /** A request from or to the buffer, for the next part. */
  private submitBuffer(i: number, op: number): number {
    const table = this.disk?.table;
    if (table === undefined) return this.fail(i, ahci.PX_IS_IFS);
    return this.afterMove(i, this.mover.request(i, table, op));
  }

  /** The disk did what it was asked for. */
  private endRequest(i: number): void {
    const { slots, host } = this;
    switch (slots.action[i]) {
      case slot.ACTION_DISK_IN:
        if (slots.buffered[i] === 1) {
          slots.moved[i] = 0;
          slots.state[i] = slot.SLOT_MOVE;
          return;
        }
        if (host.space?.logging === true) this.markWritten(i, host.space);
        this.endPart(i);
        return;
      case slot.ACTION_DISK_OUT:
        this.mover.release(i);
        this.endPart(i);
        return;
      case slot.ACTION_VERIFY:
        slots.offset[i] = (slots.offset[i] as number) + (slots.part[i] as number);
        slots.left[i] = (slots.left[i] as number) - (slots.part[i] as number);
        if (slots.left[i] === 0) this.finish(i, 0);
        else slots.state[i] = slot.SLOT_BEGIN;
        return;
      case slot.ACTION_RANGES:
        slots.state[i] = slot.SLOT_BEGIN;
        return;
      default:
        this.finish(i, 0);
    }
  }

  /** A part of the data is where it belongs. */
  private endPart(i: number): void {
    const { slots } = this;
    const part = slots.part[i] as number;
    slots.done[i] = (slots.done[i] as number) + part;
    slots.offset[i] = (slots.offset[i] as number) + part;
    slots.left[i] = (slots.left[i] as number) - part;
    if (slots.left[i] === 0) this.finish(i, 0);
    else slots.state[i] = slot.SLOT_PART;
  }

  /** The action is over: the drive asks for another one, or the command is done. */
  private finish(i: number, result: number): void {
    const { slots, device } = this;
    this.mover.release(i);
    if (device === undefined) return;
    const action = slots.action[i] as number;
    device.finish(slots, i, result);
    if (slots.action[i] !== slot.ACTION_NONE) {
      slots.state[i] = slot.SLOT_BEGIN;
      return;
    }
    if (result >= 0) this.countDone(i, action);
    if (slots.protocol[i] !== slot.PROTOCOL_QUEUED) {
      slots.state[i] = slot.SLOT_TELL_COUNT;
    } else if (result < 0) {
      this.failQueued(i, device);
    } else {
      this.queued.finish(slots.tag[i] as number);
      this.free(i);
    }
  }

  /** Puts the FIS that ends a command into memory. */
  private tell(i: number, dma: DmaSpace): number {
    const { device } = this;
    this.slots.state[i] = slot.SLOT_TOLD;
    return device === undefined ? DMA_DONE : this.endings.tell(i, device, dma, this.tagBase | i);
  }

  /** It is there: the registers say so too. */
  private told(i: number): void {
    const { device } = this;
    if (device !== undefined && !this.endings.told(i, device)) {
      this.halted = true;
      this.count(COUNT.error_commands, 1);
    }
    this.free(i);
  }

  private tellQueued(): void {
    const dma = this.host.space;
    if (!this.host.held && dma !== undefined)
      this.afterTelling(this.queued.tell(dma, this.host.loop.now));
  }

  private afterTelling(outcome: number): void {
    if (outcome === TELL_REFUSED) this.stopFatally(ahci.PX_IS_HBFS);
    else if (outcome === TELL_FAILED) this.halted = true;
  }

  /** A queued command failed: the drive ends the others too, and waits for READ LOG (ACS-3 §4.16). */
  private failQueued(i: number, device: AtaDevice): void {
    if (this.queued.fail(device.error)) device.noteFailure(this.slots.tag[i] as number);
    this.count(COUNT.error_commands, 1);
    this.free(i);
    this.current = -1;
    this.dropOthers(-1);
  }

  /** Ends all commands but `but` silently; tags stay outstanding for the host. */
  private dropOthers(but: number): void {
    const { slots } = this;
    this.queued.drop();
    for (let i = 0; i < ahci.AHCI_MAX_SLOTS; i++) {
      if (i === but || slots.state[i] === slot.SLOT_FREE) continue;
      if ((this.external & (1 << i)) !== 0) slots.dropped[i] = 1;
      else this.free(i);
    }
  }

  /** A fatal error in `i`: the port does nothing more until ST is cleared. */
  private fail(i: number, bits: number): number {
    this.free(i);
    this.stopFatally(bits);
    return WAITS;
  }

  private stopFatally(bits: number): void {
    this.halted = true;
    this.queued.forget();
    this.current = -1;
    this.dropOthers(-1);
    this.count(COUNT.error_fatal, 1);
    this.regs.raise(bits);
  }

  private submit(i: number): void {
    this.slots.state[i] = slot.SLOT_DISK;
    this.external |= 1 << i;
    this.disk?.submit(i);
  }

  private free(i: number): void {
    this.mover.release(i);
    this.slots.state[i] = slot.SLOT_FREE;
    this.slots.dropped[i] = 0;
    this.taken &= ~(1 << i);
    this.parked &= ~(1 << i);
    this.mover.woken &= ~(1 << i);
    if (this.current === i) this.current = -1;
  }

  private markWritten(i: number, dma: DmaSpace): void {
    const table = this.disk?.table;
    if (table === undefined) return;
    const first = i * table.segments;
    const end = first + (table.count[i] as number);
    for (let k = first; k < end; k++) {
      dma.markWritten(table.address[k] as number, table.length[k] as number);
    }
  }

  private countDone(i: number, action: number): void {
    const bytes = this.slots.done[i] as number;
    if (action === slot.ACTION_DISK_IN) {
      this.count(COUNT.reads, 1);
      this.count(COUNT.read_bytes, bytes);
    } else if (action === slot.ACTION_DISK_OUT) {
      this.count(COUNT.writes, 1);
      this.count(COUNT.write_bytes, bytes);
    }
  }

  private count(counter: number, by: number): void {
    const { counters } = this.host;
    counters[counter] = (counters[counter] as number) + by;
  }
}
