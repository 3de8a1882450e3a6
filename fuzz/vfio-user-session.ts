/**
 * A function's server under a hostile client: messages that make sense, in an order that does not, or
 * changed here and there, descriptors missing or too many, maps that overlap and wrap; the function does
 * DMA, some of which is under way from one message to the next.
 *
 * A model of the maps says what each DMA may reach. What the function writes must be found in the files
 * there and nowhere else, also what was under way when a map was to be taken away. Each command is
 * answered once and in order. Afterwards every descriptor is closed, every file unmapped.
 */
import assert from 'node:assert/strict';
import { alignDown } from '../src/base/bits.ts';
import { DMA_DONE, DMA_PENDING, DMA_REFUSED } from '../src/memory/dma.ts';
import { closeAll, createEventFd, createPipe } from '../src/os/fd.ts';
import { createMemfd } from '../src/os/mapping.ts';
import * as vfu from '../src/spec/vfio-user.ts';
import { encodeMessage, type Message, payloadOf } from '../src/transport/vfio-user/codec.ts';
import { MessageReader } from '../src/transport/vfio-user/framing.ts';
import { Bench, openDescriptors, testArena } from '../src/transport/vfio-user/testing.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';

const STEPS = 60;
const PAGE = 4096;
const FILE_BYTES = [16 * PAGE, 5 * PAGE, PAGE + PAGE / 2] as const;
const LANE_BYTES = 16 * PAGE;
const CANARY = 0xa5;
/** Most of the addresses lie here, so that maps meet. */
const WINDOW = 64 * PAGE;

interface Map {
  readonly iova: bigint;
  readonly length: bigint;
  /** Index of the file, -1: none. */
  readonly file: number;
  readonly offset: number;
  readonly readable: boolean;
  readonly writable: boolean;
}

interface Expected {
  readonly id: number;
  readonly command: number;
  readonly done?: () => void;
}

interface Pending {
  readonly id: number;
  readonly command: number;
  readonly payload: Uint8Array;
}

/** DMA under way: where it will write, and what. */
interface Under {
  readonly map: Map;
  readonly address: number;
  /** From the beginning of the map's file. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Bytes that differ from place to place. */
function content(random: Random, bytes: number): Uint8Array {
  const words = new Uint32Array(bytes / 4);
  for (let i = 0; i < words.length; i++) words[i] = random.u32();
  return new Uint8Array(words.buffer);
}

class Hostile {
  readonly random: Random;
  readonly bench: Bench;
  readonly files: readonly number[];
  readonly mapped: readonly number[];
  /** What each file must hold. */
  readonly shadow: readonly Uint8Array[];
  readonly others: readonly number[];
  readonly lane: number;
  readonly reader: MessageReader;
  maps: Map[] = [];
  expected: Expected[] = [];
  asked: Pending[] = [];
  under: Under[] = [];
  /** False: a message was changed at random, so that nothing is known of what comes. */
  trusted = true;
  busMaster = true;
  /** This client changes messages at random. */
  readonly mangles: boolean;
  #id = 0;

  constructor(random: Random) {
    const arena = testArena();
    this.random = random;
    this.mangles = random.oneIn(4);
    const chunk = random.oneIn(3) ? 1 + random.below(100) : Number.POSITIVE_INFINITY;
    this.bench = new Bench({ pipe: { chunk } });
    this.files = FILE_BYTES.map((bytes) => createMemfd('hostile', bytes));
    this.mapped = this.files.map((fd, i) => arena.mapFile(fd, FILE_BYTES[i] as number, 0));
    this.shadow = FILE_BYTES.map((bytes) => content(random, bytes));
    for (const [i, at] of this.mapped.entries()) arena.bytes.set(this.shadow[i] as Uint8Array, at);
    const { read, write } = createPipe();
    this.others = [createEventFd(), read, write];
    this.lane = arena.allocate(LANE_BYTES, 'hostile');
    this.reader = new MessageReader(this.bench.raw);
  }

  /** The map that holds all of a range with the permission, and has a file; else undefined. */
  #holder(iova: number, length: number, write: boolean): Map | undefined {
    const [from, to] = [BigInt(iova), BigInt(iova + length)];
    return this.maps.find(
      (map) =>
        map.file >= 0 &&
        from >= map.iova &&
        to <= map.iova + map.length &&
        (write ? map.writable : map.readable),
    );
  }

  /** True if every byte of a range is mapped with the permission. */
  #allows(iova: number, length: number, write: boolean): boolean {
    let at = BigInt(iova);
    const end = at + BigInt(length);
    while (at < end) {
      const map = this.maps.find((one) => at >= one.iova && at < one.iova + one.length);
      if (map === undefined || !(write ? map.writable : map.readable)) return false;
      at = map.iova + map.length;
    }
    return true;
  }

  send(command: number, payload: Uint8Array, fds: readonly number[], done?: () => void): void {
    const { random, bench } = this;
    this.#id = (this.#id + 1) & 0xffff;
    const isQuiet = done === undefined && random.oneIn(8);
    const flags = vfu.FLAG_TYPE_COMMAND | (isQuiet ? vfu.FLAG_NO_REPLY : 0);
    const bytes = encodeMessage(this.#id, command, flags, payload);
    if (this.mangles && random.oneIn(20)) {
      bytes[random.below(bytes.length)] = random.u32();
      this.trusted = false;
    }
    if (!isQuiet) {
      const id = this.#id;
      this.expected.push(done === undefined ? { id, command } : { id, command, done });
    }
    if (random.oneIn(10)) {
      const cut = random.below(bytes.length);
      bench.raw.send(bytes.subarray(0, cut), cut === 0 ? [] : fds);
      if (random.oneIn(2)) this.pump();
      bench.raw.send(bytes.subarray(cut), cut === 0 ? fds : []);
    } else {
      bench.raw.send(bytes, fds);
    }
  }

  /** The server works, and what it says is checked. */
  pump(): void {
    const { bench, reader } = this;
    // A pipe with short receives wakes nobody.
    for (let i = 0; i < 4; i++) bench.pump();
    if (bench.over) return;
    for (;;) {
      const message = reader.read();
      if (message === undefined || message === 'gone') return;
      if (reader.hasFds) reader.takeFds().close();
      if ((message.flags & vfu.FLAG_TYPE_MASK) === vfu.FLAG_TYPE_REPLY) this.#reply(message);
      else {
        const { id, command, bytes, at, length } = message;
        this.asked.push({ id, command, payload: bytes.slice(at, at + length) });
      }
    }
  }

  #reply(message: Message): void {
    if (!this.trusted) return;
    const first = this.expected.shift();
    assert.ok(first !== undefined, 'an answer to nothing');
    assert.equal(message.id, first.id, 'answered out of order');
    assert.equal(message.command, first.command, 'answered as another command');
    const isError = (message.flags & vfu.FLAG_ERROR) !== 0;
    assert.equal(message.error !== 0, isError, 'an error without a number, or the other way round');
    if (!isError) first.done?.();
  }

  /** The maps of the server are those of the model. */
  check(): void {
    const { bench } = this;
    if (!this.trusted || bench.over || this.expected.length > 0) return;
    const order = (a: { iova: number }, b: { iova: number }): number => a.iova - b.iova;
    const theirs = bench.session.domain.describe().map(({ iova, length }) => ({ iova, length }));
    const ours = this.maps.map((map) => ({ iova: Number(map.iova), length: Number(map.length) }));
    assert.deepEqual(theirs.sort(order), ours.sort(order));
  }

  iova(): bigint {
    const { random } = this;
    if (random.oneIn(12)) {
      return (BigInt(random.nasty(32)) << BigInt(random.below(33))) & 0xffff_ffff_ffff_ffffn;
    }
    const at = random.below(WINDOW);
    return BigInt(random.oneIn(12) ? at : alignDown(at, PAGE));
  }

  size(): bigint {
    const { random } = this;
    if (random.oneIn(12)) return BigInt(random.nasty(32)) << BigInt(random.below(33));
    const pages = PAGE * (1 + random.below(8));
    return BigInt(random.oneIn(12) ? pages - 1 : pages) & 0xffff_ffff_ffff_ffffn;
  }

  /** Descriptors that do not belong there, now and then. */
  fds(wanted: readonly number[]): readonly number[] {
    const { random } = this;
    if (!random.oneIn(15)) return wanted;
    const all = [...this.files, ...this.others] as [number, ...number[]];
    return Array.from({ length: random.below(6) }, () => random.pick(all));
  }

  map(): void {
    const { random } = this;
    const file = random.oneIn(4) ? -1 : random.below(this.files.length);
    const fileBytes = FILE_BYTES[file] ?? 0;
    const iova = this.iova();
    const length = this.size() & 0xffff_ffff_ffff_ffffn;
    const offset = random.oneIn(12) ? random.nasty(32) : PAGE * random.below(fileBytes / PAGE);
    const flags = random.oneIn(20) ? random.nasty(32) : random.pick([1, 2, 3, 3, 3, 0]);
    const payload = payloadOf(vfu.DMA_MAP_BYTES, (view) => {
      view.setUint32(0, random.oneIn(20) ? random.nasty(32) : vfu.DMA_MAP_BYTES, true);
      view.setUint32(4, flags, true);
      view.setBigUint64(8, BigInt(offset), true);
      view.setBigUint64(16, iova, true);
      view.setBigUint64(24, length, true);
    });
    const wanted = file < 0 ? [] : [this.files[file] as number];
    const fds = this.fds(wanted);
    this.send(vfu.VFIO_USER_DMA_MAP, payload, fds, () => {
      assert.ok(fds.length <= 1, 'a map of several descriptors');
      const index = fds[0] === undefined ? -1 : this.files.indexOf(fds[0]);
      assert.ok(fds[0] === undefined || index >= 0, 'a map of what is no memory');
      const end = iova + length;
      assert.ok(length > 0n && iova % 4096n === 0n && length % 4096n === 0n, 'not of whole pages');
      assert.ok(end <= 2n ** 53n, 'out of range');
      const overlap = this.maps.find((one) => iova < one.iova + one.length && one.iova < end);
      assert.equal(overlap, undefined, 'a map over another');
      const room = BigInt(FILE_BYTES[index] ?? 0);
      assert.ok(index < 0 || BigInt(offset) + length <= room, 'past the end of its file');
      const [readable, writable] = [(flags & 1) !== 0, (flags & 2) !== 0];
      this.maps.push({ iova, length, file: index, offset, readable, writable });
    });
  }

  unmap(): void {
    const { random } = this;
    const all = random.oneIn(15);
    const known = this.maps[random.below(this.maps.length)];
    const isKnown = known !== undefined && !random.oneIn(6);
    const iova = all ? 0n : isKnown ? known.iova : this.iova();
    const length = all ? 0n : isKnown ? known.length : this.size();
    const isDirty = !all && random.oneIn(5);
    const bytes = vfu.DMA_UNMAP_BYTES + (isDirty ? vfu.BITMAP_BYTES : 0);
    const payload = payloadOf(bytes, (view) => {
      view.setUint32(0, bytes, true);
      view.setUint32(4, all ? 2 : isDirty ? 1 : random.oneIn(20) ? random.nasty(32) : 0, true);
      view.setBigUint64(8, iova, true);
      view.setBigUint64(16, length, true);
      if (!isDirty) return;
      view.setBigUint64(24, BigInt(random.oneIn(3) ? random.nasty(32) : PAGE), true);
      view.setBigUint64(32, BigInt(random.oneIn(6) ? random.nasty(21) : 64), true);
    });
    this.send(vfu.VFIO_USER_DMA_UNMAP, payload, this.fds([]), () => {
      const end = iova + length;
      const isIn = (map: { readonly iova: bigint; readonly length: bigint }): boolean =>
        all || (map.iova >= iova && map.iova + map.length <= end);
      const touches = this.maps.filter((map) => map.iova < end && iova < map.iova + map.length);
      assert.ok(all || (touches.length > 0 && touches.every(isIn)), 'took away a part, or nothing');
      assert.ok(
        !this.under.some(({ map }) => isIn(map)),
        'taken away while DMA is under way there',
      );
      this.maps = this.maps.filter((map) => !isIn(map));
    });
  }

  dirty(): void {
    const { random } = this;
    const isGet = random.oneIn(2);
    const known = this.maps[random.below(this.maps.length)];
    const bytes = vfu.DIRTY_PAGES_BYTES + (isGet ? vfu.DIRTY_RANGE_BYTES : 0);
    const payload = payloadOf(bytes, (view) => {
      view.setUint32(0, bytes, true);
      view.setUint32(4, isGet ? 4 : random.pick([1, 1, 2, random.nasty(32)]), true);
      if (!isGet) return;
      view.setBigUint64(8, known?.iova ?? this.iova(), true);
      view.setBigUint64(16, known?.length ?? this.size(), true);
      view.setBigUint64(24, BigInt(random.oneIn(2) ? 2 ** random.below(34) : PAGE), true);
      view.setBigUint64(32, BigInt(random.oneIn(6) ? random.nasty(21) : 64), true);
    });
    this.send(vfu.VFIO_USER_DIRTY_PAGES, payload, this.fds([]));
  }

  irqs(): void {
    const { random } = this;
    const count = random.oneIn(6) ? random.nasty(32) : random.below(9);
    const data = random.pick([1, 2, 4, random.below(8)]);
    const flags = data | random.pick([8, 16, 32, 32, random.nasty(7)]);
    const booleans = data === 2 ? Math.min(count, 64) : 0;
    const payload = payloadOf(vfu.IRQ_SET_BYTES + booleans, (view) => {
      view.setUint32(0, view.byteLength, true);
      view.setUint32(4, flags, true);
      view.setUint32(8, random.oneIn(10) ? random.nasty(32) : random.below(6), true);
      view.setUint32(12, random.oneIn(3) ? random.nasty(32) : random.below(4), true);
      view.setUint32(16, count, true);
      for (let i = 0; i < booleans; i++) view.setUint8(vfu.IRQ_SET_BYTES + i, random.below(2));
    });
    const fds =
      data === 4 ? new Array<number>(Math.min(count, 8)).fill(this.others[0] as number) : [];
    this.send(vfu.VFIO_USER_DEVICE_SET_IRQS, payload, this.fds(fds));
  }

  access(): void {
    const { random } = this;
    const region = random.oneIn(10) ? random.nasty(32) : random.pick([0, 0, 2, 6, 7, 7, 1, 8]);
    const offset = random.oneIn(6)
      ? BigInt(random.nasty(32)) << BigInt(random.below(33))
      : BigInt(random.below(4200));
    const count = random.oneIn(6) ? random.nasty(32) : random.below(20);
    const fds = this.fds([]);
    if (random.oneIn(5)) {
      const writes = random.below(6);
      const payload = payloadOf(vfu.WRITE_MULTI_BYTES + writes * vfu.SINGLE_WRITE_BYTES, (view) => {
        view.setBigUint64(0, BigInt(random.oneIn(6) ? random.nasty(32) : writes), true);
        for (let i = 0; i < writes; i++) {
          const at = vfu.WRITE_MULTI_BYTES + i * vfu.SINGLE_WRITE_BYTES;
          view.setBigUint64(at, BigInt(random.below(4100)), true);
          view.setUint32(at + 8, random.below(9), true);
          view.setUint32(at + 12, random.below(10), true);
        }
      });
      this.send(vfu.VFIO_USER_REGION_WRITE_MULTI, payload, fds);
      return;
    }
    const isWrite = random.oneIn(2);
    const data = isWrite && !random.oneIn(10) ? Math.min(count, 5000) : 0;
    const payload = payloadOf(vfu.REGION_ACCESS_BYTES + data, (view) => {
      view.setBigUint64(0, offset & 0xffff_ffff_ffff_ffffn, true);
      view.setUint32(8, region, true);
      view.setUint32(12, count, true);
    });
    this.send(isWrite ? vfu.VFIO_USER_REGION_WRITE : vfu.VFIO_USER_REGION_READ, payload, fds);
  }

  anything(): void {
    const { random } = this;
    const command = random.oneIn(8)
      ? random.nasty(16)
      : random.below(vfu.VFIO_USER_COMMANDS.length + 1);
    const isMap = command === vfu.VFIO_USER_DMA_MAP || command === vfu.VFIO_USER_DMA_UNMAP;
    // What it means is not known here: too short for what changes the model.
    const length = random.pick([0, 4, 8, 16, isMap ? 23 : 32, isMap ? 1 : random.below(64)]);
    const payload = random.bytes(length).map((byte) => (random.oneIn(3) ? byte : byte & 3));
    this.send(command, payload, this.fds([]), isMap ? () => assert.fail('too short') : undefined);
  }

  /** Answers what the server has asked of memory: well, badly, twice. */
  answer(): void {
    const { random, bench } = this;
    const at = random.below(this.asked.length);
    const asked = this.asked[at];
    if (asked === undefined) return;
    if (!random.oneIn(25)) this.asked.splice(at, 1);
    const head = asked.payload.slice(0, vfu.DMA_ACCESS_BYTES);
    const count = new DataView(head.buffer).getUint32(8, true);
    const isRead = asked.command === vfu.VFIO_USER_DMA_READ;
    const body = new Uint8Array(head.length + (isRead ? count : 0)).fill(0x5a);
    body.set(head);
    const isBad = random.oneIn(8);
    const payload = isBad ? body.subarray(0, random.below(body.length + 1)) : body;
    const flags = vfu.FLAG_TYPE_REPLY | (random.oneIn(8) ? vfu.FLAG_ERROR : 0);
    const id = random.oneIn(40) ? random.nasty(16) : asked.id;
    bench.raw.send(encodeMessage(id, asked.command, flags, payload), this.fds([]));
  }

  /** The function does something of its own. */
  work(): void {
    const { random, bench } = this;
    const { wiring } = bench.function;
    if (wiring === undefined) return;
    if (random.oneIn(8)) {
      wiring.interrupts.setIntx(random.oneIn(2));
      wiring.interrupts.signalMsi(random.below(6));
      wiring.interrupts.signalMsix(random.below(10));
    }
    if (random.oneIn(15)) {
      this.busMaster = !this.busMaster;
      wiring.setBusMaster(this.busMaster);
    }
    if (bench.function.held || !this.trusted || this.expected.length > 0) return;
    const length = 1 + random.below(random.oneIn(4) ? 3 * PAGE : 64);
    const near = this.maps[random.below(this.maps.length)];
    const base = near === undefined ? 0 : Number(near.iova);
    const span = near === undefined ? WINDOW : Math.min(Number(near.length), WINDOW);
    const iova = Math.max(0, base + random.below(span + 100) - 50);
    const write = random.oneIn(2);
    const holder = this.busMaster ? this.#holder(iova, length, write) : undefined;
    const { dma } = wiring;
    if (random.oneIn(2)) {
      const address = dma.translate(iova, length, write);
      if (holder !== undefined) this.#direct(holder, address, iova, length, write);
      else assert.ok(address < 0 || this.#isRun(iova, length, write), 'not for the function');
      return;
    }
    const allowed = this.busMaster && this.#allows(iova, length, write);
    const bytes = random.bytes(length);
    const lane = this.lane + random.below(LANE_BYTES - length);
    testArena().bytes.set(bytes, lane);
    const result = write ? dma.write(iova, length, lane, 1) : dma.read(iova, length, lane, 1);
    assert.ok(result === DMA_REFUSED || allowed, 'DMA where there is no map for it');
    assert.ok([DMA_DONE, DMA_PENDING, DMA_REFUSED].includes(result));
    assert.ok(holder === undefined || result === DMA_DONE, 'refused in a map');
    if (write && result !== DMA_REFUSED) this.#written(iova, bytes);
    if (write || result !== DMA_DONE) return;
    const got = testArena().bytes.subarray(lane, lane + length);
    if (holder !== undefined) assert.deepEqual(got.slice(), this.#expectedAt(holder, iova, length));
  }

  /** Several maps that lie one behind the other in one file are as good as one. */
  #isRun(iova: number, length: number, write: boolean): boolean {
    return this.busMaster && this.#allows(iova, length, write);
  }

  #expectedAt(map: Map, iova: number, length: number): Uint8Array {
    const from = map.offset + iova - Number(map.iova);
    return (this.shadow[map.file] as Uint8Array).slice(from, from + length);
  }

  #direct(map: Map, address: number, iova: number, length: number, write: boolean): void {
    const { random, bench } = this;
    const { bytes } = testArena();
    assert.ok(address >= 0, 'a map that cannot be reached');
    assert.deepEqual(
      bytes.slice(address, address + length),
      this.#expectedAt(map, iova, length),
      'translated to another place',
    );
    if (!write) return;
    const data = random.bytes(length);
    if (random.oneIn(2)) {
      bytes.set(data, address);
      this.#written(iova, data);
      return;
    }
    // As a disk does it: the write lands later, whatever the client says meanwhile.
    bench.function.busy = true;
    const clash = this.under.some(
      (one) => address < one.address + one.bytes.length && one.address < address + length,
    );
    const offset = map.offset + iova - Number(map.iova);
    if (!clash) this.under.push({ map, address, offset, bytes: data });
  }

  /** The model of what a write does: each byte where its map says, and bytes of no file nowhere. */
  #written(iova: number, data: Uint8Array): void {
    for (const map of this.maps) {
      if (map.file < 0) continue;
      const start = Number(map.iova);
      const from = Math.max(iova, start);
      const to = Math.min(iova + data.length, start + Number(map.length));
      if (from >= to) continue;
      const file = this.shadow[map.file] as Uint8Array;
      file.set(data.subarray(from - iova, to - iova), map.offset + from - start);
    }
  }

  /** What is under way lands, and the function is quiet. */
  land(): void {
    const { bytes } = testArena();
    for (const { map, address, offset, bytes: data } of this.under.splice(0)) {
      bytes.set(data, address);
      (this.shadow[map.file] as Uint8Array).set(data, offset);
      const at = (this.mapped[map.file] as number) + offset;
      const landed = bytes.slice(at, at + data.length);
      assert.deepEqual(landed, data, 'DMA under way landed where there is no guest any more');
    }
    this.bench.function.finish();
  }

  checkFiles(): void {
    const { bytes } = testArena();
    for (const [i, at] of this.mapped.entries()) {
      const shadow = this.shadow[i] as Uint8Array;
      const is = bytes.subarray(at, at + shadow.length);
      assert.ok(Buffer.compare(is, shadow) === 0, `file ${i} holds what was not written to it`);
    }
  }

  close(): void {
    const arena = testArena();
    this.reader.close();
    for (const [i, at] of this.mapped.entries()) arena.unmap(at, FILE_BYTES[i] as number);
    arena.unmap(this.lane, LANE_BYTES);
    closeAll(this.files);
    closeAll(this.others);
  }
}

function step(hostile: Hostile): void {
  const { random } = hostile;
  random.pick<() => void>([
    () => hostile.map(),
    () => hostile.map(),
    () => hostile.map(),
    () => hostile.unmap(),
    () => hostile.dirty(),
    () => hostile.irqs(),
    () => hostile.access(),
    () => hostile.access(),
    () => hostile.anything(),
    () => hostile.answer(),
    () => hostile.answer(),
    () =>
      hostile.send(
        random.pick([
          vfu.VFIO_USER_DEVICE_GET_INFO,
          vfu.VFIO_USER_DEVICE_GET_REGION_INFO,
          vfu.VFIO_USER_DEVICE_GET_IRQ_INFO,
        ]),
        payloadOf(random.pick([0, 16, 32, 32]), (view) => {
          if (view.byteLength < 12) return;
          view.setUint32(0, random.oneIn(3) ? random.nasty(32) : 128, true);
          view.setUint32(8, random.below(11), true);
        }),
        hostile.fds([]),
      ),
    () =>
      hostile.send(vfu.VFIO_USER_DEVICE_RESET, new Uint8Array(0), [], () => {
        assert.equal(hostile.under.length, 0, 'reset while DMA is under way');
      }),
  ])();
}

function run(random: Random): void {
  const arena = testArena();
  const before = openDescriptors();
  const canary = arena.allocate(PAGE);
  arena.bytes.fill(CANARY, canary, canary + PAGE);
  const hostile = new Hostile(random);
  const { bench } = hostile;
  if (!random.oneIn(20)) {
    bench.client.negotiate();
    bench.function.take();
  }
  for (let i = 0; i < STEPS && !bench.over; i++) {
    for (let n = random.below(3); n >= 0; n--) step(hostile);
    hostile.pump();
    hostile.check();
    for (let n = random.below(4); n > 0; n--) hostile.work();
    if (random.oneIn(6)) hostile.land();
    bench.function.take();
  }
  // The connection ends, whether something is under way or not; what is, lands first.
  if (random.oneIn(2)) bench.raw.close();
  bench.pump();
  hostile.land();
  bench.close();
  assert.ok(bench.freed, 'the session never ends');
  assert.equal(bench.function.wiring, undefined, 'the function was not detached');
  assert.equal(bench.files.count, 0, 'a file is still mapped');
  hostile.checkFiles();
  const about = bench.log.find((line) => /TypeError|RangeError|undefined|NaN/.test(line));
  assert.equal(about, undefined);
  assert.ok(
    arena.bytes.subarray(canary, canary + PAGE).every((byte) => byte === CANARY),
    'memory beside the guest was written',
  );
  hostile.close();
  arena.unmap(canary, PAGE);
  assert.equal(openDescriptors(), before, 'descriptors were left open');
}

export const vfioUserSession: FuzzTarget = { name: 'vfio-user-session', run };
