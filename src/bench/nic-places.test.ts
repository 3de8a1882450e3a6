import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type NetOptions, parseNetOptions } from './net-options.ts';
import { nicPlaces, portNumber } from './nic-places.ts';

const placed = (options: NetOptions): string[] =>
  nicPlaces(options).map(
    (place) => `${place.nic}/${place.port}/${place.vf ?? '-'}=${portNumber(options, place)}`,
  );

test('virtual functions are on the ports in turn', () => {
  assert.deepEqual(placed(parseNetOptions({ method: 'sriov', guests: 3, direction: 'both' })), [
    '0/0/0=0',
    '0/1/0=1',
    '0/0/1=0',
  ]);
  assert.deepEqual(placed(parseNetOptions({ method: 'sriov', guests: 2, ports: 1 })), [
    '0/0/0=0',
    '0/0/1=0',
  ]);
});

test('each guest has a port of its own, and the next card when one is full', () => {
  assert.deepEqual(placed(parseNetOptions({ method: 'direct', guests: 4 })), [
    '0/0/-=0',
    '0/1/-=1',
    '1/0/-=2',
    '1/1/-=3',
  ]);
  const many = placed(parseNetOptions({ method: 'sriov', guests: 128 }));
  assert.equal(many[125], '0/1/62=1');
  assert.equal(many[126], '1/0/0=2');
  assert.equal(new Set(many).size, many.length);
});
