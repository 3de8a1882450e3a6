import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseIperf, parsePing, quantile } from './iperf-report.ts';

test("iperf3's sums are read, its errors are passed on", () => {
  const text = JSON.stringify({
    start: {},
    end: {
      sum_sent: { bytes: 1100, retransmits: 3, seconds: 1 },
      sum_received: { bytes: 1000, seconds: 1.5, bits_per_second: 1 },
    },
  });
  assert.deepEqual(parseIperf(text), { receivedBytes: 1000, seconds: 1.5, retransmits: 3 });
  assert.throws(() => parseIperf('{"error":"unable to connect"}'), /unable to connect/);
  assert.throws(() => parseIperf('nonsense'), { code: 'state' });
  assert.throws(() => parseIperf('{}'), { code: 'state' });
});

test("ping's round trips are read in microseconds", () => {
  const text = `PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.
64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.250 ms
64 bytes from 10.0.0.2: icmp_seq=2 ttl=64 time=1.5 ms

--- 10.0.0.2 ping statistics ---
2 packets transmitted, 2 received, 0% packet loss, time 1ms
rtt min/avg/max/mdev = 0.250/0.875/1.500/0.1 ms
`;
  assert.deepEqual(parsePing(text), [250, 1500]);
  assert.throws(() => parsePing('2 packets transmitted, 0 received'), { code: 'state' });
});

test('quantiles are values of the list', () => {
  assert.equal(quantile([3, 1, 2], 0.5), 2);
  assert.equal(quantile([3, 1, 2], 0.99), 3);
  assert.equal(quantile([3, 1, 2], 0), 1);
  assert.throws(() => quantile([], 0.5), { code: 'state' });
});
