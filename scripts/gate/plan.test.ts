import assert from 'node:assert/strict';
import test from 'node:test';
import { inOrder, nextSuite, parseSuite, type Suite, selectSuites, TESTBED_SUITE } from './plan.ts';

function suite(file: string, more: Partial<Suite> = {}): Suite {
  return { file, guests: false, exclusive: false, cores: 1, takes: 1, timeout: 1, ...more };
}

const testbed = suite(TESTBED_SUITE);
const unit = suite('src/ring/split.test.ts');
const guest = suite('test/uml.test.ts', { guests: true });
const alone = suite('test/speed.test.ts', { guests: true, exclusive: true, cores: 2 });

test('a file in test/ needs the testbed, one beside its source does not', () => {
  assert.equal(parseSuite('test/uml.test.ts', '', 2).guests, true);
  assert.equal(parseSuite('src/ring/split.test.ts', '', 2).guests, false);
  assert.equal(parseSuite(TESTBED_SUITE, '', 2).guests, false);
});

test('a suite comment sets cores, times, exclusiveness and the need of the testbed', () => {
  const text = '/** Doc. */\n// suite: cores=3 takes=90 timeout=600 no-testbed\nimport "x";';
  const expected = suite('test/a.test.ts', { cores: 3, takes: 90, timeout: 600 });
  assert.deepEqual(parseSuite('test/a.test.ts', text, 4), expected);
  assert.equal(parseSuite('test/a.test.ts', '// suite: cores=0.75', 4).cores, 0.75);
  const exclusive = parseSuite('test/a.test.ts', '// suite: exclusive', 4);
  assert.equal(exclusive.exclusive, true);
  assert.equal(exclusive.cores, 4);
});

test('no suite asks for more cores than there are, nor for none', () => {
  assert.equal(parseSuite('src/a.test.ts', '// suite: cores=8', 2).cores, 2);
  assert.equal(parseSuite('src/a.test.ts', '', 1).cores, 1);
  const guests = parseSuite('test/a.test.ts', '', 1).cores;
  assert.ok(guests > 0 && guests <= 1);
});

test('an unknown word in a suite comment is an error', () => {
  for (const word of ['exclusiv', 'cores=0', 'cores=0.3', 'cores=two', 'takes=0.5', 'timeout=']) {
    assert.throws(() => parseSuite('test/a.test.ts', `// suite: ${word}`, 2), /is not known/);
  }
  assert.throws(() => parseSuite('src/a.test.ts', '// suite: no-testbed', 2), /is not known/);
});

test('words choose files, and the testbed comes with those that need it', () => {
  const all = [testbed, unit, guest, alone];
  assert.deepEqual(selectSuites(all, []), all);
  assert.deepEqual(selectSuites(all, ['unit']), [unit]);
  assert.deepEqual(selectSuites(all, ['uml', './src/ring']), [testbed, unit, guest]);
  assert.deepEqual(selectSuites(all, ['testbed-build']), [testbed]);
  assert.deepEqual(selectSuites(all, ['nothing']), []);
});

test('the longest start first, those that leave no core to others last', () => {
  const long = suite('test/long.test.ts', { guests: true, takes: 90 });
  const wide = suite('src/wide.test.ts', { cores: 2, takes: 120 });
  assert.deepEqual(inOrder([wide, unit, alone, long, testbed], 2), [
    testbed,
    long,
    unit,
    wide,
    alone,
  ]);
  // Where there are more cores, it is a suite like others.
  assert.deepEqual(inOrder([unit, long, wide], 4), [wide, long, unit]);
  // One core is left by nobody.
  assert.deepEqual(inOrder([unit, long], 1), [long, unit]);
});

test('suites start while cores are free', () => {
  const other = suite('src/b.test.ts');
  assert.equal(nextSuite([unit, other], [], 2), unit);
  assert.equal(nextSuite([other], [unit], 2), other);
  assert.equal(nextSuite([suite('c', { cores: 2 }), other], [unit], 2), other);
  assert.equal(nextSuite([other], [unit, guest], 2), undefined);
  assert.equal(nextSuite([], [], 2), undefined);
  const idler = suite('test/idler.test.ts', { cores: 0.5 });
  assert.equal(nextSuite([idler], [unit, idler], 2), idler);
  assert.equal(nextSuite([idler, idler], [unit, idler, idler], 2), undefined);
});

test('guests wait until the testbed has been built', () => {
  assert.equal(nextSuite([testbed, guest, unit], [], 2), testbed);
  assert.equal(nextSuite([guest, unit], [testbed], 2), unit);
  assert.equal(nextSuite([guest], [testbed], 2), undefined);
  assert.equal(nextSuite([guest], [unit], 2), guest);
});

test('an exclusive suite runs alone', () => {
  assert.equal(nextSuite([alone], [unit], 2), undefined);
  assert.equal(nextSuite([alone], [], 2), alone);
  assert.equal(nextSuite([unit], [alone], 4), undefined);
});
