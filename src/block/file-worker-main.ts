/** The thread of a file where io_uring is forbidden: see file-worker.ts. */
import { workerData } from 'node:worker_threads';
import { TWO_32 } from '../base/bits.ts';
import { signalEventFd } from '../os/fd.ts';
import { allocateRange, readVector, syncData, writeVector } from '../os/file-io.ts';
import { IO_FALLOCATE, IO_FSYNC, IO_READ, IO_READV, IO_WRITE, IO_WRITEV } from '../os/io-ring.ts';
import { EINVAL, pinned } from '../os/libc.ts';
import {
  entryAt,
  type FileWorkerData,
  P_RESULT_TAIL,
  P_SUBMIT_HEAD,
  P_SUBMIT_TAIL,
  placeAt,
  resultAt,
  W_ARMED,
  W_STOP,
  W_SUBMITTED,
  W_WAITING,
  WORKER_PLACES,
} from './file-worker.ts';

const { handle, fd } = workerData as FileWorkerData;
const words = new Int32Array(handle.shared);
const unsigned = new Uint32Array(handle.shared);
/** The one iovec of an operation that names memory itself. */
const single = pinned(16);
const singleWords = new BigUint64Array(single.buffer);

function number64(at: number): number {
  return (unsigned[at + 1] as number) * TWO_32 + (unsigned[at] as number);
}

/** Does what an entry asks for: bytes, or a negative errno. */
function perform(at: number): number {
  const op = (unsigned[at] as number) & 0xff;
  const offset = number64(at + 2);
  const address = number64(at + 4);
  const count = unsigned[at + 6] as number;
  const flags = unsigned[at + 7] as number;
  switch (op) {
    case IO_READ:
    case IO_WRITE:
      singleWords[0] = BigInt(address);
      singleWords[1] = BigInt(count);
      return op === IO_READ
        ? readVector(fd, single.address, 1, offset)
        : writeVector(fd, single.address, 1, offset, flags);
    case IO_READV:
      return readVector(fd, BigInt(address), count, offset);
    case IO_WRITEV:
      return writeVector(fd, BigInt(address), count, offset, flags);
    case IO_FSYNC:
      return syncData(fd);
    case IO_FALLOCATE:
      return allocateRange(fd, count, offset, address);
    default:
      return -EINVAL;
  }
}

/** Works one place off. True if there was something. */
function work(base: number): boolean {
  let head = words[base + P_SUBMIT_HEAD] as number;
  const end = Atomics.load(words, base + P_SUBMIT_TAIL);
  if (head === end) return false;
  for (; head !== end; head = (head + 1) | 0) {
    const at = entryAt(base, head);
    // The entry is the lane's again once the head is behind it, and it may be overwritten then.
    const tag = words[at + 8] as number;
    const result = perform(at);
    const tail = words[base + P_RESULT_TAIL] as number;
    const to = resultAt(base, tail);
    words[to] = tag;
    words[to + 1] = result;
    // Both sides of a death agree: an entry is done when its result is there.
    Atomics.store(words, base + P_SUBMIT_HEAD, (head + 1) | 0);
    Atomics.store(words, base + P_RESULT_TAIL, (tail + 1) | 0);
    if (Atomics.load(words, W_ARMED) !== 0) signalEventFd(handle.wakeFd);
  }
  return true;
}

while (Atomics.load(words, W_STOP) === 0) {
  const submitted = Atomics.load(words, W_SUBMITTED);
  let busy = false;
  for (let place = 0; place < WORKER_PLACES; place++) busy = work(placeAt(place)) || busy;
  if (busy) continue;
  Atomics.store(words, W_WAITING, 1);
  Atomics.wait(words, W_SUBMITTED, submitted);
  Atomics.store(words, W_WAITING, 0);
}
