/**
 * Compiles src/memory/copy.wat into src/memory/copy.wasm.ts (the bytes, base64). With --check
 * nothing is written: the exit code tells whether the committed bytes are those of the text.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import wabt from 'wabt';

const source = new URL('../src/memory/copy.wat', import.meta.url);
const target = new URL('../src/memory/copy.wasm.ts', import.meta.url);

const { parseWat } = await wabt();
const features = { simd: true, threads: true, bulk_memory: true };
const module = parseWat('copy.wat', readFileSync(source, 'utf8'), features);
module.resolveNames();
// The published types leave out the argument, without which shared memory is refused.
(module.validate as (features: object) => void).call(module, features);
const base64 = Buffer.from(module.toBinary({}).buffer).toString('base64');
module.destroy();

const text = `/** Compiled from copy.wat by scripts/wasm.ts: do not edit. */
export const COPY_WASM =
${base64
  .match(/.{1,90}/g)
  ?.map((line) => `  '${line}'`)
  .join(' +\n')};
`;

if (process.argv.includes('--check')) {
  const committed = readFileSync(target, 'utf8');
  if (committed !== text) {
    console.error(
      'src/memory/copy.wasm.ts is not what src/memory/copy.wat compiles to: run node scripts/wasm.ts',
    );
    process.exitCode = 1;
  }
} else {
  writeFileSync(target, text);
}
