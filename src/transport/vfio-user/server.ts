/** A PCI function's socket: one client at a time, in the loop of the lane that owns the function. */
import { SessionServer, type SocketServerOptions } from '../session-server.ts';
import { type SessionDescription, type SessionOptions, VfioUserSession } from './session.ts';

export interface VfioUserServerOptions extends SessionOptions, SocketServerOptions {}

export class VfioUserServer extends SessionServer<VfioUserSession> {
  /**
   * Listens at once, or begins to connect.
   * @throws SluiceError if the socket cannot be made: in use, path too long, not permitted …
   */
  constructor(options: VfioUserServerOptions) {
    super(
      options,
      'client',
      (channel, wiring) => new VfioUserSession(channel, { ...options, ...wiring }),
    );
  }

  /** The present connection, or undefined. */
  describe(): SessionDescription | undefined {
    return this.session?.describe();
  }
}
