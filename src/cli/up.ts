/** `sluice up [FILE]`: runs the daemon in the foreground. */
import type { Command } from 'commander';
import { describeError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { ControlServer } from '../control/server.ts';
import { DEFAULT_CONFIG_FILE, loadConfig, placeOf, placeText } from '../daemon/config.ts';
import { Daemon } from '../daemon/daemon.ts';
import { macOfCard } from '../daemon/vf-requests.ts';
import { createLog } from './log.ts';
import { onOutputFailure, printJson, printTable } from './output.ts';
import { type JsonOption, jsonCommand } from './place.ts';

export function upCommand(version: string): Command {
  return jsonCommand('up')
    .argument('[file]', 'configuration file', DEFAULT_CONFIG_FILE)
    .addHelpText(
      'after',
      '\nSIGHUP reads the file again (as sluice reload does); SIGINT and SIGTERM end the daemon.',
    )
    .action(async (file: string, { json }: JsonOption) => {
      const config = loadConfig(file);
      const log = createLog(json === true ? 'json' : undefined);
      // Before there is a daemon, a wish to reload must not end the process; it is met afterwards.
      let reloadWanted = false;
      const hold = (): void => {
        reloadWanted = true;
      };
      process.on('SIGHUP', hold);
      const daemon = await Daemon.start(config, log);
      const stop = (): void => void daemon.stop();
      const server = await startControl(daemon, version, stop);
      process.on('SIGINT', stop);
      process.on('SIGTERM', stop);
      process.on('SIGHUP', () => void reload(daemon, log));
      process.off('SIGHUP', hold);
      if (reloadWanted) void reload(daemon, log);
      // Guests are served whether anybody reads the announcement or not.
      onOutputFailure(({ message }) =>
        log.warn('cannot write standard output', { error: message }),
      );
      announce(daemon, json === true);
      const reason = await daemon.ended;
      await server.close();
      if (reason !== undefined) throw reason;
      log.info('ended');
    });
}

async function startControl(
  daemon: Daemon,
  version: string,
  stop: () => void,
): Promise<ControlServer> {
  try {
    return await ControlServer.start(daemon, version, stop);
  } catch (error) {
    await daemon.stop();
    throw error;
  }
}

async function reload(daemon: Daemon, log: Logger): Promise<void> {
  try {
    await daemon.reload();
  } catch (error) {
    for (const line of describeError(error).split('\n')) log.error(line);
  }
}

/** Tells what is served now, on standard output. */
function announce(daemon: Daemon, json: boolean): void {
  const { config, controlSocket } = daemon;
  const cards = config.guests.flatMap(({ net }) => net);
  const disks = config.guests.flatMap(({ disk }) => disk);
  if (json) {
    printJson({
      event: 'up',
      pid: process.pid,
      run: config.run.path,
      control: controlSocket,
      ports: cards.map((card) => ({
        port: card.port,
        switch: placeOf(card),
        mac: macOfCard(card),
        socket: card.socket,
        server: card.server,
      })),
      disks: disks.map(({ device, disk, socket, server }) => ({ device, disk, socket, server })),
    });
    return;
  }
  process.stdout.write(`sluice serves ${config.file}\n\n`);
  printTable(
    ['DEVICE', 'AT', 'SOCKET'],
    [
      ...cards.map((card) => [card.port, `${placeText(card)}, ${macOfCard(card)}`, card.socket]),
      ...disks.map(({ device, disk, socket }) => [device, `disk ${disk}`, socket]),
    ],
    'No guests yet: add some to the file, then sluice reload.',
  );
  const [first] = config.guests;
  if (first !== undefined) {
    process.stdout.write(
      `\nAttach a guest: qemu-system-x86_64 … $(sluice guest qemu-args ${first.name} -c ${shellWord(config.file)})\n`,
    );
  }
}

/** A word as a shell is to be given it. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
