/**
 * The AHCI controller under a hostile driver: any register in any width and order, command lists and tables
 * anywhere, any FIS, packet and PRDT, drives that come and go, disks that dawdle and fail, resets, bus
 * mastering off and on, memory that is taken away.
 *
 * Whatever it does, the disks get legal requests only, with memory that the guest or the lane has for them,
 * in the right direction; what the guest may not read is on no disk; a controller without work lets the
 * lane sleep; a guest beside it notices nothing; and a good driver that takes the controller over finds
 * it whole.
 */
import assert from 'node:assert/strict';
import { silentLogger } from '../src/base/log.ts';
import { testLane } from '../src/block/testing-client.ts';
import { Ahci } from '../src/device/ahci/ahci.ts';
import { AtaDisk } from '../src/device/ahci/ata-disk.ts';
import { Cdrom } from '../src/device/ahci/cdrom.ts';
import { AhciGuest, pattern } from '../src/device/ahci/testing.ts';
import { FakeDisk } from '../src/device/virtio-blk/testing.ts';
import { PORT_ERRORS } from '../src/driver/ahci/port-driver.ts';
import { DirectBus } from '../src/driver/pci/testing.ts';
import * as spec from '../src/spec/ahci.ts';
import * as ata from '../src/spec/ata.ts';
import {
  PCI_AF_CONTROL,
  PCI_AF_CONTROL_FLR,
  PCI_CAP_ID_AF,
  PCI_CAPABILITIES_POINTER,
  PCI_COMMAND,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
} from '../src/spec/pci.ts';
import { GuardedGuest } from './guarded-guest.ts';
import type { Random } from './random.ts';
import type { FuzzTarget } from './runner.ts';
import { WatchedDisk } from './watched-disk.ts';

const STEPS = 100;
const PAGES = 40;
const PAGE = 4096;
const CANARY_BYTES = 4096;
const CANARY = 0xa5;
/** Turns after which everything must have ended that can end. */
const PATIENCE = 10_000;
const EIO = 5;
/** Ports with drives: a disk, a cdrom, and a disk that comes and goes. */
const [DISK, CDROM, PLUGGED] = [0, 1, 2] as const;
const PORTS = [DISK, CDROM, PLUGGED] as const;
/** Lists and received FISes have a page a port; tables, 1 KiB apart, the two pages behind them. */
const TABLES_AT = PORTS.length * PAGE;
const TABLE_BYTES = 1024;
const TABLES = 8;
const RECEIVED_AT = 2048;
const WIDTHS = [1, 2, 4] as const;
const ON = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
const IDENTITY = { serial: 'F', model: 'fuzzed', firmware: '1' };

const COMMANDS = Object.entries(ata)
  .filter(([name]) => name.startsWith('ATA_'))
  .map(([, value]) => value as number);
const PACKETS = Object.entries(ata)
  .filter(([name]) => /^(SCSI|MMC)_/.test(name))
  .map(([, value]) => value as number);
const DATA_COMMANDS = [
  ata.ATA_READ_DMA_EXT,
  ata.ATA_WRITE_DMA_EXT,
  ata.ATA_READ_SECTORS,
  ata.ATA_WRITE_SECTORS,
  ata.ATA_READ_DMA,
  ata.ATA_DATA_SET_MANAGEMENT,
  ata.ATA_SMART,
  ata.ATA_IDENTIFY_DEVICE,
] as const;
const PORT_REGISTERS = [
  ...[spec.PX_CLB, spec.PX_CLBU, spec.PX_FB, spec.PX_FBU, spec.PX_IS, spec.PX_IE, spec.PX_CMD],
  ...[spec.PX_TFD, spec.PX_SIG, spec.PX_SSTS, spec.PX_SCTL, spec.PX_SERR, spec.PX_SACT, spec.PX_CI],
];

const { arena, loop } = testLane();

/** A good guest with a controller and a disk of its own: what it writes it can read. */
class Neighbour {
  readonly #disk = new FakeDisk({ bytes: 64 * 1024 });
  readonly #guest = new AhciGuest(
    new AtaDisk({ disk: this.#disk, identity: IDENTITY, now: () => 0 }),
  );

  constructor() {
    this.#guest.start();
  }

  check(random: Random): void {
    const [lba, count] = [random.below(100), 1 + random.below(8)];
    const data = pattern(512 * count, random.below(256));
    this.#guest.succeed({ command: ata.ATA_WRITE_DMA_EXT, lba, count, data });
    const read = { command: ata.ATA_READ_DMA_EXT, lba, count, bytes: data.length };
    assert.ok(this.#guest.succeed(read).equals(data), 'a guest beside it reads something else');
    this.#disk.seen.length = 0;
  }
}

let neighbour: Neighbour | undefined;

class Rig {
  readonly random: Random;
  readonly guest: GuardedGuest;
  readonly controller: Ahci;
  readonly bus: DirectBus;
  readonly fakes: readonly FakeDisk[];
  readonly watched: readonly WatchedDisk[];
  /** The drive of the third port is in. */
  plugged = false;
  /** It is being taken out. */
  leaving = false;
  /** What the controller has of the lane's memory, and what a good guest has. */
  readonly #own: { readonly at: number; readonly bytes: number }[] = [];

  constructor(random: Random) {
    this.random = random;
    this.guest = new GuardedGuest(random, arena, 'bad', PAGES);
    // Some of it is always of use: lists, tables, and the beginning of the data.
    this.guest.open(0, TABLES_AT + 8 * PAGE);
    this.controller = this.#make();
    this.fakes = PORTS.map((port) => this.#disk(port));
    this.watched = this.fakes.map(
      (disk) => new WatchedDisk(disk, (at, bytes, write) => this.#mayUse(at, bytes, write)),
    );
    this.controller.insert(DISK, this.#drive(DISK));
    const image = random.oneIn(6) ? undefined : (this.watched[CDROM] as WatchedDisk);
    this.controller.insert(CDROM, new Cdrom({ disk: image, identity: IDENTITY }));
    this.bus = new DirectBus(this.controller, this.guest.domain);
    this.#wire();
  }

  /** Whatever it allocates is its own. */
  #make(): Ahci {
    const { allocate } = arena;
    arena.allocate = (bytes, name) => {
      const at = allocate.call(arena, bytes, name);
      this.#own.push({ at, bytes });
      return at;
    };
    try {
      return new Ahci({ name: 'bad', ports: PORTS.length + 1, arena, loop, log: silentLogger });
    } finally {
      arena.allocate = allocate;
    }
  }

  #disk(port: number): FakeDisk {
    const { random } = this;
    const bytes = 4096 * (1 + random.below(64));
    const disk = new FakeDisk({
      bytes: port === CDROM ? bytes - (bytes % ata.CD_BLOCK_BYTES) : bytes,
      blockBytes: port === CDROM ? 512 : random.pick([512, 512, 4096]),
      readonly: port === CDROM || random.oneIn(6),
      discardBytes: random.oneIn(2) ? 512 : 0,
    });
    disk.content.set(pattern(disk.content.length, port));
    disk.result = () => (random.oneIn(15) ? -EIO : undefined);
    disk.choose = (pending) => pending.filter(() => !random.oneIn(3));
    return disk;
  }

  #drive(port: number): AtaDisk {
    return new AtaDisk({
      disk: this.watched[port] as WatchedDisk,
      identity: IDENTITY,
      now: () => 0,
    });
  }

  #mayUse(address: number, bytes: number, write: boolean): boolean {
    if (this.guest.owns(address)) return this.guest.allows(address, bytes, write);
    return this.#isOwn(address, bytes);
  }

  #isOwn(address: number, bytes: number): boolean {
    return this.#own.some(({ at, bytes: all }) => address >= at && address + bytes <= at + all);
  }

  /** The bus of the test only notes bus mastering; here it is the domain's. */
  #wire(): void {
    const { domain } = this.guest;
    for (const name of ['read', 'write'] as const) {
      const copy = domain[name];
      domain[name] = (iova, bytes, lane, tag) => {
        assert.ok(this.#isOwn(lane, bytes), `a ${name} with memory that is not the controller's`);
        return copy.call(domain, iova, bytes, lane, tag);
      };
    }
    this.controller.detach();
    this.controller.attach({
      dma: domain,
      interrupts: this.bus,
      setBusMaster: (on) => {
        domain.busMaster = on;
        if (on) this.guest.thaw();
      },
    });
    this.command(ON);
  }

  command(value: number): void {
    this.bus.writeConfig(PCI_COMMAND, 2, value);
  }

  set(port: number, register: number, value: number): void {
    const at = spec.AHCI_PORTS + port * spec.AHCI_PORT_BYTES + register;
    this.bus.write(spec.AHCI_BAR, at, 4, value >>> 0);
  }

  get(port: number, register: number): number {
    const at = spec.AHCI_PORTS + port * spec.AHCI_PORT_BYTES + register;
    return this.bus.read(spec.AHCI_BAR, at, 4);
  }

  /** As a good driver does it. */
  start(port: number): void {
    const { random, guest } = this;
    const list = guest.base + port * PAGE;
    this.set(port, spec.PX_CMD, 0);
    if (random.oneIn(3)) {
      this.set(port, spec.PX_SCTL, spec.PX_SCTL_DET_COMRESET);
      this.set(port, spec.PX_SCTL, 0);
    }
    this.set(port, spec.PX_CLB, list % 2 ** 32);
    this.set(port, spec.PX_CLBU, Math.floor(list / 2 ** 32));
    const received = random.oneIn(10) ? guest.address() : list + RECEIVED_AT;
    this.set(port, spec.PX_FB, received % 2 ** 32);
    this.set(port, spec.PX_FBU, Math.floor(received / 2 ** 32));
    this.set(port, spec.PX_SERR, 0xffff_ffff);
    this.set(port, spec.PX_IS, 0xffff_ffff);
    this.set(port, spec.PX_IE, random.oneIn(2) ? 0xffff_ffff : random.u32());
    this.set(port, spec.PX_CMD, spec.PX_CMD_FRE | spec.PX_CMD_CLO);
    this.set(port, spec.PX_CMD, spec.PX_CMD_FRE | spec.PX_CMD_ST);
    this.bus.write(spec.AHCI_BAR, spec.AHCI_GHC, 4, spec.AHCI_GHC_INTERRUPT_ENABLE);
  }

  /** A command FIS that makes sense, or nearly. */
  #fis(port: number, command: number, slot: number): Buffer {
    const { random } = this;
    const fis = Buffer.alloc(ata.FIS_H2D_BYTES);
    fis[0] = random.oneIn(40) ? random.nasty(8) : ata.FIS_H2D;
    fis[ata.H2D_FLAGS] = random.oneIn(25) ? random.nasty(8) : ata.H2D_FLAG_COMMAND;
    fis[ata.H2D_COMMAND] = command;
    const isQueued =
      command === ata.ATA_READ_FPDMA_QUEUED || command === ata.ATA_WRITE_FPDMA_QUEUED;
    const { bytes, blockBytes } = (this.fakes[port] as FakeDisk).info;
    const most = bytes / blockBytes;
    const blocks = random.oneIn(10) ? random.nasty(16) : 1 + random.below(Math.min(most, 24));
    const lba = random.oneIn(10) ? random.nasty(32) : random.below(Math.max(1, most + 2 - blocks));
    const features = isQueued
      ? blocks
      : random.pick([ata.DSM_TRIM, ata.PACKET_DMA, 0xd0 + random.below(12), random.nasty(16)]);
    const isTrim = command === ata.ATA_DATA_SET_MANAGEMENT;
    const tag = random.oneIn(20) ? random.nasty(8) : slot << 3;
    const count = isQueued ? tag : isTrim && !random.oneIn(4) ? 1 + random.below(8) : blocks;
    fis[ata.H2D_FEATURES] = features & 0xff;
    fis[ata.H2D_FEATURES_HIGH] = features >> 8;
    fis.writeUInt16LE(count, ata.H2D_COUNT);
    fis.writeUIntLE(lba & 0xff_ffff, ata.H2D_LBA, 3);
    fis.writeUIntLE(random.oneIn(20) ? random.nasty(24) : lba >>> 24, ata.H2D_LBA_HIGH, 3);
    fis[ata.H2D_DEVICE] = random.oneIn(10) ? random.nasty(8) : ata.DEVICE_LBA;
    fis[ata.H2D_CONTROL] = random.oneIn(4) ? random.nasty(8) : 0;
    if (command === ata.ATA_SMART) {
      fis.writeUIntLE((ata.SMART_KEY << 8) | random.below(256), ata.H2D_LBA, 3);
    }
    return fis;
  }

  #packet(): Buffer {
    const { random } = this;
    const packet = Buffer.from(random.bytes(16));
    packet[0] = random.oneIn(10)
      ? random.nasty(8)
      : (PACKETS[random.below(PACKETS.length)] as number);
    const sectors = (this.fakes[CDROM]?.content.length ?? 0) / ata.CD_BLOCK_BYTES;
    if (!random.oneIn(6)) packet.writeUInt32BE(random.below(sectors + 2), 2);
    if (!random.oneIn(6)) packet.writeUInt32BE(random.below(8) << 8, 6);
    return packet;
  }

  /** The structures are where {@link start} puts them. */
  #isLaidOut(port: number): boolean {
    const list = this.guest.base + port * PAGE;
    const at = (low: number, high: number): number =>
      this.get(port, high) * 2 ** 32 + this.get(port, low);
    return at(spec.PX_CLB, spec.PX_CLBU) === list && at(spec.PX_FB, spec.PX_FBU) > list;
  }

  /** Has the port ready for commands, mostly. */
  #prepare(port: number): void {
    const { random } = this;
    if (random.oneIn(6)) return;
    if (!this.guest.domain.busMaster) this.command(ON);
    const isUp = (this.get(port, spec.PX_SSTS) & 0xf) === spec.PX_SSTS_DET_ONLINE;
    if (!isUp) this.set(port, spec.PX_SCTL, 0);
    const isRunning = (this.get(port, spec.PX_CMD) & spec.PX_CMD_CR) !== 0;
    const hasFailed = (this.get(port, spec.PX_IS) & PORT_ERRORS) !== 0;
    if (!isRunning || !this.#isLaidOut(port)) this.start(port);
    else if (hasFailed) this.recover(port);
  }

  /** Lays some commands out and issues them. */
  issue(port: number): void {
    this.#prepare(port);
    for (let n = this.random.below(4); n >= 0; n--) this.#issueOne(port);
    if (this.random.oneIn(2)) this.turn();
  }

  #issueOne(port: number): void {
    const { random } = this;
    const slot = random.below(32);
    const command = this.lay(port, slot, TABLE_BYTES * random.below(TABLES));
    const isQueued =
      command === ata.ATA_READ_FPDMA_QUEUED || command === ata.ATA_WRITE_FPDMA_QUEUED;
    if (isQueued && !random.oneIn(20)) this.set(port, spec.PX_SACT, 1 << slot);
    this.set(port, spec.PX_CI, random.oneIn(20) ? random.u32() : 1 << slot);
  }

  /** Lays a command out: its table at `place` behind the first. Returns the command. */
  lay(port: number, slot: number, place: number): number {
    const { random, guest } = this;
    const command = random.pick<() => number>([
      () =>
        port === CDROM
          ? ata.ATA_PACKET
          : random.pick([ata.ATA_READ_FPDMA_QUEUED, ata.ATA_WRITE_FPDMA_QUEUED]),
      () => (port === CDROM ? ata.ATA_PACKET : random.pick([...DATA_COMMANDS])),
      () => (port === CDROM ? ata.ATA_PACKET : random.pick([...DATA_COMMANDS])),
      () => (port === CDROM ? ata.ATA_PACKET : random.pick([...DATA_COMMANDS])),
      () => COMMANDS[random.below(COMMANDS.length)] as number,
      () => random.nasty(8),
    ])();
    const isTame = !random.oneIn(3);
    // More than the controller fetches at once, now and then.
    const entries = random.oneIn(30) ? 300 : random.pick([1, 1, random.below(6), random.below(60)]);
    const table = Buffer.alloc(spec.AHCI_TABLE_PRDT + entries * spec.AHCI_PRD_BYTES);
    this.#fis(port, command, slot).copy(table);
    if (command === ata.ATA_PACKET) this.#packet().copy(table, spec.AHCI_TABLE_ACMD);
    for (let i = 0; i < entries; i++) {
      const at = spec.AHCI_TABLE_PRDT + i * spec.AHCI_PRD_BYTES;
      const bytes = isTame
        ? 512 * (1 + random.below(24))
        : random.pick([512, 4096, 512 * (1 + random.below(64)), 2 + random.nasty(12)]);
      const open = guest.base + TABLES_AT + TABLES * TABLE_BYTES + 2 * random.below(PAGE);
      const address = isTame ? open : guest.address();
      table.writeBigUInt64LE(BigInt.asUintN(64, BigInt(address)), at);
      const flags = random.oneIn(8) ? random.nasty(32) : 0;
      table.writeUInt32LE(((bytes - 1) | flags) >>> 0, at + spec.AHCI_PRD_COUNT);
    }
    guest.write(guest.base + TABLES_AT + place, table);
    const at = random.oneIn(40) ? guest.address() : guest.base + TABLES_AT + place;
    const header = Buffer.alloc(spec.AHCI_HEADER_BYTES);
    const length = random.oneIn(20) ? random.nasty(16) : entries;
    const flags = random.oneIn(10) ? random.nasty(16) : ata.FIS_H2D_BYTES / 4;
    header.writeUInt32LE(((length << spec.AHCI_HEADER_PRDTL_SHIFT) | flags) >>> 0);
    header.writeBigUInt64LE(BigInt.asUintN(64, BigInt(at)), spec.AHCI_HEADER_TABLE);
    guest.write(guest.base + port * PAGE + slot * spec.AHCI_HEADER_BYTES, header);
    return command;
  }

  /** What a driver does when it sees an error: the port off and on, the log read. */
  recover(port: number): void {
    this.set(port, spec.PX_CMD, spec.PX_CMD_FRE);
    this.set(port, spec.PX_SERR, 0xffff_ffff);
    this.set(port, spec.PX_IS, 0xffff_ffff);
    this.set(port, spec.PX_CMD, spec.PX_CMD_FRE | spec.PX_CMD_ST);
  }

  register(): void {
    const { random, bus } = this;
    const value = random.oneIn(2) ? random.nasty(32) : random.u32();
    const register = PORT_REGISTERS[random.below(PORT_REGISTERS.length)] as number;
    const port = spec.AHCI_PORTS + spec.AHCI_PORT_BYTES * random.below(5) + register;
    const near = random.oneIn(3) ? 4 * random.below(12) : port;
    const offset = random.oneIn(6) ? random.nasty(14) : near + (random.oneIn(8) ? 1 : 0);
    const width = random.oneIn(6) ? random.pick(WIDTHS) : 4;
    const bar = random.oneIn(12) ? random.below(6) : spec.AHCI_BAR;
    if (random.oneIn(3)) {
      const is = bus.read(bar, offset, width);
      assert.ok(Number.isInteger(is) && is >= 0 && is < 2 ** (8 * width), `reads ${is}`);
    } else {
      bus.write(bar, offset, width, width === 4 ? value : value % 2 ** (8 * width));
    }
  }

  /** A reset that the guest asks for. */
  functionReset(): void {
    for (let at = this.bus.readConfig(PCI_CAPABILITIES_POINTER, 1); at !== 0 && at < 0xff; ) {
      if (this.bus.readConfig(at, 1) === PCI_CAP_ID_AF) {
        this.bus.writeConfig(at + PCI_AF_CONTROL, 1, PCI_AF_CONTROL_FLR);
        return;
      }
      at = this.bus.readConfig(at + 1, 1);
    }
  }

  /** A drive comes or goes. */
  plug(): void {
    const { controller, random } = this;
    if (this.leaving) return;
    if (!this.plugged) {
      this.plugged = true;
      controller.insert(PLUGGED, this.#drive(PLUGGED));
      if (random.oneIn(2)) this.start(PLUGGED);
      return;
    }
    this.leaving = true;
    controller.remove(PLUGGED, () => {
      const disk = this.watched[PLUGGED] as WatchedDisk;
      assert.equal(disk.inFlight, 0, 'a drive is out whose disk is in use');
      this.plugged = false;
      this.leaving = false;
    });
  }

  /** A request to a disk is on its way that has the guest's memory. */
  get direct(): boolean {
    return this.watched.some((disk) => disk.uses((address) => this.guest.owns(address)));
  }

  /** As a transport does it: what is under way ends first. */
  quiet(): void {
    for (let turns = 0; !this.controller.hold(); turns++) {
      assert.ok(turns < PATIENCE, 'DMA that never ends');
      for (const disk of this.watched) disk.held = false;
      this.controller.poll();
      this.guest.settle(true);
    }
    assert.ok(!this.direct && this.guest.domain.pending === 0, 'quiet, but DMA is on its way');
  }

  turn(): void {
    this.controller.poll();
    if (this.random.oneIn(2)) this.guest.settle();
  }

  check(): void {
    this.guest.check();
    for (const value of this.controller.counters) {
      assert.ok(Number.isInteger(value) && value >= 0, `a counter is ${value}`);
    }
  }

  /** Nothing is to be done: the lane may sleep. */
  checkIdle(): void {
    const { controller, guest, watched } = this;
    for (const disk of watched) disk.held = false;
    for (let turns = 0; turns < PATIENCE; turns++) {
      const work = controller.poll() + guest.settle(true);
      const isBusy = watched.some(({ inFlight }) => inFlight > 0);
      if (work === 0 && !isBusy && !controller.arm()) return;
      controller.disarm();
    }
    assert.fail('a controller without work keeps the lane awake');
  }

  /** A good driver finds a controller that works. */
  takeOver(): void {
    const { controller, fakes } = this;
    this.quiet();
    controller.detach();
    for (const disk of fakes) {
      disk.result = () => undefined;
      disk.choose = (pending) => pending;
    }
    if (this.plugged && !this.leaving) this.plug();
    let isOut = false;
    controller.remove(CDROM, () => {
      isOut = true;
    });
    for (let turns = 0; !isOut || this.plugged; turns++) {
      assert.ok(turns < PATIENCE, 'a drive that is never out');
      controller.poll();
    }
    const good = new AhciGuest(controller);
    this.#own.push({ at: good.memory.arenaAddress, bytes: good.memory.size });
    good.start();
    const disk = fakes[DISK] as FakeDisk;
    const bytes = 4096;
    const count = bytes / disk.info.blockBytes;
    const read = { command: ata.ATA_READ_DMA_EXT, count, bytes };
    assert.ok(good.succeed(read).equals(disk.content.subarray(0, bytes)), 'reads something else');
    if (!disk.info.readonly) {
      const data = pattern(bytes, 77);
      good.succeed({ command: ata.ATA_WRITE_DMA_EXT, count, data });
      assert.ok(disk.content.subarray(0, bytes).equals(data), 'writes something else');
    }
    good.close();
    for (const [port, { content }] of fakes.entries()) {
      this.guest.checkPublic(content, `the disk of port ${port}`);
    }
  }
}

function step(rig: Rig): void {
  const { random, controller, guest } = rig;
  const port = random.pick(PORTS);
  random.pick<() => void>([
    () => rig.issue(port),
    () => rig.issue(port),
    () => rig.issue(port),
    () => rig.register(),
    () => rig.register(),
    () => rig.turn(),
    () => rig.turn(),
    () => rig.recover(port),
    () => {
      if (random.oneIn(3)) rig.start(port);
    },
    () => {
      const disk = rig.watched[port] as WatchedDisk;
      disk.held = !disk.held;
    },
    () => {
      // Anything over what it has laid out.
      const at = guest.base + random.below(TABLES_AT + TABLES * TABLE_BYTES);
      guest.write(at, random.bytes(1 + random.below(16)));
    },
    () => {
      if (random.oneIn(3)) rig.plug();
    },
    () => {
      if (random.oneIn(8)) rig.functionReset();
      else if (random.oneIn(3)) rig.command(ON);
    },
    () => {
      if (!random.oneIn(4)) return;
      const isOn = random.oneIn(2);
      rig.command(PCI_COMMAND_MEMORY | (isOn ? PCI_COMMAND_MASTER : 0));
      if (isOn || guest.domain.busMaster || guest.domain.pending > 0 || rig.direct) return;
      guest.freeze();
    },
    () => {
      if (!random.oneIn(3)) return;
      rig.quiet();
      if (random.oneIn(3)) controller.reset();
      guest.remap();
      controller.resume();
      rig.command(ON);
    },
  ])();
}

function run(random: Random): void {
  neighbour ??= new Neighbour();
  const canary = arena.allocate(CANARY_BYTES);
  arena.bytes.fill(CANARY, canary, canary + CANARY_BYTES);
  const rig = new Rig(random);
  // Whatever is issued by chance finds something.
  for (const port of PORTS) {
    for (let slot = 0; slot < 32; slot++) rig.lay(port, slot, TABLE_BYTES * (slot % TABLES));
    if (!random.oneIn(6)) rig.start(port);
  }
  for (let i = 0; i < STEPS; i++) {
    step(rig);
    if (random.oneIn(2)) rig.turn();
    rig.check();
    if (random.oneIn(15)) neighbour.check(random);
  }
  rig.checkIdle();
  rig.check();
  neighbour.check(random);
  rig.takeOver();
  rig.guest.check();
  rig.guest.close();
  assert.ok(
    arena.bytes.subarray(canary, canary + CANARY_BYTES).every((byte) => byte === CANARY),
    'memory beside the guest was written',
  );
  arena.unmap(canary, CANARY_BYTES);
}

export const ahci: FuzzTarget = { name: 'ahci', run };
