/** Serves the control API on the run directory's unix socket. */
import { once } from 'node:events';
import { chmodSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import { PassThrough, Readable } from 'node:stream';
import type { ReadableStream } from 'node:stream/web';
import { createAdaptorServer } from '@hono/node-server';
import { Hono, type HonoRequest } from 'hono';
import { z } from 'zod';
import { describeError, SluiceError } from '../base/errors.ts';
import type { Daemon } from '../daemon/daemon.ts';
import {
  API,
  type ApiName,
  CAPTURE_PATH,
  captureRequest,
  type Endpoint,
  METRICS_PATH,
} from './api.ts';
import { METRICS_TYPE, metricsText } from './metrics.ts';
import { handlersOf } from './views.ts';

/** The daemon's user alone: who may open the socket may do everything. */
const SOCKET_MODE = 0o600;

/** How long clients may take for answers when the daemon ends. */
const CLOSE_GRACE_MS = 1000;

export class ControlServer {
  readonly path: string;
  readonly #server: Server;

  private constructor(path: string, server: Server) {
    this.path = path;
    this.#server = server;
  }

  /** @param shutdown begins the end of the daemon. */
  static async start(
    daemon: Daemon,
    version: string,
    shutdown: () => void,
  ): Promise<ControlServer> {
    const app = createApp(daemon, version, shutdown);
    const server = createAdaptorServer({ fetch: app.fetch }) as Server;
    const path = daemon.controlSocket;
    // The run directory's lock is ours: whoever left this socket has gone.
    rmSync(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    chmodSync(path, SOCKET_MODE);
    return new ControlServer(path, server);
  }

  /** Takes no more requests; those under way are answered, unless that takes more than `graceMs`. */
  async close(graceMs: number = CLOSE_GRACE_MS): Promise<void> {
    const timer = setTimeout(() => this.#server.closeAllConnections(), graceMs);
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeIdleConnections();
    });
    clearTimeout(timer);
  }
}

/** The body of a request. @throws SluiceError `usage` if it is not what is expected */
async function bodyOf<Schema extends z.ZodType>(
  request: HonoRequest,
  schema: Schema,
): Promise<z.output<Schema>> {
  const body: unknown = await request.json().catch((cause: unknown) => {
    throw new SluiceError('usage', `${request.path}: no JSON: ${describeError(cause)}`, { cause });
  });
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new SluiceError('usage', `${request.path}: ${z.prettifyError(parsed.error)}`);
}

/** The API as an application without a socket, for tests. */
export function createApp(daemon: Daemon, version: string, shutdown: () => void): Hono {
  const handlers = handlersOf(daemon, version, shutdown);
  const app = new Hono();
  for (const name of Object.keys(API) as ApiName[]) {
    const { method, path } = API[name];
    const { body: schema }: Endpoint = API[name];
    // Which body belongs to which handler is checked where both are declared.
    const handle = handlers[name] as (body: unknown) => Promise<object>;
    app.on(method, path, async (context) =>
      context.json(
        await handle(schema === undefined ? undefined : await bodyOf(context.req, schema)),
      ),
    );
  }
  app.post(CAPTURE_PATH, async (context) => {
    const { port, snaplen } = await bodyOf(context.req, captureRequest);
    const stream = new PassThrough();
    const capture = daemon.capture(port, snaplen, stream);
    // What is wrong from the start is an error reply; what comes later can only end the stream.
    await Promise.race([capture, once(stream, 'readable')]);
    capture.catch((error: unknown) => {
      daemon.log.info('capture ended', { port, reason: describeError(error) });
      stream.destroy();
    });
    return context.body(Readable.toWeb(stream) as ReadableStream, 200, {
      'content-type': 'application/x-pcapng',
    });
  });
  app.get(METRICS_PATH, async (context) => {
    const text = metricsText(
      daemon.lanes(),
      await daemon.ports(),
      await daemon.devices(),
      await daemon.functions(),
      await daemon.vfs(),
    );
    return context.body(text, 200, { 'content-type': METRICS_TYPE });
  });
  app.notFound((context) =>
    context.json({ error: { code: 'not-found', message: `no ${context.req.path}` } }, 404),
  );
  app.onError((error, context) => {
    const { code, message, remedy } =
      error instanceof SluiceError
        ? error
        : { code: 'state', message: error.message, remedy: undefined };
    if (!(error instanceof SluiceError))
      daemon.log.error('control request failed', { error: error.stack ?? error.message });
    const status = code === 'not-found' ? 404 : code === 'config' || code === 'usage' ? 400 : 500;
    return context.json(
      { error: { code, message, ...(remedy === undefined ? {} : { remedy }) } },
      status,
    );
  });
  return app;
}
