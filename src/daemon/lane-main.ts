/** The module that a lane's worker loads. */
import { runLane } from '../engine/lane.ts';
import type { LaneCommands, LaneEvent } from './lane-commands.ts';
import { DomainLane } from './lane-program.ts';

runLane<LaneCommands, LaneEvent>((host) => new DomainLane(host));
