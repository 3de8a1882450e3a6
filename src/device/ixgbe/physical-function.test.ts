/** The physical function as a driver meets it: registers with effects, resets, frames, interrupts. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { Arena } from '../../memory/arena.ts';
import { createDataPath } from '../../net/data-path.ts';
import { parseMac } from '../../net/mac.ts';
import { PORT_COUNTER_INDEX } from '../../net/port.ts';
import { closeFd, duplicateFd } from '../../os/fd.ts';
import { SharedMapping } from '../../os/mapping.ts';
import { PollLoop } from '../../os/poll-loop.ts';
import { TestTransport } from '../../pci/testing.ts';
import {
  IXGBE_AUTOC_RESTART,
  IXGBE_CTRL_MASTER_DISABLE,
  IXGBE_CTRL_RESET,
  IXGBE_EEC_GRANT,
  IXGBE_EEC_PRESENT,
  IXGBE_ESDP_SDP2,
  IXGBE_ETQF_ENABLE,
  IXGBE_ETQS_QUEUE_ENABLE,
  IXGBE_ETQS_QUEUE_SHIFT,
  IXGBE_FCTRL_BROADCAST,
  IXGBE_FCTRL_UNICAST_ALL,
  IXGBE_FDIRCTRL_INIT_DONE,
  IXGBE_HLREG0_JUMBO,
  IXGBE_HLREG0_LOOPBACK,
  IXGBE_INT_LINK,
  IXGBE_IOADDR,
  IXGBE_IODATA,
  IXGBE_IVAR_VALID,
  IXGBE_LINKS_10G,
  IXGBE_LINKS_UP,
  IXGBE_MAXFRS_SHIFT,
  IXGBE_MRQC_IPV4_UDP,
  IXGBE_MRQC_RSS,
  IXGBE_MSCA_COMMAND,
  IXGBE_RDRXCTL_INIT_DONE,
  IXGBE_REGISTER_BYTES,
  IXGBE_REGISTERS,
  IXGBE_SEC_OFFLOAD_DISABLED,
  IXGBE_SEC_READY,
  IXGBE_STATUS_MASTER_ENABLE,
  IXGBE_SWSM_SMBI,
  IXGBE_VLNCTRL_FILTER,
} from '../../spec/ixgbe.ts';
import {
  IXGBE_QUEUE_ENABLE,
  IXGBE_RXD_ERROR_L4,
  IXGBE_RXD_INEXACT,
  IXGBE_RXD_IP_CHECKED,
  IXGBE_RXD_L4_CHECKED,
  IXGBE_RXD_RSS_IPV4_UDP,
  IXGBE_RXD_VLAN,
  IXGBE_RXDCTL_VLAN_STRIP,
} from '../../spec/ixgbe-descriptors.ts';
import { PCI_COMMAND, PCI_COMMAND_MASTER } from '../../spec/pci.ts';
import { PhysicalFunction } from './physical-function.ts';
import { PortRig } from './testing-port.ts';

const loop = new PollLoop();
const arena = Arena.create();
const path = createDataPath(arena, loop);
const MAC_A = parseMac('52:54:00:00:99:0a');
const MAC_B = parseMac('52:54:00:00:99:0b');
let serial = 0;

function rig(mac = MAC_A): PortRig {
  return new PortRig(path, arena, mac, `nic${serial++}/0`);
}

function pair(): [PortRig, PortRig] {
  const a = rig(MAC_A);
  const b = rig(MAC_B);
  a.peer = b;
  b.peer = a;
  return [a, b];
}

/** An Ethernet frame; `tci`: with that tag inside. */
function frame(to: Uint8Array, bytes = 100, type = 0x88b5, tci?: number): Buffer {
  const tag = tci === undefined ? [] : [0x81, 0x00, tci >>> 8, tci & 0xff];
  const head = Buffer.from([...to, ...MAC_A, ...tag, type >>> 8, type & 0xff]);
  const body = Buffer.alloc(Math.max(bytes - head.length, 0)).map((_, i) => i * 7 + bytes);
  return Buffer.concat([head, body]);
}

/** UDP over IPv4 from 10.0.0.1 to 10.0.0.2, with sums that are right unless told. */
function udp(from: number, to: number, good = true): Buffer {
  const payload = Buffer.from('sluice..');
  const ip = Buffer.alloc(28);
  ip[0] = 0x45;
  ip.writeUInt16BE(28 + payload.length, 2);
  ip[8] = 64;
  ip[9] = 17;
  ip.set([10, 0, 0, 1, 10, 0, 0, 2], 12);
  ip.writeUInt16BE(sum(ip.subarray(0, 20), 0), 10);
  ip.writeUInt16BE(from, 20);
  ip.writeUInt16BE(to, 22);
  ip.writeUInt16BE(8 + payload.length, 24);
  const pseudo = Buffer.concat([ip.subarray(12, 20), Buffer.from([0, 17, 0, 16])]);
  const udpSum = sum(Buffer.concat([pseudo, ip.subarray(20), payload]), 0);
  ip.writeUInt16BE(good ? udpSum : udpSum ^ 0x55, 26);
  return Buffer.concat([MAC_B, MAC_A, Buffer.from([8, 0]), ip, payload]);
}

function sum(bytes: Buffer, start: number): number {
  let total = start;
  for (let i = 0; i < bytes.length; i += 2) total += bytes.readUInt16BE(i);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return ~total & 0xffff;
}

function counter(r: PortRig, name: keyof typeof PORT_COUNTER_INDEX): number {
  return r.pf.counters.values[PORT_COUNTER_INDEX[name]] as number;
}

const BROADCAST = Uint8Array.from({ length: 6 }, () => 0xff);
const MULTICAST = parseMac('01:00:5e:00:00:fb');

describe('the function on the bus', () => {
  test('is an 82599 with capabilities where drivers look for them', () => {
    const { transport, pf } = rig();
    assert.equal(pf.readConfig(0, 4), 0x10fb8086);
    assert.equal(transport.size(0), 512 * 1024);
    assert.equal(transport.size(2), 32);
    assert.equal(transport.size(4), 16 * 1024);
    assert.equal(transport.find(0x01), 0x40);
    assert.equal(transport.find(0x05), 0x50);
    assert.equal(transport.find(0x11), 0x70);
    assert.equal(transport.find(0x10), 0xa0);
    assert.equal((pf.readConfig(0x72, 2) & 0x7ff) + 1, 64, 'vectors');
    // 5 GT/s, eight lanes.
    assert.equal(pf.readConfig(0xb2, 2) & 0x3ff, 0x82);
    for (const extended of [0x0001, 0x0003, 0x000e, 0x0010]) {
      assert.notEqual(transport.find(extended, true), 0, `capability ${extended}`);
    }
  });

  test('lets pages of queues be mapped, and no others', () => {
    const { pf } = rig();
    const areas = pf.bars[0]?.areas ?? [];
    assert.deepEqual(
      areas.map(({ offset, bytes, fdOffset }) => [offset, bytes, fdOffset]),
      [
        [0x1000, 0x1000, 0x1000],
        [0x6000, 0x2000, 0x6000],
        [0xd000, 0x1000, 0xd000],
      ],
    );
    const trapped = new PhysicalFunction({
      name: `nic${serial++}/0`,
      path,
      mac: MAC_A,
      port: 0,
      mapped: false,
    });
    assert.deepEqual(trapped.bars[0]?.areas, []);
  });

  test('has registers behind I/O too', () => {
    const r = rig();
    r.pf.writeBar(2, IXGBE_IOADDR, 4, IXGBE_REGISTERS.TCPTIMER.offset);
    r.pf.writeBar(2, IXGBE_IODATA, 4, 0x123);
    assert.equal(r.get('TCPTIMER'), 0x123);
    assert.equal(r.pf.readBar(2, IXGBE_IODATA, 4), 0x123);
    r.pf.writeBar(2, IXGBE_IOADDR, 4, IXGBE_REGISTER_BYTES);
    r.pf.writeBar(2, IXGBE_IODATA, 4, 1);
    assert.equal(r.pf.readBar(2, IXGBE_IODATA, 4), 0);
  });
});

describe('registers', () => {
  test('what a driver waits for at its start is there', () => {
    const r = rig();
    assert.notEqual(r.get('RDRXCTL') & IXGBE_RDRXCTL_INIT_DONE, 0);
    const idle = IXGBE_SEC_READY | IXGBE_SEC_OFFLOAD_DISABLED;
    assert.equal(r.get('SECRXSTAT'), idle);
    assert.equal(r.get('SECTXSTAT'), idle);
    assert.notEqual(r.get('EEC') & IXGBE_EEC_PRESENT, 0);
    r.set('EEC', 0xffff_ffff);
    assert.equal(r.get('EEC') & IXGBE_EEC_GRANT, 0, 'no lines');
    assert.notEqual(r.get('ESDP') & IXGBE_ESDP_SDP2, 0, 'a module');
    r.set('FDIRCTRL', 1);
    assert.equal(r.get('FDIRCTRL'), 1 | IXGBE_FDIRCTRL_INIT_DONE);
    r.set('FDIRCMD', 0xff);
    assert.equal(r.get('FDIRCMD') & 3, 0);
    r.set('MSCA', IXGBE_MSCA_COMMAND);
    assert.equal(r.get('MSCA') & IXGBE_MSCA_COMMAND, 0);
    assert.equal(r.get('MSRWD') >>> 16, 0xffff, 'no PHY');
  });

  test('SWSM is taken by who reads it first', () => {
    const r = rig();
    assert.equal(r.get('SWSM'), 0);
    assert.equal(r.get('SWSM'), IXGBE_SWSM_SMBI);
    r.set('SWSM', 0);
    assert.equal(r.get('SWSM'), 0);
  });

  test('STATUS tells that the master is off when DMA is over', () => {
    const r = rig();
    assert.equal(r.get('STATUS'), IXGBE_STATUS_MASTER_ENABLE);
    r.set('CTRL', IXGBE_CTRL_MASTER_DISABLE);
    assert.equal(r.get('STATUS'), 0);
  });

  test('an EEPROM word is read at once', () => {
    const r = rig();
    r.set('EERD', (0x15 << 2) | 1);
    assert.equal(r.get('EERD') & 2, 2);
    assert.equal(r.get('EERD') >>> 16, 0xe665);
  });

  test('an EEPROM word that was written stays over resets, until the next guest comes', () => {
    const r = rig();
    r.set('EEWR', ((0x0123 << 16) | (0x101 << 2) | 1) >>> 0);
    assert.notEqual(r.get('EEWR') & 2, 0);
    r.set('CTRL', IXGBE_CTRL_RESET);
    assert.equal(r.get('RAL') & 0xffff, 0x0123, 'its address');
    r.pf.detach();
    new TestTransport(r.pf, r.memory).enumerate();
    assert.equal(r.get('RAL'), Buffer.from(MAC_A).readUInt32LE(0));
  });

  test('a reset brings all back, with the address of the EEPROM', () => {
    const r = rig();
    const low = r.get('RAL');
    const high = r.get('RAH');
    assert.equal(low, Buffer.from(MAC_A).readUInt32LE(0));
    assert.equal(high, (0x8000_0000 | Buffer.from(MAC_A).readUInt16LE(4)) >>> 0);
    r.start();
    r.set('RAL', 0x1234);
    r.set('MTA', 7, 5);
    r.set('CTRL', IXGBE_CTRL_RESET);
    assert.equal(r.get('CTRL'), 0, 'it is over at once');
    assert.equal(r.get('RAL'), low);
    assert.equal(r.get('MTA', 5), 0);
    assert.equal(r.get('RXCTRL'), 0);
    assert.equal(r.pf.readBar(0, 0x1028, 4), 0);
    assert.equal(r.pf.receiving, false);
    assert.equal(r.get('GPIE'), 0);
  });

  test('a function-level reset does so, and tells the card', () => {
    const r = rig();
    const kinds: string[] = [];
    r.pf.functionReset = (kind) => kinds.push(kind);
    r.start();
    r.pf.writeConfig(0xa8, 2, 0x8000);
    assert.deepEqual(kinds, ['function']);
    r.transport.enumerate();
    assert.equal(r.get('RXCTRL'), 0);
  });

  test('statistics are cleared as they are read', () => {
    const [a, b] = pair();
    a.start();
    b.start();
    a.send(frame(MAC_B, 100));
    a.send(frame(BROADCAST, 1514));
    a.send(frame(MULTICAST, 60));
    assert.equal(a.get('GPTC'), 3);
    assert.equal(a.get('GPTC'), 0);
    assert.equal(a.get('BPTC'), 1);
    assert.equal(a.get('MPTC'), 1);
    assert.equal(a.get('GOTCL'), 100 + 1514 + 60 + 3 * 4);
    assert.equal(a.get('PTC', 0), 1);
    assert.equal(a.get('PTC', 1), 1);
    assert.equal(a.get('PTC', 5), 1);
    assert.equal(b.get('TPR'), 3, 'received at all');
    assert.equal(b.get('GPRC'), 2, 'passed the filters');
    assert.equal(b.get('BPRC'), 1);
    assert.equal(b.get('RXDGPC'), 2);
    a.pf.statistics.octets(IXGBE_REGISTERS.GOTCL.offset / 4, 2 ** 32 - 1);
    a.pf.statistics.octets(IXGBE_REGISTERS.GOTCL.offset / 4, 3);
    assert.equal(a.get('GOTCL'), 2);
    assert.equal(a.get('GOTCH'), 1);
  });
});

describe('the link', () => {
  test('is up at 10 Gb/s, and its changes interrupt', () => {
    const r = rig();
    r.start();
    r.set('IVAR_MISC', (IXGBE_IVAR_VALID | 9) << 8);
    r.set('EIMS', IXGBE_INT_LINK);
    assert.equal(r.get('LINKS'), IXGBE_LINKS_UP | IXGBE_LINKS_10G);
    r.pf.link.cable = false;
    assert.equal(r.get('LINKS'), 0);
    assert.deepEqual(r.interrupts(), [9]);
    assert.equal(r.get('EICS'), IXGBE_INT_LINK, 'reads of EICS clear nothing');
    r.set('EICR', IXGBE_INT_LINK);
    r.pf.link.cable = true;
    assert.deepEqual(r.interrupts(), [9]);
  });

  test('survives a restart of autonegotiation, and goes with a mode of 1 Gb/s', () => {
    const r = rig();
    const before = r.get('AUTOC');
    r.set('AUTOC', before | IXGBE_AUTOC_RESTART);
    assert.equal(r.get('AUTOC'), before);
    assert.notEqual(r.get('ANLP1') & 0xf_0000, 0);
    assert.notEqual(r.get('LINKS'), 0);
    r.set('AUTOC', 0);
    assert.equal(r.get('LINKS'), 0);
    r.set('AUTOC', before);
    assert.notEqual(r.get('LINKS'), 0);
  });

  test('is down: nothing is received, nothing is sent', () => {
    const [a, b] = pair();
    a.start();
    b.start();
    b.pf.link.cable = false;
    a.send(frame(MAC_B));
    assert.deepEqual(b.received(), []);
    assert.equal(counter(b, 'rx_drop_link_down'), 1);
    b.send(frame(MAC_A));
    assert.equal(b.sent, false);
    b.pf.link.cable = true;
    b.pf.poll();
    assert.equal(b.sent, true, 'it waited');
  });
});

describe('frames', () => {
  test('go from port to port, and interrupt both', () => {
    const [a, b] = pair();
    a.start();
    b.start();
    const one = frame(MAC_B, 700);
    a.send(one);
    assert.equal(a.sent, true);
    assert.deepEqual(a.interrupts(), [0]);
    assert.deepEqual(
      b.received().map(({ bytes }) => bytes),
      [one],
    );
    assert.deepEqual(b.interrupts(), [0]);
    assert.equal(counter(a, 'tx_frames'), 1);
    assert.equal(counter(b, 'rx_frames'), 1);
  });

  test('pass by address: exact, broadcast, multicast, promiscuous', () => {
    const [a, b] = pair();
    a.start();
    b.start();
    const other = parseMac('52:54:00:00:99:0c');
    a.send(frame(other));
    a.send(frame(MULTICAST));
    assert.deepEqual(b.received(), []);
    a.send(frame(BROADCAST));
    assert.equal(b.received().length, 1);
    b.set('FCTRL', IXGBE_FCTRL_BROADCAST | IXGBE_FCTRL_UNICAST_ALL);
    a.send(frame(other));
    assert.deepEqual(
      b.received().map(({ status }) => status & IXGBE_RXD_INEXACT),
      [IXGBE_RXD_INEXACT],
    );
  });

  test('pass by VLAN, and have their tag taken off or put in', () => {
    const [a, b] = pair();
    a.start();
    b.start(1, IXGBE_RXDCTL_VLAN_STRIP);
    b.set('VLNCTRL', b.get('VLNCTRL') | IXGBE_VLNCTRL_FILTER);
    b.set('VFTA', 1 << 5);
    const tagged = frame(MAC_B, 200, 0x88b5, 0x6005);
    const plain = Buffer.concat([tagged.subarray(0, 12), tagged.subarray(16)]);
    a.send(frame(MAC_B, 200, 0x88b5, 6));
    assert.deepEqual(b.received(), [], 'not in the table');
    a.send(tagged);
    const [inner] = b.received();
    assert.deepEqual(inner?.bytes, plain);
    assert.equal(inner?.vlan, 0x6005);
    assert.notEqual((inner?.status ?? 0) & IXGBE_RXD_VLAN, 0);
    // Beside the frame, as a switch hands it over.
    a.tag = 0x6005;
    a.send(plain);
    const [outer] = b.received();
    assert.deepEqual(outer?.bytes, plain);
    assert.equal(outer?.vlan, 0x6005);
    b.rx(0, 'RXDCTL', IXGBE_QUEUE_ENABLE);
    a.send(plain);
    assert.deepEqual(
      b.received().map(({ bytes }) => bytes),
      [tagged],
    );
  });

  test('with two tags are whole for each receiver, whatever another one strips', () => {
    const [a, b] = pair();
    const c = rig(MAC_B);
    a.start();
    b.start();
    c.start(1, IXGBE_RXDCTL_VLAN_STRIP);
    const slots = Uint8Array.of(0);
    a.pf.uplink = {
      send: (_from, burst) => {
        burst.tci[0] = 7;
        b.pf.deliver(burst, slots, 1, true);
        c.pf.deliver(burst, slots, 1, false);
        b.pf.deliver(burst, slots, 1, true);
        burst.copies.flush();
      },
      publish: () => {
        b.pf.flush();
        c.pf.flush();
      },
    };
    const tagged = frame(MAC_B, 64, 0x88b5, 5);
    a.send(tagged);
    const outer = Buffer.from([0x81, 0, 0, 7]);
    const whole = Buffer.concat([tagged.subarray(0, 12), outer, tagged.subarray(12)]);
    assert.deepEqual(
      b.received().map(({ bytes }) => bytes),
      [whole, whole],
    );
    const [cut] = c.received();
    const plain = Buffer.concat([tagged.subarray(0, 12), tagged.subarray(16)]);
    assert.deepEqual(cut?.bytes.subarray(0, plain.length), plain);
    assert.equal(cut?.vlan, 5);
  });

  test('are no longer than the guest wants them', () => {
    const [a, b] = pair();
    a.start();
    b.start();
    a.send(frame(MAC_B, 1514));
    assert.equal(b.received().length, 1);
    a.send(frame(MAC_B, 1515));
    assert.deepEqual(b.received(), []);
    assert.equal(b.get('ROC'), 1);
    assert.equal(counter(b, 'rx_drop_too_big'), 1);
    b.set('MAXFRS', 2000 << IXGBE_MAXFRS_SHIFT);
    b.set('HLREG0', b.get('HLREG0') | IXGBE_HLREG0_JUMBO);
    a.send(frame(MAC_B, 1996));
    a.send(frame(MAC_B, 1997));
    assert.equal(b.received().length, 1);
  });

  test('have their checksums verified', () => {
    const [a, b] = pair();
    a.start();
    b.start();
    a.send(udp(1000, 2000));
    a.send(udp(1000, 2000, false));
    const [good, bad] = b.received().map(({ status }) => status);
    const checked = IXGBE_RXD_IP_CHECKED | IXGBE_RXD_L4_CHECKED;
    assert.equal((good ?? 0) & (checked | IXGBE_RXD_ERROR_L4), checked);
    assert.equal((bad ?? 0) & (checked | IXGBE_RXD_ERROR_L4), checked | IXGBE_RXD_ERROR_L4);
  });

  test('that find no descriptor are missed', () => {
    const [a, b] = pair();
    a.start();
    b.start();
    b.rx(0, 'RDT', 0);
    a.send(frame(MAC_B));
    assert.equal(b.get('RXMPC'), 1);
    assert.equal(counter(b, 'rx_drop_no_buffer'), 1);
  });

  test('come back in loopback, and do not leave', () => {
    const r = rig();
    r.start();
    r.set('HLREG0', r.get('HLREG0') | IXGBE_HLREG0_LOOPBACK);
    r.pf.link.cable = false;
    const one = frame(BROADCAST, 512);
    r.send(one);
    assert.equal(r.sent, true);
    assert.deepEqual(
      r.received().map(({ bytes }) => bytes),
      [one],
    );
    assert.deepEqual(r.wire, []);
    assert.deepEqual(r.interrupts().sort(), [0, 0]);
  });

  test('are not sent while the master is off', () => {
    const r = rig();
    r.start();
    r.set('CTRL', IXGBE_CTRL_MASTER_DISABLE);
    r.send(frame(MAC_B));
    assert.equal(r.sent, false);
  });

  test('wait while the function is no bus master, and do not reach it', () => {
    const [a, b] = pair();
    a.start();
    b.start();
    const command = b.pf.readConfig(PCI_COMMAND, 2);
    b.pf.writeConfig(PCI_COMMAND, 2, command & ~PCI_COMMAND_MASTER);
    b.send(frame(MAC_A));
    assert.equal(b.sent, false);
    assert.equal(b.pf.arm(), false, 'nothing to look for');
    b.pf.disarm();
    a.send(frame(MAC_B));
    assert.equal(counter(b, 'rx_drop_no_buffer'), 1);
    b.pf.writeConfig(PCI_COMMAND, 2, command);
    b.pf.poll();
    assert.equal(b.sent, true);
    assert.deepEqual(b.received(), []);
  });
});

describe('receive queues', () => {
  test('are chosen by RSS, whose hash is told', () => {
    const [a, b] = pair();
    a.start();
    b.start(4);
    for (let i = 0; i < 10; i++) b.set('RSSRK', 0x243f_6a88 + i * 0x9e37_79b9, i);
    for (let i = 0; i < 32; i++) b.set('RETA', 0x0302_0100, i);
    b.set('MRQC', IXGBE_MRQC_RSS | IXGBE_MRQC_IPV4_UDP);
    const used = new Set<number>();
    for (let port = 0; port < 40; port++) {
      a.send(udp(5000 + port, 80));
      for (let queue = 0; queue < 4; queue++) {
        for (const { hash, types } of b.received(queue)) {
          assert.equal(types & 0xf, IXGBE_RXD_RSS_IPV4_UDP);
          assert.equal(hash & 3, queue);
          used.add(queue);
        }
      }
    }
    assert.equal(used.size, 4);
    a.send(frame(MAC_B));
    assert.equal(b.received(0).length, 1, 'what has no hash');
  });

  test('are chosen by EtherType before', () => {
    const [a, b] = pair();
    a.start();
    b.start(3);
    b.set('ETQF', IXGBE_ETQF_ENABLE | 0x88b5);
    b.set('ETQS', IXGBE_ETQS_QUEUE_ENABLE | (2 << IXGBE_ETQS_QUEUE_SHIFT));
    a.send(frame(MAC_B));
    a.send(frame(MAC_B, 100, 0x88b6));
    assert.equal(b.received(2).length, 1);
    assert.equal(b.received(0).length, 1);
    assert.deepEqual(b.interrupts(), [2, 0]);
  });
});

describe('a guest that misbehaves', () => {
  test('does not reach the next one by pages that it kept', () => {
    const r = rig();
    const area = r.pf.bars[0]?.areas[0] ?? assert.fail();
    const fd = duplicateFd(area.fd);
    const mapping = new SharedMapping(fd, area.bytes, area.fdOffset);
    closeFd(fd);
    const kept = new Uint32Array(mapping.buffer);
    kept[6] = 5;
    assert.equal(r.pf.readBar(0, 0x1018, 4), 5, 'a doorbell without a trap');
    r.pf.detach();
    new TestTransport(r.pf, r.memory).enumerate();
    assert.equal(r.pf.readBar(0, 0x1018, 4), 0);
    kept[6] = 7;
    assert.equal(r.pf.readBar(0, 0x1018, 4), 0);
    mapping.release();
  });

  test('writes any register, of any width, in any order: others go on', () => {
    const [a, b] = pair();
    b.start();
    const access = fc.tuple(
      fc.oneof(
        fc.nat(IXGBE_REGISTER_BYTES / 4 - 1).map((word) => 4 * word),
        fc.constantFrom(
          ...Object.values(IXGBE_REGISTERS).map(({ offset }) => offset),
          ...[0x1000, 0x1008, 0x1018, 0x1028, 0x6000, 0x6008, 0x6010, 0x6018, 0x6028],
        ),
      ),
      fc.constantFrom(1, 2, 4),
      fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 1, 0x0200_0000, 0xffff_ffff)),
      fc.boolean(),
    );
    const c = rig(parseMac('52:54:00:00:99:0d'));
    c.peer = b;
    fc.assert(
      fc.property(fc.array(access, { maxLength: 60 }), (accesses) => {
        for (const [offset, width, value, reads] of accesses) {
          if (reads) c.pf.readBar(0, offset, width);
          else c.pf.writeBar(0, offset, width, value);
        }
        for (let turn = 0; turn < 3; turn++) c.pf.poll();
        c.pf.deliver(path.burst, new Uint8Array(0), 0, false);
        c.pf.flush();
        c.pf.arm();
      }),
      { numRuns: 200 },
    );
    b.received();
    a.start();
    a.send(frame(MAC_B));
    assert.equal(b.received().length, 1);
  });
});
