/**
 * ATA/ATAPI Command Set 3 (ACS-3), the FISes of Serial ATA 3.x (§10.5), and the packet commands of
 * cdroms (SPC-3, MMC-5): what a drive behind a port speaks.
 */

// FIS types (SATA §10.5.1) and lengths in bytes.
export const FIS_H2D = 0x27;
export const FIS_D2H = 0x34;
export const FIS_DMA_SETUP = 0x41;
export const FIS_PIO_SETUP = 0x5f;
export const FIS_SET_DEVICE_BITS = 0xa1;
export const FIS_H2D_BYTES = 20;
export const FIS_D2H_BYTES = 20;
export const FIS_DMA_SETUP_BYTES = 28;
export const FIS_PIO_SETUP_BYTES = 20;
export const FIS_SET_DEVICE_BITS_BYTES = 8;

/**
 * Host to device (SATA §10.5.5): type, C bit and port, command, features 7:0, LBA 23:0 (3), device,
 * LBA 47:24 (3), features 15:8, count (2), ICC, control, auxiliary (4).
 */
export const H2D_FLAGS = 1;
export const H2D_COMMAND = 2;
export const H2D_FEATURES = 3;
export const H2D_LBA = 4;
export const H2D_DEVICE = 7;
export const H2D_LBA_HIGH = 8;
export const H2D_FEATURES_HIGH = 11;
export const H2D_COUNT = 12;
export const H2D_CONTROL = 15;
/** Bit of byte 1: the command register was written, else the control register. */
export const H2D_FLAG_COMMAND = 0x80;
export const H2D_PORT_MASK = 0x0f;
export const CONTROL_SRST = 0x04;

/** Bits of byte 1 of what a device sends: interrupt; direction (1: to the host). */
export const FIS_INTERRUPT = 0x40;
export const FIS_TO_HOST = 0x20;

/** Device register */
export const DEVICE_LBA = 0x40;
/** Of WRITE and READ FPDMA QUEUED: force unit access. */
export const DEVICE_FUA = 0x80;

/** Status (ACS-3 §6.2) */
export const STATUS_ERR = 0x01;
export const STATUS_DRQ = 0x08;
export const STATUS_DSC = 0x10;
export const STATUS_DF = 0x20;
export const STATUS_DRDY = 0x40;
export const STATUS_BSY = 0x80;
/** Error (ACS-3 §6.3) */
export const ERROR_ABRT = 0x04;
export const ERROR_IDNF = 0x10;
export const ERROR_UNC = 0x40;
/** What the error register holds after a reset: diagnostics passed (ACS-3 §7.9.4). */
export const DIAGNOSTICS_PASSED = 0x01;

/** LBA 23:0 and count after a reset, as PxSIG shows them (AHCI §3.3.9). */
export const SIGNATURE_ATA = 0x0000_0101;
export const SIGNATURE_ATAPI = 0xeb14_0101;

// Commands (ACS-3 §7), and obsolete ones (ATA-5) that BIOSes still use.
export const ATA_NOP = 0x00;
export const ATA_DATA_SET_MANAGEMENT = 0x06;
export const ATA_DEVICE_RESET = 0x08;
export const ATA_RECALIBRATE = 0x10;
export const ATA_READ_SECTORS = 0x20;
export const ATA_READ_SECTORS_NORETRY = 0x21;
export const ATA_READ_SECTORS_EXT = 0x24;
export const ATA_READ_DMA_EXT = 0x25;
export const ATA_READ_MULTIPLE_EXT = 0x29;
export const ATA_READ_LOG_EXT = 0x2f;
export const ATA_WRITE_SECTORS = 0x30;
export const ATA_WRITE_SECTORS_NORETRY = 0x31;
export const ATA_WRITE_SECTORS_EXT = 0x34;
export const ATA_WRITE_DMA_EXT = 0x35;
export const ATA_WRITE_MULTIPLE_EXT = 0x39;
export const ATA_WRITE_DMA_FUA_EXT = 0x3d;
export const ATA_READ_VERIFY = 0x40;
export const ATA_READ_VERIFY_NORETRY = 0x41;
export const ATA_READ_VERIFY_EXT = 0x42;
export const ATA_READ_LOG_DMA_EXT = 0x47;
export const ATA_READ_FPDMA_QUEUED = 0x60;
export const ATA_WRITE_FPDMA_QUEUED = 0x61;
export const ATA_SEEK = 0x70;
export const ATA_EXECUTE_DIAGNOSTIC = 0x90;
export const ATA_INITIALIZE_PARAMETERS = 0x91;
export const ATA_PACKET = 0xa0;
export const ATA_IDENTIFY_PACKET_DEVICE = 0xa1;
export const ATA_SMART = 0xb0;
export const ATA_READ_MULTIPLE = 0xc4;
export const ATA_WRITE_MULTIPLE = 0xc5;
export const ATA_SET_MULTIPLE_MODE = 0xc6;
export const ATA_READ_DMA = 0xc8;
export const ATA_READ_DMA_NORETRY = 0xc9;
export const ATA_WRITE_DMA = 0xca;
export const ATA_WRITE_DMA_NORETRY = 0xcb;
export const ATA_WRITE_MULTIPLE_FUA_EXT = 0xce;
export const ATA_STANDBY_IMMEDIATE = 0xe0;
export const ATA_IDLE_IMMEDIATE = 0xe1;
export const ATA_STANDBY = 0xe2;
export const ATA_IDLE = 0xe3;
export const ATA_CHECK_POWER_MODE = 0xe5;
export const ATA_SLEEP = 0xe6;
export const ATA_FLUSH_CACHE = 0xe7;
export const ATA_FLUSH_CACHE_EXT = 0xea;
export const ATA_IDENTIFY_DEVICE = 0xec;
export const ATA_SET_FEATURES = 0xef;

/** SET FEATURES (ACS-3 §7.45) */
export const FEATURE_ENABLE_WRITE_CACHE = 0x02;
export const FEATURE_TRANSFER_MODE = 0x03;
export const FEATURE_DISABLE_LOOK_AHEAD = 0x55;
export const FEATURE_DISABLE_REVERTING = 0x66;
export const FEATURE_DISABLE_WRITE_CACHE = 0x82;
export const FEATURE_ENABLE_LOOK_AHEAD = 0xaa;
export const FEATURE_ENABLE_REVERTING = 0xcc;
/** Modes, in the count field: PIO (default, default without IORDY, flow control), multiword DMA, ultra DMA. */
export const MODE_PIO_FLOW = 0x08;
export const MODE_MWDMA = 0x20;
export const MODE_UDMA = 0x40;

/** DATA SET MANAGEMENT (ACS-3 §7.5): bit of features; entries of 8 bytes: LBA 6, blocks 2. */
export const DSM_TRIM = 0x01;
export const DSM_ENTRY_BYTES = 8;

/** SMART (ACS-3 §7.48; attributes and thresholds: SFF-8035i): features, and LBA 23:8. */
export const SMART_READ_DATA = 0xd0;
export const SMART_READ_THRESHOLDS = 0xd1;
export const SMART_AUTOSAVE = 0xd2;
export const SMART_EXECUTE_OFFLINE = 0xd4;
export const SMART_READ_LOG = 0xd5;
export const SMART_ENABLE = 0xd8;
export const SMART_DISABLE = 0xd9;
export const SMART_RETURN_STATUS = 0xda;
export const SMART_AUTO_OFFLINE = 0xdb;
export const SMART_KEY = 0xc24f;
/** LBA 23:8 of RETURN STATUS when a threshold was exceeded. */
export const SMART_EXCEEDED = 0x2cf4;
/** Subcommands of EXECUTE OFF-LINE IMMEDIATE, in LBA 7:0; 0x80: captive. */
export const SMART_TEST_SHORT = 0x01;
export const SMART_TEST_EXTENDED = 0x02;
export const SMART_TEST_ABORT = 0x7f;
export const SMART_TEST_CAPTIVE = 0x80;

/** Logs (ACS-3 annex A). */
export const LOG_DIRECTORY = 0x00;
export const LOG_SMART_SUMMARY_ERROR = 0x01;
export const LOG_EXTENDED_ERROR = 0x03;
export const LOG_SMART_SELF_TEST = 0x06;
export const LOG_EXTENDED_SELF_TEST = 0x07;
export const LOG_NCQ_ERROR = 0x10;
export const LOG_PAGE_BYTES = 512;
/** Byte 0 of the NCQ error log: the command that failed was not a queued one. */
export const NCQ_ERROR_NOT_QUEUED = 0x80;

export const IDENTIFY_BYTES = 512;

// Packet commands (SPC-3, SBC-2, MMC-5).
export const PACKET_BYTES = 12;
export const SCSI_TEST_UNIT_READY = 0x00;
export const SCSI_REQUEST_SENSE = 0x03;
export const SCSI_INQUIRY = 0x12;
export const SCSI_MODE_SENSE_6 = 0x1a;
export const SCSI_START_STOP_UNIT = 0x1b;
export const SCSI_PREVENT_ALLOW = 0x1e;
export const SCSI_READ_CAPACITY = 0x25;
export const SCSI_READ_10 = 0x28;
export const SCSI_SEEK_10 = 0x2b;
export const SCSI_SYNCHRONIZE_CACHE = 0x35;
export const MMC_READ_TOC = 0x43;
export const MMC_GET_CONFIGURATION = 0x46;
export const MMC_GET_EVENT_STATUS = 0x4a;
export const MMC_READ_DISC_INFORMATION = 0x51;
export const SCSI_MODE_SENSE_10 = 0x5a;
export const SCSI_READ_12 = 0xa8;
export const MMC_SET_CD_SPEED = 0xbb;
export const MMC_MECHANISM_STATUS = 0xbd;

/** PACKET's features: the data go by DMA. */
export const PACKET_DMA = 0x01;
/** Interrupt reason, in the count field: a command (not data); to the host. */
export const REASON_COMMAND = 0x01;
export const REASON_TO_HOST = 0x02;

export const CD_BLOCK_BYTES = 2048;

/** Sense keys (SPC-3 §4.5.6) */
export const SENSE_NONE = 0x0;
export const SENSE_NOT_READY = 0x2;
export const SENSE_MEDIUM_ERROR = 0x3;
export const SENSE_ILLEGAL_REQUEST = 0x5;
export const SENSE_UNIT_ATTENTION = 0x6;
/** Additional sense code and qualifier (SPC-3 annex D), as one number. */
export const ASC_UNRECOVERED_READ = 0x1100;
export const ASC_INVALID_COMMAND = 0x2000;
export const ASC_LBA_RANGE = 0x2100;
export const ASC_INVALID_FIELD = 0x2400;
export const ASC_MEDIUM_CHANGED = 0x2800;
export const ASC_RESET = 0x2900;
export const ASC_NO_MEDIUM_CLOSED = 0x3a01;
export const ASC_NO_MEDIUM_OPEN = 0x3a02;
export const ASC_REMOVAL_PREVENTED = 0x5302;
