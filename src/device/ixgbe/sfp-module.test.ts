/** The module, read over its lines as drivers do. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { SfpModule } from './sfp-module.ts';

const CLOCK = 2;
const DATA_IN = 4;
const DATA = 8;

class Reader {
  readonly module = new SfpModule();
  #lines = CLOCK | DATA;

  set(line: number, high: boolean): void {
    this.#lines = high ? this.#lines | line : this.#lines & ~line;
    this.module.drive(this.#lines);
  }

  start(): void {
    this.set(DATA, true);
    this.set(CLOCK, true);
    this.set(DATA, false);
    this.set(CLOCK, false);
  }

  stop(): void {
    this.set(DATA, false);
    this.set(CLOCK, true);
    this.set(DATA, true);
  }

  put(bit: boolean): void {
    this.set(DATA, bit);
    this.set(CLOCK, true);
    this.set(CLOCK, false);
  }

  get(): number {
    this.set(DATA, true);
    this.set(CLOCK, true);
    const bit = (this.module.lines & DATA_IN) !== 0 ? 1 : 0;
    this.set(CLOCK, false);
    return bit;
  }

  /** A byte; true if it was acknowledged. */
  send(byte: number): boolean {
    for (let i = 7; i >= 0; i--) this.put(((byte >>> i) & 1) !== 0);
    return this.get() === 0;
  }

  take(more: boolean): number {
    let byte = 0;
    for (let i = 0; i < 8; i++) byte = (byte << 1) | this.get();
    this.put(!more);
    return byte;
  }

  read(offset: number, count = 1): number[] {
    this.start();
    assert.ok(this.send(0xa0), 'the address is acknowledged');
    assert.ok(this.send(offset), 'the offset is acknowledged');
    this.start();
    assert.ok(this.send(0xa1), 'the address is acknowledged again');
    const bytes = Array.from({ length: count }, (_, i) => this.take(i < count - 1));
    this.stop();
    return bytes;
  }
}

describe('an SFP+ module', () => {
  test('is a passive direct attach cable', () => {
    const reader = new Reader();
    assert.deepEqual(reader.read(0), [3]);
    assert.deepEqual(reader.read(3), [0], 'no optics');
    assert.deepEqual(reader.read(6), [0]);
    assert.deepEqual(reader.read(8), [4]);
  });

  test('tells a run of bytes, with the sum of the first 63', () => {
    const reader = new Reader();
    const bytes = reader.read(0, 64);
    const sum = bytes.slice(0, 63).reduce((a, b) => a + b, 0) & 0xff;
    assert.equal(bytes[63], sum);
    assert.equal(Buffer.from(bytes.slice(20, 36)).toString(), 'Sluice          ');
  });

  test('does not answer to another address', () => {
    const reader = new Reader();
    reader.start();
    assert.equal(reader.send(0xf8), false);
    reader.stop();
    assert.deepEqual(reader.read(0), [3]);
  });

  test('answers after any movement of the lines', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 15 }), { maxLength: 60 }), (moves) => {
        const reader = new Reader();
        for (const lines of moves) reader.module.drive(lines);
        reader.module.drive(CLOCK | DATA);
        reader.start();
        reader.stop();
        assert.deepEqual(reader.read(8), [4]);
      }),
      { numRuns: 200 },
    );
  });
});
