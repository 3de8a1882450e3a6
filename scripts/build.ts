/**
 * Builds what is published: src/ as JavaScript in dist/ (types are not stripped under
 * node_modules), with the files that are no TypeScript beside it.
 *
 *   scripts/run scripts/build.ts [--out DIRECTORY]
 */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, globSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, extname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

// tsc rewrites the extension in import declarations; a worker is loaded by its URL.
const MODULE_URL =
  /(new URL\(\s*)(['"])(\.{1,2}\/[^'"]+)\.ts\2(\s*,\s*import\.meta\.url\s*,?\s*\))/g;

// What nothing reads at run time.
const SOURCES = new Set(['.ts', '.wat']);

/** `text` of an emitted module with the URLs of other modules pointing at the emitted ones. */
export function rewriteModuleUrls(text: string): string {
  return text.replace(MODULE_URL, '$1$2$3.js$2$4');
}

/** Builds the repository at `root` into `out`, replacing it. Throws where the compiler refuses. */
export function build(root: string, out: string): void {
  rmSync(out, { recursive: true, force: true });
  const tsc = join(root, 'node_modules/.bin/tsc');
  const { status, stdout, error } = spawnSync(tsc, ['-p', 'tsconfig.build.json', '--outDir', out], {
    cwd: root,
    encoding: 'utf8',
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`tsc failed:\n${stdout}`);

  for (const path of globSync('**/*.js', { cwd: out })) {
    const file = join(out, path);
    const text = readFileSync(file, 'utf8');
    const rewritten = rewriteModuleUrls(text);
    for (const [, , , target] of text.matchAll(MODULE_URL)) {
      const module = `${resolve(dirname(file), target ?? '')}.js`;
      if (!existsSync(module)) throw new Error(`${path} loads ${target}.ts, which does not exist`);
    }
    if (rewritten !== text) writeFileSync(file, rewritten);
  }
  cpSync(join(root, 'src'), out, {
    recursive: true,
    filter: (source) => !SOURCES.has(extname(source)),
  });
}

if (import.meta.main) {
  const root = resolve(import.meta.dirname, '..');
  const { values } = parseArgs({ options: { out: { type: 'string' } } });
  build(root, resolve(values.out ?? join(root, 'dist')));
}
