/** How the end of a command, and of a reset, is told: FIS first, then registers (AHCI §5.3). */
import type { DmaSpace } from '../../memory/dma.ts';
import * as ahci from '../../spec/ahci.ts';
import { DIAGNOSTICS_PASSED, STATUS_ERR } from '../../spec/ata.ts';
import { type AtaDevice, STATUS_READY } from './ata-device.ts';
import { type CommandSlots, PROTOCOL_PIO_IN, PROTOCOL_SIGNATURE } from './command-slots.ts';
import type { PortRegisters } from './port-registers.ts';
import type { ReceiveArea } from './receive-area.ts';

export class Endings {
  private readonly regs: PortRegisters;
  private readonly receive: ReceiveArea;
  private readonly slots: CommandSlots;

  constructor(regs: PortRegisters, receive: ReceiveArea, slots: CommandSlots) {
    this.regs = regs;
    this.receive = receive;
    this.slots = slots;
  }

  /** Puts the FIS that ends a command into memory. DMA_* */
  tell(i: number, device: AtaDevice, dma: DmaSpace, tag: number): number {
    const { slots, receive } = this;
    if (this.isPioRead(i, device)) {
      const last = (slots.done[i] as number) % device.drqBytes;
      return receive.pioSetup(device, last === 0 ? device.drqBytes : last, dma, tag);
    }
    return receive.register(device, slots.protocol[i] !== PROTOCOL_SIGNATURE, dma, tag);
  }

  /** The guest's memory says that the command is done: so do the registers. False if it failed. */
  told(i: number, device: AtaDevice): boolean {
    const { slots, regs } = this;
    const hasFailed = (device.status & STATUS_ERR) !== 0;
    let bits = slots.interrupts[i] === 1 ? ahci.PX_IS_DPS : 0;
    regs.setTaskfile(device.status, device.error);
    if (slots.protocol[i] === PROTOCOL_SIGNATURE) regs.set(ahci.PX_SIG, device.signature);
    else bits |= this.isPioRead(i, device) ? ahci.PX_IS_PSS : ahci.PX_IS_DHRS;
    // PxCI and CCS go on to tell which command it was that failed (§6.2.2.1).
    if (hasFailed) bits |= ahci.PX_IS_TFES;
    else regs.clearBits(ahci.PX_CI, 1 << i);
    regs.raise(bits);
    return !hasFailed;
  }

  /** Puts the FIS with the signature into memory. DMA_* */
  tellSignature(device: AtaDevice, dma: DmaSpace, tag: number): number {
    device.showSignature();
    return this.receive.register(device, false, dma, tag);
  }

  toldSignature(device: AtaDevice | undefined): void {
    const { regs } = this;
    // The link may have gone meanwhile.
    const isOnline = (regs.get(ahci.PX_SSTS) & 0xf) === ahci.PX_SSTS_DET_ONLINE;
    if (device === undefined || !isOnline) return;
    regs.setTaskfile(STATUS_READY, DIAGNOSTICS_PASSED);
    regs.set(ahci.PX_SIG, device.signature);
  }

  /** Ends with a PIO Setup FIS, whose E_STATUS is the last word. */
  private isPioRead(i: number, device: AtaDevice): boolean {
    return this.slots.protocol[i] === PROTOCOL_PIO_IN && (device.status & STATUS_ERR) === 0;
  }
}
