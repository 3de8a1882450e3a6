/** Prints the violations of the import rule (scripts/gate/imports.ts); exits with 1 if any. */
import { resolve } from 'node:path';
import { checkImports } from './gate/imports.ts';

const root = resolve(import.meta.dirname, '..');
const violations = checkImports(root);
for (const { file, line, message } of violations) console.log(`${file}:${line}: ${message}`);
process.exitCode = violations.length === 0 ? 0 : 1;
