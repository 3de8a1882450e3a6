/** Shows what a long command is doing: live in a terminal, line by line elsewhere. */
import { Listr } from 'listr2';
import { SluiceError } from '../base/errors.ts';

export interface StepControl {
  /** Aborted when the user interrupts. */
  readonly signal: AbortSignal;
  readonly onStep: (step: string) => void;
}

export interface Step {
  readonly title: string;
  /** Returns what is shown behind the title when it is done. */
  readonly run: (control: StepControl) => Promise<string | undefined>;
}

/**
 * Runs the steps one after the other. SIGINT and SIGTERM end the present step, which tidies up; a
 * second one is not waited for.
 * @throws what a step throws; SluiceError `state` when interrupted.
 */
export async function runSteps(silent: boolean, steps: readonly Step[]): Promise<void> {
  const abort = new AbortController();
  const interrupt = (signal: NodeJS.Signals): void => {
    abort.abort(new SluiceError('state', `interrupted by ${signal}`));
  };
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  const tasks = new Listr(
    steps.map(({ title, run }) => ({
      title,
      task: async (_context: unknown, task: { title: string; output: unknown }) => {
        abort.signal.throwIfAborted();
        const result = await run({
          signal: abort.signal,
          onStep: (step) => {
            // In a log, what was done says enough.
            if (process.stdout.isTTY) task.output = step;
          },
        });
        if (result !== undefined) task.title = `${title}: ${result}`;
      },
    })),
    {
      concurrent: false,
      registerSignalListeners: false,
      renderer: silent ? 'silent' : 'default',
      fallbackRenderer: 'simple',
    },
  );
  try {
    await tasks.run();
  } catch (error) {
    throw abort.signal.aborted ? abort.signal.reason : error;
  } finally {
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
  }
}
