/**
 * The import rule: a folder of src/ imports only from folders earlier in the list (and from
 * itself); the kernel has one door, os/; what runs in a lane keeps off Node.js' event loop.
 * docs/architecture.md says why.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { dirname, join, relative, resolve } from 'node:path';
import { type Token, tokenize } from './tokens.ts';

/** The folders of src/, from the ground up. */
export const FOLDERS: readonly string[] = [
  'spec',
  'base',
  'os',
  'memory',
  'ring',
  'net',
  'block',
  'pci',
  'device',
  'transport',
  'driver',
  'guest',
  'engine',
  'method',
  'daemon',
  'control',
  'bench',
  'cli',
];

/** What stands beside src/, may import from all of it, and is imported by none of it. */
const BESIDE: readonly string[] = ['test', 'fuzz', 'bench', 'scripts', 'examples'];

/** Folders whose code runs in lanes: a lane asleep in poll() runs no event loop. */
const LANE_FOLDERS: ReadonlySet<string> = new Set([
  'memory',
  'ring',
  'net',
  'block',
  'pci',
  'device',
  'transport',
  'engine',
]);
/**
 * Folders within those whose code runs on the main thread, such as what opens a disk before a lane gets
 * it: lanes know its types only.
 */
const MAIN_FOLDERS: readonly string[] = ['src/block/open/'];
const LANE_MODULES: ReadonlySet<string> = new Set([
  'node:child_process',
  'node:cluster',
  'node:dgram',
  'node:http',
  'node:http2',
  'node:https',
  'node:net',
  'node:timers',
  'node:timers/promises',
  'node:tls',
]);
const LANE_GLOBALS: ReadonlySet<string> = new Set([
  'setTimeout',
  'setInterval',
  'setImmediate',
  'fetch',
  'WebSocket',
]);

export interface Violation {
  /** Path from the repository's root. */
  readonly file: string;
  readonly line: number;
  readonly message: string;
}

/** One module that a source names, by whatever syntax. */
export interface Import {
  /** As written; undefined where it is computed. */
  readonly specifier: string | undefined;
  readonly line: number;
  /** `import type` or `export type`: gone when the program runs. */
  readonly typeOnly: boolean;
}

/**
 * Every module that a source names: import and export declarations (of types too), import(),
 * import types, require(), and new URL(…, import.meta.url), by which workers are loaded.
 */
export function findImports(source: string): Import[] {
  return importsOf(tokenize(source));
}

function importsOf(tokens: readonly Token[]): Import[] {
  const found: Import[] = [];
  tokens.forEach((token, i) => {
    if (token.kind !== 'word' || tokens[i - 1]?.text === '.') return;
    const next = tokens[i + 1];
    const called = next?.kind === 'punctuation' && next.text === '(';
    if (token.text === 'from' || token.text === 'import') {
      if (next?.kind === 'string') {
        found.push({ specifier: next.text, line: token.line, typeOnly: isTypeOnly(tokens, i) });
      }
    }
    if ((token.text === 'import' || token.text === 'require') && called) {
      found.push({ specifier: literal(tokens, i + 2), line: token.line, typeOnly: false });
    }
    if (token.text === 'URL' && called && isRelativeToModule(tokens, i + 2)) {
      const specifier = literal(tokens, i + 2);
      if (specifier === undefined || specifier.endsWith('.ts')) {
        found.push({ specifier, line: token.line, typeOnly: false });
      }
    }
  });
  return found;
}

/** Whether the declaration whose `from` stands at `i` begins with `import type` or `export type`. */
function isTypeOnly(tokens: readonly Token[], i: number): boolean {
  for (let at = i - 1; at >= 0; at--) {
    const { kind, text } = tokens[at] as Token;
    if (kind === 'word' && (text === 'import' || text === 'export')) {
      return tokens[at + 1]?.text === 'type' && tokens[at + 2]?.text !== 'from';
    }
  }
  return false;
}

/** The string at `i` if it is the whole of an argument. */
function literal(tokens: readonly Token[], i: number): string | undefined {
  const token = tokens[i];
  const after = tokens[i + 1]?.text;
  return token?.kind === 'string' && (after === ')' || after === ',') ? token.text : undefined;
}

/** Whether the second argument, from `i` on, is import.meta.url. */
function isRelativeToModule(tokens: readonly Token[], i: number): boolean {
  for (let at = i, depth = 1; depth > 0 && at < tokens.length; at++) {
    const { kind, text } = tokens[at] as Token;
    if (kind !== 'punctuation') continue;
    if ('([{'.includes(text)) depth++;
    else if (')]}'.includes(text)) depth--;
    else if (text === ',' && depth === 1) {
      const argument = tokens.slice(at + 1, at + 6);
      return argument.map((token) => token.text).join('') === 'import.meta.url';
    }
  }
  return false;
}

/** TypeScript sources under a folder, as paths from `root`, sorted. */
export function sourcesUnder(root: string, folder: string): string[] {
  let entries: string[];
  try {
    entries = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return entries
    .filter((path) => path.endsWith('.ts') && !path.includes('node_modules'))
    .map((path) => join(folder, path))
    .sort();
}

/** The violations in the repository at `root`, in the order of the files. */
export function checkImports(root: string): Violation[] {
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies?: Record<string, string>;
    optionalDependencies?: Record<string, string>;
    devDependencies?: Record<string, string>;
  };
  const published = new Set(Object.keys(manifest.dependencies ?? {}));
  const installed = published.union(new Set(Object.keys(manifest.devDependencies ?? {})));
  const violations: Violation[] = [];
  for (const folder of ['src', ...BESIDE]) {
    for (const file of sourcesUnder(root, folder)) {
      const tokens = tokenize(readFileSync(join(root, file), 'utf8'));
      const test = isTest(file);
      const packages = folder === 'src' && !test ? published : installed;
      for (const { specifier, line, typeOnly } of importsOf(tokens)) {
        const message =
          specifier === undefined
            ? folder === 'src' && !test && 'a computed import: name the module by a literal'
            : judge(root, file, specifier, { packages, typeOnly });
        if (message !== false && message !== undefined) violations.push({ file, line, message });
      }
      if (!test && inLane(file)) violations.push(...loopUses(file, tokens));
    }
  }
  return violations;
}

/** Folder of src/ that a file belongs to; undefined for what lies in src/ itself or outside. */
function folderOf(file: string): string | undefined {
  const [top, folder, rest] = file.split('/');
  return top === 'src' && rest !== undefined ? folder : undefined;
}

/** Tests, and what several of them share (`testing.ts`, `testing-….ts`): neither is published. */
function isTest(file: string): boolean {
  return /\.test\.ts$|\/testing(-[^/]+)?\.ts$/.test(file);
}

function inLane(file: string): boolean {
  return LANE_FOLDERS.has(folderOf(file) ?? '') && !onMainThread(file);
}

function onMainThread(file: string): boolean {
  return MAIN_FOLDERS.some((folder) => file.startsWith(folder));
}

interface ImportContext {
  /** Packages that may be named. */
  readonly packages: ReadonlySet<string>;
  readonly typeOnly: boolean;
}

function judge(
  root: string,
  file: string,
  specifier: string,
  { packages, typeOnly }: ImportContext,
): string | undefined {
  if (specifier.startsWith('.')) return judgeRelative(root, file, specifier, typeOnly);
  if (isBuiltin(specifier)) {
    const name = specifier.startsWith('node:') ? specifier : `node:${specifier}`;
    if (name === 'node:ffi' && folderOf(file) !== 'os') {
      return 'node:ffi outside src/os/, the only door to the kernel';
    }
    if (LANE_MODULES.has(name) && inLane(file) && !isTest(file)) {
      return `${name} in code that runs in a lane: a lane asleep in poll() runs no event loop; go through src/os/`;
    }
    return undefined;
  }
  const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
  if (packages.has(name)) return undefined;
  return `${name} is not among the ${file.startsWith('src/') && !isTest(file) ? 'dependencies' : 'dependencies or devDependencies'} of package.json`;
}

function judgeRelative(
  root: string,
  file: string,
  specifier: string,
  typeOnly: boolean,
): string | undefined {
  if (!file.startsWith('src/')) return undefined;
  const target = relative(root, resolve(root, dirname(file), specifier));
  if (target === 'package.json') return undefined;
  if (!target.startsWith('src/')) return `${specifier} lies outside src/`;
  if (isTest(file)) return undefined;
  if (isTest(target)) return `${specifier} is a test`;
  if (onMainThread(target) && inLane(file) && !typeOnly) {
    return `${specifier} runs on the main thread: code that runs in a lane imports its types only`;
  }
  const from = folderOf(file);
  const to = folderOf(target);
  const fromRank = FOLDERS.indexOf(from ?? '');
  const toRank = FOLDERS.indexOf(to ?? '');
  if (from === to) return undefined;
  if (from !== undefined && fromRank === -1) return unknownFolder(from);
  if (to === undefined) return `${specifier} lies in no folder of src/`;
  if (toRank === -1) return unknownFolder(to);
  if (from !== undefined && toRank > fromRank) {
    return `${from}/ may not import from ${to}/, which comes later: declare the interface in ${from}/, implement it in ${to}/`;
  }
  return undefined;
}

function unknownFolder(folder: string): string {
  return `src/${folder}/ is not in the list of folders`;
}

/** Uses of Node.js' timers and network by their global names. */
function loopUses(file: string, tokens: readonly Token[]): Violation[] {
  return tokens.flatMap((token, i) => {
    const isUse =
      token.kind === 'word' &&
      LANE_GLOBALS.has(token.text) &&
      tokens[i - 1]?.text !== '.' &&
      tokens[i + 1]?.text === '(';
    if (!isUse) return [];
    const message = `${token.text}() in code that runs in a lane: a lane asleep in poll() runs no event loop; go through src/os/`;
    return [{ file, line: token.line, message }];
  });
}
