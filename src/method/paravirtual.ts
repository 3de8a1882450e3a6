/**
 * Method `paravirtual`: the guest sees virtio devices, whose rings lie in its own memory, and the
 * driver domain does the work of each frame and request in software.
 */
export { ParavirtualDisk } from './paravirtual-disk.ts';
export { ParavirtualPort } from './paravirtual-net.ts';
