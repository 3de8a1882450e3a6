/**
 * The errors of Sluice: one class, a closed set of codes, a remedy where there is one.
 */

/** What kind of thing went wrong. The set is closed: callers may switch over it. */
export type ErrorCode =
  /** A configuration file or value is wrong. */
  | 'config'
  /** A command line is wrong (exit code 2). */
  | 'usage'
  /** The kernel refused a system call; see {@link SystemError}. */
  | 'system'
  /** A peer sent a message that its protocol does not allow. */
  | 'protocol'
  /** An address lies outside the memory that a guest shared. */
  | 'memory'
  /** A ring or a descriptor in it is malformed. */
  | 'ring'
  /** The operation is not allowed in the present state. */
  | 'state'
  /** The standard has it, Sluice (or this machine) does not. */
  | 'unsupported'
  /** Something asked for does not exist. */
  | 'not-found';

export interface SluiceErrorOptions {
  readonly cause?: unknown;
  /** What the reader can do about it: one imperative sentence. */
  readonly remedy?: string;
}

/** Every error that Sluice raises on purpose. `message` names the thing, `remedy` the way out. */
export class SluiceError extends Error {
  override readonly name: string = 'SluiceError';
  readonly code: ErrorCode;
  readonly remedy: string | undefined;

  constructor(code: ErrorCode, message: string, options: SluiceErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.remedy = options.remedy;
  }
}

/** A failed system call: `ECONNREFUSED: connect /run/sluice/web.sock`. */
export class SystemError extends SluiceError {
  override readonly name = 'SystemError';
  /** The kernel's number, positive. */
  readonly errno: number;
  /** The symbolic name, such as `ECONNREFUSED`. */
  readonly errnoName: string;
  readonly syscall: string;

  constructor(errno: number, errnoName: string, syscall: string, subject: string) {
    super('system', `${errnoName}: ${syscall}${subject === '' ? '' : ` ${subject}`}`);
    this.errno = errno;
    this.errnoName = errnoName;
    this.syscall = syscall;
  }
}

/** The message of anything thrown, with its remedy when it has one. */
export function describeError(error: unknown): string {
  if (error instanceof SluiceError && error.remedy !== undefined) {
    return `${error.message} (${error.remedy})`;
  }
  return error instanceof Error ? error.message : String(error);
}
