/** Arbitrary bytes, arbitrarily cut, with arbitrary descriptors, as messages of vhost-user. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { SluiceError } from '../src/base/errors.ts';
import { closeFd, createEventFd } from '../src/os/fd.ts';
import { FRONT_END_REQUESTS } from '../src/spec/vhost-user.ts';
import { pipePair } from '../src/transport/pipe.ts';
import {
  decodeRequest,
  encodeMessage,
  encodeRequest,
  requestName,
} from '../src/transport/vhost-user/codec.ts';
import { MessageReader } from '../src/transport/vhost-user/framing.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const MESSAGES = 12;

function message(random: Random): Uint8Array {
  const request = random.oneIn(10) ? random.nasty(32) : random.below(FRONT_END_REQUESTS.length + 2);
  const length = random.pick([0, 8, 8, 16, 20, 24, 40, 40, 72, random.below(300)]);
  const bytes = encodeMessage(request, random.oneIn(2) ? 8 : 0, random.bytes(length));
  // Small numbers in the payload get further than large ones.
  for (let at = 12; at < bytes.length; at++) {
    if (!random.oneIn(3)) bytes[at] = at % 4 === 0 ? random.below(4) : 0;
  }
  if (random.oneIn(15)) bytes[random.below(12)] = random.u32();
  return bytes;
}

/** What was understood must come out the same when it is written and read again. */
function checkRoundTrip(request: number, payload: Uint8Array, fds: number): void {
  const decoded = decodeRequest(request, payload, fds);
  assert.deepEqual(decodeRequest(request, encodeRequest(decoded), fds), decoded);
}

export const vhostUserCodec: FuzzTarget = {
  name: 'vhost-user-codec',
  run: (random) => {
    const before = readdirSync('/proc/self/fd').length;
    const [sender, receiver] = pipePair({ chunk: 1 + random.below(40) });
    const reader = new MessageReader(receiver, requestName);
    const fd = createEventFd();
    try {
      for (let i = 0; i < MESSAGES; i++) {
        const bytes = message(random);
        const cut = random.below(bytes.length + 1);
        sender.send(bytes.subarray(0, cut), new Array(cut > 0 ? random.below(4) : 0).fill(fd));
        if (!random.oneIn(20)) sender.send(bytes.subarray(cut), random.oneIn(4) ? [fd] : []);
        for (let m = reader.read(); m !== undefined; m = reader.read()) {
          if (m === 'gone') return;
          try {
            checkRoundTrip(m.request, m.payload, m.fds.count);
          } catch (error) {
            if (!(error instanceof SluiceError)) throw error;
            assert.ok(['protocol', 'unsupported'].includes(error.code), error.code);
          } finally {
            m.fds.close();
          }
        }
      }
    } catch (error) {
      // The stream cannot be understood any more: the only other end that is allowed.
      if (!(error instanceof SluiceError && error.code === 'protocol')) throw error;
    } finally {
      reader.close();
      sender.close();
      receiver.close();
      closeFd(fd);
      assert.equal(readdirSync('/proc/self/fd').length, before, 'descriptors were left open');
    }
  },
};
