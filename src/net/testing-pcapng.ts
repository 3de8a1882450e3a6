/** Reads pcapng files for tests, by the draft and not by what wrote them (draft-ietf-opsawg-pcapng). */
import assert from 'node:assert/strict';

export interface CapturedPacket {
  readonly interface: number;
  readonly time: bigint;
  readonly direction: number;
  readonly original: number;
  readonly data: Uint8Array;
}

export interface ParsedCapture {
  readonly interfaces: { name: string; snapLength: number; resolution: number; link: number }[];
  readonly packets: CapturedPacket[];
  readonly statistics: { received: bigint; dropped: bigint }[];
}

/** A capture file, read after the draft: checks lengths, padding and the magic, knows the blocks we expect. */
export function parseCapture(file: Buffer): ParsedCapture {
  const capture: ParsedCapture = { interfaces: [], packets: [], statistics: [] };
  for (let at = 0; at < file.length; ) {
    const type = file.readUInt32LE(at);
    const length = file.readUInt32LE(at + 4);
    assert.equal(length % 4, 0);
    assert.equal(file.readUInt32LE(at + length - 4), length);
    const body = file.subarray(at + 8, at + length - 4);
    const options = (from: number): Map<number, Buffer> => {
      const found = new Map<number, Buffer>();
      for (let o = from; o < body.length; ) {
        const code = body.readUInt16LE(o);
        const size = body.readUInt16LE(o + 2);
        if (code === 0) {
          assert.equal(o + 4, body.length);
          break;
        }
        found.set(code, body.subarray(o + 4, o + 4 + size));
        o += 4 + Math.ceil(size / 4) * 4;
      }
      return found;
    };
    if (at === 0) {
      assert.equal(type, 0x0a0d0d0a);
      assert.equal(body.readUInt32LE(0), 0x1a2b3c4d);
      assert.deepEqual([body.readUInt16LE(4), body.readUInt16LE(6)], [1, 0]);
    } else if (type === 1) {
      const extra = options(8);
      capture.interfaces.push({
        name: String(extra.get(2)),
        snapLength: body.readUInt32LE(4),
        resolution: extra.get(9)?.[0] ?? 6,
        link: body.readUInt16LE(0),
      });
    } else if (type === 6) {
      const captured = body.readUInt32LE(12);
      const time = (BigInt(body.readUInt32LE(4)) << 32n) | BigInt(body.readUInt32LE(8));
      capture.packets.push({
        interface: body.readUInt32LE(0),
        time,
        direction:
          (options(20 + Math.ceil(captured / 4) * 4)
            .get(2)
            ?.readUInt32LE() ?? 0) & 3,
        original: body.readUInt32LE(16),
        data: Uint8Array.from(body.subarray(20, 20 + captured)),
      });
    } else {
      assert.equal(type, 5);
      const extra = options(12);
      capture.statistics.push({
        received: extra.get(4)?.readBigUInt64LE() ?? -1n,
        dropped: extra.get(5)?.readBigUInt64LE() ?? -1n,
      });
    }
    at += length;
  }
  return capture;
}
