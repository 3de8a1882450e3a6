/** What is wrong with a configuration file, told with line, key, value and what is allowed. */
import {
  type Document,
  isMap,
  isPair,
  isScalar,
  LineCounter,
  type Node,
  parseDocument,
} from 'yaml';
import type { z } from 'zod';
import { SluiceError } from '../base/errors.ts';
import { configJsonSchema, LATER_KEYS, LATER_METHODS } from './config-schema.ts';
import { suggestion } from './near-miss.ts';

export type ConfigPath = readonly (string | number)[];

export interface ConfigProblem {
  /** From 1; 0 for the file as a whole. */
  readonly line: number;
  readonly column: number;
  /** `guests.web.net[0].vlan`; empty for the file as a whole. */
  readonly key: string;
  readonly message: string;
}

/** Everything that is wrong with a file, one line each, in the order of the file. */
export class ConfigError extends SluiceError {
  override readonly name = 'ConfigError';
  readonly problems: readonly ConfigProblem[];

  constructor(file: string, problems: readonly ConfigProblem[]) {
    const sorted = problems.toSorted((a, b) => a.line - b.line || a.column - b.column);
    super('config', sorted.map((problem) => describeProblem(file, problem)).join('\n'));
    this.problems = sorted;
  }
}

function describeProblem(file: string, { line, column, key, message }: ConfigProblem): string {
  const place = line === 0 ? file : `${file}:${line}:${column}`;
  return key === '' ? `${place}: ${message}` : `${place}: ${key}: ${message}`;
}

/** `guests.web.net[0]` for a path. */
export function keyOf(path: ConfigPath): string {
  return path
    .map((step, i) => (typeof step === 'number' ? `[${step}]` : i === 0 ? step : `.${step}`))
    .join('');
}

/** A YAML file that keeps where each key stands, and collects what is wrong with it. */
export class ConfigSource {
  readonly file: string;
  readonly problems: ConfigProblem[] = [];
  /** The file's content as plain values; undefined when it is no YAML. */
  readonly value: unknown;
  readonly #root: Node | null;
  readonly #lines = new LineCounter();

  constructor(file: string, text: string) {
    this.file = file;
    const document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false });
    this.#root = document.contents;
    for (const error of document.errors) {
      const { line, col } = this.#lines.linePos(error.pos[0]);
      this.problems.push({
        line,
        column: col,
        key: '',
        message:
          error.code === 'MULTIPLE_DOCS'
            ? 'a second YAML document begins here, and a configuration is one: remove the line with "---"'
            : `not valid YAML: ${error.message}`,
      });
    }
    this.value = document.errors.length === 0 ? this.#valueOf(document) : undefined;
  }

  /** Plain values: an alias may stand for so much that it is refused. */
  #valueOf(document: Document): unknown {
    try {
      return document.toJS();
    } catch (error) {
      const message = `not valid YAML: ${error instanceof Error ? error.message : String(error)}`;
      this.problems.push({ line: 1, column: 1, key: '', message });
      return undefined;
    }
  }

  /** Notes a problem with the value at `path`, or with the key itself. */
  report(path: ConfigPath, message: string, where: 'value' | 'key' = 'value'): void {
    this.problems.push({ ...this.#place(path, where), key: keyOf(path), message });
  }

  /** Notes what a schema found. */
  reportIssues(issues: readonly z.core.$ZodIssue[]): void {
    for (const issue of issues) this.#reportIssue(issue, []);
  }

  /** @throws ConfigError if anything was noted. */
  check(): void {
    if (this.problems.length > 0) throw new ConfigError(this.file, this.problems);
  }

  #reportIssue(issue: z.core.$ZodIssue, base: ConfigPath): void {
    const path = [...base, ...(issue.path as ConfigPath)];
    if (this.#isOfLaterMethod(path, issue.code === 'unrecognized_keys')) return;
    switch (issue.code) {
      case 'unrecognized_keys':
        for (const key of issue.keys) this.#reportUnknownKey(path, key);
        return;
      case 'invalid_key':
        this.report(path, `${issue.issues[0]?.message ?? issue.message}`, 'key');
        return;
      case 'invalid_union': {
        // A union of forms that differ in kind: what is wrong inside the form that was meant
        // says more than that none fits.
        const meant = issue.errors.filter((branch) =>
          branch.every((inner) => inner.path.length > 0 || inner.code === 'unrecognized_keys'),
        );
        if (meant.length === 1) for (const inner of meant[0] ?? []) this.#reportIssue(inner, path);
        else this.#reportValue(path, issue.message);
        return;
      }
      case 'custom':
        this.report(path, issue.message);
        return;
      default:
        this.#reportValue(path, issue.message);
    }
  }

  /** A network card of another method has other keys: its method is all that is to be said. */
  #isOfLaterMethod(path: ConfigPath, isCard: boolean): boolean {
    const card = isCard ? path : path.slice(0, -1);
    return (
      (isCard || path.at(-1) !== 'method') &&
      laterMethods(path).includes(String(this.#valueAt([...card, 'method'])))
    );
  }

  #reportUnknownKey(path: ConfigPath, key: string): void {
    if (LATER_KEYS.includes(key)) {
      this.report([...path, key], 'not yet in this version of Sluice', 'key');
      return;
    }
    const allowed = allowedKeys(path, (at) => this.#valueAt(at));
    const hint = suggestion(key, allowed);
    this.report([...path, key], `unknown key; allowed here: ${allowed.join(', ')}${hint}`, 'key');
  }

  #reportValue(path: ConfigPath, expected: string): void {
    const value = this.#valueAt(path);
    if (path.at(-1) === 'method' && laterMethods(path).includes(String(value))) {
      this.report(
        path,
        `method ${value} is not yet in this version of Sluice; ${expected.replace(/^expected one of /, 'allowed: ')}`,
      );
      return;
    }
    const words = /^expected (?:one of )?([\w, ]+)$/.exec(expected)?.[1]?.split(', ') ?? [];
    const hint = typeof value === 'string' ? suggestion(value, words) : '';
    this.report(path, `${shown(value)}: ${expected}${hint}`);
  }

  #valueAt(path: ConfigPath): unknown {
    return path.reduce<unknown>(
      (value, step) =>
        typeof value === 'object' && value !== null
          ? (value as Record<string | number, unknown>)[step]
          : undefined,
      this.value,
    );
  }

  /** Line and column of a path, or of the nearest thing above it that is there. */
  #place(path: ConfigPath, where: 'value' | 'key'): { line: number; column: number } {
    let node: unknown = this.#root;
    let offset = this.#root?.range?.[0];
    for (const [depth, step] of path.entries()) {
      if (isMap(node)) {
        const pair = node.items.find(
          (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(step),
        );
        if (pair === undefined) break;
        const key = pair.key as Node;
        const value = pair.value as Node | null;
        const isKeyWanted = where === 'key' && depth === path.length - 1;
        // A block that follows its key on the next line is found by its key.
        const target = isKeyWanted || isEmpty(value) || isMap(value) ? key : (value as Node);
        offset = target.range?.[0] ?? offset;
        node = value;
      } else {
        const next: unknown = (node as { items?: unknown[] } | null)?.items?.[Number(step)];
        if (next === undefined) break;
        node = next;
        offset = (next as Node).range?.[0] ?? offset;
      }
    }
    if (offset === undefined) return { line: 0, column: 0 };
    const { line, col } = this.#lines.linePos(offset);
    return { line, column: col };
  }
}

/** Methods that a guest's cards or disks (`guests.web.net[0].method`) do not have yet. */
function laterMethods([, , kind]: ConfigPath): readonly string[] {
  return LATER_METHODS[String(kind)] ?? [];
}

/** A key without a value: its place is the key's. */
function isEmpty(node: Node | null): boolean {
  return node === null || (isScalar(node) && node.value === null);
}

function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  if (value === null) return 'empty';
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' ? 'a mapping' : `${JSON.stringify(value)} is not valid`;
}

interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly additionalProperties?: JsonSchema | boolean;
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  /** Forms that differ in their method. */
  readonly oneOf?: readonly JsonSchema[];
  readonly enum?: readonly unknown[];
}

let schema: JsonSchema | undefined;

/** The keys that the schema knows at a path; `valueAt` tells which method is meant. */
function allowedKeys(path: ConfigPath, valueAt: (path: ConfigPath) => unknown): string[] {
  schema ??= configJsonSchema() as JsonSchema;
  let forms: JsonSchema[] = [schema];
  for (const [depth, step] of path.entries()) {
    const method = valueAt([...path.slice(0, depth), 'method']);
    forms = forms
      .flatMap((form) => unfold(form, method))
      .flatMap((form) => {
        if (typeof step === 'number') return form.items ?? [];
        const known = form.properties?.[step];
        if (known !== undefined) return known;
        return typeof form.additionalProperties === 'object' ? form.additionalProperties : [];
      });
  }
  const method = valueAt([...path, 'method']);
  return forms
    .flatMap((form) => unfold(form, method))
    .flatMap((form) => Object.keys(form.properties ?? {}));
}

function unfold(form: JsonSchema, method: unknown): readonly JsonSchema[] {
  const forms =
    form.anyOf ?? form.oneOf?.filter((one) => one.properties?.['method']?.enum?.includes(method));
  return forms === undefined ? [form] : forms.flatMap((one) => unfold(one, method));
}
