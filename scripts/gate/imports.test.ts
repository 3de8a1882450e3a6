import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { checkImports, FOLDERS, findImports } from './imports.ts';

const MANIFEST = JSON.stringify({ dependencies: { yaml: '1' }, devDependencies: { wabt: '1' } });

/** The violations of a repository with these files, as `file:line message`. */
function violationsOf(files: Record<string, string>): string[] {
  const root = mkdtempSync(join(tmpdir(), 'sluice-imports-'));
  try {
    for (const [path, text] of Object.entries({ 'package.json': MANIFEST, ...files })) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    return checkImports(root).map(({ file, line, message }) => `${file}:${line} ${message}`);
  } finally {
    rmSync(root, { recursive: true });
  }
}

function specifiers(source: string): (string | undefined)[] {
  return findImports(source).map((found) => found.specifier);
}

test('every way to name a module is found', () => {
  const source = [
    "import a from './a.ts';",
    "import type { B } from './b.ts';",
    "import './c.ts';",
    "export * from './d.ts';",
    "export { e } from './e.ts';",
    "const f = await import('./f.ts');",
    "type G = import('./g.ts').G;",
    "new Worker(new URL('./h.ts', import.meta.url));",
    'import {\n  i,\n} from "./i.ts";',
    "import j, { type K } from './j.ts' with { type: 'json' };",
    "require('./k.ts');",
  ].join('\n');
  const expected = [...'abcdefghijk'].map((letter) => `./${letter}.ts`);
  assert.deepEqual(specifiers(source), expected);
});

test('what only looks like an import is passed over', () => {
  const source = [
    "// import a from './a.ts';",
    "/* import './b.ts' */",
    'const text = "import x from \'./c.ts\'";',
    "const template = `import './d.ts' ${ `from './e.ts'` } from './f.ts'`;",
    "const pattern = /from '.\\/g.ts'/;",
    "const url = new URL('./h.html', import.meta.url);",
    "Array.from('./i.ts'); object.from; thing.import('./j.ts');",
    'const half = total / 2; const other = "/"; const third = (a + b) / 3;',
  ].join('\n');
  assert.deepEqual(specifiers(source), []);
});

test('an import after a template, a regular expression or a division is still found', () => {
  for (const before of ['`${ {a: `${1}`} }`', '/[/"]`/.test(x)', 'a / b', 'a[0] / 2', '"\\""']) {
    assert.deepEqual(specifiers(`x = ${before};\nimport './a.ts';`), ['./a.ts'], before);
  }
});

test('lines are counted through strings, templates and comments', () => {
  const source = "/* a\nb */ x = `c\nd`;\n'e';\nimport './f.ts';";
  assert.deepEqual(findImports(source), [{ specifier: './f.ts', line: 5, typeOnly: false }]);
});

test('a computed import is reported as one', () => {
  assert.deepEqual(specifiers('import(name); import(`./${name}.ts`);'), [undefined, undefined]);
  assert.match(violationsOf({ 'src/cli/a.ts': 'import(name);' }).join(), /a computed import/);
  assert.deepEqual(violationsOf({ 'test/a.ts': 'import(name);' }), []);
});

test('an import from an earlier folder or the same one is allowed', () => {
  assert.deepEqual(
    violationsOf({
      'src/ring/a.ts': "import '../base/b.ts';\nimport './c.ts';\nimport 'yaml';",
      'src/device/nvme/a.ts': "import '../virtio-net/b.ts';\nimport '../../ring/a.ts';",
      'src/cli/main.ts': "import manifest from '../../package.json' with { type: 'json' };",
      'test/a.test.ts': "import '../src/cli/main.ts';\nimport 'wabt';",
    }),
    [],
  );
});

test('each folder is refused what comes later', () => {
  FOLDERS.forEach((folder, i) => {
    for (const later of FOLDERS.slice(i + 1)) {
      const found = violationsOf({
        [`src/${folder}/a.ts`]: `\nimport type x from '../${later}/b.ts';`,
      });
      assert.equal(found.length, 1, `${folder} from ${later}`);
      assert.match(found[0] ?? '', new RegExp(`^src/${folder}/a.ts:2 ${folder}/ may not import`));
    }
  });
});

test('a worker is an import as well', () => {
  const found = violationsOf({
    'src/engine/a.ts': "new Worker(new URL('../daemon/worker.ts', import.meta.url));",
  });
  assert.match(found.join(), /engine\/ may not import from daemon\//);
});

test('a unit test may use later folders, but nothing may use a test', () => {
  assert.deepEqual(violationsOf({ 'src/ring/a.test.ts': "import '../driver/b.ts';" }), []);
  assert.match(violationsOf({ 'src/ring/a.ts': "import './a.test.ts';" }).join(), /is a test/);
  for (const name of ['testing.ts', 'testing-client.ts']) {
    assert.deepEqual(violationsOf({ [`src/ring/${name}`]: "import 'wabt';" }), []);
    assert.match(violationsOf({ 'src/ring/a.ts': `import './${name}';` }).join(), /is a test/);
  }
});

test('src never imports from outside', () => {
  for (const file of ['src/cli/a.ts', 'src/cli/a.test.ts']) {
    const found = violationsOf({ [file]: "import '../../test/support/b.ts';" });
    assert.match(found.join(), /lies outside src\//);
  }
});

test('a folder that is not in the list is refused', () => {
  const found = violationsOf({ 'src/utils/a.ts': "import '../base/b.ts';" });
  assert.match(found.join(), /src\/utils\/ is not in the list/);
  const other = violationsOf({ 'src/cli/a.ts': "import '../utils/b.ts';" });
  assert.match(other.join(), /src\/utils\/ is not in the list/);
});

test('node:ffi is for os/ alone', () => {
  assert.deepEqual(violationsOf({ 'src/os/a.ts': "import ffi from 'node:ffi';" }), []);
  for (const file of ['src/memory/a.ts', 'src/ring/a.test.ts', 'scripts/a.ts', 'test/a.ts']) {
    assert.match(violationsOf({ [file]: "import ffi from 'node:ffi';" }).join(), /only door/, file);
  }
});

test('code that runs in lanes keeps off the event loop', () => {
  for (const folder of ['engine', 'device', 'net', 'ring', 'memory', 'transport']) {
    for (const module of ['node:net', 'net', 'node:child_process', 'node:timers/promises']) {
      const found = violationsOf({ [`src/${folder}/a.ts`]: `import '${module}';` });
      assert.match(found.join(), /no event loop/, `${folder} ${module}`);
    }
    const found = violationsOf({ [`src/${folder}/a.ts`]: '// one\nsetTimeout(() => 0, 1);' });
    assert.match(found.join(), /:2 setTimeout\(\)/);
  }
  assert.deepEqual(
    violationsOf({
      'src/guest/a.ts': "import 'node:child_process';\nsetTimeout(f, 1);",
      'src/net/a.test.ts': "import 'node:net';\nsetTimeout(f, 1);",
      'src/net/b.ts': 'timers.setTimeout(1); // setTimeout(f, 1)',
    }),
    [],
  );
});

test('a published file may use published packages only', () => {
  assert.match(violationsOf({ 'src/cli/a.ts': "import 'wabt';" }).join(), /wabt is not among/);
  assert.match(violationsOf({ 'src/cli/a.ts': "import '@a/b/c';" }).join(), /@a\/b is not among/);
  assert.deepEqual(violationsOf({ 'src/cli/a.test.ts': "import 'wabt';" }), []);
  assert.deepEqual(violationsOf({ 'src/cli/a.ts': "import 'yaml/util';" }), []);
});

test('what runs on the main thread has its own folder, of which lanes know the types only', () => {
  const violations = violationsOf({
    'src/block/open/file.ts':
      "import { setTimeout as sleep } from 'node:timers/promises';\nimport '../disk.ts';\nexport {};",
    'src/block/disk.ts':
      "import type { A } from './open/file.ts';\nexport type { B } from './open/file.ts';",
    'src/block/bad.ts':
      "import { a } from './open/file.ts';\nimport { type B } from './open/file.ts';\nimport 'node:net';",
    'src/daemon/disks.ts': "import { a } from '../block/open/file.ts';",
  });
  assert.deepEqual(
    violations.map((text) => text.split(' ', 1)[0]),
    ['src/block/bad.ts:1', 'src/block/bad.ts:2', 'src/block/bad.ts:3'],
  );
});
