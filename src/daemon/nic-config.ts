/** NICs of the desired state, and guests' functions of them, with every default filled in. */
import { resolve } from 'node:path';
import type { MirrorRule } from '../device/ixgbe/veb.ts';
import type { NetDocument } from './card-schema.ts';
import { isOn } from './config-values.ts';
import { defaultMac } from './mac-address.ts';
import type { DOORBELLS, LINKS, NIC_MODELS, NicDocument, PCIE_LIMITS } from './nic-schema.ts';
import { type VfWords, vfWordsOf } from './vf-schema.ts';

/** VLANs of a port: neither: all of them; `vlan`: access; both: native VLAN and trunk. */
export interface VlanConfig {
  readonly vlan?: number;
  readonly trunk?: readonly number[];
}

export function vlansOf(item: {
  readonly vlan?: number | undefined;
  readonly trunk?: number[] | undefined;
}): VlanConfig {
  return {
    ...(item.vlan === undefined ? {} : { vlan: item.vlan }),
    ...(item.trunk === undefined ? {} : { trunk: item.trunk }),
  };
}

/** What a port of a NIC is plugged into. */
export type NicWireConfig = VlanConfig &
  (
    | { readonly kind: 'tap'; readonly tap: string }
    | { readonly kind: 'switch'; readonly switch: string }
  );

/** A port of a NIC. */
export interface NicPortConfig {
  /** `nic0/0` */
  readonly name: string;
  readonly nic: string;
  readonly port: number;
  readonly model: (typeof NIC_MODELS)[number];
  /** Of the physical function. */
  readonly mac: string;
  /** Virtual functions that there may be. */
  readonly vfs: number;
  readonly link: (typeof LINKS)[number];
  readonly pcie: (typeof PCIE_LIMITS)[number];
  readonly doorbells: (typeof DOORBELLS)[number];
  readonly doorbellPollUs: number;
  /** Who has the physical function: a guest, or the driver domain, which gives guests virtual functions. */
  readonly mode: 'direct' | 'sriov';
  /** What is copied to a virtual function. */
  readonly mirrors: readonly MirrorRule[];
  readonly wire: NicWireConfig | undefined;
}

interface FunctionConfig {
  /** `web/net0`; of a function that no guest of the file has, that of the function: `nic0/0/vf3` */
  readonly port: string;
  /** Undefined: it was made at run time. */
  readonly guest: string | undefined;
  /** The port of the NIC: `nic0/0` */
  readonly nicPort: string;
  readonly mac: string;
  /** Interrupts a second of each vector; undefined: as the driver asks. */
  readonly itr: number | undefined;
  readonly socket: string;
  /** A vfio-user client always connects. */
  readonly server: 'listen';
}

export interface DirectNetConfig extends FunctionConfig {
  readonly method: 'direct';
}

export interface SriovNetConfig extends FunctionConfig {
  readonly method: 'sriov';
  readonly vf: number;
  /** What was said of it. Its `mac` comes before the one above. */
  readonly words: VfWords;
}

export function nicPortName(nic: string, port: number): string {
  return `${nic}/${port}`;
}

export function vfName(nicPort: string, vf: number): string {
  return `${nicPort}/vf${vf}`;
}

/** @param isDirect whether a guest has the physical function of a port */
export function toNicPorts(
  nic: string,
  { model, ports, pcie, doorbells, doorbell_poll_us: doorbellPollUs }: NicDocument,
  isDirect: (nicPort: string) => boolean,
): NicPortConfig[] {
  return ports.map((item, port) => {
    const name = nicPortName(nic, port);
    return {
      name,
      nic,
      port,
      model: String(model) as NicPortConfig['model'],
      mac: (item.mac ?? defaultMac(name, port)).toLowerCase(),
      vfs: item.vfs,
      link: item.link,
      pcie,
      doorbells,
      doorbellPollUs,
      mode: isDirect(name) ? 'direct' : 'sriov',
      mirrors: item.mirrors.map(toMirror),
      wire: item.wire === 'none' ? undefined : toNicWire(item.wire),
    };
  });
}

function toMirror({
  vfs = [],
  uplink,
  downlink,
  vlans = [],
  to,
}: NicDocument['ports'][number]['mirrors'][number]): MirrorRule {
  return { pools: vfs, uplink: isOn(uplink), downlink: isOn(downlink), vlans, to };
}

function toNicWire(
  wire: Exclude<NicDocument['ports'][number]['wire'], 'none'>,
): NicWireConfig | undefined {
  const vlans = vlansOf(wire);
  if (wire.tap !== undefined) return { kind: 'tap', tap: wire.tap, ...vlans };
  return wire.switch === undefined ? undefined : { kind: 'switch', switch: wire.switch, ...vlans };
}

/**
 * @param run the run directory, where the sockets are
 * @param portMac addresses of the NICs' ports
 */
export function toFunction(
  guest: string,
  index: number,
  net: Extract<NetDocument, { method: 'direct' | 'sriov' }>,
  run: string,
  portMac: (nicPort: string) => string | undefined,
): DirectNetConfig | SriovNetConfig {
  const nicPort = nicPortName(net.nic, net.port);
  const shared = {
    port: `${guest}/net${index}`,
    guest,
    nicPort,
    itr: net.itr,
    socket: resolve(run, `${guest}-net${index}.sock`),
    server: 'listen',
  } as const;
  const mac = defaultMac(guest, index);
  if (net.method === 'direct') {
    return { method: net.method, ...shared, mac: portMac(nicPort) ?? mac };
  }
  return { method: net.method, ...shared, mac, vf: net.vf, words: vfWordsOf(net) };
}

/** A virtual function that is made at run time. */
export function looseFunction(nicPort: string, vf: number, run: string): SriovNetConfig {
  const name = vfName(nicPort, vf);
  return {
    method: 'sriov',
    port: name,
    guest: undefined,
    nicPort,
    mac: defaultMac(nicPort, vf),
    itr: undefined,
    socket: resolve(run, `${name.replaceAll('/', '-')}.sock`),
    server: 'listen',
    vf,
    words: {},
  };
}
