import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseForwardStats, parsePortStats, parseVersion } from './testpmd.ts';

const PORTS = `
  ######################## NIC statistics for port 0  ########################
  RX-packets: 2189280    RX-missed: 0          RX-bytes:  140113920
  RX-errors: 0
  TX-packets: 2189600    TX-errors: 0          TX-bytes:  140134400

  Throughput (since last show)
  Rx-pps:      1584657          Rx-bps:    811344616
  Tx-pps:      1584721          Tx-bps:    811377376
  ######################## NIC statistics for port 1  ########################
  RX-packets: 5          RX-missed: 0          RX-bytes:  320
  TX-packets: 6          TX-errors: 0          TX-bytes:  384
  Rx-pps:            7          Rx-bps:    3584
`;

test('port statistics are read, port by port', () => {
  assert.deepEqual(parsePortStats(PORTS), [
    { rxFrames: 2189280, txFrames: 2189600, rxRate: 1584657 },
    { rxFrames: 5, txFrames: 6, rxRate: 7 },
  ]);
});

test('forward statistics are those of all ports', () => {
  const text = `
  ---------------------- Forward statistics for port 0  ----------------------
  RX-packets: 1              RX-dropped: 0             RX-total: 1
  TX-packets: 2              TX-dropped: 3             TX-total: 5
  +++++++++++++++ Accumulated forward statistics for all ports+++++++++++++++
  RX-packets: 10             RX-dropped: 0             RX-total: 10
  TX-packets: 20             TX-dropped: 30            TX-total: 50
`;
  assert.deepEqual(parseForwardStats(text), { rxFrames: 10, txFrames: 20, txDropped: 30 });
});

test('another text is refused', () => {
  assert.throws(() => parsePortStats('Command not found'), { code: 'protocol' });
  assert.throws(() => parsePortStats('RX-packets: 1'), { code: 'protocol' });
  assert.throws(() => parseForwardStats('Packet forwarding not started'), { code: 'protocol' });
  assert.throws(() => parseVersion('EAL: Detected CPU lcores: 2'), { code: 'protocol' });
});

test('the version is read', () => {
  assert.equal(parseVersion("EAL: RTE Version: 'DPDK 24.11.4'\nEAL: x"), '24.11.4');
});
