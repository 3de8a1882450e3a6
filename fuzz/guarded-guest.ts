/**
 * A guest's memory behind the DMA domain of a function, with traps for the function: pages that it may
 * not write to must stay as they are, of pages that it may not read nothing may come to light, and
 * while bus mastering is off nothing changes at all.
 *
 * Pages are writable, read-only, write-only, not mapped, or reached by messages, whose answers come when
 * {@link GuardedGuest.settle} says so, and now and then are refusals.
 */
import assert from 'node:assert/strict';
import type { Arena } from '../src/memory/arena.ts';
import { DmaDomain, type RemoteMemory } from '../src/memory/dma-domain.ts';
import { DmaFiles } from '../src/memory/dma-files.ts';
import { closeFd } from '../src/os/fd.ts';
import { createMemfd } from '../src/os/mapping.ts';
import type { Random } from './random.ts';

const PAGE = 4096;
/** What nobody is to see. */
const SECRET = Buffer.from('5c7e1f9d03b8a264', 'hex');
/** Where guests have their memory: below and above 4 GiB. */
const BASES = [0x10_0000, 0x1_2340_0000] as const;

type Kind = 'open' | 'readOnly' | 'writeOnly' | 'remote' | 'closed';

interface Copy {
  readonly operation: number;
  run(): void;
}

export class GuardedGuest {
  readonly arena: Arena;
  readonly domain: DmaDomain;
  readonly base: number;
  readonly bytes: number;
  readonly files: DmaFiles;
  readonly #random: Random;
  readonly #fd: number;
  /** Our own view of the file: the device has another. */
  readonly #at: number;
  readonly #kinds: Kind[];
  /** Which page of the file lies at each page of I/O virtual addresses. */
  readonly #place: Uint32Array;
  readonly #shadow: Uint8Array;
  #frozen: Uint8Array | undefined;
  #copies: Copy[] = [];

  constructor(random: Random, arena: Arena, name: string, pages: number) {
    this.arena = arena;
    this.#random = random;
    this.base = random.pick(BASES);
    this.bytes = pages * PAGE;
    this.files = new DmaFiles(arena);
    this.#fd = createMemfd('sluice-fuzz-guest', this.bytes);
    this.#at = arena.mapFile(this.#fd, this.bytes, 0);
    this.domain = new DmaDomain({ name, files: this.files, remote: this.#remote() });
    this.#kinds = this.#chooseKinds(pages);
    this.#place = Uint32Array.from({ length: pages }, (_, page) => page);
    // As with an IOMMU: what lies side by side for the device is scattered in memory.
    if (random.oneIn(3)) this.#scatter();
    this.#shadow = new Uint8Array(this.bytes);
    for (const [page, kind] of this.#kinds.entries()) {
      const hidden = kind === 'closed' || kind === 'writeOnly';
      const at = (this.#place[page] as number) * PAGE;
      if (hidden) Buffer.from(this.#shadow.buffer, at, PAGE).fill(SECRET);
    }
    arena.bytes.set(this.#shadow, this.#at);
    for (const page of this.#kinds.keys()) this.#map(page);
  }

  /** Pages from `page` on that the device may use as it likes, at least so many bytes. */
  open(page: number, bytes: number): void {
    for (let i = 0; i * PAGE < bytes; i++) this.#change(page + i, 'open');
  }

  /** Makes of a page another kind. Nothing may be in flight. */
  remap(): void {
    const random = this.#random;
    const page = random.below(this.#kinds.length);
    // Hidden pages hold what nobody may see, others do not: their kinds do not mix.
    if (this.#isHidden(page)) return;
    this.#change(page, random.pick(['open', 'open', 'readOnly', 'remote'] as const));
  }

  /** The driver writes: whatever lies in pages that hide something is left out. */
  write(iova: number, data: Uint8Array): void {
    for (let done = 0; done < data.length; ) {
      const address = iova + done - this.base;
      const page = Math.floor(address / PAGE);
      if (address < 0 || page >= this.#kinds.length) return;
      const within = address % PAGE;
      const part = Math.min(PAGE - within, data.length - done);
      const at = (this.#place[page] as number) * PAGE + within;
      const bytes = data.subarray(done, done + part);
      if (!this.#isHidden(page)) {
        this.arena.bytes.set(bytes, this.#at + at);
        this.#shadow.set(bytes, at);
        this.#frozen?.set(bytes, at);
      }
      done += part;
    }
  }

  /** An address of which something may come: mostly in the guest's memory. */
  address(): number {
    const random = this.#random;
    return random.pick<() => number>([
      () => this.base + PAGE * random.below(this.#kinds.length),
      () => this.base + 16 * random.below(this.bytes / 16),
      () => this.base + random.below(this.bytes),
      () => this.base + random.below(this.bytes),
      () => this.base + PAGE * random.below(this.#kinds.length + 1) - random.below(64),
      () => random.nasty(32) * 2 ** random.below(33),
    ])();
  }

  /** Bus mastering went off, and nothing is in flight: from now on nothing changes. */
  freeze(): void {
    this.#frozen = this.arena.bytes.slice(this.#at, this.#at + this.bytes);
  }

  thaw(): void {
    this.#frozen = undefined;
  }

  /** Answers some of the messages, in any order; all of them with `all`. */
  settle(all = false): number {
    const random = this.#random;
    let settled = 0;
    for (let left = this.#copies.length; left > 0; left--) {
      if (!all && random.oneIn(3)) continue;
      const [copy] = this.#copies.splice(random.below(this.#copies.length), 1);
      if (copy === undefined) break;
      const ok = !random.oneIn(12);
      if (ok) copy.run();
      this.domain.complete(copy.operation, ok);
      settled++;
    }
    return settled;
  }

  /** Whether an arena address is this guest's. */
  owns(address: number): boolean {
    return this.files.at(address) !== undefined;
  }

  /** Whether a device may use memory at an arena address, if that is this guest's at all. */
  allows(address: number, length: number, write: boolean): boolean {
    const file = this.files.at(address);
    if (file === undefined) return true;
    for (let at = address - file.address; at < address - file.address + length; at += 1) {
      const page = this.#place.indexOf(Math.floor(at / PAGE));
      const kind = this.#kinds[page];
      const good = kind === 'open' || kind === (write ? 'writeOnly' : 'readOnly');
      if (!good) return false;
      at += PAGE - 1 - (at % PAGE);
    }
    return true;
  }

  check(): void {
    const { bytes } = this.arena;
    for (const [page, kind] of this.#kinds.entries()) {
      if (kind !== 'closed' && kind !== 'readOnly') continue;
      const at = (this.#place[page] as number) * PAGE;
      const is = bytes.subarray(this.#at + at, this.#at + at + PAGE);
      const same = Buffer.compare(is, this.#shadow.subarray(at, at + PAGE)) === 0;
      assert.ok(same, `page ${page}, ${kind}, was written by the device`);
    }
    if (this.#frozen === undefined || this.domain.busMaster) return;
    const all = bytes.subarray(this.#at, this.#at + this.bytes);
    assert.ok(Buffer.compare(all, this.#frozen) === 0, 'memory was written without bus mastering');
  }

  /** What has come out of the device must not hold what it may not read. */
  checkPublic(out: Uint8Array, what: string): void {
    const buffer = Buffer.from(out.buffer, out.byteOffset, out.byteLength);
    assert.equal(buffer.indexOf(SECRET), -1, `${what} holds memory that is hidden`);
  }

  close(): void {
    this.domain.clear();
    assert.equal(this.files.count, 0, 'the guest’s memory is still mapped');
    this.arena.unmap(this.#at, this.bytes);
    closeFd(this.#fd);
  }

  #isHidden(page: number): boolean {
    const kind = this.#kinds[page];
    return kind === 'closed' || kind === 'writeOnly';
  }

  #chooseKinds(pages: number): Kind[] {
    const random = this.#random;
    const kinds: Kind[] = [];
    const isFar = random.oneIn(4);
    while (kinds.length < pages) {
      const kind = random.pick<Kind>([
        'open',
        'open',
        'open',
        isFar ? 'remote' : 'open',
        isFar ? 'remote' : 'open',
        'readOnly',
        'writeOnly',
        'remote',
        'closed',
      ]);
      for (let n = random.below(6); n >= 0 && kinds.length < pages; n--) kinds.push(kind);
    }
    return kinds;
  }

  #scatter(): void {
    const place = this.#place;
    for (let i = place.length - 1; i > 0; i--) {
      const other = this.#random.below(i + 1);
      const kept = place[i] as number;
      place[i] = place[other] as number;
      place[other] = kept;
    }
  }

  #map(page: number): void {
    const kind = this.#kinds[page];
    if (kind === 'closed') return;
    this.domain.map(
      {
        iova: this.base + page * PAGE,
        length: PAGE,
        offset: (this.#place[page] as number) * PAGE,
        readable: kind !== 'writeOnly',
        writable: kind !== 'readOnly',
      },
      kind === 'remote' ? undefined : this.#fd,
    );
  }

  #change(page: number, kind: Kind): void {
    const at = (this.#place[page] as number) * PAGE;
    if (this.#isHidden(page)) {
      this.#shadow.fill(0, at, at + PAGE);
      this.arena.bytes.fill(0, this.#at + at, this.#at + at + PAGE);
    }
    if (this.#kinds[page] !== 'closed') this.domain.unmap(this.base + page * PAGE, PAGE);
    this.#kinds[page] = kind;
    // From now on it is what the device has made of it.
    this.#shadow.set(this.arena.bytes.subarray(this.#at + at, this.#at + at + PAGE), at);
    this.#map(page);
  }

  /** What a client does with DMA_READ and DMA_WRITE. */
  #remote(): RemoteMemory {
    const { bytes } = this.arena;
    const place = (iova: number, length: number): number => {
      const page = Math.floor((iova - this.base) / PAGE);
      const isOne = page === Math.floor((iova + length - 1 - this.base) / PAGE);
      assert.ok(isOne && this.#kinds[page] === 'remote', 'a message for memory that has none');
      assert.ok(this.domain.busMaster, 'a message without bus mastering');
      return this.#at + (this.#place[page] as number) * PAGE + ((iova - this.base) % PAGE);
    };
    const begin = (operation: number, run: () => void): boolean => {
      if (this.#random.oneIn(30)) return false;
      this.#copies.push({ operation, run });
      return true;
    };
    return {
      maxBytes: 1024 * 1024,
      read: (iova, length, to, operation) => {
        const from = place(iova, length);
        return begin(operation, () => bytes.copyWithin(to, from, from + length));
      },
      write: (iova, length, from, operation) => {
        const to = place(iova, length);
        const data = bytes.slice(from, from + length);
        return begin(operation, () => bytes.set(data, to));
      },
    };
  }
}
