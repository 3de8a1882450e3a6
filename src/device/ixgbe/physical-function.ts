/**
 * The physical function of an 82599: one port of the card, with all its registers (§8.2.3). What has
 * effects is decided here; storage is `registers.ts`, and each larger thing has a file beside it.
 *
 * Without virtualization: this is the port of a guest that owns it (method `direct`).
 */
import type { Burst } from '../../net/burst.ts';
import { read16, read16le } from '../../net/frame.ts';
import { PORT_COUNTER_INDEX } from '../../net/port.ts';
import { BATCH } from '../../ring/chain-batch.ts';
import {
  ETHERNET_HEADER_BYTES,
  ETHERTYPE_VLAN,
  VLAN_ID_MASK,
  VLAN_TAG_BYTES,
} from '../../spec/ethernet.ts';
import {
  IXGBE_CTRL_LINK_RESET,
  IXGBE_CTRL_MASTER_DISABLE,
  IXGBE_CTRL_RESET,
  IXGBE_DMATXCTL_ENABLE,
  IXGBE_DMATXCTL_VT_SHIFT,
  IXGBE_EEC_GRANT,
  IXGBE_EEC_PRESENT,
  IXGBE_EEC_READ_DONE,
  IXGBE_EEC_SIZE_SHIFT,
  IXGBE_EEPROM_MAC0_POINTER,
  IXGBE_FWSM_VALID,
  IXGBE_HLREG0_JUMBO,
  IXGBE_HLREG0_LOOPBACK,
  IXGBE_HLREG0_RX_CRC_STRIP,
  IXGBE_HLREG0_TX_CRC,
  IXGBE_HLREG0_TX_PAD,
  IXGBE_INT_LINK,
  IXGBE_IOADDR,
  IXGBE_IODATA,
  IXGBE_MAXFRS_SHIFT,
  IXGBE_MRQC_MODE,
  IXGBE_MRQC_RSS,
  IXGBE_QUEUES,
  IXGBE_RAH_VALID,
  IXGBE_RDRXCTL_CRC_STRIP,
  IXGBE_RDRXCTL_INIT_DONE,
  IXGBE_REGISTER_BYTES,
  IXGBE_RXCTRL_ENABLE,
  IXGBE_SEC_OFFLOAD_DISABLED,
  IXGBE_SEC_READY,
  IXGBE_STATUS_LAN_ID_SHIFT,
  IXGBE_STATUS_MASTER_ENABLE,
  IXGBE_SWSM_SMBI,
  IXGBE_VLNCTRL_VET,
} from '../../spec/ixgbe.ts';
import { IXGBE_RXD_INEXACT, IXGBE_RXD_RSS_NONE } from '../../spec/ixgbe-descriptors.ts';
import {
  NET_HEADER_BYTES,
  NET_HEADER_GSO_SIZE,
  NET_HEADER_GSO_TYPE,
  NET_HEADER_HDR_LEN,
  VIRTIO_NET_HDR_GSO_NONE,
} from '../../spec/virtio-net.ts';
import { EEPROM_SIZE_CODE, Eeprom } from './eeprom.ts';
import { EXACT, filterAddress, filterVlan, REJECTED } from './filter.ts';
import { FlowDirector, NO_FLOW } from './flow-director.ts';
import { FrameRuns, RUN_LONGEST, RUN_PADDED, RUN_SHORTEST } from './frame-runs.ts';
import { PF_LAYOUT, PF_PAGES, pfDeclaration } from './function.ts';
import { readInterrupts, writeInterrupts } from './interrupt-registers.ts';
import { Link } from './link.ts';
import { NicFunction, type NicFunctionOptions } from './nic-function.ts';
import { IMMEDIATE, NO_QUEUE, QueueFilters } from './queue-filters.ts';
import { RegisterMemory } from './register-memory.ts';
import { R, RegisterFile } from './registers.ts';
import { Rss, rssQueue } from './rss.ts';
import { SfpModule } from './sfp-module.ts';
import { FCS_BYTES, isOneGroup, onWire, Statistics } from './statistics.ts';

const { CTRL, STATUS, CTRL_EXT, ESDP, I2CCTL, EEC, EERD, EEWR, SWSM, FWSM } = R;
const { FDIRCTRL, FDIRCMD, FDIRM, FDIRSIP4M, FDIRDIP4M, FDIRTCPM, FDIRUDPM, FDIRSCTPM } = R;
const { RDRXCTL, RXCTRL, HLREG0, MAXFRS, VLNCTRL, DMATXCTL, MRQC, RETA, RSSRK } = R;
const { RXPBSIZE, TXPBSIZE, SECTXSTAT, SECRXSTAT, PSRTYPE, RAL, RAH } = R;
const { ETQF, ETQS, SYNQF, SAQF, L34TIMIR } = R;
const { LINKS, ANLP1, AUTOC, AUTOC2, MSCA } = R;

const RSSRK_WORDS = 10;
const ETYPE_FILTERS = 8;
const TUPLE_WORDS = 128;

/** Bytes of the packet buffers, all in the first (§8.2.3.8.9, §8.2.3.9.13). */
const RX_BUFFER = 512 * 1024;
const TX_BUFFER = 160 * 1024;
/** Longest frame with check sequence, as MAXFRS has it first (§8.2.3.22.13), and without jumbo frames. */
const LONGEST = 1518;
const VLAN_ETHERTYPE = 0x8100;
const ADDRESSES = 12;

const RX_DROP_LINK_DOWN = PORT_COUNTER_INDEX.rx_drop_link_down;
const RX_DROP_TOO_BIG = PORT_COUNTER_INDEX.rx_drop_too_big;

export interface PhysicalFunctionOptions extends NicFunctionOptions {
  /** As the EEPROM has it: what the driver uses until it is told otherwise. */
  readonly mac: Uint8Array;
  /** Which of the card's two ports. */
  readonly port: 0 | 1;
}

export class PhysicalFunction extends NicFunction {
  readonly port: 0 | 1;
  readonly link: Link;
  readonly statistics: Statistics;
  readonly #registers: RegisterFile;
  readonly #mac: Uint8Array;
  #eeprom: Eeprom;
  readonly #sfp = new SfpModule();
  readonly #filters: QueueFilters;
  readonly #flows: FlowDirector;
  readonly #rss: Rss;
  readonly #runs: FrameRuns;
  #keyChanged = true;
  #ioAddress = 0;
  /** Frames of a burst that passed the filters; those of a burst that comes back. */
  readonly #passed = new Uint8Array(BATCH);
  readonly #exact = new Uint8Array(BATCH);
  /** The frames that are accepted now go to one address. */
  #areAlike = false;

  constructor(options: PhysicalFunctionOptions) {
    const { name, mac, port, mapped = true } = options;
    const memory = new RegisterMemory(name, IXGBE_REGISTER_BYTES, mapped ? PF_PAGES : []);
    super(options, pfDeclaration(name, mac, memory.areas), memory, PF_LAYOUT);
    this.port = port;
    this.#registers = new RegisterFile(this.words);
    this.#mac = mac;
    this.#rss = new Rss(options.path);
    this.#runs = FrameRuns.of(options.path);
    this.#eeprom = new Eeprom(mac, port);
    this.#filters = new QueueFilters(this.words);
    this.#flows = new FlowDirector(this.words);
    this.statistics = new Statistics(this.words);
    this.link = new Link(this.words, () => this.irq.raiseOther(IXGBE_INT_LINK));
    this.resetFunction();
  }

  protected override get transmitting(): boolean {
    return (
      ((this.words[DMATXCTL] as number) & IXGBE_DMATXCTL_ENABLE) !== 0 &&
      ((this.words[CTRL] as number) & IXGBE_CTRL_MASTER_DISABLE) === 0 &&
      (this.link.up || this.#loopback)
    );
  }

  override get receiving(): boolean {
    return this.link.up && this.#enabled;
  }

  get #enabled(): boolean {
    return (
      this.attached &&
      this.memory.ready &&
      ((this.words[RXCTRL] as number) & IXGBE_RXCTRL_ENABLE) !== 0
    );
  }

  get #loopback(): boolean {
    return ((this.words[HLREG0] as number) & IXGBE_HLREG0_LOOPBACK) !== 0;
  }

  // Frames

  override send(burst: Burst): void {
    this.#countSent(burst);
    if (!this.#loopback) {
      super.send(burst);
      return;
    }
    burst.needs.fill(0, 0, burst.count);
    if (this.#enabled) this.#receive(burst, this.#runs.all, burst.count, false);
    burst.copies.flush();
  }

  override publish(): void {
    if (this.#loopback) this.flush();
    else super.publish();
  }

  /** Frames from the wire: those that pass the filters go to the guest's queues. See `Port.deliver`. */
  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    if (this.receiving && !this.#loopback) this.#receive(burst, frames, count, tagged);
    else this.count(RX_DROP_LINK_DOWN, count);
  }

  #receive(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    if (!tagged && this.#receiveAlike(burst, frames, count)) return;
    const passed = this.#passed;
    const added = tagged ? VLAN_TAG_BYTES : 0;
    let all = 0;
    let kept = 0;
    let keptOctets = 0;
    for (let i = 0; i < count; i++) {
      const slot = frames[i] as number;
      const length = (burst.frameLength[slot] as number) + added;
      const octets = onWire(length);
      all += octets;
      if (!this.#filter(burst, slot, length, tagged)) continue;
      passed[kept++] = slot;
      keptOctets += octets;
    }
    this.statistics.arrived(count, all);
    this.statistics.received(kept, keptOctets);
    this.accept(burst, passed, kept, tagged);
  }

  /** As {@link #receive} for frames that are judged alike; false if there is more to be looked at. */
  #receiveAlike(burst: Burst, frames: Uint8Array, count: number): boolean {
    if (count === 0 || this.vlanType !== ETHERTYPE_VLAN) return false;
    const { sums } = this.#runs;
    if (this.#runs.survey(burst, frames, 0, count) < count) return false;
    const shortest = sums[RUN_SHORTEST] as number;
    const longest = sums[RUN_LONGEST] as number;
    if (longest + FCS_BYTES > this.#longest || !isOneGroup(shortest, longest)) return false;
    const { statistics } = this;
    const bytes = burst.slots8;
    const first = frames[0] as number;
    const at = (burst.headerAt[first] as number) - burst.slotsAt + NET_HEADER_BYTES;
    const octets = (sums[RUN_PADDED] as number) + count * FCS_BYTES;
    statistics.arrived(count, octets);
    const passed = filterAddress(this.words, bytes, at);
    if (passed === REJECTED) return true;
    statistics.received(count, octets);
    statistics.passed(bytes, at, onWire(shortest), count);
    const isExact = passed === EXACT;
    for (let i = 0; i < count; i++) this.#exact[frames[i] as number] = isExact ? 1 : 0;
    this.commonStatus = isExact ? 0 : IXGBE_RXD_INEXACT;
    this.#areAlike = true;
    this.accept(burst, frames, count, false);
    this.#areAlike = false;
    return true;
  }

  /** Bytes of the longest frame that the guest takes, with check sequence, without tag. */
  get #longest(): number {
    const { words } = this;
    return ((words[HLREG0] as number) & IXGBE_HLREG0_JUMBO) !== 0
      ? (words[MAXFRS] as number) >>> IXGBE_MAXFRS_SHIFT
      : LONGEST;
  }

  /** Whether the port's filters let a frame pass (§7.1.1). */
  #filter(burst: Burst, slot: number, length: number, tagged: boolean): boolean {
    const { words } = this;
    const bytes = burst.slots8;
    const at = (burst.headerAt[slot] as number) - burst.slotsAt + NET_HEADER_BYTES;
    const gathered = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
    const passed = filterAddress(words, bytes, at);
    if (passed === REJECTED) return false;
    this.#exact[slot] = passed === EXACT ? 1 : 0;
    const inner =
      !tagged &&
      gathered >= ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES &&
      read16(bytes, at + ADDRESSES) === ((words[VLNCTRL] as number) & IXGBE_VLNCTRL_VET);
    if (tagged || inner) {
      const tci = tagged ? (burst.tci[slot] as number) : read16(bytes, at + ADDRESSES + 2);
      if (!filterVlan(words, tci & VLAN_ID_MASK)) return false;
    }
    if (length + FCS_BYTES > this.#longest + (tagged || inner ? VLAN_TAG_BYTES : 0)) {
      this.statistics.oversized();
      this.count(RX_DROP_TOO_BIG, 1);
      return false;
    }
    this.statistics.passed(bytes, at, onWire(length));
    return true;
  }

  protected override isExact(slot: number): boolean {
    return this.#exact[slot] === 1;
  }

  /** RSS is on. */
  get #hashes(): boolean {
    return ((this.words[MRQC] as number) & IXGBE_MRQC_MODE) === IXGBE_MRQC_RSS;
  }

  /** More than RSS may have a say in which queue a frame goes to, or what is told of it. */
  get #isFiltered(): boolean {
    return !this.#areAlike || this.#filters.any || this.#flows.any;
  }

  protected override get onlyQueue(): number {
    return this.#isFiltered || this.#hashes ? -1 : 0;
  }

  protected override get onlyRss(): Rss | undefined {
    return this.#isFiltered || !this.#hashes ? undefined : this.#keyedRss;
  }

  protected override get hashedBy(): number {
    return this.words[MRQC] as number;
  }

  protected override queueOf(hash: number): number {
    return rssQueue(this.words, RETA, hash);
  }

  get #keyedRss(): Rss {
    if (this.#keyChanged) {
      this.#rss.setKey(this.words, RSSRK);
      this.#keyChanged = false;
    }
    return this.#rss;
  }

  protected override selectQueue(
    bytes: Uint8Array,
    at: number,
    length: number,
    tci: number,
  ): number {
    const { words } = this;
    this.rssType = IXGBE_RXD_RSS_NONE;
    this.rssHash[0] = 0;
    const control = words[MRQC] as number;
    // The hash is told of frames that a filter took, too (§7.1.2.8).
    if (this.#hashes) {
      const rss = this.#keyedRss;
      this.rssType = rss.classify(bytes, at, length, control);
      this.rssHash[0] = rss.hash[0] as number;
    }
    if (this.#filters.any) {
      const match = this.#filters.match(bytes, at, length);
      if (match !== NO_QUEUE) {
        const queue = match & (IXGBE_QUEUES - 1);
        if ((match & IMMEDIATE) !== 0) this.irq.hurry(queue);
        return queue;
      }
    }
    if (this.#flows.any) {
      const queue = this.#flows.match(bytes, at, length, tci);
      if (queue !== NO_FLOW) return queue;
    }
    if (this.rssType === IXGBE_RXD_RSS_NONE) return 0;
    return rssQueue(words, RETA, this.rssHash[0] as number);
  }

  protected override get vlanType(): number {
    return (this.words[VLNCTRL] as number) & IXGBE_VLNCTRL_VET;
  }

  protected override countReceived(_queue: number, frames: number, bytes: number): void {
    this.statistics.queued(frames, bytes);
  }

  protected override countMissed(_queue: number, frames: number): void {
    this.statistics.missed(frames);
  }

  /** Frames leave; one that is to be cut counts as what it becomes. */
  #countSent(burst: Burst): void {
    const bytes = burst.slots8;
    const { statistics } = this;
    if (this.#countAlike(burst)) return;
    let frames = 0;
    let octets = 0;
    for (let slot = 0; slot < burst.count; slot++) {
      const header = (burst.headerAt[slot] as number) - burst.slotsAt;
      const at = header + NET_HEADER_BYTES;
      const length = burst.frameLength[slot] as number;
      let whole = 0;
      let last = length;
      if (bytes[header + NET_HEADER_GSO_TYPE] !== VIRTIO_NET_HDR_GSO_NONE) {
        const size = Math.max(read16le(bytes, header + NET_HEADER_GSO_SIZE), 1);
        const headers = read16le(bytes, header + NET_HEADER_HDR_LEN);
        const payload = Math.max(length - headers, 1);
        whole = Math.ceil(payload / size) - 1;
        last = headers + payload - whole * size;
        const each = onWire(headers + size);
        if (whole > 0) statistics.left(bytes, at, each, whole);
        octets += whole * each;
      }
      const rest = onWire(last);
      statistics.left(bytes, at, rest, 1);
      octets += rest;
      frames += whole + 1;
    }
    statistics.transmitted(frames, octets);
  }

  /** As {@link #countSent} for frames that count alike. */
  #countAlike(burst: Burst): boolean {
    const { count } = burst;
    const { sums, all } = this.#runs;
    if (this.#runs.survey(burst, all, 0, count) < count) return false;
    const shortest = sums[RUN_SHORTEST] as number;
    if (!isOneGroup(shortest, sums[RUN_LONGEST] as number)) return false;
    const at = (burst.headerAt[0] as number) - burst.slotsAt + NET_HEADER_BYTES;
    this.statistics.left(burst.slots8, at, onWire(shortest), count);
    this.statistics.transmitted(count, (sums[RUN_PADDED] as number) + count * FCS_BYTES);
    return true;
  }

  // Registers

  protected override readRegister(bar: number, offset: number, length: number): number {
    if (this.bars[bar]?.kind === 'io') return this.#readIo(offset, length);
    if (bar !== 0 || offset >= IXGBE_REGISTER_BYTES) return 0;
    const word = this.#read(this.#registers.home(offset >>> 2));
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
    if (length !== 4 || (offset & 3) !== 0) return;
    if (this.bars[bar]?.kind === 'io') {
      if (offset === IXGBE_IOADDR) this.#ioAddress = value;
      else if (offset === IXGBE_IODATA && this.#ioAddress < IXGBE_REGISTER_BYTES) {
        this.#write(this.#registers.home(this.#ioAddress >>> 2), value);
      }
    } else if (bar === 0 && offset < IXGBE_REGISTER_BYTES) {
      this.#write(this.#registers.home(offset >>> 2), value);
    }
  }

  #readIo(offset: number, length: number): number {
    if (length !== 4) return 0;
    if (offset === IXGBE_IOADDR) return this.#ioAddress;
    if (offset !== IXGBE_IODATA || this.#ioAddress >= IXGBE_REGISTER_BYTES) return 0;
    return this.#read(this.#registers.home(this.#ioAddress >>> 2));
  }

  #read(index: number): number {
    const { words } = this;
    switch (index) {
      case STATUS:
        return this.#status();
      case ESDP:
        return this.link.pins(words[ESDP] as number);
      case I2CCTL:
        return this.#sfp.lines;
      case SWSM: {
        // A read takes the semaphore, and tells whether it was free (§8.2.3.4.11).
        const value = words[SWSM] as number;
        words[SWSM] = value | IXGBE_SWSM_SMBI;
        return value;
      }
      case RDRXCTL:
        return ((words[RDRXCTL] as number) | IXGBE_RDRXCTL_INIT_DONE) >>> 0;
      case LINKS:
        return this.link.status;
      case ANLP1:
        return this.link.partner;
      default:
        return readInterrupts(this.irq, index) ?? this.#registers.read(index);
    }
  }

  #write(index: number, value: number): void {
    if (writeInterrupts(this.irq, this.#registers, index, value)) return;
    const { words } = this;
    if (index !== CTRL) this.#registers.write(index, value);
    switch (index) {
      case CTRL:
        this.#writeControl(value);
        break;
      case I2CCTL:
        this.#sfp.drive(value);
        break;
      case EEC:
        // Its lines are for bit-banging, which is not granted: EERD and EEWR are there.
        words[EEC] = (value & ~IXGBE_EEC_GRANT) | EEC_STATE;
        break;
      case EERD:
        words[EERD] = this.#eeprom.read(value);
        break;
      case EEWR:
        words[EEWR] = this.#eeprom.write(value);
        break;
      case AUTOC:
      case AUTOC2:
        this.link.written();
        break;
      case MSCA:
        this.link.accessMdio(value);
        break;
      case FDIRCTRL:
        this.#flows.control(value);
        break;
      case FDIRCMD:
        this.#flows.command(value);
        break;
      case FDIRM:
      case FDIRSIP4M:
      case FDIRDIP4M:
      case FDIRTCPM:
      case FDIRUDPM:
      case FDIRSCTPM:
        this.#flows.update();
        break;
      case RDRXCTL:
      case DMATXCTL:
      case PSRTYPE:
        this.#applySettings();
        break;
      default:
        if (isIn(index, RSSRK, RSSRK_WORDS)) this.#keyChanged = true;
        else if (
          index === SYNQF ||
          isIn(index, ETQF, ETYPE_FILTERS) ||
          isIn(index, ETQS, ETYPE_FILTERS) ||
          // SAQF, DAQF, SDPQF, FTQF, L34TIMIR: one behind the other.
          isIn(index, SAQF, L34TIMIR + TUPLE_WORDS - SAQF)
        ) {
          this.#filters.update();
        }
    }
  }

  #status(): number {
    const isDisabled = ((this.words[CTRL] as number) & IXGBE_CTRL_MASTER_DISABLE) !== 0;
    // It is off when nothing is on its way any more (§5.2.5.3.2).
    const isMaster = !isDisabled || this.memory.busy;
    return (this.port << IXGBE_STATUS_LAN_ID_SHIFT) | (isMaster ? IXGBE_STATUS_MASTER_ENABLE : 0);
  }

  #writeControl(value: number): void {
    const resets = IXGBE_CTRL_RESET | IXGBE_CTRL_LINK_RESET;
    if ((value & resets) === 0) {
      this.words[CTRL] = value;
      return;
    }
    this.resetFunction();
    this.functionReset?.('function');
  }

  #applySettings(): void {
    const { words, settings } = this;
    settings.vlanType = (words[DMATXCTL] as number) >>> IXGBE_DMATXCTL_VT_SHIFT;
    settings.fcsBytes =
      ((words[RDRXCTL] as number) & IXGBE_RDRXCTL_CRC_STRIP) !== 0 ? 0 : FCS_BYTES;
    settings.splitHeaders = words[PSRTYPE] as number;
  }

  override close(): void {
    this.#rss.release();
    super.close();
  }

  /** The next guest gets the EEPROM as it was made, whatever this one wrote to it. */
  override detach(): void {
    this.#eeprom = new Eeprom(this.#mac, this.port);
    super.detach();
  }

  /** Both resets of CTRL, and all that is more (§4.2): what the EEPROM has is loaded again. */
  protected override resetFunction(): void {
    const { words } = this;
    this.resetQueues();
    this.#registers.clear();
    this.#sfp.reset();
    this.#ioAddress = 0;
    words[EEC] = EEC_STATE;
    words[FWSM] = IXGBE_FWSM_VALID;
    words[RXPBSIZE] = RX_BUFFER;
    words[TXPBSIZE] = TX_BUFFER;
    words[SECTXSTAT] = IXGBE_SEC_READY | IXGBE_SEC_OFFLOAD_DISABLED;
    words[SECRXSTAT] = IXGBE_SEC_READY | IXGBE_SEC_OFFLOAD_DISABLED;
    words[HLREG0] = IXGBE_HLREG0_TX_CRC | IXGBE_HLREG0_RX_CRC_STRIP | IXGBE_HLREG0_TX_PAD;
    words[RDRXCTL] = IXGBE_RDRXCTL_CRC_STRIP;
    words[MAXFRS] = LONGEST << IXGBE_MAXFRS_SHIFT;
    words[VLNCTRL] = VLAN_ETHERTYPE;
    words[DMATXCTL] = VLAN_ETHERTYPE << IXGBE_DMATXCTL_VT_SHIFT;
    words[CTRL_EXT] = 0;
    this.#loadAddress();
    this.#filters.update();
    this.#flows.reset();
    this.#keyChanged = true;
    this.#applySettings();
    this.link.reset();
  }

  /** The first receive address comes from the EEPROM (§6.3.7). */
  #loadAddress(): void {
    const stored = this.#eeprom.words;
    const area = (stored[IXGBE_EEPROM_MAC0_POINTER + this.port] as number) + 1;
    const word = (i: number): number => stored[area + i] ?? 0;
    this.words[RAL] = word(0) | (word(1) << 16);
    this.words[RAH] = word(2) | IXGBE_RAH_VALID;
  }
}

/** EEC: there is an EEPROM of 16 KiB, and it was read. */
const EEC_STATE =
  IXGBE_EEC_PRESENT | IXGBE_EEC_READ_DONE | (EEPROM_SIZE_CODE << IXGBE_EEC_SIZE_SHIFT);

function isIn(index: number, first: number, count: number): boolean {
  return index >= first && index < first + count;
}
