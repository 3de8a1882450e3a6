/**
 * Method `emulated`: the guest sees real, old devices, which its system has drivers for. Each access to
 * a register is a trap: a message to the driver domain, which does the work of the device.
 */
export { EmulatedController } from './emulated-disk.ts';
export { EmulatedPort } from './emulated-net.ts';
