/**
 * A value that comes later, for code in a lane: a lane inside its poll loop runs no microtasks, so
 * a promise would settle only when the loop has ended.
 */
import { SluiceError } from '../base/errors.ts';

type Outcome<Value> =
  | { readonly isError: false; readonly value: Value }
  | { readonly isError: true; readonly error: unknown };

export class Later<Value> {
  #outcome: Outcome<Value> | undefined;
  #listeners: ((outcome: Outcome<Value>) => void)[] = [];

  /** @throws SluiceError `state` if it is settled already. */
  resolve(value: Value): void {
    this.#settle({ isError: false, value });
  }

  /** @throws SluiceError `state` if it is settled already. */
  reject(error: unknown): void {
    this.#settle({ isError: true, error });
  }

  /** Calls one of the two once: at once if the value is there, else when it comes. */
  whenSettled(onValue: (value: Value) => void, onError: (error: unknown) => void): void {
    const tell = (outcome: Outcome<Value>): void =>
      outcome.isError ? onError(outcome.error) : onValue(outcome.value);
    if (this.#outcome === undefined) this.#listeners.push(tell);
    else tell(this.#outcome);
  }

  #settle(outcome: Outcome<Value>): void {
    if (this.#outcome !== undefined) throw new SluiceError('state', 'a value came twice');
    this.#outcome = outcome;
    for (const tell of this.#listeners) tell(outcome);
    this.#listeners = [];
  }
}
