/** `sluice disk …`: what is known of a disk of a running daemon, another size for it, its power. */
import { Argument, Command, InvalidArgumentError } from 'commander';
import { SluiceError } from '../base/errors.ts';
import type { ApiReply } from '../control/api.ts';
import { bytesOf, SIZE_PATTERN } from '../daemon/config-values.ts';
import { suggestion } from '../daemon/near-miss.ts';
import { printJson, sizeText } from './output.ts';
import { clientFor, controlCommand, type JsonOption, type PlaceOptions } from './place.ts';

type Disk = ApiReply<'disks'>[number];

export function diskCommand(): Command {
  return new Command('disk')
    .addCommand(infoCommand())
    .addCommand(resizeCommand())
    .addCommand(powerCommand());
}

function infoCommand(): Command {
  return controlCommand('info')
    .description('show what is known of a disk')
    .argument('<name>', 'name of the disk in the configuration')
    .action(async (name: string, options: PlaceOptions & JsonOption) => {
      const disks = await clientFor(options).call('disks');
      const disk = disks.find((other) => other.disk === name);
      if (disk === undefined) throw unknownDisk(name, disks);
      print(disk, options);
    });
}

interface ResizeOptions extends PlaceOptions, JsonOption {
  readonly shrink?: true;
}

function resizeCommand(): Command {
  return controlCommand('resize')
    .description('give a disk another size; guests that have it see it at once')
    .argument('<name>', 'name of the disk in the configuration')
    .addArgument(new Argument('<size>', 'its new size, such as 512M or 20G').argParser(sizeOf))
    .option('--shrink', 'allow a smaller size: what lies behind it is lost')
    .action(async (disk: string, bytes: number, options: ResizeOptions) => {
      const shrink = options.shrink === true;
      print(await clientFor(options).call('resizeDisk', { disk, bytes, shrink }), options);
    });
}

function powerCommand(): Command {
  return controlCommand('power')
    .description('cut the power of a disk with a volatile cache (faults), or give it back')
    .argument('<name>', 'name of the disk in the configuration')
    .addArgument(
      new Argument(
        '<state>',
        'off: requests fail, and what no flush has made durable may be lost',
      ).choices(['on', 'off']),
    )
    .action(async (disk: string, state: 'on' | 'off', options: PlaceOptions & JsonOption) => {
      print(await clientFor(options).call('powerDisk', { disk, on: state === 'on' }), options);
    });
}

function sizeOf(text: string): number {
  if (!SIZE_PATTERN.test(text))
    throw new InvalidArgumentError('Expected a size with its unit, such as 512M or 20G.');
  const bytes = bytesOf(text);
  if (!Number.isSafeInteger(bytes)) throw new InvalidArgumentError('Expected less than 8192T.');
  return bytes;
}

function unknownDisk(name: string, disks: readonly Disk[]): SluiceError {
  const names = disks.map(({ disk }) => disk);
  const there = names.length === 0 ? 'there are no disks' : `there are ${names.join(', ')}`;
  return new SluiceError('not-found', `no disk ${name}; ${there}${suggestion(name, names)}`);
}

function print(disk: Disk, { json }: JsonOption): void {
  if (json === true) {
    printJson(disk);
    return;
  }
  const rows: readonly (readonly [string, string | number])[] = [
    ['disk', disk.disk],
    ['kind', disk.kind],
    ['source', disk.source],
    ['size', disk.bytes === null ? 'not open' : `${sizeText(disk.bytes)} (${disk.bytes} bytes)`],
    ['block', `${disk.blockBytes} bytes`],
    ['readonly', disk.readonly ? 'yes' : 'no'],
    ...(disk.power === null ? [] : [['power', disk.power] as const]),
    ['serial', disk.serial],
    ['used by', disk.usedBy.length === 0 ? 'nobody' : disk.usedBy.join(', ')],
    ...Object.entries(disk.details).map(
      ([key, value]) => [key.replaceAll('_', ' '), detailText(key, value)] as const,
    ),
  ];
  const width = Math.max(...rows.map(([key]) => key.length));
  for (const [key, value] of rows) process.stdout.write(`${key.padEnd(width)}  ${value}\n`);
}

function detailText(key: string, value: Disk['details'][string]): string {
  if (value === null) return 'not known';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return typeof value === 'number' && key.endsWith('_bytes')
    ? `${sizeText(value)} (${value} bytes)`
    : String(value);
}
