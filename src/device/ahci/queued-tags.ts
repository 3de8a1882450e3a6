/**
 * The queued commands that a drive has, by tag, and how their ends are told: all that are done since the
 * last time by one Set Device Bits FIS, then the error, if one failed (SATA §13.6).
 */
import { DMA_DONE, DMA_PENDING, DMA_REFUSED, type DmaSpace } from '../../memory/dma.ts';
import { PX_IS_SDBS, PX_IS_TFES, PX_SACT } from '../../spec/ahci.ts';
import { STATUS_BSY, STATUS_DRQ, STATUS_ERR } from '../../spec/ata.ts';
import { Aggregation } from './aggregation.ts';
import { STATUS_READY } from './ata-device.ts';
import type { PortRegisters } from './port-registers.ts';
import type { ReceiveArea } from './receive-area.ts';

/** What became of {@link QueuedTags.tell}. */
export const TELL_OK = 0;
/** The guest's memory was not to be written. */
export const TELL_REFUSED = 1;
/** The failure was told: the port stands still. */
export const TELL_FAILED = 2;

export class QueuedTags {
  /** A FIS is on its way by message. */
  telling = false;
  /** A command has failed, which is not told yet. */
  failed = false;
  /** Tags that the drive has; that are done and not told; that are being told. */
  private outstanding = 0;
  private done = 0;
  private beingTold = 0;
  private error = 0;
  private readonly aggregation = new Aggregation();
  private readonly regs: PortRegisters;
  private readonly receive: ReceiveArea;
  private readonly dmaTag: number;

  /** @param dmaTag of the FISes */
  constructor(regs: PortRegisters, receive: ReceiveArea, dmaTag: number) {
    this.regs = regs;
    this.receive = receive;
    this.dmaTag = dmaTag;
  }

  /** Queued commands are outstanding. */
  get some(): boolean {
    return this.outstanding !== 0;
  }

  /** Ends wait for others. */
  get holding(): boolean {
    return this.aggregation.holding;
  }

  has(tag: number): boolean {
    return (this.outstanding & (1 << tag)) !== 0;
  }

  add(tag: number, now: number): void {
    this.aggregation.arrived(now);
    this.outstanding |= 1 << tag;
  }

  finish(tag: number): void {
    this.done |= 1 << tag;
  }

  /** One has failed; false if another has before it, which is not told yet. */
  fail(error: number): boolean {
    if (this.failed) return false;
    this.failed = true;
    this.error = error;
    return true;
  }

  /** The drive has none any more; those that are done are still told. */
  drop(): void {
    this.outstanding = 0;
  }

  /** Nothing more is told. */
  forget(): void {
    this.outstanding = 0;
    this.done = 0;
    this.beingTold = 0;
    this.failed = false;
    this.aggregation.forget();
  }

  /** Tells what there is to tell by now (ns). TELL_* */
  tell(dma: DmaSpace, now: number): number {
    const { receive, dmaTag, aggregation, outstanding } = this;
    if (this.telling) return TELL_OK;
    const tags = this.done;
    const mustBe = this.failed || outstanding === 0;
    if (tags !== 0 && (mustBe || aggregation.due(now, tags, outstanding))) {
      aggregation.forget();
      this.done = 0;
      const outcome = receive.setDeviceBits(STATUS_READY, 0, tags, dma, dmaTag);
      if (outcome === DMA_REFUSED) return TELL_REFUSED;
      if (outcome === DMA_PENDING) {
        this.telling = true;
        this.beingTold = tags;
        return TELL_OK;
      }
      this.told(tags);
    }
    if (!this.failed) return TELL_OK;
    const status = STATUS_READY | STATUS_ERR;
    const outcome = receive.setDeviceBits(status, this.error, 0, dma, dmaTag);
    if (outcome === DMA_DONE) return this.toldFailure();
    if (outcome === DMA_REFUSED) return TELL_REFUSED;
    this.telling = true;
    return TELL_OK;
  }

  /** A FIS that was on its way has come, or not. TELL_* */
  end(ok: boolean): number {
    const tags = this.beingTold;
    this.telling = false;
    this.beingTold = 0;
    if (!ok) return TELL_REFUSED;
    if (tags === 0) return this.failed ? this.toldFailure() : TELL_OK;
    this.told(tags);
    return TELL_OK;
  }

  private told(tags: number): void {
    const { regs } = this;
    this.outstanding &= ~tags;
    regs.clearBits(PX_SACT, tags);
    regs.setTaskfile(STATUS_READY | (regs.status & (STATUS_BSY | STATUS_DRQ)), 0);
    regs.raise(PX_IS_SDBS);
  }

  private toldFailure(): number {
    this.failed = false;
    this.regs.setTaskfile(STATUS_READY | STATUS_ERR, this.error);
    this.regs.raise(PX_IS_SDBS | PX_IS_TFES);
    return TELL_FAILED;
  }
}
