/**
 * A Linux guest moves from one QEMU to another while it receives: what Sluice writes into its
 * memory meanwhile must be in the dirty log, or bytes arrive that were never sent.
 */
// suite: cores=0.5 takes=35 timeout=300
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { type QemuGuest, startQemu } from '../src/guest/qemu.ts';
import { VIRTIO_F_RING_PACKED } from '../src/spec/virtio.ts';
import { bringUp, hostOn, macOf, startStream } from './support/cards.ts';
import { negotiated, ping } from './support/guests.ts';
import { Sluice, type SluiceConfig, until } from './support/sluice.ts';
import { withoutTestbed } from './support/testbed.ts';

/** Networks, which are also the numbers of the cards. */
const SPLIT = 0;
const PACKED = 1;
const NETWORKS = [SPLIT, PACKED] as const;

/** The numbers of the guests; `after` is the port that the guest `before` moves to. */
const NUMBERS = { peer: 1, before: 2, after: 3 } as const;
type Name = keyof typeof NUMBERS;
const NAMES = Object.keys(NUMBERS) as Name[];

const config: SluiceConfig = {
  switches: Object.fromEntries(NETWORKS.map((network) => [`lan${network}`, {}])),
  guests: Object.fromEntries(
    NAMES.map((name) => [
      name,
      {
        net: NETWORKS.map((network) => ({
          method: 'paravirtual' as const,
          switch: `lan${network}`,
          mac: macOf(network, NUMBERS[name]),
          queues: network === SPLIT ? 2 : 1,
          packed: network === PACKED,
        })),
      },
    ]),
  ),
};

/** QEMU's answer to query-migrate. */
interface Progress {
  readonly status?: string;
  readonly 'error-desc'?: string;
  readonly ram?: { readonly remaining: number; readonly total: number };
}

/** How much of the stream is to arrive before and after the move. */
const ENOUGH = 2 ** 18;
/** What a receiver that does not read holds in its socket at least. */
const UNREAD = 2 ** 15;
/** Bytes a second of the move, in turn: most of the memory, nearly all of it, a pause, the rest. */
const SPEED = { most: 32 * 2 ** 20, nearly: 4 * 2 ** 20, pause: 2 ** 18, rest: 2 ** 30 } as const;

test('a guest moves to another QEMU while it receives', { skip: withoutTestbed() }, async (t) => {
  const sluice = await Sluice.start(t, config);
  /** Where QEMUs meet, as they see it. */
  let meeting = '';
  const start = (name: Name, number: number, incoming = false): QemuGuest => {
    const guest = startQemu({
      name,
      cpus: 2,
      memory: 256,
      net: NETWORKS.map((network) => ({
        socket: sluice.socket(`${name}/net${network}`),
        mac: macOf(network, number),
        queues: network === SPLIT ? 2 : 1,
        packed: network === PACKED,
      })),
      options: (inside) => {
        meeting = `unix:${inside(join(sluice.run, 'migration.sock'))}`;
        return incoming ? ['-incoming', meeting] : [];
      },
    });
    t.after(async () => {
      await guest.kill();
    });
    return guest;
  };
  const peer = start('peer', NUMBERS.peer);
  const before = start('before', NUMBERS.before);
  const after = start('after', NUMBERS.before, true);
  await Promise.all([peer.booted(), before.booted()]);
  for (const network of NETWORKS) {
    const [from, to] = await Promise.all([
      bringUp(peer, network, NUMBERS.peer),
      bringUp(before, network, NUMBERS.before),
    ]);
    assert.equal((await ping(from, to)).received, 3);
    assert.equal(await negotiated(to, VIRTIO_F_RING_PACKED), network === PACKED);
  }
  const device = (network: number): string => `card${network}`;
  const streams = await Promise.all(
    NETWORKS.map((network) =>
      startStream(
        hostOn(peer, network, NUMBERS.peer, device(network)),
        hostOn(before, network, NUMBERS.before, device(network)),
      ),
    ),
  );
  const receive = async (name: Name, network: number, enough = ENOUGH): Promise<void> => {
    const { rx_bytes } = await sluice.counters(`${name}/net${network}`);
    await until(`${name} to receive over card${network}`, async () => {
      return (await sluice.counters(`${name}/net${network}`)).rx_bytes > rx_bytes + enough;
    });
  };
  for (const network of NETWORKS) await receive('before', network);

  // The agent says that it is there when it starts: for the new QEMU it must do so again.
  const agentPort = 7000;
  const restart = `busybox nc -l -p ${agentPort}; kill $(ps | awk "/bin\\/agen[t] / {print \\$1}")`;
  await before.sh(`setsid sh -c '${restart}' >/dev/null 2>&1 &`);

  const processes = (of: string): string => `$(ps | awk "/[b]usybox nc ${of}/ {print \\$1}")`;
  const senders = processes('10[.]0');
  const receivers = processes('-l -p 6...');
  // A pause, in which no receive buffer is refilled: the guest clears new ones, which marks them.
  await peer.sh(`kill -s STOP ${senders}`);
  const goOnAt = (speed: number): Promise<unknown> =>
    before.qmp('migrate-set-parameters', { 'max-bandwidth': speed });
  await goOnAt(SPEED.most);
  await before.qmp('migrate', { uri: meeting });
  const progress = async (): Promise<Progress> => {
    const found = (await before.qmp('query-migrate')) as Progress;
    assert.notEqual(found.status, 'failed', found['error-desc'] ?? 'QEMU does not say why');
    return found;
  };
  const leaves = (part: number): Promise<void> =>
    until(`1/${part} of the memory to be left`, async () => {
      const { ram } = await progress();
      return ram !== undefined && ram.remaining < ram.total / part;
    });
  await leaves(8);
  await goOnAt(SPEED.nearly);
  await leaves(32);
  await goOnAt(SPEED.pause);
  // What comes now is written by Sluice alone, into memory of which most has been sent already, and
  // nobody looks at it before the guest has moved.
  await before.sh(`kill -s STOP ${receivers}`);
  await peer.sh(`kill -s CONT ${senders}`);
  for (const network of NETWORKS) await receive('before', network, UNREAD);
  assert.equal((await progress()).status, 'active');
  await goOnAt(SPEED.rest);
  await until('the guest to have moved', async () => (await progress()).status === 'completed');
  await before.kill();
  await sluice.running(...NETWORKS.map((network) => `after/net${network}`));
  await peer.sh(
    `busybox nc ${hostOn(before, SPLIT, NUMBERS.before, '').address} ${agentPort} </dev/null`,
  );
  await after.booted();
  await after.sh(`kill -s CONT ${receivers}`);
  for (const network of NETWORKS) await receive('after', network);
  for (const [network, stream] of streams.entries()) {
    const { sent, received, bytes } = await stream.end(after);
    assert.ok(bytes > 2 * ENOUGH);
    assert.equal(received, sent, `card${network}`);
  }
  for (const network of NETWORKS) {
    const from = hostOn(after, network, NUMBERS.before, device(network));
    const to = hostOn(peer, network, NUMBERS.peer, device(network));
    assert.equal((await ping(from, to)).received, 3);
  }
  await sluice.healthy();
});
