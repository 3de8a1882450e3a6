/** Block device of Virtual I/O Device (VIRTIO) 1.3, §5.2. */

/** Feature bits (§5.2.3), as bit numbers. */
/** Legacy (§5.2.3.1): request barriers. */
export const VIRTIO_BLK_F_BARRIER = 0;
export const VIRTIO_BLK_F_SIZE_MAX = 1;
export const VIRTIO_BLK_F_SEG_MAX = 2;
export const VIRTIO_BLK_F_GEOMETRY = 4;
export const VIRTIO_BLK_F_RO = 5;
export const VIRTIO_BLK_F_BLK_SIZE = 6;
/** Legacy (§5.2.3.1): SCSI packet commands. */
export const VIRTIO_BLK_F_SCSI = 7;
/** Legacy drivers call it VIRTIO_BLK_F_WCE. */
export const VIRTIO_BLK_F_FLUSH = 9;
export const VIRTIO_BLK_F_TOPOLOGY = 10;
export const VIRTIO_BLK_F_CONFIG_WCE = 11;
export const VIRTIO_BLK_F_MQ = 12;
export const VIRTIO_BLK_F_DISCARD = 13;
export const VIRTIO_BLK_F_WRITE_ZEROES = 14;
export const VIRTIO_BLK_F_LIFETIME = 15;
export const VIRTIO_BLK_F_SECURE_ERASE = 16;
export const VIRTIO_BLK_F_ZONED = 17;

/**
 * struct virtio_blk_config (§5.2.4), little-endian:
 * capacity 8, size_max 4, seg_max 4, geometry (cylinders 2, heads 1, sectors 1), blk_size 4,
 * topology (physical_block_exp 1, alignment_offset 1, min_io_size 2, opt_io_size 4), writeback 1,
 * unused 1, num_queues 2, max_discard_sectors 4, max_discard_seg 4, discard_sector_alignment 4,
 * max_write_zeroes_sectors 4, max_write_zeroes_seg 4, write_zeroes_may_unmap 1, unused 3,
 * max_secure_erase_sectors 4, max_secure_erase_seg 4, secure_erase_sector_alignment 4, zoned 24.
 */
/** Sectors of 512 bytes. */
export const BLK_CONFIG_CAPACITY = 0;
/** Bytes that one segment may have. */
export const BLK_CONFIG_SIZE_MAX = 8;
/** Segments of data that one request may have. */
export const BLK_CONFIG_SEG_MAX = 12;
export const BLK_CONFIG_GEOMETRY = 16;
/** Bytes of a logical block. */
export const BLK_CONFIG_BLK_SIZE = 20;
/** Logical blocks of a physical block, as a power of two. */
export const BLK_CONFIG_PHYSICAL_BLOCK_EXP = 24;
/** Logical block that the first physical one begins with. */
export const BLK_CONFIG_ALIGNMENT_OFFSET = 25;
/** Least and best size of requests, in logical blocks. */
export const BLK_CONFIG_MIN_IO_SIZE = 26;
export const BLK_CONFIG_OPT_IO_SIZE = 28;
/** 0: a write is durable when it completes; 1: when it was flushed. */
export const BLK_CONFIG_WRITEBACK = 32;
export const BLK_CONFIG_UNUSED0 = 33;
export const BLK_CONFIG_NUM_QUEUES = 34;
export const BLK_CONFIG_MAX_DISCARD_SECTORS = 36;
export const BLK_CONFIG_MAX_DISCARD_SEG = 40;
/** Sectors. */
export const BLK_CONFIG_DISCARD_SECTOR_ALIGNMENT = 44;
export const BLK_CONFIG_MAX_WRITE_ZEROES_SECTORS = 48;
export const BLK_CONFIG_MAX_WRITE_ZEROES_SEG = 52;
export const BLK_CONFIG_WRITE_ZEROES_MAY_UNMAP = 56;
export const BLK_CONFIG_UNUSED1 = 57;
export const BLK_CONFIG_MAX_SECURE_ERASE_SECTORS = 60;
export const BLK_CONFIG_MAX_SECURE_ERASE_SEG = 64;
export const BLK_CONFIG_SECURE_ERASE_SECTOR_ALIGNMENT = 68;
export const BLK_CONFIG_ZONED = 72;
export const BLK_CONFIG_BYTES = 96;

/**
 * struct virtio_blk_req (§5.2.6), little-endian: type 4, reserved 4, sector 8 (device-readable); data;
 * status 1 (device-writable, the last byte). Framing is free (§2.7.4).
 */
export const BLK_HEADER_TYPE = 0;
export const BLK_HEADER_RESERVED = 4;
export const BLK_HEADER_SECTOR = 8;
export const BLK_HEADER_BYTES = 16;
export const BLK_STATUS_BYTES = 1;

/** `type` */
export const VIRTIO_BLK_T_IN = 0;
export const VIRTIO_BLK_T_OUT = 1;
/** Legacy (§5.2.6.3). */
export const VIRTIO_BLK_T_SCSI_CMD = 2;
export const VIRTIO_BLK_T_FLUSH = 4;
/** Legacy (§5.2.6.3): another name of VIRTIO_BLK_T_FLUSH. */
export const VIRTIO_BLK_T_FLUSH_OUT = 5;
export const VIRTIO_BLK_T_GET_ID = 8;
export const VIRTIO_BLK_T_GET_LIFETIME = 10;
export const VIRTIO_BLK_T_DISCARD = 11;
export const VIRTIO_BLK_T_WRITE_ZEROES = 13;
export const VIRTIO_BLK_T_SECURE_ERASE = 14;

/** `status` */
export const VIRTIO_BLK_S_OK = 0;
export const VIRTIO_BLK_S_IOERR = 1;
export const VIRTIO_BLK_S_UNSUPP = 2;

/** The device ID string: ASCII, padded with NUL, not ended by one (§5.2.6). */
export const BLK_ID_BYTES = 20;

/**
 * struct virtio_blk_discard_write_zeroes (§5.2.6), little-endian: sector 8, num_sectors 4, flags 4.
 */
export const BLK_RANGE_SECTOR = 0;
export const BLK_RANGE_NUM_SECTORS = 8;
export const BLK_RANGE_FLAGS = 12;
export const BLK_RANGE_BYTES = 16;

/** `flags` of a range. */
export const VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1;

/**
 * struct virtio_blk_lifetime (§5.2.6), little-endian: pre_eol_info 2, device_lifetime_est_typ_a 2,
 * device_lifetime_est_typ_b 2.
 */
export const BLK_LIFETIME_PRE_EOL = 0;
export const BLK_LIFETIME_TYPE_A = 2;
export const BLK_LIFETIME_TYPE_B = 4;
export const BLK_LIFETIME_BYTES = 6;
