/** Asks a running daemon through its control socket. */
import { type IncomingMessage, request } from 'node:http';
import { type ErrorCode, SluiceError } from '../base/errors.ts';
import { controlSocketPath } from '../daemon/run-directory.ts';
import { API, type ApiArguments, type ApiName, type ApiReply, errorReply } from './api.ts';

export class ControlClient {
  readonly #run: string;

  /** @param run the daemon's run directory */
  constructor(run: string) {
    this.#run = run;
  }

  /** @throws SluiceError what the daemon answers, or `state` if none runs there. */
  async call<Name extends ApiName>(
    name: Name,
    ...[body]: ApiArguments<Name>
  ): Promise<ApiReply<Name>> {
    const { method, path, reply } = API[name];
    const text = await this.text(method, path, body);
    return reply.parse(JSON.parse(text)) as ApiReply<Name>;
  }

  /** The body of a reply. */
  async text(method: string, path: string, body?: object): Promise<string> {
    const response = await this.open(method, path, body);
    return await readAll(response);
  }

  /** A reply whose body is still to be read. */
  async open(method: string, path: string, body?: object): Promise<IncomingMessage> {
    const response = await this.#send(method, path, body);
    if ((response.statusCode ?? 500) < 400) return response;
    const { error } = errorReply.parse(JSON.parse(await readAll(response)));
    throw new SluiceError(
      error.code as ErrorCode,
      error.message,
      error.remedy === undefined ? {} : { remedy: error.remedy },
    );
  }

  #send(method: string, path: string, body: object | undefined): Promise<IncomingMessage> {
    const socketPath = controlSocketPath(this.#run);
    return new Promise((resolve, reject) => {
      const outgoing = request(
        {
          socketPath,
          method,
          path,
          headers: { host: 'sluice', 'content-type': 'application/json' },
        },
        resolve,
      );
      outgoing.once('error', (error: NodeJS.ErrnoException) =>
        reject(unreachable(this.#run, error)),
      );
      outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  let text = '';
  response.setEncoding('utf8');
  for await (const part of response) text += part;
  return text;
}

function unreachable(run: string, error: NodeJS.ErrnoException): SluiceError {
  switch (error.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return new SluiceError('state', `no sluice runs in ${run}`, {
        cause: error,
        remedy:
          'start it with sluice up, or name its file with --config or its directory with --run',
      });
    case 'EACCES':
      return new SluiceError('state', `no right to control the sluice in ${run}`, {
        cause: error,
        remedy: 'be the user that runs it',
      });
    default:
      return new SluiceError('system', `${error.code ?? error.message}: connect ${run}`, {
        cause: error,
      });
  }
}
