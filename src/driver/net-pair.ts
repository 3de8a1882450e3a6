/**
 * A pair of queues of a network card as its user sees it, whatever the card is: virtio-net has such
 * pairs by itself, the driver of a real card makes its rings look like one.
 *
 * Frames lie in buffers that begin with a virtio_net_hdr (VIRTIO 1.3 §5.1.6): it says which offloads a
 * frame asks for, or what the card has found out about it.
 */
import type { SegmentList } from '../ring/driver-queue.ts';
import type { BufferPool } from './buffer-pool.ts';

/** What is common to both directions. */
export interface NetQueue {
  /** Buffers that the queue holds at most. */
  readonly size: number;
  /** Buffers that the card has, or has given back without that they were taken. */
  readonly outstanding: number;
  /** Times that the card was told of buffers. */
  readonly kicks: number;
  /** Makes what was added visible to the card. True if it was told. */
  publish(): boolean;
  /** The user wants to sleep, and to be woken by a call. True if there is something to take. */
  enableCalls(): boolean;
  disableCalls(): void;
}

export interface NetReceiver {
  readonly queue: NetQueue;
  /** The buffers by number. `addresses` are guest physical, and have those of all buffers. */
  readonly pool: {
    readonly count: number;
    readonly first: number;
    readonly stride: number;
    addresses(): Float64Array;
  };
  /** Where each frame's virtio_net_hdr begins: offset in the guest's memory. */
  readonly offset: Uint32Array;
  /** Bytes of each frame, without virtio_net_hdr. */
  readonly length: Uint32Array;
  /** The pieces of each frame: how many, and the index of the first. */
  readonly pieces: Uint16Array;
  readonly firstPiece: Uint16Array;
  /** By piece: its buffer, and (for frames of several pieces) the bytes in it, virtio_net_hdr included. */
  readonly pieceBuffer: Uint16Array;
  readonly pieceLength: Uint32Array;
  /** Gives one buffer to the card; it sees it after the queue's next publish. */
  post(buffer: number): void;
  /**
   * Takes frames, as many as {@link offset} has places for; they are the caller's until
   * {@link release}, or until each of their buffers is posted. Returns how many.
   * @throws SluiceError `ring` for a card that gives back what cannot be a frame.
   */
  receive(): number;
  /** Gives the buffers of all frames of the last {@link receive} back to the card. */
  release(): void;
}

export interface NetTransmitter {
  readonly queue: NetQueue;
  /** Tags of what the last {@link reap} returned. */
  readonly done: Uint32Array;
  /**
   * Queues `length` bytes at the guest physical address `addresses[index]`, virtio_net_hdr first.
   * False without room. The buffer must stay as it is until {@link reap} returns its tag.
   */
  send(addresses: Float64Array, index: number, length: number, tag: number): boolean;
  /**
   * As {@link send}, for a frame whose virtio_net_hdr asks for nothing: a driver that turns it into
   * something else need not look at the buffer, of which the card has the cache lines.
   */
  sendPlain(addresses: Float64Array, index: number, length: number, tag: number): boolean;
  /** As {@link send}, for a frame in several pieces. */
  sendPieces(pieces: SegmentList, tag: number): boolean;
  /** Makes all queued frames visible to the card. */
  flush(): void;
  /** Takes back what was sent, as many as `done` has places for. Returns how many. */
  reap(): number;
}

export interface NetPair {
  readonly receive: NetReceiver;
  readonly transmit: NetTransmitter;
  /** Where frames to send can be written: the driver itself puts nothing there but what it asks the card for. */
  readonly sendPool: BufferPool;
}
