/** Virtual functions as `ip -s link show` tells of them (iproute2). */
import type { ApiReply } from '../control/api.ts';

type Vf = ApiReply<'vfs'>[number];

const BROADCAST = 'ff:ff:ff:ff:ff:ff';

/** All of them, under the ports that they are of. */
export function vfsText(vfs: readonly Vf[]): string {
  if (vfs.length === 0) return 'no virtual functions\n';
  const ports = Map.groupBy(vfs, ({ nic }) => nic);
  const lines = [...ports].flatMap(([nic, list]) => [
    `${nic}:`,
    ...list.toSorted((a, b) => a.vf - b.vf).flatMap(vfLines),
  ]);
  return `${lines.join('\n')}\n`;
}

/** One of them, with its counters. */
export function vfLines(vf: Vf): string[] {
  const { counters } = vf;
  return [
    `    vf ${vf.vf}     ${settingsText(vf)}`,
    `        ${vf.port} ${stateText(vf)}, link ${vf.link ? 'up' : 'down'}${askedText(vf)}`,
    ...figures([
      ['RX: bytes', counters.rx_bytes],
      ['packets', counters.rx_frames],
      ['dropped', sum(counters, 'rx_drop_')],
    ]),
    ...figures([
      ['TX: bytes', counters.tx_bytes],
      ['packets', counters.tx_frames],
      ['dropped', sum(counters, 'tx_drop_')],
      ['spoofed', vf.spoofed],
    ]),
  ];
}

function settingsText(vf: Vf): string {
  const onOff = (value: boolean): string => (value ? 'on' : 'off');
  return [
    `link/ether ${vf.address} brd ${BROADCAST}`,
    ...(vf.vlan === 0 ? [] : [`vlan ${vf.vlan}`]),
    ...(vf.qos === 0 ? [] : [`qos ${vf.qos}`]),
    ...(vf.proto === '802.1Q' ? [] : [`vlan protocol ${vf.proto}`]),
    ...(vf.max_tx_rate === 0 ? [] : [`max_tx_rate ${vf.max_tx_rate}Mbps`]),
    ...(vf.min_tx_rate === 0 ? [] : [`min_tx_rate ${vf.min_tx_rate}Mbps`]),
    `spoof checking ${onOff(vf.spoofchk)}`,
    `link-state ${vf.state}`,
    `trust ${onOff(vf.trust)}`,
    `query_rss ${onOff(vf.query_rss)}`,
  ].join(', ');
}

/** What the guest's driver has asked for, while there is one. */
function askedText({ api, mode, vlans, macvlans }: Vf): string {
  if (api === null) return '';
  const lists = Object.entries({ vlans, macvlans }).filter(([, list]) => list.length > 0);
  return [
    `, mailbox API ${api}`,
    `mode ${mode}`,
    ...lists.map(([name, list]) => `${name} ${list.join(' ')}`),
  ].join(', ');
}

function stateText({ connected, running }: Vf): string {
  return running ? 'running' : connected ? 'connected' : 'waiting';
}

function sum(counters: Vf['counters'], prefix: string): number {
  return Object.entries(counters).reduce(
    (total, [name, value]) => (name.startsWith(prefix) ? total + value : total),
    0,
  );
}

/** A line of titles over a line of numbers. */
function figures(columns: readonly (readonly [title: string, value: number])[]): string[] {
  const widths = columns.map(([title, value]) => Math.max(title.length, String(value).length));
  const line = (cells: readonly string[]): string =>
    `    ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')}`.trimEnd();
  return [line(columns.map(([title]) => title)), line(columns.map(([, value]) => String(value)))];
}
