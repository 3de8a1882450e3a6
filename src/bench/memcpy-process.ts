/** The process of {@link measureMemcpyLimit}: work as JSON in the first argument, answer on stdout. */
import { z } from 'zod';
import { pinThread } from '../os/affinity.ts';
import { measureMemcpy } from './memcpy-limit.ts';

const work = z
  .strictObject({
    frame: z.int().min(1),
    footprint: z.int().min(1),
    cpus: z.array(z.int().min(0)).optional(),
    windows: z.int().min(1).optional(),
  })
  .parse(JSON.parse(process.argv[2] ?? '{}'));
if (work.cpus !== undefined) pinThread(work.cpus);
process.stdout.write(JSON.stringify({ gbps: measureMemcpy(work) }));
