/** Cuts a stream of bytes into lines. */
const NEWLINE = 0x0a;

export class LineReader {
  #rest: Buffer = Buffer.alloc(0);

  /** The lines that these bytes complete, without their ends. */
  push(bytes: Uint8Array): string[] {
    const all = Buffer.concat([this.#rest, bytes]);
    const lines: string[] = [];
    let start = 0;
    for (;;) {
      const end = all.indexOf(NEWLINE, start);
      if (end === -1) break;
      lines.push(all.toString('utf8', start, end));
      start = end + 1;
    }
    this.#rest = all.subarray(start);
    return lines;
  }
}
