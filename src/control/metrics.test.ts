import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FunctionFigures, LaneFigures, PortFigures, VfFigures } from '../daemon/daemon.ts';
import type { DeviceFigures } from '../daemon/disks.ts';
import { BLOCK_COUNTER_INDEX, newBlockCounters } from '../device/virtio-blk/counters.ts';
import { LANE_COUNTERS } from '../engine/lane-counters.ts';
import { newPortCounters, PORT_COUNTER_INDEX } from '../net/port.ts';
import { metricsText } from './metrics.ts';

function lane(index: number): LaneFigures {
  const counters = Object.fromEntries(LANE_COUNTERS.map((name) => [name, 0]));
  return { ...counters, lane: index, cpu_ns: 1.5e9, wait_ns: 0, sleeps: 7 } as LaneFigures;
}

function port(name: string, frames: number): PortFigures {
  const counters = newPortCounters();
  counters.values[PORT_COUNTER_INDEX.tx_frames] = frames;
  return {
    port: name,
    switch: 'lan',
    kind: 'guest',
    lane: 0,
    connected: true,
    running: false,
    features: '0x0',
    protocolFeatures: [],
    memoryBytes: 0,
    fault: null,
    counters: counters.snapshot(),
  };
}

function device(name: string, reads: number): DeviceFigures {
  const counters = newBlockCounters();
  counters.values[BLOCK_COUNTER_INDEX.reads] = reads;
  counters.values[BLOCK_COUNTER_INDEX.error_io] = 2;
  return {
    device: name,
    disk: 'root',
    lane: 0,
    connected: true,
    running: false,
    features: '0x0',
    protocolFeatures: [],
    memoryBytes: 0,
    fault: null,
    counters: counters.snapshot(),
  };
}

const CARD: FunctionFigures = {
  function: 'a/net0',
  model: '82574',
  lane: 0,
  connected: false,
  lost: true,
  busMaster: false,
  maps: 0,
  memoryBytes: 0,
  vectors: { intx: 0, msi: 0, msix: 0 },
  fault: null,
  counters: { trap_reads: 5, trap_writes: 6, messages: 7, interrupts: 8, dma_faults: 9 },
};

const VF: VfFigures = {
  function: 'nic0/0/vf3',
  nic: 'nic0/0',
  vf: 3,
  port: 'b/net0',
  socket: '/run/b-net0.sock',
  lane: 0,
  connected: true,
  running: true,
  address: '52:54:00:00:00:03',
  link: true,
  mac: undefined,
  vlan: 0,
  qos: 0,
  proto: '802.1Q',
  max_tx_rate: 0,
  min_tx_rate: 0,
  spoofchk: true,
  query_rss: false,
  state: 'auto',
  trust: false,
  api: '1.5',
  mode: 'multicast',
  vlans: [],
  macvlans: [],
  spoofed: 17,
  counters: newPortCounters().snapshot(),
};

test('each family has one type line and a sample for each port or lane', () => {
  const lines = metricsText(
    [lane(0), lane(1)],
    [port('a/net0', 12), port('b/net0', 1e15)],
    [device('a/disk0', 3)],
    [CARD],
    [VF],
  ).split('\n');
  const families = lines
    .filter((line) => line.startsWith('# TYPE '))
    .map((line) => line.split(' ')[2]);
  assert.equal(new Set(families).size, families.length);
  assert.deepEqual(
    lines.filter((line) => line.startsWith('sluice_port_tx_frames_total')),
    [
      'sluice_port_tx_frames_total{port="a/net0",switch="lan"} 12',
      'sluice_port_tx_frames_total{port="b/net0",switch="lan"} 1000000000000000',
    ],
  );
  assert.ok(lines.includes('sluice_lane_cpu_seconds_total{lane="1"} 1.5'));
  assert.ok(lines.includes('sluice_lane_sleeps_total{lane="0"} 7'));
  assert.ok(lines.includes('sluice_port_connected{port="a/net0",switch="lan"} 1'));
  assert.ok(lines.includes('sluice_port_running{port="a/net0",switch="lan"} 0'));
  assert.ok(lines.includes('sluice_disk_reads_total{device="a/disk0",disk="root"} 3'));
  assert.deepEqual(
    lines.filter((line) => line.startsWith('sluice_disk_errors_total{') && !line.endsWith(' 0')),
    ['sluice_disk_errors_total{device="a/disk0",disk="root",reason="io"} 2'],
  );
  const card = '{function="a/net0",model="82574"}';
  assert.ok(lines.includes(`sluice_function_trap_writes_total${card} 6`));
  assert.ok(lines.includes(`sluice_function_dma_faults_total${card} 9`));
  assert.ok(lines.includes(`sluice_function_lost${card} 1`));
  assert.ok(lines.includes('sluice_vf_spoofed_total{nic="nic0/0",vf="3",port="b/net0"} 17'));
  assert.ok(lines.includes('sluice_vf_link{nic="nic0/0",vf="3",port="b/net0"} 1'));
  assert.equal(lines.at(-1), '');
  for (const line of lines.slice(0, -1))
    assert.match(line, /^(# TYPE \w+ (counter|gauge)|\w+\{[^}]*\} [\d.e+]+)$/);
});

test('label values are escaped', () => {
  assert.match(metricsText([], [port('a"\\\n/net0', 0)], [], [], []), /port="a\\"\\\\\\n\/net0"/);
});
