/** The PCI Express capability of endpoints (PCIe 4.0 §7.5.3). */
import { SluiceError } from '../base/errors.ts';
import {
  PCI_CAP_ID_EXPRESS,
  PCIE_BYTES,
  PCIE_CAP_TYPE_SHIFT,
  PCIE_CAP_VERSION_2,
  PCIE_CAPABILITIES,
  PCIE_DEVCAP_EXTENDED_TAG,
  PCIE_DEVCAP_FLR,
  PCIE_DEVCAP_L0S_LATENCY_SHIFT,
  PCIE_DEVCAP_L1_LATENCY_SHIFT,
  PCIE_DEVCAP_PAYLOAD,
  PCIE_DEVCAP_ROLE_BASED_ERRORS,
  PCIE_DEVCAP2_TIMEOUT_DISABLE,
  PCIE_DEVCTL_ERROR_REPORTING,
  PCIE_DEVCTL_EXTENDED_TAG,
  PCIE_DEVCTL_FLR,
  PCIE_DEVCTL_NO_SNOOP,
  PCIE_DEVCTL_PAYLOAD,
  PCIE_DEVCTL_PAYLOAD_SHIFT,
  PCIE_DEVCTL_READ_REQUEST,
  PCIE_DEVCTL_READ_REQUEST_SHIFT,
  PCIE_DEVCTL_RELAXED_ORDER,
  PCIE_DEVCTL2_TIMEOUT_DISABLE,
  PCIE_DEVICE_CAPABILITIES,
  PCIE_DEVICE_CAPABILITIES_2,
  PCIE_DEVICE_CONTROL,
  PCIE_DEVICE_CONTROL_2,
  PCIE_DEVICE_STATUS,
  PCIE_DEVICE_STATUS_2,
  PCIE_DEVSTA_ERRORS,
  PCIE_DEVSTA_PENDING,
  PCIE_LINK_CAPABILITIES,
  PCIE_LINK_CAPABILITIES_2,
  PCIE_LINK_CONTROL,
  PCIE_LINK_CONTROL_2,
  PCIE_LINK_SPEED,
  PCIE_LINK_STATUS,
  PCIE_LINK_STATUS_2,
  PCIE_LINK_WIDTH,
  PCIE_LINK_WIDTH_SHIFT,
  PCIE_LNKCAP_ASPM_OPTIONAL,
  PCIE_LNKCAP_ASPM_SHIFT,
  PCIE_LNKCAP_PORT_SHIFT,
  PCIE_LNKCAP2_SPEEDS_SHIFT,
  PCIE_LNKCTL_ASPM,
  PCIE_LNKCTL_COMMON_CLOCK,
  PCIE_LNKCTL_EXTENDED_SYNCH,
  PCIE_LNKCTL_RCB,
  PCIE_LNKCTL2_COMPLIANCE,
  PCIE_LNKCTL2_SPEED,
  PCIE_LNKSTA_SLOT_CLOCK,
  PCIE_SPEEDS,
  PCIE_TYPE_ENDPOINT,
  PCIE_TYPE_ROOT_COMPLEX_ENDPOINT,
  PCIE_WIDTHS,
} from '../spec/pci.ts';
import type { PciCapability, PciConfigSpace } from './config-space.ts';
import type { PciRegister } from './registers.ts';

/** In GT/s. */
export type LinkSpeed = 2.5 | 5 | 8 | 16 | 32;
export type LinkWidth = (typeof PCIE_WIDTHS)[number];

export interface LinkOptions {
  readonly speed: LinkSpeed;
  readonly width: LinkWidth;
  /** What the link came up with. Default: all that the function can. */
  readonly currentSpeed?: LinkSpeed;
  readonly currentWidth?: LinkWidth;
  readonly port?: number;
  /** Active State Power Management: 0 none, 1 L0s, 2 L1, 3 both. Default: 0. */
  readonly aspm?: number;
}

export interface ExpressOptions {
  readonly at?: number;
  /** Undefined: a root complex integrated endpoint, which has no link. */
  readonly link?: LinkOptions | undefined;
  /** Largest payload that the function can take, in bytes: 128 to 4096. Default: 128. */
  readonly maxPayload?: number;
  /** Default: true. */
  readonly functionLevelReset?: boolean;
}

/** A size of 128 << n bytes as n. */
function sizeCode(bytes: number): number {
  const code = Math.log2(bytes / 128);
  if (!Number.isInteger(code) || code < 0 || code > 5) {
    throw new SluiceError('config', `PCI Express: a payload of ${bytes} bytes`, {
      remedy: 'Take 128, 256, 512, 1024, 2048 or 4096',
    });
  }
  return code;
}

/** Speed and width as they stand in link capabilities and link status. */
function linkBits(speed: LinkSpeed, width: LinkWidth): number {
  const code = PCIE_SPEEDS.indexOf(speed);
  if (code < 1 || !PCIE_WIDTHS.includes(width)) {
    throw new SluiceError('config', `PCI Express: a link of ${speed} GT/s x${width}`, {
      remedy: `Take one of ${PCIE_SPEEDS.slice(1).join(', ')} GT/s and x${PCIE_WIDTHS.join(', x')}`,
    });
  }
  return code | (width << PCIE_LINK_WIDTH_SHIFT);
}

export class Express implements PciCapability {
  readonly name = 'PCI Express';
  readonly id = PCI_CAP_ID_EXPRESS;
  readonly bytes = PCIE_BYTES;
  readonly at?: number;
  readonly registers: readonly PciRegister[];
  readonly #flr: boolean;
  #space: PciConfigSpace | undefined;
  #base = 0;

  /** @throws SluiceError `config` for sizes, speeds and widths that PCI Express does not have. */
  constructor(options: ExpressOptions = {}) {
    const { at, link, maxPayload = 128, functionLevelReset = true } = options;
    if (at !== undefined) {
      this.at = at;
    }
    this.#flr = functionLevelReset;
    const type = link === undefined ? PCIE_TYPE_ROOT_COMPLEX_ENDPOINT : PCIE_TYPE_ENDPOINT;
    const capabilities = PCIE_CAP_VERSION_2 | (type << PCIE_CAP_TYPE_SHIFT);
    // Latencies of 64 us and more are acceptable: no limits (§7.5.3.3).
    const latency =
      link === undefined
        ? 0
        : (7 << PCIE_DEVCAP_L0S_LATENCY_SHIFT) | (7 << PCIE_DEVCAP_L1_LATENCY_SHIFT);
    const devcap =
      (sizeCode(maxPayload) & PCIE_DEVCAP_PAYLOAD) |
      PCIE_DEVCAP_EXTENDED_TAG |
      latency |
      PCIE_DEVCAP_ROLE_BASED_ERRORS |
      (functionLevelReset ? PCIE_DEVCAP_FLR : 0);
    const control =
      PCIE_DEVCTL_ERROR_REPORTING |
      PCIE_DEVCTL_RELAXED_ORDER |
      PCIE_DEVCTL_PAYLOAD |
      PCIE_DEVCTL_EXTENDED_TAG |
      PCIE_DEVCTL_NO_SNOOP |
      PCIE_DEVCTL_READ_REQUEST;
    // §7.5.3.4: relaxed ordering and no snoop on, 512 bytes a read.
    const initial =
      PCIE_DEVCTL_RELAXED_ORDER |
      PCIE_DEVCTL_NO_SNOOP |
      (sizeCode(512) << PCIE_DEVCTL_READ_REQUEST_SHIFT);
    const strobe = functionLevelReset ? PCIE_DEVCTL_FLR : 0;
    // biome-ignore format: one register a line
    this.registers = [
      { name: 'CAPABILITIES', offset: PCIE_CAPABILITIES, bytes: 2, reset: capabilities, meaning: 'version, type' },
      { name: 'DEVICE_CAPABILITIES', offset: PCIE_DEVICE_CAPABILITIES, bytes: 4, reset: devcap, meaning: 'payload, latencies, FLR' },
      { name: 'DEVICE_CONTROL', offset: PCIE_DEVICE_CONTROL, bytes: 2, reset: initial, rw: control, strobe, keptByFlr: PCIE_DEVCTL_PAYLOAD, meaning: 'errors, payload, read request, FLR' },
      { name: 'DEVICE_STATUS', offset: PCIE_DEVICE_STATUS, bytes: 2, rw1c: PCIE_DEVSTA_ERRORS, meaning: 'errors, transactions pending' },
      ...(link === undefined ? [] : linkRegisters(link)),
      { name: 'DEVICE_CAPABILITIES_2', offset: PCIE_DEVICE_CAPABILITIES_2, bytes: 4, reset: PCIE_DEVCAP2_TIMEOUT_DISABLE, meaning: 'completion timeout' },
      { name: 'DEVICE_CONTROL_2', offset: PCIE_DEVICE_CONTROL_2, bytes: 2, rw: PCIE_DEVCTL2_TIMEOUT_DISABLE, meaning: 'completion timeout' },
      { name: 'DEVICE_STATUS_2', offset: PCIE_DEVICE_STATUS_2, bytes: 2, meaning: 'reserved' },
    ];
  }

  bind(space: PciConfigSpace, offset: number): void {
    this.#space = space;
    this.#base = offset;
    if (this.#flr) {
      space.onWrite(offset + PCIE_DEVICE_CONTROL, (strobes) => {
        if (strobes !== 0) {
          space.requestReset('function');
        }
      });
    }
  }

  /** Largest payload that the guest allows, in bytes. */
  get maxPayload(): number {
    return 128 << ((this.#control() & PCIE_DEVCTL_PAYLOAD) >>> PCIE_DEVCTL_PAYLOAD_SHIFT);
  }

  /** Largest read request that the guest allows, in bytes. */
  get maxReadRequest(): number {
    return 128 << ((this.#control() & PCIE_DEVCTL_READ_REQUEST) >>> PCIE_DEVCTL_READ_REQUEST_SHIFT);
  }

  /** Transactions Pending: DMA is on its way (§7.5.3.5). */
  setPending(pending: boolean): void {
    const bits = pending ? PCIE_DEVSTA_PENDING : 0;
    this.#space?.set(this.#base + PCIE_DEVICE_STATUS, 2, bits, PCIE_DEVSTA_PENDING);
  }

  /** Sets bits of device status, as errors do (§6.2.5). */
  reportErrors(status: number): void {
    this.#space?.set(this.#base + PCIE_DEVICE_STATUS, 2, status, status & PCIE_DEVSTA_ERRORS);
  }

  #control(): number {
    return this.#space?.get(this.#base + PCIE_DEVICE_CONTROL, 2) ?? 0;
  }
}

function linkRegisters(link: LinkOptions): PciRegister[] {
  const can = linkBits(link.speed, link.width);
  const is = linkBits(link.currentSpeed ?? link.speed, link.currentWidth ?? link.width);
  if (
    (is & PCIE_LINK_SPEED) > (can & PCIE_LINK_SPEED) ||
    (is & PCIE_LINK_WIDTH) > (can & PCIE_LINK_WIDTH)
  ) {
    throw new SluiceError('config', 'PCI Express: the link is faster than the function');
  }
  const speed = can & PCIE_LINK_SPEED;
  const capabilities =
    (can |
      ((link.aspm ?? 0) << PCIE_LNKCAP_ASPM_SHIFT) |
      PCIE_LNKCAP_ASPM_OPTIONAL |
      ((link.port ?? 0) << PCIE_LNKCAP_PORT_SHIFT)) >>>
    0;
  const speeds = ((1 << speed) - 1) << PCIE_LNKCAP2_SPEEDS_SHIFT;
  const control =
    PCIE_LNKCTL_ASPM | PCIE_LNKCTL_RCB | PCIE_LNKCTL_COMMON_CLOCK | PCIE_LNKCTL_EXTENDED_SYNCH;
  const control2 = PCIE_LNKCTL2_SPEED | PCIE_LNKCTL2_COMPLIANCE;
  // biome-ignore format: one register a line
  return [
    { name: 'LINK_CAPABILITIES', offset: PCIE_LINK_CAPABILITIES, bytes: 4, reset: capabilities, meaning: 'highest speed and width, ASPM, port' },
    { name: 'LINK_CONTROL', offset: PCIE_LINK_CONTROL, bytes: 2, rw: control, keptByFlr: control, meaning: 'ASPM, RCB, common clock' },
    { name: 'LINK_STATUS', offset: PCIE_LINK_STATUS, bytes: 2, reset: is | PCIE_LNKSTA_SLOT_CLOCK, meaning: 'speed and width' },
    { name: 'LINK_CAPABILITIES_2', offset: PCIE_LINK_CAPABILITIES_2, bytes: 4, reset: speeds, meaning: 'all speeds' },
    { name: 'LINK_CONTROL_2', offset: PCIE_LINK_CONTROL_2, bytes: 2, reset: speed, rw: control2, sticky: control2, meaning: 'target speed' },
    { name: 'LINK_STATUS_2', offset: PCIE_LINK_STATUS_2, bytes: 2, meaning: 'de-emphasis, equalization' },
  ];
}
