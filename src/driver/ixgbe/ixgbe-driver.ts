/**
 * A driver of the 82599's physical function: resets the port, lays rings and buffers out in a guest's
 * memory, and starts it (82599 datasheet §4.6.3). What it sends and what becomes of received frames is its
 * user's matter.
 */

import { SluiceError } from '../../base/errors.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import {
  ETHERNET_DEFAULT_MTU,
  ETHERNET_FCS_BYTES,
  ETHERNET_HEADER_BYTES,
  MAC_BYTES,
} from '../../spec/ethernet.ts';
import {
  IXGBE_AUTOC_RESTART,
  IXGBE_CTRL_EXT_DRIVER_LOADED,
  IXGBE_CTRL_LINK_RESET,
  IXGBE_CTRL_RESET,
  IXGBE_DEVICE_SFP,
  IXGBE_DMATXCTL_ENABLE,
  IXGBE_FCTRL_BROADCAST,
  IXGBE_GPIE_EIAME,
  IXGBE_GPIE_MSIX,
  IXGBE_GPIE_OTHER_CLEAR_DISABLE,
  IXGBE_GPIE_PBA_SUPPORT,
  IXGBE_HLREG0_JUMBO,
  IXGBE_HLREG0_RX_CRC_STRIP,
  IXGBE_HLREG0_TX_CRC,
  IXGBE_HLREG0_TX_PAD,
  IXGBE_INT_LINK,
  IXGBE_LINKS_UP,
  IXGBE_MAXFRS_SHIFT,
  IXGBE_MRQC_IPV4,
  IXGBE_MRQC_IPV4_TCP,
  IXGBE_MRQC_IPV4_UDP,
  IXGBE_MRQC_RSS,
  IXGBE_RDRXCTL_CRC_STRIP,
  IXGBE_RDRXCTL_INIT_DONE,
  IXGBE_REGISTERS,
  IXGBE_RTTDCS_ARBITER_DISABLE,
  IXGBE_RXCSUM_PACKET_DISABLE,
  IXGBE_RXCTRL_ENABLE,
  IXGBE_VENDOR_INTEL,
  type IxgbeRegisterName,
  ixgbeRxQueue,
  ixgbeTxQueue,
} from '../../spec/ixgbe.ts';
import type { NetPair } from '../net-pair.ts';
import { BoundFunction } from '../pci/bound-function.ts';
import type { PciBus } from '../pci/bus.ts';
import type { IxgbePlan } from './plan.ts';
import { QueuePairs } from './queue-pairs.ts';
import { RegisterAccess } from './register-access.ts';
import { Vectors } from './vectors.ts';

/** RSS has 16 queues at most, and EIMS 16 bits for vectors, of which one is for other causes. */
export const IXGBE_MOST_PAIRS = 15;

const {
  EIMS,
  EIMC,
  EIAC,
  EIAM,
  EITR,
  IVAR,
  IVAR_MISC,
  RETA: { count: RETA_WORDS },
  RSSRK: { count: KEY_WORDS },
} = IXGBE_REGISTERS;

const VECTORS = {
  enable: EIMS.offset,
  disable: EIMC.offset,
  autoClear: EIAC.offset,
  autoMask: EIAM.offset,
  throttle: EITR.offset,
  assignment: IVAR.offset,
  otherAssignment: IVAR_MISC.offset,
  otherShift: 8,
} as const;

/** Any key spreads flows; this is a part of pi's digits in hexadecimal. */
const RSS_KEY_WORD = 0x243f_6a88;
const RSS_KEY_STEP = 0x9e37_79b9;

export class IxgbeDriver {
  readonly plan: IxgbePlan;
  readonly vectors: Vectors;
  readonly pairs: readonly NetPair[];
  /** The port's own address. */
  readonly mac: Uint8Array;
  /** Times that the link went up or down since the start. */
  linkChanges = 0;
  readonly #registers: RegisterAccess;
  readonly #queues: QueuePairs;

  /**
   * Binds to a port whose DMA reaches `memory`, which begins where the plan says, and resets it.
   * @throws SluiceError `unsupported` for another card
   */
  constructor(plan: IxgbePlan, memory: DriverMemory, bus: PciBus) {
    this.plan = plan;
    const fn = new BoundFunction(bus);
    fn.expect(IXGBE_VENDOR_INTEL, [IXGBE_DEVICE_SFP], 'an 82599');
    const count = plan.pairs.length;
    if (count > IXGBE_MOST_PAIRS) {
      throw new SluiceError('config', `${count} queue pairs of an 82599`, {
        remedy: `the driver uses up to ${IXGBE_MOST_PAIRS}`,
      });
    }
    this.#registers = new RegisterAccess(bus);
    this.#reset();
    this.mac = this.#stationAddress();
    this.vectors = new Vectors(this.#registers, VECTORS, fn, count, () => {
      this.linkChanges++;
      this.set('EICR', IXGBE_INT_LINK);
    });
    this.#queues = new QueuePairs({
      plan,
      memory,
      registers: this.#registers,
      receiveBlock: ixgbeRxQueue,
      transmitBlock: ixgbeTxQueue,
      gateOf: (pair) => this.vectors.gateOf(this.vectors.vectorOf(pair)),
      count,
      checkContext: false,
    });
    this.pairs = this.#queues.pairs;
  }

  /** Starts the port: frames come and go from now on. Once. */
  start(): void {
    const { mtu, interruptsPerSecond = 0 } = this.plan.options;
    const count = this.pairs.length;
    this.set('CTRL_EXT', this.get('CTRL_EXT') | IXGBE_CTRL_EXT_DRIVER_LOADED);
    this.set(
      'GPIE',
      IXGBE_GPIE_MSIX | IXGBE_GPIE_PBA_SUPPORT | IXGBE_GPIE_OTHER_CLEAR_DISABLE | IXGBE_GPIE_EIAME,
    );
    this.vectors.start(count, IXGBE_INT_LINK, interruptsPerSecond);
    this.#startTransmit();
    this.#startReceive(mtu, count);
    // The link comes up by itself; a restart is what brings the PHY's part of it on (§3.7.4).
    this.set('AUTOC', this.get('AUTOC') | IXGBE_AUTOC_RESTART);
  }

  get linkUp(): boolean {
    return (this.get('LINKS') & IXGBE_LINKS_UP) !== 0;
  }

  /** A register by name; `index` counts registers in a row. */
  get(name: IxgbeRegisterName, index = 0): number {
    const { offset, stride } = IXGBE_REGISTERS[name];
    return this.#registers.get(offset + stride * index);
  }

  set(name: IxgbeRegisterName, value: number, index = 0): void {
    const { offset, stride } = IXGBE_REGISTERS[name];
    this.#registers.set(offset + stride * index, value);
  }

  /** Resets the port (§4.2.1.6); all interrupts are masked then. */
  #reset(): void {
    this.set('EIMC', ~0);
    this.set('CTRL', this.get('CTRL') | IXGBE_CTRL_LINK_RESET | IXGBE_CTRL_RESET);
    this.#registers.await(
      'the end of its reset',
      () => (this.get('CTRL') & IXGBE_CTRL_RESET) === 0,
    );
    this.set('EIMC', ~0);
    this.#registers.await(
      'the start of its receive unit',
      () => (this.get('RDRXCTL') & IXGBE_RDRXCTL_INIT_DONE) !== 0,
    );
  }

  /** Loaded from the EEPROM into the first receive address (§6.2.7). */
  #stationAddress(): Uint8Array {
    const words = Uint32Array.of(this.get('RAL'), this.get('RAH'));
    return new Uint8Array(words.buffer).slice(0, MAC_BYTES);
  }

  /** §4.6.8 */
  #startTransmit(): void {
    // The mode of queues is set while the arbiter rests.
    this.set('RTTDCS', this.get('RTTDCS') | IXGBE_RTTDCS_ARBITER_DISABLE);
    this.set('MTQC', 0);
    this.set('RTTDCS', this.get('RTTDCS') & ~IXGBE_RTTDCS_ARBITER_DISABLE);
    this.set('DMATXCTL', this.get('DMATXCTL') | IXGBE_DMATXCTL_ENABLE);
    this.#queues.startTransmit();
  }

  /** §4.6.7 */
  #startReceive(mtu: number, queues: number): void {
    const jumbo = mtu > ETHERNET_DEFAULT_MTU ? IXGBE_HLREG0_JUMBO : 0;
    const longest = mtu + ETHERNET_HEADER_BYTES + ETHERNET_FCS_BYTES;
    this.set('FCTRL', IXGBE_FCTRL_BROADCAST);
    this.set(
      'HLREG0',
      this.get('HLREG0') |
        IXGBE_HLREG0_TX_CRC |
        IXGBE_HLREG0_RX_CRC_STRIP |
        IXGBE_HLREG0_TX_PAD |
        jumbo,
    );
    this.set('MAXFRS', longest << IXGBE_MAXFRS_SHIFT);
    this.set('RDRXCTL', this.get('RDRXCTL') | IXGBE_RDRXCTL_CRC_STRIP);
    this.set('RXCSUM', IXGBE_RXCSUM_PACKET_DISABLE);
    if (queues > 1) this.#spread(queues);
    this.#queues.startReceive();
    this.set('RXCTRL', this.get('RXCTRL') | IXGBE_RXCTRL_ENABLE);
  }

  /** Spreads received flows over queues (§7.1.2.8). */
  #spread(queues: number): void {
    for (let word = 0; word < KEY_WORDS; word++) {
      this.set('RSSRK', RSS_KEY_WORD ^ Math.imul(RSS_KEY_STEP, word + 1), word);
    }
    for (let word = 0; word < RETA_WORDS; word++) {
      let entries = 0;
      for (let i = 0; i < 4; i++) entries |= ((4 * word + i) % queues) << (8 * i);
      this.set('RETA', entries, word);
    }
    this.set('MRQC', IXGBE_MRQC_RSS | IXGBE_MRQC_IPV4 | IXGBE_MRQC_IPV4_TCP | IXGBE_MRQC_IPV4_UDP);
  }
}
