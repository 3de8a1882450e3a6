/** What a cdrom answers to packet commands: pages of SPC-3 and MMC-5, big-endian. */
import { CD_BLOCK_BYTES } from '../../spec/ata.ts';
import type { DriveIdentity } from './identify.ts';

/** GET EVENT STATUS NOTIFICATION (MMC-5 §6.6): class of events, as a bit and as a number; its events. */
export const EVENT_CLASS_MEDIA = 1 << 4;
const EVENT_MEDIA = 4;
export const MEDIA_NO_CHANGE = 0;
export const MEDIA_NEW = 2;
export const MEDIA_REMOVAL = 3;
const NO_EVENT_AVAILABLE = 0x80;

const SENSE_BYTES = 18;
const INQUIRY_BYTES = 36;
const PERIPHERAL_CDROM = 5;
const REMOVABLE = 0x80;

const LEAD_OUT = 0xaa;
/** Data track, copying not permitted: ADR 1, control 4. */
const DATA_TRACK = 0x14;
/** Frames of 1/75 s; addresses in time begin 2 s before block 0. */
const FRAMES = 75;
const PREGAP = 2 * FRAMES;

const PROFILE_CDROM = 0x0008;
const FEATURE_PROFILE_LIST = 0x0000;
const FEATURE_CORE = 0x0001;
const FEATURE_REMOVABLE = 0x0003;
const FEATURE_RANDOM_READABLE = 0x0010;
const FEATURE_CD_READ = 0x001e;

const MODE_ERROR_RECOVERY = 0x01;
const MODE_CAPABILITIES = 0x2a;
const MODE_ALL = 0x3f;

/** Fixed format (SPC-3 §4.5.3). */
export function sense(key: number, code: number): Uint8Array {
  const bytes = new Uint8Array(SENSE_BYTES);
  bytes[0] = 0x70;
  bytes[2] = key;
  bytes[7] = SENSE_BYTES - 8;
  bytes[12] = code >> 8;
  bytes[13] = code & 0xff;
  return bytes;
}

function ascii(bytes: Uint8Array, at: number, length: number, text: string): void {
  for (let i = 0; i < length; i++)
    bytes[at + i] = i < text.length ? text.charCodeAt(i) & 0x7f : 0x20;
}

/** Standard INQUIRY data (SPC-3 §6.4.2): vendor and product are the first words of the model. */
export function inquiry(identity: DriveIdentity): Uint8Array {
  const bytes = new Uint8Array(INQUIRY_BYTES);
  const space = identity.model.indexOf(' ');
  const vendor = space < 0 ? identity.model : identity.model.slice(0, space);
  const product = space < 0 ? '' : identity.model.slice(space + 1);
  bytes[0] = PERIPHERAL_CDROM;
  bytes[1] = REMOVABLE;
  bytes[2] = 5; // SPC-3
  bytes[3] = 2; // format of this data
  bytes[4] = INQUIRY_BYTES - 5;
  ascii(bytes, 8, 8, vendor);
  ascii(bytes, 16, 16, product);
  ascii(bytes, 32, 4, identity.firmware);
  return bytes;
}

/** READ CAPACITY (10): last block, and bytes of one. */
export function capacity(blocks: number): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, blocks - 1);
  view.setUint32(4, CD_BLOCK_BYTES);
  return bytes;
}

function setAddress(view: DataView, at: number, block: number, isMsf: boolean): void {
  if (!isMsf) {
    view.setUint32(at, block);
    return;
  }
  const frame = block + PREGAP;
  view.setUint8(at + 1, Math.min(0xff, Math.floor(frame / (60 * FRAMES))));
  view.setUint8(at + 2, Math.floor(frame / FRAMES) % 60);
  view.setUint8(at + 3, frame % FRAMES);
}

/** READ TOC/PMA/ATIP (MMC-5 §6.26) of one data track; undefined for a format or track that there is not. */
export function toc(
  format: number,
  isMsf: boolean,
  track: number,
  blocks: number,
): Uint8Array | undefined {
  if (format === 1) {
    const bytes = new Uint8Array(12);
    bytes.set([0, 10, 1, 1, 0, DATA_TRACK, 1, 0]);
    setAddress(new DataView(bytes.buffer), 8, 0, isMsf);
    return bytes;
  }
  if (format !== 0 || (track > 1 && track !== LEAD_OUT)) return undefined;
  const entries = track <= 1 ? [1, LEAD_OUT] : [LEAD_OUT];
  const bytes = new Uint8Array(4 + entries.length * 8);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, bytes.length - 2);
  bytes[2] = 1;
  bytes[3] = 1;
  for (const [i, number] of entries.entries()) {
    const at = 4 + i * 8;
    bytes[at + 1] = DATA_TRACK;
    bytes[at + 2] = number;
    setAddress(view, at + 4, number === LEAD_OUT ? blocks : 0, isMsf);
  }
  return bytes;
}

/**
 * GET CONFIGURATION (MMC-5 §6.5). `type` 0: all features from `start` on; 1: the current ones; 2: that one.
 */
export function configuration(hasMedium: boolean, type: number, start: number): Uint8Array {
  const current = hasMedium ? 1 : 0;
  // Feature code; flags (version, persistent, current); what is in it.
  const all: readonly (readonly [number, number, readonly number[]])[] = [
    [FEATURE_PROFILE_LIST, 0x03, [0, PROFILE_CDROM, current, 0]],
    [FEATURE_CORE, 0x0b, [0, 0, 0, 2, 0, 0, 0, 0]], // ATAPI
    [FEATURE_REMOVABLE, 0x03, [0x29, 0, 0, 0]], // tray; eject, lock
    [FEATURE_RANDOM_READABLE, current, [0, 0, CD_BLOCK_BYTES >> 8, 0, 0, 1, 0, 0]],
    [FEATURE_CD_READ, 0x08 | current, [0, 0, 0, 0]],
  ];
  const chosen = all.filter(
    ([code, flags]) =>
      (type === 2 ? code === start : code >= start) && (type !== 1 || (flags & 1) !== 0),
  );
  const out = [0, 0, 0, 0, 0, 0, 0, hasMedium ? PROFILE_CDROM : 0];
  for (const [code, flags, data] of chosen) out.push(0, code, flags, data.length, ...data);
  const bytes = Uint8Array.from(out);
  new DataView(bytes.buffer).setUint32(0, bytes.length - 4);
  return bytes;
}

/** GET EVENT STATUS NOTIFICATION: events of the medium, or that no wanted class is there. */
export function events(
  wanted: number,
  event: number,
  isOpen: boolean,
  hasMedium: boolean,
): Uint8Array {
  if ((wanted & EVENT_CLASS_MEDIA) === 0) {
    return Uint8Array.of(0, 2, NO_EVENT_AVAILABLE, EVENT_CLASS_MEDIA);
  }
  const state = (isOpen ? 1 : 0) | (hasMedium ? 2 : 0);
  return Uint8Array.of(0, 6, EVENT_MEDIA, EVENT_CLASS_MEDIA, event, state, 0, 0);
}

/** READ DISC INFORMATION (MMC-5 §6.22): finalized, one session, one track. */
export function discInformation(): Uint8Array {
  const bytes = new Uint8Array(34);
  bytes.set([0, 32, 0x0e, 1, 1, 1, 1]);
  return bytes;
}

/** MECHANISM STATUS (MMC-5 §6.16): no changer. */
export function mechanism(isOpen: boolean): Uint8Array {
  const bytes = new Uint8Array(8);
  bytes[1] = isOpen ? 0x10 : 0;
  return bytes;
}

/** MODE SENSE (6 or 10); undefined for a page that there is not. */
export function modePages(
  page: number,
  isLong: boolean,
  isLocked: boolean,
): Uint8Array | undefined {
  const recovery = [MODE_ERROR_RECOVERY, 6, 0, 5, 0, 0, 0, 0];
  const capabilities = [
    ...[MODE_CAPABILITIES, 18],
    ...[0, 0], // reads no CD-R, writes nothing
    ...[0, 0],
    0x29 | (isLocked ? 0x02 : 0), // tray; eject, lock
    ...[0, 0, 0],
    ...[0, 0], // no audio, hence no volume levels
    ...[0, 0], // no buffer
    ...[0, 0, 0, 0, 0, 0],
  ];
  const chosen: number[] = [];
  if (page === MODE_ERROR_RECOVERY || page === MODE_ALL) chosen.push(...recovery);
  if (page === MODE_CAPABILITIES || page === MODE_ALL) chosen.push(...capabilities);
  if (chosen.length === 0) return undefined;
  if (!isLong) return Uint8Array.from([3 + chosen.length, 0, 0, 0, ...chosen]);
  const length = 6 + chosen.length;
  return Uint8Array.from([length >> 8, length & 0xff, 0, 0, 0, 0, 0, 0, ...chosen]);
}
