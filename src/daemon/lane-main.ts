/** The module that a lane's worker loads. */
import { runLane } from '../engine/lane.ts';
import type { LaneCommands, LaneEvent } from './lane-commands.ts';
import { NetLane } from './lane-program.ts';

runLane<LaneCommands, LaneEvent>((host) => new NetLane(host));
