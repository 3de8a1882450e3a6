/**
 * Intel's gigabit controllers as PCI functions: the 82540EM (PCI) and the 82574L (PCI Express), each
 * a port of a switch. This file has the registers with effects; the rings, the interrupts, PHY and
 * EEPROM are beside it.
 */
import type { CounterBlock } from '../../base/counters.ts';
import type { TokenBucket } from '../../base/token-bucket.ts';
import type { Burst } from '../../net/burst.ts';
import type { DataPath } from '../../net/data-path.ts';
import { read16 } from '../../net/frame.ts';
import {
  newPortCounters,
  PORT_COUNTER_INDEX,
  type Port,
  type PortCounter,
  type PortOwner,
} from '../../net/port.ts';
import type { Poller, Timer } from '../../os/poll-loop.ts';
import { PciDevice } from '../../pci/device.ts';
import type { ResetKind } from '../../pci/registers.ts';
import {
  CTRL_FD,
  CTRL_GIO_MASTER_DISABLE,
  CTRL_PHY_RST,
  CTRL_RST,
  CTRL_SLU,
  CTRL_SPEED_1000,
  CTRL_SWDPIN0,
  CTRL_SWDPIN2,
  CTRL_VME,
  DELAY_FLUSH,
  E1000_IOADDR,
  E1000_IODATA,
  E1000_REGISTER_BYTES,
  EEMNGCTL_DONE,
  EEPROM_MAC,
  INT_LSC,
  INT_MDAC,
  MDIC_INTERRUPT,
  RAH_AV,
  RAH_MASK,
  RCTL_LBM_MAC,
  RCTL_LPE,
  RECEIVE_ADDRESSES,
  RXCSUM_IPOFLD,
  RXCSUM_TUOFLD,
  RXD_ERROR_IPE,
  RXD_ERROR_TCPE,
  RXD_IPCS,
  RXD_IXSM,
  RXD_PIF,
  RXD_TCPCS,
  RXD_UDPCS,
  RXD_VP,
  STATUS_ASDV_1000,
  STATUS_FD,
  STATUS_GIO_MASTER_ENABLE,
  STATUS_LU,
  STATUS_PHYRA,
  STATUS_SPEED_1000,
} from '../../spec/e1000.ts';
import { ETHERNET_HEADER_BYTES, VLAN_ID_MASK, VLAN_TAG_BYTES } from '../../spec/ethernet.ts';
import { NET_HEADER_BYTES } from '../../spec/virtio-net.ts';
import { DeviceMemory } from '../device-memory.ts';
import {
  CHECKED_IP,
  CHECKED_L4,
  CHECKED_UDP,
  ReceiveChecksum,
  WRONG_IP,
  WRONG_L4,
} from '../receive-checksum.ts';
import { Eeprom } from './eeprom.ts';
import { EXACT, filterAddress, filterVlan, REJECTED } from './filter.ts';
import { type E1000Model, e1000Declaration, e1000Identity } from './function.ts';
import { Interrupts } from './interrupts.ts';
import { Phy } from './phy.ts';
import { DELIVERED, NO_BUFFER, ReceiveRing, RX_BOUNCE_BYTES, RX_SCRATCH_BYTES } from './receive.ts';
import { R, RegisterFile } from './registers.ts';
import { Statistics } from './statistics.ts';
import { TransmitRing, TX_BOUNCE_BYTES, TX_SCRATCH_BYTES } from './transmit.ts';

const { CTRL, STATUS, EECD, EERD, EEWR, MDIC, ICR, ICS, IMS, IMC, ITR, EITR, IVAR } = R;
const { RCTL, RDBAL, RDBAH, RDLEN, RDH, RDT, RDTR, RFCTL, PSRCTL, TIDV, RA, SWSM, VET, RXCSUM } = R;
const { GORCL, GORCH, GOTCL, GOTCH, TORL, TORH, TOTL, TOTH } = R;
const { IAC, ROC, PBA, LEDCTL, TIPG, MANC, EEMNGCTL } = R;
const RAH_LAST = RA + 2 * RECEIVE_ADDRESSES;

const RX_FRAMES = PORT_COUNTER_INDEX.rx_frames;
const RX_BYTES = PORT_COUNTER_INDEX.rx_bytes;
const RX_DROP_LINK_DOWN = PORT_COUNTER_INDEX.rx_drop_link_down;
const RX_DROP_NO_BUFFER = PORT_COUNTER_INDEX.rx_drop_no_buffer;
const RX_DROP_TOO_BIG = PORT_COUNTER_INDEX.rx_drop_too_big;
const CALLS = PORT_COUNTER_INDEX.calls;

/** Longest frames without FCS: ordinary ones, and what the packet buffer holds (SDM §13.4.22). */
const LONGEST = 1514;
const LONGEST_JUMBO = 16384 - 4;
const ADDRESSES = 12;
/** The two rings, each a client of {@link DeviceMemory}. */
const DMA_CLIENTS = 2;
const ZEROS_BYTES = 64;
const SWSM_SMBI = 1;
/** Half of what the guest gets: 48 KiB to receive, as Intel's default (SDM §13.4.20). */
const PBA_DEFAULT = 0x0010_0030;
const LEDCTL_DEFAULT = 0x0703_0706;
const TIPG_DEFAULT = 0x0060_2008;
const VET_DEFAULT = 0x8100;
const MANC_ARP = 0x2000;

export interface E1000Options {
  /** Unique in the lane, such as `web/net0`. */
  readonly name: string;
  readonly model: E1000Model;
  readonly path: DataPath;
  readonly mac: Uint8Array;
  /** Bits that the guest may send: what is beyond stays in its ring. */
  readonly txLimit?: TokenBucket;
  readonly counters?: CounterBlock<PortCounter>;
}

/** To be added to the lane's pollers, and to be a port of its `owner`. */
export class E1000 extends PciDevice implements Port, Poller {
  readonly counters: CounterBlock<PortCounter>;
  readonly mac: Uint8Array;
  /** None: a driver takes frames as they were on a wire. Checksums are verified, and told. */
  readonly offloads = 0;
  /** Where the guest's frames go. Frames sent before it is set are dropped. */
  owner: PortOwner | undefined;
  readonly #path: DataPath;
  readonly #express: boolean;
  readonly #registers: RegisterFile;
  readonly #words: Uint32Array;
  readonly #values: Float64Array;
  readonly #memory: DeviceMemory;
  readonly #phy: Phy;
  readonly #eeprom: Eeprom;
  readonly #irq: Interrupts;
  readonly #statistics: Statistics;
  readonly #checksum: ReceiveChecksum;
  readonly #transmit: TransmitRing;
  readonly #receive: ReceiveRing;
  readonly #laneAt: number;
  readonly #laneBytes: number;
  readonly #txLimit: TokenBucket | undefined;
  #rateTimer: Timer | undefined;
  #ioAddress = 0;

  constructor(options: E1000Options) {
    super(e1000Declaration(options.name, options.model, options.mac));
    const { path, model } = options;
    const express = model === '82574';
    this.#path = path;
    this.#express = express;
    this.mac = options.mac;
    this.#txLimit = options.txLimit;
    this.counters = options.counters ?? newPortCounters();
    this.#values = this.counters.values;
    this.#registers = new RegisterFile(express);
    this.#words = this.#registers.words;
    this.#memory = new DeviceMemory(path.arena, DMA_CLIENTS);
    this.#memory.onDrained = () => this.quiesced();
    this.#phy = new Phy(express);
    this.#eeprom = new Eeprom(options.mac, e1000Identity(model).device, express);
    this.#irq = new Interrupts(this.#registers, express, path.loop, this.interrupts, () => {
      this.#values[CALLS] = (this.#values[CALLS] as number) + 1;
      if (express) this.#statistics.count(IAC, 1);
    });
    this.#statistics = new Statistics(this.#registers);
    this.#checksum = new ReceiveChecksum(path);
    this.#laneBytes =
      TX_SCRATCH_BYTES + RX_SCRATCH_BYTES + ZEROS_BYTES + TX_BOUNCE_BYTES + RX_BOUNCE_BYTES;
    this.#laneAt = path.arena.allocate(this.#laneBytes, 'sluice-e1000');
    const shared = {
      path,
      memory: this.#memory,
      registers: this.#registers,
      interrupts: this.#irq,
      statistics: this.#statistics,
    };
    const receiveAt = this.#laneAt + TX_SCRATCH_BYTES;
    const zerosAt = receiveAt + RX_SCRATCH_BYTES;
    const txBounceAt = zerosAt + ZEROS_BYTES;
    this.#transmit = new TransmitRing({
      ...shared,
      counters: this.#values,
      limit: options.txLimit,
      scratchAt: this.#laneAt,
      bounceAt: txBounceAt,
    });
    this.#receive = new ReceiveRing({
      ...shared,
      scratchAt: receiveAt,
      bounceAt: txBounceAt + TX_BOUNCE_BYTES,
      zerosAt,
    });
    this.#resetRegisters();
  }

  /** Sets the cable in or out; the driver is told. */
  setLink(up: boolean): void {
    if (this.#phy.cable === up) return;
    this.#phy.cable = up;
    this.#linkChanged();
  }

  get linkUp(): boolean {
    return this.#phy.link;
  }

  /** The driver receives. */
  get running(): boolean {
    return this.attached && this.#receive.enabled;
  }

  /** Gives the device's lane memory back. No transport is attached any more. */
  close(): void {
    this.#irq.reset();
    this.#rateTimer?.cancel();
    this.#path.arena.unmap(this.#laneAt, this.#laneBytes);
  }

  // Port and Poller

  poll(): number {
    const late = this.#irq.poll();
    if (!this.#transmit.pending || this.#rateWaitNs() > 0) return late;
    const loopback = this.#loopback();
    const owner = this.linkUp ? this.owner : undefined;
    return late + this.#transmit.poll(this, owner, loopback);
  }

  arm(): boolean {
    const spin = this.#irq.arm();
    if (!this.#transmit.pending) return spin;
    const waitNs = this.#rateWaitNs();
    if (waitNs === 0) return true;
    // The ring is looked at when the timer wakes the loop.
    this.#rateTimer ??= this.#path.loop.setTimer(waitNs / 1000, () => {
      this.#rateTimer = undefined;
    });
    return spin;
  }

  /** How long the rate limit holds the guest's frames back; 0 if they may go. */
  #rateWaitNs(): number {
    const limit = this.#txLimit;
    if (limit === undefined) return 0;
    limit.refill(this.#path.loop.now);
    return limit.waitNs();
  }

  disarm(): void {
    // A trap is a message: it wakes the loop in any case.
  }

  deliver(burst: Burst, frames: Uint8Array, count: number, tagged: boolean): void {
    const values = this.#values;
    if (!this.linkUp || !this.#receive.enabled || !this.#memory.ready) {
      values[RX_DROP_LINK_DOWN] = (values[RX_DROP_LINK_DOWN] as number) + count;
      return;
    }
    for (let i = 0; i < count; i++) this.#deliverOne(burst, frames[i] as number, tagged);
  }

  flush(): void {
    this.#receive.writeBack();
  }

  #deliverOne(burst: Burst, slot: number, tagged: boolean): void {
    const words = this.#words;
    const values = this.#values;
    const bytes = burst.slots8;
    let header = burst.headerAt[slot] as number;
    let headerLength = (burst.headerLength[slot] as number) - NET_HEADER_BYTES;
    let length = burst.frameLength[slot] as number;
    const at = header - burst.slotsAt + NET_HEADER_BYTES;
    const passed = filterAddress(words, bytes, at);
    if (passed === REJECTED) return;
    // The tag: asked for by the switch, or one that the frame has inside.
    const inner =
      !tagged &&
      headerLength >= ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES &&
      read16(bytes, at + ADDRESSES) === words[VET];
    const vlan = tagged
      ? (burst.tci[slot] as number)
      : inner
        ? read16(bytes, at + ADDRESSES + 2)
        : 0;
    const hasTag = tagged || inner;
    if (hasTag && !filterVlan(words, vlan & VLAN_ID_MASK)) return;
    const wire = tagged ? length + VLAN_TAG_BYTES : length;
    const longest =
      ((words[RCTL] as number) & RCTL_LPE) !== 0
        ? LONGEST_JUMBO
        : LONGEST + (hasTag ? VLAN_TAG_BYTES : 0);
    if (wire > longest) {
      this.#statistics.count(ROC, 1);
      values[RX_DROP_TOO_BIG] = (values[RX_DROP_TOO_BIG] as number) + 1;
      return;
    }
    const checked = this.#checksum.verify(burst, slot, checksumsWanted(words[RXCSUM] as number));
    let status = checksumStatus(checked) | (passed === EXACT ? 0 : RXD_PIF);
    const strip = hasTag && ((words[CTRL] as number) & CTRL_VME) !== 0;
    if (strip) status |= RXD_VP;
    else if (tagged) {
      header = burst.tag(slot);
      headerLength += VLAN_TAG_BYTES;
      length += VLAN_TAG_BYTES;
    }
    const first = header + NET_HEADER_BYTES;
    const cut = strip && inner ? ADDRESSES : headerLength;
    const rest = strip && inner ? ADDRESSES + VLAN_TAG_BYTES : headerLength;
    const result = this.#receive.put(
      burst,
      slot,
      first,
      cut,
      first + rest,
      headerLength - rest,
      status,
      checksumErrors(checked),
      strip ? vlan : 0,
    );
    if (result === DELIVERED) {
      this.#statistics.received(bytes, at, wire);
      values[RX_FRAMES] = (values[RX_FRAMES] as number) + 1;
      values[RX_BYTES] = (values[RX_BYTES] as number) + wire;
    } else {
      const counter = result === NO_BUFFER ? RX_DROP_NO_BUFFER : RX_DROP_TOO_BIG;
      values[counter] = (values[counter] as number) + 1;
    }
  }

  #loopback(): boolean {
    return this.#phy.loopback || ((this.#words[RCTL] as number) & RCTL_LBM_MAC) !== 0;
  }

  // PciDevice

  protected override onAttach(): void {
    this.#memory.connect(this.dma);
  }

  protected override onReset(_kind: ResetKind): void {
    this.#phy.reset();
    this.#memory.held = false;
    this.#resetRegisters();
  }

  override detach(): void {
    super.detach();
    this.#memory.connect(undefined);
  }

  protected override quiesce(): boolean {
    this.#memory.held = true;
    return !this.#memory.busy;
  }

  protected override onResume(): void {
    this.#memory.held = false;
  }

  protected override readRegister(bar: number, offset: number, length: number): number {
    if (this.bars[bar]?.kind === 'io') return this.#readIo(offset, length);
    const word = this.#read(offset >>> 2);
    if (length === 4 && (offset & 3) === 0) return word;
    return (word >>> (8 * (offset & 3))) & (length === 1 ? 0xff : 0xffff);
  }

  /** Registers take aligned 32-bit writes only; others do nothing (SDM §13.2; DS §10.1.1). */
  protected override writeRegister(
    bar: number,
    offset: number,
    length: number,
    value: number,
  ): void {
    if (length !== 4 || (offset & 3) !== 0) return;
    if (this.bars[bar]?.kind !== 'io') this.#write(offset >>> 2, value);
    else if (offset === E1000_IOADDR) this.#ioAddress = value;
    else if (offset === E1000_IODATA && this.#ioAddress < E1000_REGISTER_BYTES) {
      this.#write(this.#ioAddress >>> 2, value);
    }
  }

  #readIo(offset: number, length: number): number {
    if (length !== 4) return 0;
    if (offset === E1000_IOADDR) return this.#ioAddress;
    if (offset !== E1000_IODATA || this.#ioAddress >= E1000_REGISTER_BYTES) return 0;
    return this.#read(this.#ioAddress >>> 2);
  }

  #read(index: number): number {
    switch (index) {
      case STATUS:
        return this.#status();
      case EECD:
        return this.#eeprom.control;
      case ICR:
        return this.#irq.readCause();
      case GORCL:
      case GOTCL:
      case TORL:
      case TOTL:
        return this.#statistics.readLow(index);
      case GORCH:
      case GOTCH:
      case TORH:
      case TOTH:
        return this.#statistics.readHigh(index);
      case SWSM: {
        if (!this.#express) return 0;
        // A read takes the semaphore, and tells whether it was free (DS §10.2.3.12).
        const value = this.#words[SWSM] as number;
        this.#words[SWSM] = value | SWSM_SMBI;
        return value;
      }
      default:
        return this.#registers.read(index);
    }
  }

  #write(index: number, value: number): void {
    if (index >= RA && index < RAH_LAST && (index & 1) !== (RA & 1)) {
      this.#words[index] = value & RAH_MASK;
      return;
    }
    this.#registers.write(index, value);
    switch (index) {
      case CTRL:
        this.#writeControl(value);
        break;
      case EECD:
        this.#eeprom.writeControl(value);
        break;
      case EERD:
        this.#words[EERD] = this.#eeprom.read(value);
        break;
      case EEWR:
        if (this.#express) this.#words[EEWR] = this.#eeprom.write(value);
        break;
      case MDIC:
        this.#accessPhy(value);
        break;
      case ICR:
        this.#irq.writeCause(value);
        break;
      case ICS:
        this.#irq.raise(value);
        break;
      case IMS:
        this.#irq.enable(value);
        break;
      case IMC:
        this.#irq.disable(value);
        break;
      case ITR:
      case IVAR:
        this.#irq.update();
        break;
      case RDTR:
        if ((value & DELAY_FLUSH) !== 0) this.#irq.flushReceive();
        break;
      case TIDV:
        if ((value & DELAY_FLUSH) !== 0) this.#irq.flushTransmit();
        break;
      case RDT:
        this.#receive.prefetch();
        break;
      case RCTL:
        this.#receive.configure();
        this.#receive.prefetch();
        break;
      case RDBAL:
      case RDBAH:
      case RDLEN:
      case RDH:
      case RFCTL:
      case PSRCTL:
        this.#receive.configure();
        break;
      default:
        if (index >= EITR && index < EITR + 5 && this.#express) this.#irq.update();
    }
  }

  #status(): number {
    let status = STATUS_FD | STATUS_SPEED_1000 | STATUS_ASDV_1000;
    const control = this.#words[CTRL] as number;
    if (this.#phy.link && (control & CTRL_SLU) !== 0) status |= STATUS_LU;
    if (this.#express) {
      status |= STATUS_PHYRA;
      if ((control & CTRL_GIO_MASTER_DISABLE) === 0) status |= STATUS_GIO_MASTER_ENABLE;
    }
    return status;
  }

  #writeControl(value: number): void {
    if ((value & CTRL_RST) !== 0) {
      this.#resetRegisters();
      return;
    }
    if ((value & CTRL_PHY_RST) !== 0) {
      this.#registers.put(CTRL, CTRL_PHY_RST, false);
      this.#phy.reset();
      this.#linkChanged();
    }
  }

  #accessPhy(value: number): void {
    const before = this.#phy.link;
    this.#words[MDIC] = this.#phy.access(value);
    if (this.#phy.link !== before) this.#linkChanged();
    if ((value & MDIC_INTERRUPT) !== 0) this.#irq.raise(INT_MDAC);
  }

  #linkChanged(): void {
    this.#irq.raise(INT_LSC);
  }

  /** CTRL.RST and all that is more (SDM §14.9): the PHY keeps its link. */
  #resetRegisters(): void {
    const words = this.#words;
    this.#memory.forget();
    this.#registers.clear();
    this.#irq.reset();
    words[CTRL] = CTRL_FD | CTRL_SLU | CTRL_SPEED_1000 | CTRL_SWDPIN0 | CTRL_SWDPIN2;
    words[PBA] = PBA_DEFAULT;
    words[LEDCTL] = LEDCTL_DEFAULT;
    words[TIPG] = TIPG_DEFAULT;
    words[VET] = VET_DEFAULT;
    if (this.#express) words[EEMNGCTL] = EEMNGCTL_DONE;
    words[MANC] = this.#express ? 0 : MANC_ARP;
    // The first address comes from the EEPROM (SDM §5.6.1).
    const stored = this.#eeprom.words;
    words[RA] = (stored[EEPROM_MAC] as number) | ((stored[EEPROM_MAC + 1] as number) << 16);
    words[RA + 1] = (stored[EEPROM_MAC + 2] as number) | RAH_AV;
    this.#transmit.reset();
    this.#receive.reset();
    this.#ioAddress = 0;
  }
}

function checksumsWanted(control: number): number {
  return (
    ((control & RXCSUM_IPOFLD) !== 0 ? CHECKED_IP : 0) |
    ((control & RXCSUM_TUOFLD) !== 0 ? CHECKED_L4 : 0)
  );
}

/** Status bits of a received frame for what was verified (SDM §3.2.3.1). */
function checksumStatus(checked: number): number {
  if (checked === 0) return RXD_IXSM;
  return (
    ((checked & CHECKED_IP) !== 0 ? RXD_IPCS : 0) |
    // The 82540EM has one bit for both; the 82574 shows UDP in a bit of its own too.
    ((checked & CHECKED_L4) !== 0 ? RXD_TCPCS : 0) |
    ((checked & CHECKED_UDP) !== 0 ? RXD_UDPCS : 0)
  );
}

function checksumErrors(checked: number): number {
  return (
    ((checked & WRONG_IP) !== 0 ? RXD_ERROR_IPE : 0) |
    ((checked & WRONG_L4) !== 0 ? RXD_ERROR_TCPE : 0)
  );
}
