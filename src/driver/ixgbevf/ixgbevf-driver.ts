/**
 * A driver of the 82599's virtual functions: makes itself known to the physical function by the mailbox,
 * lays rings and buffers out in a guest's memory, and starts the function (82599 datasheet §7.10.2.9,
 * §8.3).
 */
import { SluiceError } from '../../base/errors.ts';
import { formatMac } from '../../net/mac.ts';
import type { DriverMemory } from '../../ring/driver-queue.ts';
import { ETHERNET_FCS_BYTES, ETHERNET_HEADER_BYTES, MAC_BYTES } from '../../spec/ethernet.ts';
import {
  IXGBE_CTRL_RESET,
  IXGBE_DEVICE_VF,
  IXGBE_LINKS_UP,
  IXGBE_PSRTYPE_QUEUES_SHIFT,
  IXGBE_QUEUE_BYTES,
  IXGBE_VENDOR_INTEL,
} from '../../spec/ixgbe.ts';
import {
  IXGBE_API_10,
  IXGBE_API_11,
  IXGBE_API_13,
  IXGBE_API_15,
  IXGBE_QUEUES_RX,
  IXGBE_QUEUES_TX,
  IXGBE_VF_API_NEGOTIATE,
  IXGBE_VF_CTRL,
  IXGBE_VF_EIAC,
  IXGBE_VF_EIAM,
  IXGBE_VF_EIMC,
  IXGBE_VF_EIMS,
  IXGBE_VF_EITR,
  IXGBE_VF_GET_LINK_STATE,
  IXGBE_VF_GET_QUEUES,
  IXGBE_VF_IVAR,
  IXGBE_VF_IVAR_MISC,
  IXGBE_VF_LINKS,
  IXGBE_VF_MSIX_VECTORS,
  IXGBE_VF_PSRTYPE,
  IXGBE_VF_RESET,
  IXGBE_VF_RX_QUEUES,
  IXGBE_VF_SET_LPE,
  IXGBE_VF_SET_MAC,
  IXGBE_VF_SET_MULTICAST,
  IXGBE_VF_SET_VLAN,
  IXGBE_VF_TX_QUEUES,
  IXGBE_VF_UPDATE_XCAST_MODE,
} from '../../spec/ixgbe-mailbox.ts';
import type { IxgbePlan } from '../ixgbe/plan.ts';
import { QueuePairs } from '../ixgbe/queue-pairs.ts';
import { RegisterAccess } from '../ixgbe/register-access.ts';
import { Vectors } from '../ixgbe/vectors.ts';
import type { NetPair } from '../net-pair.ts';
import { BoundFunction } from '../pci/bound-function.ts';
import type { PciBus } from '../pci/bus.ts';
import { VfMailbox } from './mailbox.ts';

/** Versions of the messages that the driver speaks, the one that it likes best first. */
const API_VERSIONS = [IXGBE_API_15, IXGBE_API_13, IXGBE_API_11, IXGBE_API_10] as const;
/** One vector is the mailbox's. */
const QUEUE_VECTORS = IXGBE_VF_MSIX_VECTORS - 1;
/** Multicast hashes that one message carries: two in each of its words but the first. */
export const MOST_MULTICAST_HASHES = 30;

const VECTORS = {
  enable: IXGBE_VF_EIMS,
  disable: IXGBE_VF_EIMC,
  autoClear: IXGBE_VF_EIAC,
  autoMask: IXGBE_VF_EIAM,
  throttle: IXGBE_VF_EITR,
  assignment: IXGBE_VF_IVAR,
  otherAssignment: IXGBE_VF_IVAR_MISC,
  otherShift: 0,
} as const;

export class IxgbevfDriver {
  readonly plan: IxgbePlan;
  readonly vectors: Vectors;
  readonly mailbox: VfMailbox;
  readonly pairs: readonly NetPair[];
  /** The address that the physical function gave, or granted. */
  mac: Uint8Array = new Uint8Array(MAC_BYTES);
  /** Version of the messages that both agreed on. */
  readonly api: number;
  /** The physical function wants the VF to reset itself: it neither sends nor receives until then. */
  onRevoked: (() => void) | undefined;
  /** Times that the physical function said that something has changed. */
  notices = 0;
  readonly #registers: RegisterAccess;
  readonly #queues: QueuePairs;

  /**
   * Binds to a virtual function whose DMA reaches `memory`, which begins where the plan says, and resets it.
   * `mac` is asked for if the physical function gives it no address.
   * @throws SluiceError `unsupported` for another card; `state` if the physical function does not answer
   */
  constructor(plan: IxgbePlan, memory: DriverMemory, bus: PciBus, mac: Uint8Array) {
    this.plan = plan;
    const fn = new BoundFunction(bus);
    fn.expect(IXGBE_VENDOR_INTEL, [IXGBE_DEVICE_VF], 'a virtual function of an 82599');
    const registers = new RegisterAccess(bus);
    this.#registers = registers;
    this.mailbox = new VfMailbox(registers);
    this.mailbox.onControl = (clearToSend) => {
      this.notices++;
      if (!clearToSend) this.onRevoked?.();
    };
    registers.set(IXGBE_VF_EIMC, ~0);
    registers.set(IXGBE_VF_CTRL, IXGBE_CTRL_RESET);
    this.mailbox.awaitReset();
    // A refusal says that the physical function has no address for it.
    const answer = this.mailbox.request(IXGBE_VF_RESET);
    this.api = this.#negotiate();
    this.mac = answer === undefined ? this.#takeMac(mac) : macOf(answer);
    const queueVectors = Math.min(plan.pairs.length, QUEUE_VECTORS);
    const vectors = new Vectors(registers, VECTORS, fn, queueVectors, () => this.mailbox.look());
    this.vectors = vectors;
    this.#queues = new QueuePairs({
      plan,
      memory,
      registers,
      receiveBlock: (queue) => IXGBE_VF_RX_QUEUES + IXGBE_QUEUE_BYTES * queue,
      transmitBlock: (queue) => IXGBE_VF_TX_QUEUES + IXGBE_QUEUE_BYTES * queue,
      gateOf: (pair) => vectors.gateOf(vectors.vectorOf(pair)),
      count: Math.min(plan.pairs.length, this.#pairsOffered()),
      // The card's switch takes part in what VFs send (§7.2.3.2.4).
      checkContext: true,
    });
    this.pairs = this.#queues.pairs;
  }

  /** Starts the function: frames come and go from now on. Once. */
  start(): void {
    const { mtu, interruptsPerSecond = 0 } = this.plan.options;
    const longest = mtu + ETHERNET_HEADER_BYTES + ETHERNET_FCS_BYTES;
    this.mailbox.demand(`frames of ${longest} bytes`, IXGBE_VF_SET_LPE, [longest]);
    this.vectors.start(this.pairs.length, 1 << this.vectors.queueVectors, interruptsPerSecond);
    const queueBits = Math.ceil(Math.log2(this.pairs.length));
    this.#registers.set(IXGBE_VF_PSRTYPE, queueBits << IXGBE_PSRTYPE_QUEUES_SHIFT);
    this.#queues.startTransmit();
    this.#queues.startReceive();
  }

  /** What the register says, and from API 1.5 on the physical function. */
  get linkUp(): boolean {
    if ((this.#registers.get(IXGBE_VF_LINKS) & IXGBE_LINKS_UP) === 0) return false;
    if (this.api < IXGBE_API_15) return true;
    const answer = this.mailbox.request(IXGBE_VF_GET_LINK_STATE);
    return answer !== undefined && answer[1] !== 0;
  }

  /** Asks for another address. False: refused. */
  setMac(mac: Uint8Array): boolean {
    const words = new Uint32Array(2);
    new Uint8Array(words.buffer).set(mac);
    if (this.mailbox.request(IXGBE_VF_SET_MAC, [...words]) === undefined) return false;
    this.mac = Uint8Array.from(mac);
    return true;
  }

  /** Multicast hashes (12 bits each) of which frames are wanted. False: refused. */
  setMulticast(hashes: readonly number[]): boolean {
    const list = hashes.slice(0, MOST_MULTICAST_HASHES);
    const words = Array.from(
      { length: Math.ceil(list.length / 2) },
      (_, i) => (list[2 * i] as number) | ((list[2 * i + 1] ?? 0) << 16),
    );
    return this.mailbox.request(IXGBE_VF_SET_MULTICAST, words, list.length) !== undefined;
  }

  /** A VLAN's frames are wanted, or not any more. False: refused. */
  setVlan(vlan: number, on: boolean): boolean {
    return this.mailbox.request(IXGBE_VF_SET_VLAN, [vlan], on ? 1 : 0) !== undefined;
  }

  /** Asks for one of the modes of UPDATE_XCAST_MODE. The one that was granted; undefined: refused. */
  setMode(mode: number): number | undefined {
    return this.mailbox.request(IXGBE_VF_UPDATE_XCAST_MODE, [mode])?.[1];
  }

  #takeMac(mac: Uint8Array): Uint8Array {
    if (this.setMac(mac)) return this.mac;
    throw new SluiceError('state', `the physical function refused the address ${formatMac(mac)}`);
  }

  #negotiate(): number {
    for (const version of API_VERSIONS) {
      if (this.mailbox.request(IXGBE_VF_API_NEGOTIATE, [version]) !== undefined) return version;
    }
    return IXGBE_API_10;
  }

  #pairsOffered(): number {
    if (this.api < IXGBE_API_11) return 1;
    const answer = this.mailbox.demand('its number of queues', IXGBE_VF_GET_QUEUES);
    const [receive, transmit] = [answer[IXGBE_QUEUES_RX], answer[IXGBE_QUEUES_TX]];
    return Math.max(1, Math.min(receive ?? 1, transmit ?? 1));
  }
}

function macOf(answer: Uint32Array): Uint8Array {
  return new Uint8Array(answer.buffer, 4, MAC_BYTES).slice();
}
