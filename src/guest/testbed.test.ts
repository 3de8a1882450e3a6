import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { SluiceError } from '../base/errors.ts';
import { chooseAccelerator, findTestbed, missingTestbed, testbedDirectory } from './testbed.ts';

test('the testbed is where SLUICE_TESTBED says, else in the cache directory', () => {
  assert.equal(testbedDirectory({ SLUICE_TESTBED: '/a', XDG_CACHE_HOME: '/b', HOME: '/c' }), '/a');
  assert.equal(
    testbedDirectory({ SLUICE_TESTBED: '', XDG_CACHE_HOME: '/b', HOME: '/c' }),
    '/b/sluice/testbed',
  );
  assert.equal(testbedDirectory({ HOME: '/c' }), '/c/.cache/sluice/testbed');
});

test('a missing testbed is told with its place and the way to get it', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'sluice-testbed-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const environment = { SLUICE_TESTBED: directory };
  assert.match(missingTestbed(environment, 1000) ?? '', /root/);
  const reason = missingTestbed(environment, 0) ?? '';
  assert.ok(reason.includes(directory), reason);
  assert.match(reason, /scripts\/testbed build/);
  assert.throws(
    () => findTestbed(environment),
    (error) =>
      error instanceof SluiceError && error.code === 'not-found' && error.remedy !== undefined,
  );

  mkdirSync(join(directory, 'tree/etc'), { recursive: true });
  mkdirSync(join(directory, 'guest'));
  writeFileSync(join(directory, 'tree/etc/sluice-testbed'), '');
  writeFileSync(join(directory, 'guest/enter'), '');
  assert.notEqual(missingTestbed(environment, 0), undefined, 'half a testbed is none');
  writeFileSync(join(directory, 'guest/stamp'), '');
  assert.equal(missingTestbed(environment, 0), undefined);
});

test('KVM is taken only where the CPU itself virtualizes', () => {
  const cpuinfo = (flags: string): string =>
    `processor\t: 0\nflags\t\t: ${flags}\nbugs\t\t: svm_none\n`;
  const choose = (flags: string, kvmUsable: boolean, accel?: string): string =>
    chooseAccelerator(accel === undefined ? {} : { SLUICE_ACCEL: accel }, {
      cpuinfo: cpuinfo(flags),
      kvmUsable,
    });
  assert.equal(choose('fpu vmx sse', true), 'kvm');
  assert.equal(choose('fpu svm', true), 'kvm');
  assert.equal(choose('fpu sse hypervisor', true), 'tcg');
  assert.equal(choose('fpu vmx', false), 'tcg');
  assert.equal(choose('fpu vmx', true, 'tcg'), 'tcg');
  assert.equal(choose('fpu', false, 'kvm'), 'kvm');
  assert.throws(() => choose('fpu', true, 'xen'), { code: 'usage' });
});
