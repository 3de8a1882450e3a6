/**
 * A real guest and the host's kernel, over a switch with a tap as its wire. The host's side is a
 * network namespace that the daemon runs in.
 */
// suite: cores=0.5 takes=20 timeout=600
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Host, iperf, ping, startHosts, transfer } from './support/guests.ts';
import { Namespace } from './support/namespace.ts';
import { Sluice } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

const PORT = 'web/net0';
const WIRE = 'lan/wire';
const TAP = 'sluice0';
/** A whole Ethernet frame at the usual MTU. */
const PLAIN_FRAME = 1514;

test('a guest and the host over a tap', { skip: withoutTestbed() }, async (t) => {
  const namespace = await Namespace.create(t, 'tap');
  const sluice = await Sluice.start(
    t,
    {
      switches: { lan: { wire: { tap: TAP } } },
      guests: { web: { net: [{ method: 'paravirtual', switch: 'lan' }] } },
    },
    { wrapper: namespace.wrapper },
  );
  const [guest] = await startHosts(t, 'uml', [{ name: 'web', socket: sluice.socket(PORT) }]);
  assert.ok(guest);
  await namespace.sh(`set -e
    ip addr add 10.0.0.254/24 dev ${TAP}
    ip addr add fd00::254/64 dev ${TAP} nodad`);
  const host: Host<Namespace> = {
    guest: namespace,
    interface: TAP,
    address: '10.0.0.254',
    address6: 'fd00::254',
  };

  await t.test('ping, both ways, IPv4 and IPv6', async () => {
    for (const ipv6 of [false, true]) {
      assert.equal((await ping(guest, host, { ipv6 })).received, 3);
      assert.equal((await ping(host, guest, { ipv6 })).received, 3);
    }
  });

  await t.test('TCP with offloads: segments cross whole, both ways', async () => {
    for (const reverse of [false, true]) {
      const before = await sluice.counters(PORT);
      const { gbps, bytes, retransmits } = await iperf(guest, host, { seconds: 2, reverse });
      const after = await sluice.counters(PORT);
      t.diagnostic(
        `${reverse ? 'host to guest' : 'guest to host'}: ${gbps.toFixed(2)} Gb/s, ${retransmits} retransmits`,
      );
      const [frames, octets] = reverse
        ? [after.rx_frames - before.rx_frames, after.rx_bytes - before.rx_bytes]
        : [after.tx_frames - before.tx_frames, after.tx_bytes - before.tx_bytes];
      assert.ok(octets >= bytes && bytes > 0);
      assert.ok(octets / frames > PLAIN_FRAME, `${octets / frames} bytes a frame`);
      assert.equal(after.gso_frames, before.gso_frames);
    }
  });

  await t.test('TCP without offloads, both ways', async () => {
    const offloads = 'tx off tso off gso off gro off';
    await guest.guest.sh(`ethtool -K ${guest.interface} ${offloads}`);
    await namespace.sh(`ethtool -K ${TAP} ${offloads}`);
    for (const reverse of [false, true]) {
      const before = await sluice.counters(PORT);
      const { gbps, bytes } = await iperf(guest, host, { seconds: 1, reverse });
      const after = await sluice.counters(PORT);
      t.diagnostic(
        `${reverse ? 'host to guest' : 'guest to host'}, plain: ${gbps.toFixed(2)} Gb/s`,
      );
      assert.ok(bytes > 0);
      for (const way of ['tx', 'rx'] as const) {
        const frames = after[`${way}_frames`] - before[`${way}_frames`];
        assert.ok((after[`${way}_bytes`] - before[`${way}_bytes`]) / frames <= PLAIN_FRAME);
      }
    }
    await guest.guest.sh(`ethtool -K ${guest.interface} ${offloads.replaceAll('off', 'on')}`);
    await namespace.sh(`ethtool -K ${TAP} ${offloads.replaceAll('off', 'on')}`);
  });

  await t.test('64 MiB arrive as they were sent, both ways', async () => {
    for (const [from, to] of [
      [guest, host],
      [host, guest],
    ] as const) {
      const { sent, received } = await transfer(from, to, { mebibytes: 64 });
      assert.match(sent, /^[0-9a-f]{64}$/);
      assert.equal(received, sent);
    }
  });

  await t.test('the wire is a port like others: counters, addresses, capture', async () => {
    const wire = await sluice.port(WIRE);
    assert.equal(wire.kind, 'tap');
    assert.ok(wire.counters.rx_frames > 0 && wire.counters.tx_frames > 0);
    const mac = await namespace.sh(`cat /sys/class/net/${TAP}/address`);
    const learned = (await sluice.show('macs')).find((row) => row.mac === mac);
    assert.equal(learned?.port, WIRE);
  });

  await sluice.healthy();
  await sluice.stop();
  assert.equal((await namespace.run(`[ -e /sys/class/net/${TAP} ]`)).code, 1, 'the tap is gone');
});
