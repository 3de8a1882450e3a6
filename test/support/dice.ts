/** The device of examples/dice.ts, as a user runs it. */
import { spawn } from 'node:child_process';
import { join, resolve } from 'node:path';
import { type Cleanup, socketDirectory } from './testbed.ts';

const program = resolve(import.meta.dirname, '../../examples/dice.ts');

export interface RunningDice {
  /** Path of the socket on the host. */
  readonly path: string;
  /** What the program has printed. */
  readonly log: () => string;
}

/** Resolves when the socket is there; the program is killed after the test. */
export async function startDice(t: Cleanup): Promise<RunningDice> {
  const path = join(socketDirectory(t), 'dice.sock');
  let log = '';
  const lane = spawn(process.execPath, ['--no-warnings', program, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => {
    lane.kill('SIGKILL');
  });
  await new Promise<void>((done, fail) => {
    lane.on('error', fail);
    lane.on('exit', (code) => fail(new Error(`the dice ended with code ${code}: ${log}`)));
    lane.stdout.setEncoding('utf8').on('data', (text: string) => {
      log += text;
      if (log.includes('the dice are at')) done();
    });
  });
  return { path, log: () => log };
}
