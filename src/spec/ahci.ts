/**
 * Serial ATA Advanced Host Controller Interface (AHCI) 1.3.1: registers (§3), the structures in
 * memory (§4) and their bits. FISes are those of Serial ATA 3.x (§10.5), in `ata.ts`.
 */

/** BAR 5 (ABAR, §2.1.11): generic host control, vendor's, and the ports. */
export const AHCI_BAR = 5;
export const AHCI_MAX_PORTS = 32;
export const AHCI_MAX_SLOTS = 32;

// Generic host control (§3.1). Offset; access; meaning.
export const AHCI_CAP = 0x00; // RO    capabilities
export const AHCI_GHC = 0x04; // RW    global control
export const AHCI_IS = 0x08; // RW1C   interrupt status, a bit a port
export const AHCI_PI = 0x0c; // RO     ports implemented
export const AHCI_VS = 0x10; // RO     version
export const AHCI_CCC_CTL = 0x14; // RO, zero: command completion coalescing is not offered
export const AHCI_CCC_PORTS = 0x18; // RO, zero
export const AHCI_EM_LOC = 0x1c; // RO, zero: no enclosure management
export const AHCI_EM_CTL = 0x20; // RO, zero
export const AHCI_CAP2 = 0x24; // RO   capabilities extended
export const AHCI_BOHC = 0x28; // RO, zero: no BIOS handoff

/** CAP */
export const AHCI_CAP_SLOTS_SHIFT = 8;
export const AHCI_CAP_PARTIAL = 1 << 13;
export const AHCI_CAP_SLUMBER = 1 << 14;
export const AHCI_CAP_PIO_MULTIPLE_DRQ = 1 << 15;
export const AHCI_CAP_AHCI_ONLY = 1 << 18;
export const AHCI_CAP_SPEED_SHIFT = 20;
export const AHCI_CAP_CLO = 1 << 24;
export const AHCI_CAP_ACTIVITY_LED = 1 << 25;
export const AHCI_CAP_STAGGERED_SPIN_UP = 1 << 27;
export const AHCI_CAP_NCQ = 1 << 30;
export const AHCI_CAP_64BIT = 1 << 31;

/** GHC */
export const AHCI_GHC_RESET = 1 << 0;
export const AHCI_GHC_INTERRUPT_ENABLE = 1 << 1;
export const AHCI_GHC_AHCI_ENABLE = 1 << 31;

export const AHCI_VERSION_1_3_1 = 0x0001_0301;

/** Port n's registers (§3.3) begin at AHCI_PORTS + n * AHCI_PORT_BYTES. */
export const AHCI_PORTS = 0x100;
export const AHCI_PORT_BYTES = 0x80;

// Port registers. Offset; access; meaning.
export const PX_CLB = 0x00; // RW      command list, 1 KiB aligned
export const PX_CLBU = 0x04; // RW     its upper half
export const PX_FB = 0x08; // RW       received FISes, 256 bytes aligned
export const PX_FBU = 0x0c; // RW      its upper half
export const PX_IS = 0x10; // RW1C     interrupt status; UFS, PCS and PRCS follow PxSERR
export const PX_IE = 0x14; // RW       interrupt enable
export const PX_CMD = 0x18; // mixed   command and status
export const PX_TFD = 0x20; // RO      task file data: status, error
export const PX_SIG = 0x24; // RO      signature of the device
export const PX_SSTS = 0x28; // RO     SStatus
export const PX_SCTL = 0x2c; // RW     SControl
export const PX_SERR = 0x30; // RW1C   SError
export const PX_SACT = 0x34; // RW1S   queued commands outstanding
export const PX_CI = 0x38; // RW1S     commands issued
export const PX_SNTF = 0x3c; // RW1C   SNotification
export const PX_FBS = 0x40; // RO, zero: no FIS-based switching

/** PxIS, PxIE: D2H Register, PIO Setup, DMA Setup, Set Device Bits FIS with its I bit set. */
export const PX_IS_DHRS = 1 << 0;
export const PX_IS_PSS = 1 << 1;
export const PX_IS_DSS = 1 << 2;
export const PX_IS_SDBS = 1 << 3;
/** A PRD with its I bit was done. */
export const PX_IS_DPS = 1 << 5;
/** Follows PxSERR.DIAG.X. */
export const PX_IS_PCS = 1 << 6;
/** Follows PxSERR.DIAG.N. */
export const PX_IS_PRCS = 1 << 22;
/** The data were more than the PRDT. */
export const PX_IS_OFS = 1 << 24;
/** Fatal error of the interface: a command that cannot be. */
export const PX_IS_IFS = 1 << 27;
/** Host bus fatal error: a bad address. */
export const PX_IS_HBFS = 1 << 29;
/** The status that a device gave has ERR set. */
export const PX_IS_TFES = 1 << 30;
/** Bits of PxIE that there are (§3.3.6), and those of PxIS that a one clears (§3.3.5). */
export const PX_IE_WRITABLE = 0x7dc0_007f;
export const PX_IS_CLEARABLE = 0x7d80_002f;

/** PxCMD (§3.3.7) */
export const PX_CMD_ST = 1 << 0;
export const PX_CMD_SUD = 1 << 1;
export const PX_CMD_POD = 1 << 2;
export const PX_CMD_CLO = 1 << 3;
export const PX_CMD_FRE = 1 << 4;
export const PX_CMD_CCS_SHIFT = 8;
export const PX_CMD_CCS_MASK = 0x1f00;
export const PX_CMD_FR = 1 << 14;
export const PX_CMD_CR = 1 << 15;
export const PX_CMD_HPCP = 1 << 18;
export const PX_CMD_ATAPI = 1 << 24;
export const PX_CMD_DLAE = 1 << 25;
/** ST, FRE, ATAPI, DLAE. ICC is done at once and reads as zero. */
export const PX_CMD_WRITABLE = PX_CMD_ST | PX_CMD_FRE | PX_CMD_ATAPI | PX_CMD_DLAE;

/** PxSSTS (§3.3.10): device and phy, generation 3, interface active. */
export const PX_SSTS_DET_ONLINE = 0x3;
export const PX_SSTS_DET_OFFLINE = 0x4;
export const PX_SSTS_SPD_SHIFT = 4;
export const PX_SSTS_IPM_ACTIVE = 0x100;
/** PxSCTL (§3.3.11) */
export const PX_SCTL_DET_MASK = 0xf;
export const PX_SCTL_DET_COMRESET = 0x1;
export const PX_SCTL_DET_OFFLINE = 0x4;
export const PX_SCTL_SPD_SHIFT = 4;
export const PX_SCTL_SPD_MASK = 0xf;
export const PX_SCTL_WRITABLE = 0xfff;
export const SATA_GENERATION_3 = 3;
/** PxSERR (§3.3.12) */
export const PX_SERR_DIAG_PHYRDY = 1 << 16;
export const PX_SERR_DIAG_EXCHANGED = 1 << 26;

/** Received FISes (§4.2.1): where each kind is put. */
export const AHCI_RFIS_DMA_SETUP = 0x00;
export const AHCI_RFIS_PIO_SETUP = 0x20;
export const AHCI_RFIS_REGISTER = 0x40;
export const AHCI_RFIS_SET_DEVICE_BITS = 0x58;
export const AHCI_RFIS_BYTES = 256;

/**
 * Command header (§4.2.2), little-endian: flags 4, bytes transferred 4, command table 8, reserved 16.
 */
export const AHCI_HEADER_FLAGS = 0;
export const AHCI_HEADER_PRDBC = 4;
export const AHCI_HEADER_TABLE = 8;
export const AHCI_HEADER_BYTES = 32;
/** Length of the command FIS in words of 4 bytes: 2 to 16. */
export const AHCI_HEADER_CFL_MASK = 0x1f;
export const AHCI_HEADER_ATAPI = 1 << 5;
export const AHCI_HEADER_WRITE = 1 << 6;
export const AHCI_HEADER_RESET = 1 << 8;
/** Clear BSY upon R_OK: for the first FIS of a software reset. */
export const AHCI_HEADER_CLEAR_BUSY = 1 << 10;
export const AHCI_HEADER_PRDTL_SHIFT = 16;

/** Command table (§4.2.3): command FIS, ATAPI command, PRDT. */
export const AHCI_TABLE_CFIS = 0x00;
export const AHCI_TABLE_ACMD = 0x40;
export const AHCI_TABLE_PRDT = 0x80;
export const AHCI_TABLE_ALIGNMENT = 128;

/** PRDT entry (§4.2.3.3), little-endian: address 8, reserved 4, byte count less one 4. */
export const AHCI_PRD_ADDRESS = 0;
export const AHCI_PRD_COUNT = 12;
export const AHCI_PRD_BYTES = 16;
/** Bytes less one; bit 0 is always set: lengths are even. */
export const AHCI_PRD_COUNT_MASK = 0x3f_ffff;
/** Interrupt on completion. */
export const AHCI_PRD_INTERRUPT = 1 << 31;

/** The controller of Intel's ICH9 (82801IR) in AHCI mode, which QEMU's ich9-ahci is too. */
export const ICH9_AHCI_VENDOR = 0x8086;
export const ICH9_AHCI_DEVICE = 0x2922;
export const ICH9_AHCI_REVISION = 0x02;
/** Mass storage, SATA, AHCI 1.0 (§2.1.5). */
export const AHCI_CLASS_CODE = 0x01_06_01;
