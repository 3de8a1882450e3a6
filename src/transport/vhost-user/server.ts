/** A vhost-user device's socket: one session at a time, in the loop of the lane that owns the device. */
import { SessionServer, type SocketServerOptions } from '../session-server.ts';
import { type SessionDescription, type SessionOptions, VhostUserSession } from './session.ts';

export interface ServerOptions extends SessionOptions, SocketServerOptions {}

export class VhostUserServer extends SessionServer<VhostUserSession> {
  /**
   * Listens at once, or begins to connect.
   * @throws SluiceError if the socket cannot be made: in use, path too long, not permitted …
   */
  constructor(options: ServerOptions) {
    super(
      options,
      'front-end',
      (channel, wiring) => new VhostUserSession(channel, { ...options, ...wiring }),
    );
  }

  /** The present connection, or undefined. */
  describe(): SessionDescription | undefined {
    return this.session?.describe();
  }
}
