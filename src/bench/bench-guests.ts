/** What a network bench needs of its guests, whoever they are. */
import type { DomainSample } from './private-domain.ts';
import type { NetErrors } from './report-schema.ts';

export interface Latency {
  readonly p50: number;
  readonly p99: number;
}

/** Counts since the guests were started. */
export interface GuestSample {
  /** Bytes of frames delivered, by flow. */
  readonly flowBytes: readonly number[];
  /** Frames delivered, of all flows. */
  readonly frames: number;
  /** Processor time of the guests' processes. */
  readonly cpuNs: number;
  /** Time in which guests were ready to run and had no processor, by thread; undefined if unknown. */
  readonly waitNs: number | undefined;
}

/** What became of a run's frames, once none of them is on its way. */
export interface RunTotals {
  /** As the guests counted them; undefined where guests cannot: then the ports' counters say it. */
  readonly frames: { readonly sent: number; readonly lost: number } | undefined;
  readonly errors: NetErrors | undefined;
  /** What guests that speak TCP say of it. */
  readonly tcpRetransmits: number | undefined;
}

export interface BenchGuests extends AsyncDisposable {
  /** What a lane copies at once, and the memory that the copies go through, in bytes. */
  readonly copyBytes: number;
  readonly footprint: number;
  /** Of each guest's pairs of queues: buffers that wait for frames, and such as frames are sent from. */
  readonly rings?: { readonly receiveBuffers: number; readonly sendFrames: number };
  /** Round trips of single frames between the first two guests, or with a machine outside, in microseconds. */
  measureLatency(): Promise<Latency>;
  /** Has all code compiled that the next two take; missing where nothing finds guests asleep. */
  warmUp?(): Promise<void>;
  /** The same, where each finds guests and lane asleep; undefined where guests cannot. */
  measureAsleepLatency(): Promise<Latency | undefined>;
  /** From a kick that finds the lane asleep to when it has taken the frame; likewise. */
  measureWakeup(): Promise<Latency | undefined>;
  /**
   * From a doorbell to when the receiving guest found the frame, in microseconds; absent or undefined where
   * the two have no clock in common.
   */
  measureDelivery?(): Promise<Latency | undefined>;
  /** Begins traffic; settles when it flows. */
  start(): Promise<void>;
  /** @param domain the driver domain's counters of the same moment. */
  sample(domain: DomainSample): Promise<GuestSample>;
  /** Ends traffic. */
  stop(): Promise<RunTotals>;
}
