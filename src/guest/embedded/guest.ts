/** One embedded guest: its card, and a role for each pair of queues. */
import { SluiceError } from '../../base/errors.ts';
import type { Arena } from '../../memory/arena.ts';
import { parseStationMac } from '../../net/mac.ts';
import type { PollLoop } from '../../os/poll-loop.ts';
import { attachE1000 } from './e1000-guest-card.ts';
import { Echo } from './echo.ts';
import type { Transports } from './frontend.ts';
import { attachIxgbe } from './ixgbe-guest-card.ts';
import type { NetAttachment } from './net-attachment.ts';
import { Ping } from './ping.ts';
import type { GuestInfo, GuestReading, GuestSpec, RoleSpec } from './protocol.ts';
import type { Role, RoleContext, RoleCounts } from './role.ts';
import { RoleRunner } from './role-runner.ts';
import { Traffic } from './traffic.ts';
import { VirtioCard } from './virtio-card.ts';
import { Watch } from './watch.ts';

type RunningRole = Role & { counts(): RoleCounts };

export class EmbeddedGuest {
  readonly info: GuestInfo;
  readonly #card: NetAttachment;
  readonly #runner: RoleRunner<RunningRole>;

  /**
   * Attaches to a device and starts as a sink.
   * @throws SluiceError if the device cannot be reached or does not suit.
   */
  constructor(
    spec: GuestSpec,
    arena: Arena,
    loop: PollLoop,
    transports: Transports,
    onLost: (reason: string) => void,
  ) {
    this.#runner = new RoleRunner(spec.name, loop, onLost);
    const fail = (reason: string): void => this.#runner.fail(reason);
    this.#card = makeCard(spec, arena, loop, transports, fail);
    this.info = this.#card.info;
    this.#runner.begin(this.#card.contexts.map((context) => new Traffic(context, {}, undefined)));
  }

  /**
   * Gives the pairs of queues new roles; counts begin at zero.
   * @throws SluiceError `state` while frames of the old roles are on their way.
   */
  start(specs: readonly RoleSpec[]): void {
    if (specs.length > this.#card.contexts.length) {
      throw new SluiceError(
        'config',
        `${specs.length} roles for the ${this.#card.contexts.length} queue pairs of guest ${this.info.name}`,
      );
    }
    this.#runner.replace(() =>
      this.#card.contexts.map((context, index) => makeRole(context, specs[index])),
    );
  }

  /** Ends sending; see {@link drained}. */
  stop(): void {
    this.#runner.stop();
  }

  /** True once the device has taken all that was sent. */
  get drained(): boolean {
    return this.#runner.drained;
  }

  read(): GuestReading {
    return {
      pairs: this.#runner.roles.map((role) => role.counts()),
      kicks: this.#card.kicks,
      calls: this.#card.calls,
      failure: this.#runner.failure,
    };
  }

  /** Detaches and gives the memory back. */
  close(): void {
    this.#runner.end();
    this.#card.close();
  }
}

function makeCard(
  spec: GuestSpec,
  arena: Arena,
  loop: PollLoop,
  transports: Transports,
  fail: (reason: string) => void,
): NetAttachment {
  switch (spec.method ?? 'paravirtual') {
    case 'paravirtual':
      return new VirtioCard(spec, arena, loop, transports.virtio(spec.socket, fail));
    case 'emulated':
      return attachE1000(spec, arena, loop, transports.pci(spec.socket, fail));
    case 'direct':
    case 'sriov':
      return attachIxgbe(spec, arena, loop, transports.pci(spec.socket, fail), fail);
  }
}

function makeRole(context: RoleContext, spec: RoleSpec | undefined): RunningRole {
  if (spec === undefined) return new Traffic(context, {}, undefined);
  switch (spec.role) {
    case 'echo':
      return new Echo(context);
    case 'watch':
      return new Watch(context);
    case 'ping':
      return new Ping(context, {
        mac: parseStationMac(spec.mac),
        flow: spec.flow,
        frameBytes: spec.frame,
        ...(spec.intervalUs === undefined ? {} : { intervalUs: spec.intervalUs }),
        ...(spec.until === undefined ? {} : { until: spec.until }),
      });
    case 'traffic': {
      const { source, verifyEvery } = spec;
      return new Traffic(
        context,
        verifyEvery === undefined ? {} : { verifyEvery },
        source === undefined
          ? undefined
          : {
              targets: source.targets.map(({ mac, flow }) => ({
                mac: parseStationMac(mac),
                flow,
              })),
              frameBytes: source.frame,
              ...(source.rate === undefined ? {} : { framesPerSecond: source.rate }),
              ...(source.window === undefined ? {} : { window: source.window }),
              ...(source.frames === undefined ? {} : { frames: source.frames }),
            },
      );
    }
  }
}
