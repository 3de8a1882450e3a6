/**
 * A lexer for just as much of TypeScript as finding imports takes: comments and regular
 * expressions are dropped, strings are kept whole, template literals are opened where code is
 * embedded. ECMA-262 section 12 (lexical grammar).
 */

export interface Token {
  readonly kind: 'word' | 'string' | 'punctuation';
  /** The word, the string's contents without quotes, or the character. */
  readonly text: string;
  /** Line of its first character, from 1. */
  readonly line: number;
}

// After these a slash begins a regular expression: an operand is due. After other words, after a
// string and after a closing bracket it divides.
const OPERAND_FOLLOWS = new Set(
  'await case default delete do else in instanceof new of return throw typeof void yield'.split(
    ' ',
  ),
);

const WORD = /[\p{ID_Start}$_#][\p{ID_Continue}$\u200c\u200d]*/uy;
const NUMBER =
  /(?:0[xXbBoO][\da-fA-F_]+|\d[\d_]*(?:\.[\d_]*)?(?:[eE][+-]?[\d_]+)?|\.\d[\d_]*(?:[eE][+-]?\d+)?)n?/y;
const QUOTED = /'((?:[^'\\\n]|\\[\s\S])*)'|"((?:[^"\\\n]|\\[\s\S])*)"/y;
const REGEXP = /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y;
const TEMPLATE_TEXT = /(?:[^`\\$]|\\[\s\S]|\$(?!\{))*/y;

function match(pattern: RegExp, source: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(source);
}

/** The tokens of a TypeScript source, in order. What cannot be read as a token is passed over. */
export function tokenize(source: string): Token[] {
  const tokens: Token[] = [];
  // One entry a template literal that is open at this place: how many braces its code has open.
  const templates: number[] = [];
  let line = 1;
  let at = source.startsWith('#!') ? source.indexOf('\n') : 0;

  const advance = (to: number): void => {
    for (let i = source.indexOf('\n', at); i !== -1 && i < to; i = source.indexOf('\n', i + 1))
      line++;
    at = to;
  };
  const push = (kind: Token['kind'], text: string): void => {
    tokens.push({ kind, text, line });
  };
  /** Text of a template from `from` up to its end or to the code embedded next. */
  const template = (from: number): void => {
    const text = match(TEMPLATE_TEXT, source, from)?.[0] ?? '';
    const end = from + text.length;
    push('string', text);
    if (source.startsWith('${', end)) {
      templates.push(0);
      push('punctuation', '+');
      advance(end + 2);
    } else {
      advance(end + 1);
    }
  };

  while (at >= 0 && at < source.length) {
    const character = source.charAt(at);
    if (/\s/.test(character)) {
      advance(at + 1);
    } else if (source.startsWith('//', at)) {
      const end = source.indexOf('\n', at);
      at = end === -1 ? source.length : end;
    } else if (source.startsWith('/*', at)) {
      const end = source.indexOf('*/', at + 2);
      advance(end === -1 ? source.length : end + 2);
    } else if (character === '`') {
      template(at + 1);
    } else if (character === '}' && templates.at(-1) === 0) {
      templates.pop();
      push('punctuation', '+');
      template(at + 1);
    } else {
      const quoted = match(QUOTED, source, at);
      const word = quoted === null ? match(WORD, source, at) : null;
      const number = quoted === null && word === null ? match(NUMBER, source, at) : null;
      const regexp =
        character === '/' && operandDue(tokens.at(-1)) ? match(REGEXP, source, at) : null;
      if (quoted !== null) {
        push('string', quoted[1] ?? quoted[2] ?? '');
        advance(at + quoted[0].length);
      } else if (word !== null) {
        push('word', word[0]);
        at += word[0].length;
      } else if (number !== null) {
        push('word', number[0]);
        at += number[0].length;
      } else if (regexp !== null) {
        push('string', '');
        at += regexp[0].length;
      } else {
        const open = templates.length - 1;
        if (open >= 0 && character === '{') templates[open] = (templates[open] ?? 0) + 1;
        if (open >= 0 && character === '}') templates[open] = (templates[open] ?? 0) - 1;
        push('punctuation', character);
        at++;
      }
    }
  }
  return tokens;
}

function operandDue(previous: Token | undefined): boolean {
  if (previous === undefined) return true;
  if (previous.kind === 'word') return OPERAND_FOLLOWS.has(previous.text);
  return previous.kind === 'punctuation' && !')]}'.includes(previous.text);
}
