import { SluiceError } from '../base/errors.ts';

/** An error of code `protocol`: a peer sent what it must not. */
export function protocolError(message: string, remedy?: string): SluiceError {
  return new SluiceError('protocol', message, remedy === undefined ? {} : { remedy });
}
