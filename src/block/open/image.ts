/**
 * Disks in files of other formats (qcow2, vmdk, …): a qemu-nbd of our own serves the file on a Unix
 * socket, and the disk is an NBD disk. For the main thread.
 */
import { constants } from 'node:fs';
import { access, chmod, mkdir, realpath, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../base/errors.ts';
import { silentLogger } from '../../base/log.ts';
import { unixAddress } from '../../os/stream-socket.ts';
import type { NbdDiskDescription } from '../nbd/description.ts';
import { formatNbdTarget } from '../nbd/uri.ts';
import { ImageProcess, type ImageProcessOptions } from './image-process.ts';
import {
  findQemuTools,
  IMAGE_FORMATS,
  type ImageFormat,
  imageError,
  isLockMessage,
  type QemuTools,
  run,
  stderrOf,
} from './image-tools.ts';
import { type NbdDiskOptions, openNbdDisk } from './nbd.ts';

export type { ImageProcess } from './image-process.ts';
export { findQemuTools, IMAGE_FORMATS, type ImageFormat, type QemuTools } from './image-tools.ts';

/** How long a process that was killed may keep its lock: its last writes. */
const DEFAULT_LOCK_WAIT_MS = 10_000;
/** qemu-nbd checks some images before it listens. */
const START_MS = 60_000;
const LOOK_MS = 20;
const END_MS = 1000;
const LOCK_LOOK_MS = 200;

export interface ImageDiskOptions
  extends Pick<
    NbdDiskOptions,
    'name' | 'readonly' | 'connections' | 'reconnectMs' | 'replyMs' | 'log'
  > {
  readonly path: string;
  /** The format of the file; never guessed. */
  readonly format: ImageFormat;
  /**
   * A qcow2 file that takes what is written, while the image stays as it is. Made if it is not there;
   * one that is there must be over this very image.
   */
  readonly overlay?: string;
  /** Blocks that are given up, and blocks of zeroes that are written, are given back. Default true. */
  readonly discard?: boolean;
  /** Past the page cache of the host. */
  readonly direct?: boolean;
  /** Where the socket goes: in a directory `images` of mode 0700 here. */
  readonly directory: string;
  /** Default: those in PATH. */
  readonly tools?: QemuTools;
  /** How long to wait for another process's lock on the image, in ms. Default 10 s. */
  readonly lockWaitMs?: number;
}

export interface ImageDisk {
  /** For the lane. */
  readonly description: NbdDiskDescription;
  /** To be stopped when the lane has closed the disk. */
  readonly process: ImageProcess;
}

/** The real path of a file that can be used. */
async function findImage(name: string, path: string, readonly: boolean): Promise<string> {
  try {
    const found = await realpath(path);
    const kind = await stat(found);
    if (kind.isDirectory()) {
      throw new SluiceError('config', `disk ${name}: ${path} is a directory`, {
        remedy: 'name the image file in it',
      });
    }
    await access(found, constants.R_OK | (readonly ? 0 : constants.W_OK));
    return found;
  } catch (cause) {
    if (cause instanceof SluiceError) throw cause;
    const { code = 'error' } = cause as NodeJS.ErrnoException;
    throw new SluiceError(
      code === 'ENOENT' ? 'not-found' : 'system',
      `disk ${name}: ${code}: image ${path}`,
      {
        cause,
        remedy:
          code === 'ENOENT'
            ? 'check the path, or make the image with qemu-img create'
            : `see that it can be ${readonly ? 'read' : 'read and written'}`,
      },
    );
  }
}

/** Runs qemu-img; its refusal becomes an error that names the disk and the file. */
async function qemuImg(
  tools: QemuTools,
  name: string,
  path: string,
  args: readonly string[],
): Promise<string> {
  try {
    return await run(tools.img, args);
  } catch (error) {
    throw imageError(`disk ${name}: ${path}`, stderrOf(error));
  }
}

/** Makes the overlay, or checks that the one that is there is over this image; its real path. */
async function findOverlay(
  options: ImageDiskOptions,
  tools: QemuTools,
  image: string,
  overlay: string,
): Promise<string> {
  const { name, format } = options;
  const path = resolve(overlay);
  const exists = await access(path).then(
    () => true,
    () => false,
  );
  if (!exists) {
    await qemuImg(tools, name, path, [
      'create',
      '-q',
      '-f',
      'qcow2',
      '-F',
      format,
      '-b',
      image,
      path,
    ]);
    return path;
  }
  const text = await qemuImg(tools, name, path, [
    'info',
    '--force-share',
    '--output=json',
    '-f',
    'qcow2',
    path,
  ]);
  const info = JSON.parse(text) as {
    readonly 'full-backing-filename'?: string;
    readonly 'backing-filename-format'?: string;
  };
  const backing = info['full-backing-filename'];
  const real = backing === undefined ? undefined : await realpath(backing).catch(() => backing);
  if (real !== image) {
    throw new SluiceError(
      'config',
      `disk ${name}: overlay ${overlay} is over ${real ?? 'no image'}, not over ${image}`,
      { remedy: 'name another file for the overlay, or the image that it belongs to' },
    );
  }
  if (info['backing-filename-format'] !== format) {
    throw new SluiceError(
      'config',
      `disk ${name}: overlay ${overlay} takes the image for ${info['backing-filename-format'] ?? 'any format'}, not ${format}`,
      { remedy: `qemu-img rebase -u -F ${format} -b ${image} ${path} sets it` },
    );
  }
  return path;
}

/** A directory for sockets that nobody else may enter. */
async function socketPath(options: ImageDiskOptions): Promise<string> {
  const directory = join(resolve(options.directory), 'images');
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await chmod(directory, 0o700);
  const path = join(directory, `${options.name}.sock`);
  unixAddress(path); // Too long a path is told now.
  return path;
}

/** Starts qemu-nbd and waits until it serves; what it says when another has the image locked. */
async function startServer(
  options: ImageProcessOptions,
  nbd: NbdDiskOptions,
  file: string,
): Promise<ImageDisk | string> {
  const { name } = nbd;
  const process = await ImageProcess.start(options);
  const until = performance.now() + START_MS;
  try {
    while (process.running) {
      if (performance.now() > until) {
        throw new SluiceError('state', `disk ${name}: qemu-nbd does not serve in time`);
      }
      try {
        const description = await openNbdDisk(nbd);
        process.supervise();
        return { description, process };
      } catch (error) {
        const absent = error instanceof SluiceError && error.code === 'not-found';
        // It listens before it opens the image: what cuts us off may be that it has refused and ends.
        await Promise.race([sleep(absent ? LOOK_MS : END_MS), process.ended]);
        if (!absent && process.running) throw error;
      }
    }
  } catch (error) {
    await process.stop();
    throw error;
  }
  if (isLockMessage(process.stderr)) return process.stderr;
  throw imageError(`disk ${name}: ${file}`, process.stderr);
}

/**
 * Serves an image file by a qemu-nbd of our own.
 * @throws SluiceError `not-found` without the image or without qemu-nbd, `config` for a wrong format or
 * overlay, `state` if another process has the image locked, with what QEMU says
 */
export async function openImageDisk(options: ImageDiskOptions): Promise<ImageDisk> {
  const { name, format, readonly = false, discard = true, direct = false } = options;
  const log = options.log ?? silentLogger;
  if (!IMAGE_FORMATS.includes(format)) {
    throw new SluiceError('config', `disk ${name}: image format ${String(format)}`, {
      remedy: `name one of ${IMAGE_FORMATS.join(', ')}; qemu-img info tells which it is`,
    });
  }
  const tools = options.tools ?? findQemuTools();
  const { overlay } = options;
  const image = await findImage(name, options.path, readonly || overlay !== undefined);
  const file = overlay === undefined ? image : await findOverlay(options, tools, image, overlay);
  const socket = await socketPath(options);
  const connections = options.connections ?? 1;
  const served = overlay === undefined ? format : 'qcow2';
  const args = [
    `--socket=${socket}`,
    // Those of the lane, as many that it has given up and qemu-nbd not noticed yet, and the handshake's.
    `--shared=${2 * connections + 1}`,
    `--format=${served}`,
    `--cache=${direct ? 'none' : 'writeback'}`,
    `--discard=${discard ? 'unmap' : 'ignore'}`,
    `--detect-zeroes=${discard ? 'unmap' : 'off'}`,
    ...(readonly ? ['--read-only'] : []),
    file,
  ];
  const nbd: NbdDiskOptions = {
    name,
    uri: formatNbdTarget({ socket, export: '' }),
    readonly,
    connections,
    // What qemu-nbd has in memory of other formats (tables of blocks) dies with it.
    afterLoss: served === 'raw' ? 'trust' : 'fail',
    log,
    ...(options.reconnectMs === undefined ? {} : { reconnectMs: options.reconnectMs }),
    ...(options.replyMs === undefined ? {} : { replyMs: options.replyMs }),
  };
  const until = performance.now() + (options.lockWaitMs ?? DEFAULT_LOCK_WAIT_MS);
  let told = false;
  for (;;) {
    const started = await startServer({ name, program: tools.nbd, args, socket, log }, nbd, file);
    if (typeof started !== 'string') return started;
    if (performance.now() > until) throw imageError(`disk ${name}: ${file}`, started);
    if (!told) log.info('waits for the lock on an image', { disk: name, image: file });
    told = true;
    await sleep(LOCK_LOOK_MS);
  }
}
