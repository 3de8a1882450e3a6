/**
 * The area in which a back-end notes the requests that it has taken and not finished, shared with
 * the front-end so that it outlives the back-end (QEMU docs/interop/vhost-user.rst, "Inflight I/O
 * tracking"). One region a queue, each aligned to 64 bytes; layouts in `spec/vhost-user.ts`.
 */
import { alignUp } from '../../base/bits.ts';
import { SluiceError } from '../../base/errors.ts';
import { identify } from '../../os/fd.ts';
import { createMemfd, PAGE, SharedMapping } from '../../os/mapping.ts';
import { InflightRegion } from '../../ring/inflight-region.ts';
import {
  INFLIGHT_ALIGNMENT,
  INFLIGHT_PACKED,
  INFLIGHT_SPLIT,
  INFLIGHT_VERSION,
} from '../../spec/vhost-user.ts';
import { MAX_QUEUE_SIZE } from '../../spec/virtio.ts';
import type { InflightDescription } from './codec.ts';

/** Bytes of one queue's region. */
export function inflightRegionBytes(queueSize: number, packed: boolean): number {
  const layout = packed ? INFLIGHT_PACKED : INFLIGHT_SPLIT;
  return alignUp(layout.headerBytes + queueSize * layout.entryBytes, INFLIGHT_ALIGNMENT);
}

export interface InflightShape {
  readonly queues: number;
  readonly queueSize: number;
  readonly packed: boolean;
}

export class InflightArea {
  readonly queues: number;
  readonly queueSize: number;
  readonly packed: boolean;
  readonly bytes: number;
  readonly #mapping: SharedMapping;

  private constructor(shape: InflightShape, mapping: SharedMapping) {
    this.queues = shape.queues;
    this.queueSize = shape.queueSize;
    this.packed = shape.packed;
    this.bytes = mapping.length;
    this.#mapping = mapping;
  }

  /** Bytes of an area of this shape. */
  static bytesFor(shape: InflightShape): number {
    return shape.queues * inflightRegionBytes(shape.queueSize, shape.packed);
  }

  /** Makes an area, and a descriptor of it that the caller owns. */
  static create(shape: InflightShape): { readonly area: InflightArea; readonly fd: number } {
    checkShape(shape);
    const bytes = alignUp(InflightArea.bytesFor(shape), PAGE);
    const fd = createMemfd('sluice-inflight', bytes);
    return { area: new InflightArea(shape, new SharedMapping(fd, bytes)), fd };
  }

  /**
   * Maps the area that a front-end kept. The descriptor stays the caller's to close.
   * @throws SluiceError `protocol` for one that is too small for its queues, or larger than its file.
   */
  static map(description: InflightDescription, packed: boolean, fd: number): InflightArea {
    const shape = { ...description, packed };
    checkShape(shape);
    const { mmapSize, mmapOffset } = description;
    const wanted = InflightArea.bytesFor(shape);
    if (mmapSize < wanted) {
      throw new SluiceError(
        'protocol',
        `an in-flight area of ${mmapSize} bytes, ${wanted} are needed`,
      );
    }
    if (mmapOffset % PAGE !== 0 || mmapOffset + mmapSize > identify(fd).size) {
      throw new SluiceError(
        'protocol',
        `an in-flight area of ${mmapSize} bytes at offset ${mmapOffset} of its file`,
      );
    }
    return new InflightArea(shape, new SharedMapping(fd, wanted, mmapOffset));
  }

  /**
   * The region of one queue, in the split or the packed layout.
   * @throws SluiceError `state` for a queue that the area has no room for
   */
  region(queue: number): InflightRegion {
    if (queue < 0 || queue >= this.queues) {
      throw new SluiceError('state', `no in-flight region for queue ${queue} of ${this.queues}`);
    }
    const bytes = inflightRegionBytes(this.queueSize, this.packed);
    return new InflightRegion(this.#mapping.buffer, queue * bytes, bytes);
  }

  /** True if a back-end has written the region before: it holds requests, maybe. */
  isInitialized(queue: number): boolean {
    return this.region(queue).get16(INFLIGHT_SPLIT.version) === INFLIGHT_VERSION;
  }

  /**
   * The device was reset: its rings may begin anew, elsewhere. Regions that note nothing in flight are
   * as good as new; others stay, because QEMU resets a device's status when it pauses a guest, too.
   */
  forgetPositions(): void {
    for (let queue = 0; queue < this.queues; queue++) {
      const region = this.region(queue);
      if (!this.#hasRequests(region)) region.set16(INFLIGHT_SPLIT.version, 0);
    }
  }

  #hasRequests(region: InflightRegion): boolean {
    const layout = this.packed ? INFLIGHT_PACKED : INFLIGHT_SPLIT;
    for (let entry = 0; entry < this.queueSize; entry++) {
      const at = layout.headerBytes + entry * layout.entryBytes + layout.entry.inflight;
      if (region.get8(at) !== 0) return true;
    }
    return false;
  }

  release(): void {
    this.#mapping.release();
  }
}

function checkShape({ queues, queueSize }: InflightShape): void {
  const good = queues >= 1 && queueSize >= 1 && queueSize <= MAX_QUEUE_SIZE;
  if (!good) {
    throw new SluiceError(
      'protocol',
      `an in-flight area for ${queues} queues of ${queueSize} entries`,
    );
  }
}
