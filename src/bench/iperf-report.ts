/** What ping and iperf3 print, as far as the bench reads it. */
import { z } from 'zod';
import { SluiceError } from '../base/errors.ts';

const clientSchema = z.object({
  error: z.string().optional(),
  end: z
    .object({
      sum_sent: z.object({ bytes: z.number(), retransmits: z.number().optional() }).optional(),
      sum_received: z.object({ bytes: z.number(), seconds: z.number() }).optional(),
    })
    .optional(),
});

/** One iperf3 client that sent TCP. */
export interface IperfResult {
  readonly receivedBytes: number;
  readonly seconds: number;
  readonly retransmits: number;
}

/**
 * Reads the output of `iperf3 --client … --json`.
 * @throws SluiceError `state` with iperf3's own words if it failed.
 */
export function parseIperf(text: string): IperfResult {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new SluiceError('state', `iperf3 printed no JSON: ${text.slice(0, 200)}`, {
      cause: error,
    });
  }
  const { error, end } = clientSchema.parse(json);
  if (error !== undefined) throw new SluiceError('state', `iperf3 in a guest: ${error}`);
  if (end?.sum_received === undefined) {
    throw new SluiceError('state', 'iperf3 in a guest ended without a sum');
  }
  return {
    receivedBytes: end.sum_received.bytes,
    seconds: end.sum_received.seconds,
    retransmits: end.sum_sent?.retransmits ?? 0,
  };
}

/**
 * The round trips that ping(8) of iputils printed, in microseconds.
 * @throws SluiceError `state` if there is none.
 */
export function parsePing(text: string): number[] {
  const trips = [...text.matchAll(/ time=([\d.]+) ms/g)].map((match) => Number(match[1]) * 1000);
  if (trips.length === 0) {
    throw new SluiceError('state', `ping in a guest had no answer: ${text.slice(0, 200)}`);
  }
  return trips;
}

/** The value at or below which `fraction` of the values lie. */
export function quantile(values: readonly number[], fraction: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const rank = Math.max(1, Math.ceil(fraction * sorted.length));
  const value = sorted[rank - 1];
  if (value === undefined) throw new SluiceError('state', 'there is no quantile of no values');
  return value;
}
