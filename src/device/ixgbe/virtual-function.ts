/**
 * A virtual function of an 82599 (§7.10.2, §8.3): a few queues, interrupts and a mailbox; all else is the
 * physical function's. Frames reach it through the card's switch.
 */

import type { Burst } from '../../net/burst.ts';
import { read16 } from '../../net/frame.ts';
import { PORT_COUNTER_INDEX } from '../../net/port.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import { ETHERTYPE_VLAN, VLAN_TAG_BYTES } from '../../spec/ethernet.ts';
import {
  IXGBE_CTRL_RESET,
  IXGBE_GPIE_EIAME,
  IXGBE_GPIE_MSIX,
  IXGBE_LINKS_10G,
  IXGBE_LINKS_UP,
  IXGBE_MRQC_IPV4,
  IXGBE_MRQC_IPV4_TCP,
  IXGBE_MRQC_IPV4_UDP,
  IXGBE_MRQC_IPV6,
  IXGBE_MRQC_IPV6_TCP,
  IXGBE_MRQC_IPV6_UDP,
  IXGBE_QUEUE_BYTES,
  IXGBE_RX_QUEUE_REGISTERS,
  IXGBE_STATUS_LAN_ID_SHIFT,
  IXGBE_STATUS_MASTER_ENABLE,
  IXGBE_TX_QUEUE_REGISTERS,
  type IxgbeRegister,
} from '../../spec/ixgbe.ts';
import { IXGBE_RXD_RSS_NONE } from '../../spec/ixgbe-descriptors.ts';
import {
  IXGBE_MAILBOX_WORDS,
  IXGBE_RETA_ENTRIES,
  IXGBE_VF_CTRL,
  IXGBE_VF_EIAC,
  IXGBE_VF_EIAM,
  IXGBE_VF_EICR,
  IXGBE_VF_EICS,
  IXGBE_VF_EIMC,
  IXGBE_VF_EIMS,
  IXGBE_VF_EITR,
  IXGBE_VF_FRTIMER,
  IXGBE_VF_GORCH,
  IXGBE_VF_GORCL,
  IXGBE_VF_GOTCH,
  IXGBE_VF_GOTCL,
  IXGBE_VF_GPRC,
  IXGBE_VF_GPTC,
  IXGBE_VF_IVAR,
  IXGBE_VF_IVAR_MISC,
  IXGBE_VF_LINKS,
  IXGBE_VF_MAILBOX,
  IXGBE_VF_MAILBOX_MEMORY,
  IXGBE_VF_MPRC,
  IXGBE_VF_MSIX_VECTORS,
  IXGBE_VF_PSRTYPE,
  IXGBE_VF_REGISTER_BYTES,
  IXGBE_VF_RSCINT,
  IXGBE_VF_RX_QUEUES,
  IXGBE_VF_STATUS,
  IXGBE_VF_TX_QUEUES,
} from '../../spec/ixgbe-mailbox.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { FrameRuns, RUN_LONGEST } from './frame-runs.ts';
import { VF_PAGES, vfDeclaration, vfLayout } from './function.ts';
import type { SlotLimit } from './link-limit.ts';
import { Mailbox } from './mailbox.ts';
import { NicFunction, type NicFunctionOptions } from './nic-function.ts';
import { RegisterMemory } from './register-memory.ts';
import type { Rss } from './rss.ts';
import { FCS_BYTES } from './statistics.ts';
import type { PolicedVf, RssTables } from './vf-policy.ts';

const RX_DROP_LINK_DOWN = PORT_COUNTER_INDEX.rx_drop_link_down;
const RX_DROP_TOO_BIG = PORT_COUNTER_INDEX.rx_drop_too_big;

/**
 * What frames of VFs are hashed by: the driver domain sets MRQC up so, as Linux does, and by the ports of
 * UDP, which a VF could not ask for.
 */
const HASHED =
  IXGBE_MRQC_IPV4 |
  IXGBE_MRQC_IPV4_TCP |
  IXGBE_MRQC_IPV4_UDP |
  IXGBE_MRQC_IPV6 |
  IXGBE_MRQC_IPV6_TCP |
  IXGBE_MRQC_IPV6_UDP;
/** VFPSRTYPE: the headers that are split off, and queues that share the frames, as a power of two. */
const SPLIT = 0x0000_1330;
const QUEUES_SHIFT = 29;
/** MSI-X, and vectors that mask themselves where the VF asks for it: GPIE is the PF's. */
const CONTROL = IXGBE_GPIE_MSIX | IXGBE_GPIE_EIAME;
const IVAR_MASK = 0x8383_8383;
const IVAR_MISC_MASK = 0x83;
const EITR_MASK = 0x81ff_8ff8;
const RSCINT_MASK = 0x7ff;
/** SRRCTL after a reset: packets of 2 KiB, headers of 256 bytes (§8.2.3.8.7). */
const SRRCTL_DEFAULT = 0x402;
const SRRCTL = IXGBE_RX_QUEUE_REGISTERS.SRRCTL.offset;
const NS_PER_MS = 1e6;
/** Octet counters have 36 bits, and go round (§8.3.5.10). */
const TWO_32 = 4294967296;
const TWO_36 = 16 * TWO_32;
const ADDRESSES = 12;

/** Indices of what is counted. */
const RECEIVED = 0;
const RECEIVED_OCTETS = 1;
const SENT = 2;
const SENT_OCTETS = 3;
const MULTICASTS = 4;

export interface VirtualFunctionOptions extends NicFunctionOptions {
  /** Its number, which is that of its pool. */
  readonly pool: number;
  /** Which of the card's two ports it is of. */
  readonly port: 0 | 1;
  readonly queues: 2 | 4;
  readonly rss: RssTables;
  /** It has the key of {@link rss}. */
  readonly hash: Rss;
  /** The slot of the card, through which frames come to memory; none: without limit. */
  readonly slot?: SlotLimit;
}

export class VirtualFunction extends NicFunction implements PolicedVf {
  readonly pool: number;
  readonly queues: number;
  readonly mailbox = new Mailbox();
  readonly #port: 0 | 1;
  readonly #rss: RssTables;
  readonly #slot: SlotLimit | undefined;
  readonly #hash: Rss;
  readonly #runs: FrameRuns;
  /** Bits of each word that a write changes. */
  readonly #masks = new Uint32Array(IXGBE_VF_REGISTER_BYTES / 4);
  #linkUp = false;
  #longest = 0;
  /** Queues that share the frames, less one. */
  #spread = 0;
  readonly #fits = new Uint8Array(BATCH);
  readonly #totals = new Float64Array(5);

  constructor(options: VirtualFunctionOptions) {
    const { name, mapped = true, queues } = options;
    const memory = new RegisterMemory(name, IXGBE_VF_REGISTER_BYTES, mapped ? VF_PAGES : []);
    super(options, vfDeclaration(name, memory.areas), memory, vfLayout(queues));
    this.pool = options.pool;
    this.queues = queues;
    this.#port = options.port;
    this.#rss = options.rss;
    this.#slot = options.slot;
    this.#hash = options.hash;
    this.#runs = FrameRuns.of(options.path);
    this.#declareRegisters();
    this.mailbox.onNotice = () => this.irq.raiseMailbox();
    this.resetFunction();
  }

  // PolicedVf

  setLink(up: boolean): void {
    this.#linkUp = up;
  }

  get linkUp(): boolean {
    return this.#linkUp;
  }

  setLongest(bytes: number): void {
    this.#longest = bytes;
  }

  // Frames

  protected override get transmitting(): boolean {
    return this.#linkUp;
  }

  override get receiving(): boolean {
    return this.#linkUp && this.attached && this.memory.ready;
  }

  override accept(
    burst: Burst,
    frames: Uint8Array,
    count: number,
    tagged: boolean,
    local = false,
  ): void {
    if (!this.receiving) {
      this.count(RX_DROP_LINK_DOWN, count);
      return;
    }
    const { frameLength, headerAt, slots8, slotsAt } = burst;
    const longest = this.#longest;
    const runs = this.#runs;
    if (
      runs.survey(burst, frames, 0, count) === count &&
      (runs.sums[RUN_LONGEST] as number) <= longest
    ) {
      const at = (headerAt[frames[0] as number] as number) - slotsAt + NET_HEADER_BYTES;
      if (((slots8[at] as number) & 1) !== 0) this.#countMulticasts(count);
      super.accept(burst, frames, count, tagged, local);
      return;
    }
    let multicasts = 0;
    let fits = true;
    for (let i = 0; i < count; i++) {
      const slot = frames[i] as number;
      if ((frameLength[slot] as number) > longest) fits = false;
      multicasts += (slots8[(headerAt[slot] as number) - slotsAt + NET_HEADER_BYTES] as number) & 1;
    }
    if (multicasts > 0) this.#countMulticasts(multicasts);
    if (fits) super.accept(burst, frames, count, tagged, local);
    else
      super.accept(
        burst,
        this.#fits,
        this.#selectFitting(burst, frames, count, tagged),
        tagged,
        local,
      );
  }

  /** Frames that are not too long for what the guest has asked for; a tag does not count. */
  #selectFitting(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): number {
    const fits = this.#fits;
    let fitting = 0;
    for (let i = 0; i < count; i++) {
      const slot = frames[i] as number;
      const at = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
      const inside = !tagged && read16(burst.slots8, at + ADDRESSES) === ETHERTYPE_VLAN;
      const longest = this.#longest + (inside ? VLAN_TAG_BYTES : 0);
      if ((burst.frameLength[slot] as number) <= longest) fits[fitting++] = slot;
    }
    this.count(RX_DROP_TOO_BIG, count - fitting);
    return fitting;
  }

  protected override get onlyQueue(): number {
    return this.#spread === 0 ? 0 : -1;
  }

  protected override get onlyRss(): Rss {
    return this.#hash;
  }

  protected override get hashedBy(): number {
    return HASHED;
  }

  protected override queueOf(hash: number): number {
    return (this.#rss.table[hash & (IXGBE_RETA_ENTRIES - 1)] as number) & this.#spread;
  }

  protected override selectQueue(bytes: Uint8Array, at: number, length: number): number {
    this.rssType = IXGBE_RXD_RSS_NONE;
    this.rssHash[0] = 0;
    if (this.#spread === 0) return 0;
    this.rssType = this.#hash.classify(bytes, at, length, HASHED);
    if (this.rssType === IXGBE_RXD_RSS_NONE) return 0;
    const hash = this.#hash.hash[0] as number;
    this.rssHash[0] = hash;
    return this.queueOf(hash | 0);
  }

  protected override countReceived(_queue: number, frames: number, bytes: number): void {
    this.#slot?.received(frames, bytes);
    this.#countFrames(IXGBE_VF_GPRC, RECEIVED, frames);
    this.#countOctets(IXGBE_VF_GORCL, IXGBE_VF_GORCH, RECEIVED_OCTETS, bytes + frames * FCS_BYTES);
  }

  protected override countTransmitted(_queue: number, frames: number, bytes: number): void {
    this.#countFrames(IXGBE_VF_GPTC, SENT, frames);
    this.#countOctets(IXGBE_VF_GOTCL, IXGBE_VF_GOTCH, SENT_OCTETS, bytes + frames * FCS_BYTES);
  }

  #countMulticasts(frames: number): void {
    this.#countFrames(IXGBE_VF_MPRC, MULTICASTS, frames);
  }

  /** Counters go on over resets, and are not cleared by reads (§8.3.5.10). */
  #countFrames(offset: number, index: number, by: number): void {
    const total = ((this.#totals[index] as number) + by) % TWO_32;
    this.#totals[index] = total;
    this.words[offset / 4] = total;
  }

  #countOctets(low: number, high: number, index: number, by: number): void {
    const total = ((this.#totals[index] as number) + by) % TWO_36;
    this.#totals[index] = total;
    this.words[low / 4] = total % TWO_32;
    this.words[high / 4] = Math.floor(total / TWO_32);
  }

  // Registers

  protected override readRegister(bar: number, offset: number, length: number): number {
    if (bar !== 0) return 0;
    const word = this.#read(offset & ~3);
    if (length === 4 && (offset & 3) === 0) return word;
    return (word >>> (8 * (offset & 3))) & (length === 1 ? 0xff : 0xffff);
  }

  /** Registers take aligned 32-bit writes only (§8.1.1.1); others do nothing. */
  protected override writeRegister(
    bar: number,
    offset: number,
    length: number,
    value: number,
  ): void {
    if (bar === 0 && length === 4 && (offset & 3) === 0) this.#write(offset, value);
  }

  #read(offset: number): number {
    const { irq } = this;
    switch (offset) {
      case IXGBE_VF_STATUS:
        return (this.#port << IXGBE_STATUS_LAN_ID_SHIFT) | IXGBE_STATUS_MASTER_ENABLE;
      case IXGBE_VF_LINKS:
        return this.#linkUp ? IXGBE_LINKS_UP | IXGBE_LINKS_10G : 0;
      case IXGBE_VF_FRTIMER:
        return Math.floor(this.path.loop.now / NS_PER_MS) % TWO_32;
      case IXGBE_VF_EICR:
        return irq.readCauses();
      case IXGBE_VF_EICS:
        return irq.causes;
      case IXGBE_VF_EIMS:
        return irq.mask;
      case IXGBE_VF_EIAC:
        return irq.autoClear;
      case IXGBE_VF_EIAM:
        return irq.autoMask;
      case IXGBE_VF_MAILBOX:
        return this.mailbox.readControl();
      default:
        if (isIn(offset, IXGBE_VF_MAILBOX_MEMORY, IXGBE_MAILBOX_WORDS)) {
          return this.mailbox.readWord((offset - IXGBE_VF_MAILBOX_MEMORY) / 4);
        }
        return this.words[offset / 4] as number;
    }
  }

  #write(offset: number, value: number): void {
    const { irq } = this;
    switch (offset) {
      case IXGBE_VF_CTRL:
        if ((value & IXGBE_CTRL_RESET) !== 0) this.#softwareReset();
        return;
      case IXGBE_VF_EICR:
        irq.writeCauses(value);
        return;
      case IXGBE_VF_EICS:
        irq.setCauses(value);
        return;
      case IXGBE_VF_EIMS:
        irq.enable(value);
        return;
      case IXGBE_VF_EIMC:
        irq.disable(value);
        return;
      case IXGBE_VF_EIAC:
        irq.autoClear = value;
        return;
      case IXGBE_VF_EIAM:
        irq.autoMask = value;
        return;
      case IXGBE_VF_MAILBOX:
        this.mailbox.writeControl(value);
        return;
      default:
        if (isIn(offset, IXGBE_VF_MAILBOX_MEMORY, IXGBE_MAILBOX_WORDS)) {
          this.mailbox.writeWord((offset - IXGBE_VF_MAILBOX_MEMORY) / 4, value);
        } else if (isIn(offset, IXGBE_VF_EITR, IXGBE_VF_MSIX_VECTORS)) {
          irq.setModeration((offset - IXGBE_VF_EITR) / 4, value & EITR_MASK);
        } else {
          this.#store(offset, value);
        }
    }
  }

  #store(offset: number, value: number): void {
    const index = offset / 4;
    const mask = this.#masks[index] as number;
    if (mask === 0) return;
    this.words[index] = value & mask;
    if (offset === IXGBE_VF_PSRTYPE) this.#applySettings();
  }

  /** VFCTRL.RST: as a function-level reset, but for configuration space (§4.2.2.3). */
  #softwareReset(): void {
    this.resetFunction();
    this.functionReset?.('function');
  }

  protected override resetFunction(): void {
    const { words } = this;
    this.resetQueues();
    words.fill(0);
    for (let queue = 0; queue < this.queues; queue++) {
      words[(IXGBE_VF_RX_QUEUES + queue * IXGBE_QUEUE_BYTES + SRRCTL) / 4] = SRRCTL_DEFAULT;
    }
    this.#countFrames(IXGBE_VF_GPRC, RECEIVED, 0);
    this.#countFrames(IXGBE_VF_GPTC, SENT, 0);
    this.#countFrames(IXGBE_VF_MPRC, MULTICASTS, 0);
    this.#countOctets(IXGBE_VF_GORCL, IXGBE_VF_GORCH, RECEIVED_OCTETS, 0);
    this.#countOctets(IXGBE_VF_GOTCL, IXGBE_VF_GOTCH, SENT_OCTETS, 0);
    this.irq.control = CONTROL;
    this.#applySettings();
  }

  #applySettings(): void {
    const types = this.words[IXGBE_VF_PSRTYPE / 4] as number;
    this.settings.splitHeaders = types & SPLIT;
    this.#spread = Math.min(1 << (types >>> QUEUES_SHIFT), this.queues) - 1;
  }

  #declareRegisters(): void {
    const masks = this.#masks;
    const declare = (register: IxgbeRegister, base: number): void => {
      masks[(base + register.offset) / 4] = register.mask;
    };
    for (let queue = 0; queue < this.queues; queue++) {
      const block = queue * IXGBE_QUEUE_BYTES;
      for (const register of Object.values(IXGBE_RX_QUEUE_REGISTERS)) {
        declare(register, IXGBE_VF_RX_QUEUES + block);
      }
      for (const register of Object.values(IXGBE_TX_QUEUE_REGISTERS)) {
        declare(register, IXGBE_VF_TX_QUEUES + block);
      }
      masks[(IXGBE_VF_RSCINT + 4 * queue) / 4] = RSCINT_MASK;
    }
    for (let pair = 0; pair < this.queues / 2; pair++) {
      masks[(IXGBE_VF_IVAR + 4 * pair) / 4] = IVAR_MASK;
    }
    masks[IXGBE_VF_IVAR_MISC / 4] = IVAR_MISC_MASK;
    masks[IXGBE_VF_PSRTYPE / 4] = (SPLIT | (7 << QUEUES_SHIFT)) >>> 0;
  }
}

function isIn(offset: number, first: number, words: number): boolean {
  return offset >= first && offset < first + 4 * words;
}
