/** What a virtio-blk device answers by itself, as the driver finds it (VIRTIO 1.3 §5.2.6). */
import { SluiceError } from '../../base/errors.ts';
import type { DiskLifetime } from '../../block/disk.ts';
import {
  BLK_ID_BYTES,
  BLK_LIFETIME_BYTES,
  BLK_LIFETIME_PRE_EOL,
  BLK_LIFETIME_TYPE_A,
  BLK_LIFETIME_TYPE_B,
} from '../../spec/virtio-blk.ts';

/** Values above these are reserved. */
const MOST_PRE_EOL = 3;
const MOST_LIFETIME = 11;

/** The device ID string, padded with NUL. @throws SluiceError `config` if it does not fit, or is not ASCII */
export function encodeSerial(device: string, serial: string): Uint8Array {
  if (serial.length > BLK_ID_BYTES || !/^[\x20-\x7e]*$/.test(serial)) {
    throw new SluiceError('config', `${device}: the serial number ${JSON.stringify(serial)}`, {
      remedy: `give up to ${BLK_ID_BYTES} characters of ASCII`,
    });
  }
  const bytes = new Uint8Array(BLK_ID_BYTES);
  bytes.set(Buffer.from(serial, 'latin1'));
  return bytes;
}

/** struct virtio_blk_lifetime; what is not known, or reserved, reads as undefined (0). */
export function encodeLifetime(lifetime: DiskLifetime | undefined): Uint8Array {
  const bytes = new Uint8Array(BLK_LIFETIME_BYTES);
  const view = new DataView(bytes.buffer);
  const put = (at: number, value: number, most: number): void => {
    view.setUint16(at, value >= 0 && value <= most ? value : 0, true);
  };
  put(BLK_LIFETIME_PRE_EOL, lifetime?.preEol ?? 0, MOST_PRE_EOL);
  put(BLK_LIFETIME_TYPE_A, lifetime?.typeA ?? 0, MOST_LIFETIME);
  put(BLK_LIFETIME_TYPE_B, lifetime?.typeB ?? 0, MOST_LIFETIME);
  return bytes;
}
