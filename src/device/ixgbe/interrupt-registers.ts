/** Registers of interrupts of the physical function (§8.2.3.5): what reading and writing them does. */
import { IXGBE_EITRS, IXGBE_MSIX_VECTORS } from '../../spec/ixgbe.ts';
import type { Interrupts } from './interrupts.ts';
import { R, type RegisterFile } from './registers.ts';

const { EICR, EICS, EIMS, EIMC, EIAC, EIAM, GPIE, EITR, EITR_HIGH, IVAR, IVAR_MISC } = R;
const { EICS_EX, EIMS_EX, EIMC_EX, EIAM_EX } = R;

const IVARS = 64;
/** Of them those of vectors that this card has not are storage. */
const EITRS_HIGH = 105;

/** What the register at this index reads as; undefined: storage, if anything. */
export function readInterrupts(irq: Interrupts, index: number): number | undefined {
  switch (index) {
    case EICR:
      return irq.readCauses();
    case EICS:
      return irq.causes;
    case EIMS:
      return irq.mask;
    case EIMS_EX:
    case EIMS_EX + 1:
      return irq.vectorMask(index - EIMS_EX);
    case EIAC:
      return irq.autoClear;
    case EIAM:
      return irq.autoMask;
    case EIAM_EX:
    case EIAM_EX + 1:
      return irq.vectorAutoMask(index - EIAM_EX);
    case GPIE:
      return irq.control;
    default:
      return undefined;
  }
}

/** True if the register at this index is one of interrupts, and was written. */
export function writeInterrupts(
  irq: Interrupts,
  registers: RegisterFile,
  index: number,
  value: number,
): boolean {
  switch (index) {
    case EICR:
      irq.writeCauses(value);
      return true;
    case EICS:
      irq.setCauses(value);
      return true;
    case EIMS:
      irq.enable(value);
      return true;
    case EIMC:
      irq.disable(value);
      return true;
    case EIAC:
      irq.autoClear = value;
      return true;
    case EIAM:
      irq.autoMask = value;
      return true;
    case GPIE:
      irq.control = value;
      return true;
    case EICS_EX:
    case EICS_EX + 1:
      irq.setVectors(index - EICS_EX, value);
      return true;
    case EIMS_EX:
    case EIMS_EX + 1:
      irq.enableVectors(index - EIMS_EX, value);
      return true;
    case EIMC_EX:
    case EIMC_EX + 1:
      irq.disableVectors(index - EIMC_EX, value);
      return true;
    case EIAM_EX:
    case EIAM_EX + 1:
      irq.setVectorAutoMask(index - EIAM_EX, value);
      return true;
    default:
      break;
  }
  if (index === IVAR_MISC || (index >= IVAR && index < IVAR + IVARS)) {
    registers.write(index, value);
    irq.update();
    return true;
  }
  const vector = vectorOf(index);
  if (vector < 0 || vector >= IXGBE_MSIX_VECTORS) return false;
  irq.setModeration(vector, value);
  return true;
}

/** The vector that the register at this index throttles, -1 if it is none of these. */
function vectorOf(index: number): number {
  if (index >= EITR && index < EITR + IXGBE_EITRS) return index - EITR;
  if (index >= EITR_HIGH && index < EITR_HIGH + EITRS_HIGH) return IXGBE_EITRS + index - EITR_HIGH;
  return -1;
}
