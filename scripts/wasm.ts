/**
 * Compiles every src/**\/NAME.wat into NAME.wasm.ts beside it (the bytes, base64). With --check
 * nothing is written: the exit code tells whether the committed bytes are those of the texts.
 */
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import wabt from 'wabt';

const root = new URL('..', import.meta.url);
const features = { simd: true, threads: true, bulk_memory: true };
const { parseWat } = await wabt();

/** The TypeScript file that holds what a text compiles to. */
function compile(path: string): string {
  const file = basename(path);
  const module = parseWat(file, readFileSync(new URL(path, root), 'utf8'), features);
  module.resolveNames();
  // The published types leave out the argument, without which shared memory is refused.
  (module.validate as (features: object) => void).call(module, features);
  const base64 = Buffer.from(module.toBinary({}).buffer).toString('base64');
  module.destroy();
  const name = basename(file, '.wat').replaceAll('-', '_').toUpperCase();
  const lines = base64.match(/.{1,90}/g) ?? [];
  return `/** Compiled from ${file} by scripts/wasm.ts: do not edit. */
export const ${name}_WASM =
${lines.map((line) => `  '${line}'`).join(' +\n')};
`;
}

for (const path of globSync('src/**/*.wat', { cwd: root }).sort()) {
  const text = compile(path);
  const targetPath = path.replace(/\.wat$/, '.wasm.ts');
  const target = new URL(targetPath, root);
  if (!process.argv.includes('--check')) {
    writeFileSync(target, text);
  } else if (readFileSync(target, 'utf8') !== text) {
    console.error(`${targetPath} is not what ${path} compiles to: run node scripts/wasm.ts`);
    process.exitCode = 1;
  }
}
