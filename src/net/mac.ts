/**
 * MAC addresses (IEEE 802 §8): as text, as six bytes, and as the two numbers that a frame's bytes
 * give in one read each: `low`, bytes 0-3 as a little-endian u32, and `high`, bytes 4-5 as a u16.
 */
import { SluiceError } from '../base/errors.ts';
import { MAC_BYTES } from '../spec/ethernet.ts';

const MAC_TEXT = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i;

/** The first byte's lowest bit: a group of stations. */
const GROUP = 0x01;

/**
 * The bytes of `52:54:00:00:00:01` (either case).
 * @throws SluiceError `config` for anything else.
 */
export function parseMac(text: string): Uint8Array {
  if (!MAC_TEXT.test(text)) {
    throw new SluiceError('config', `"${text}" is not a MAC address`, {
      remedy: 'write six bytes in hexadecimal, such as 52:54:00:00:00:01',
    });
  }
  return Uint8Array.from(text.split(':'), (byte) => Number.parseInt(byte, 16));
}

/**
 * As {@link parseMac}, for the address of a single station.
 * @throws SluiceError `config` for a multicast address or all zeros as well.
 */
export function parseStationMac(text: string): Uint8Array {
  const mac = parseMac(text);
  if (isMulticast(mac) || mac.every((byte) => byte === 0)) {
    throw new SluiceError('config', `${text} cannot be the address of one station`, {
      remedy: 'choose an address whose first byte is even and that is not all zeros',
    });
  }
  return mac;
}

/** `52:54:00:00:00:01` for the six bytes from `at` on. */
export function formatMac(bytes: Uint8Array, at = 0): string {
  return Array.from(bytes.subarray(at, at + MAC_BYTES), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join(':');
}

/** Bytes 0-3 as a little-endian number. */
export function macLow(bytes: Uint8Array, at = 0): number {
  const a = bytes[at] as number;
  const b = bytes[at + 1] as number;
  const c = bytes[at + 2] as number;
  const d = bytes[at + 3] as number;
  return (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
}

/** Bytes 4-5 as a little-endian number. */
export function macHigh(bytes: Uint8Array, at = 0): number {
  return (bytes[at + 4] as number) | ((bytes[at + 5] as number) << 8);
}

/** The six bytes of a pair of numbers. */
export function macFromPair(low: number, high: number): Uint8Array {
  return Uint8Array.of(low, low >>> 8, low >>> 16, low >>> 24, high, high >>> 8);
}

export function formatMacPair(low: number, high: number): string {
  return formatMac(macFromPair(low, high));
}

/** True for groups of stations, broadcast among them. */
export function isMulticast(bytes: Uint8Array, at = 0): boolean {
  return ((bytes[at] as number) & GROUP) !== 0;
}

/** As {@link isMulticast}, from the low number. */
export function isMulticastLow(low: number): boolean {
  return (low & GROUP) !== 0;
}
