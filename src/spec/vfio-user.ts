/**
 * The vfio-user protocol, version 0.0: commands, flags and layouts. Little-endian.
 * Source: the vfio-user specification (libvfio-user, docs/vfio-user.rst; QEMU,
 * docs/interop/vfio-user.rst), sections in quotes; structures it takes from Linux are those of
 * include/uapi/linux/vfio.h.
 */

export const VERSION_MAJOR = 0;
export const VERSION_MINOR = 0;

/** "Header": id 2, command 2, size of the whole message 4, flags 4, error 4. */
export const HEADER_BYTES = 16;
export const FLAG_TYPE_MASK = 0xf;
export const FLAG_TYPE_COMMAND = 0x0;
export const FLAG_TYPE_REPLY = 0x1;
export const FLAG_NO_REPLY = 0x10;
export const FLAG_ERROR = 0x20;

/** "Commands". */
export const VFIO_USER_VERSION = 1;
export const VFIO_USER_DMA_MAP = 2;
export const VFIO_USER_DMA_UNMAP = 3;
export const VFIO_USER_DEVICE_GET_INFO = 4;
export const VFIO_USER_DEVICE_GET_REGION_INFO = 5;
export const VFIO_USER_DEVICE_GET_REGION_IO_FDS = 6;
export const VFIO_USER_DEVICE_GET_IRQ_INFO = 7;
export const VFIO_USER_DEVICE_SET_IRQS = 8;
export const VFIO_USER_REGION_READ = 9;
export const VFIO_USER_REGION_WRITE = 10;
export const VFIO_USER_DMA_READ = 11;
export const VFIO_USER_DMA_WRITE = 12;
export const VFIO_USER_DEVICE_RESET = 13;
export const VFIO_USER_DIRTY_PAGES = 14;
export const VFIO_USER_REGION_WRITE_MULTI = 15;
export const VFIO_USER_DEVICE_FEATURE = 16;
export const VFIO_USER_MIG_DATA_READ = 17;
export const VFIO_USER_MIG_DATA_WRITE = 18;

/** Names of the commands; the index is the number. */
export const VFIO_USER_COMMANDS = [
  'NONE',
  'VERSION',
  'DMA_MAP',
  'DMA_UNMAP',
  'DEVICE_GET_INFO',
  'DEVICE_GET_REGION_INFO',
  'DEVICE_GET_REGION_IO_FDS',
  'DEVICE_GET_IRQ_INFO',
  'DEVICE_SET_IRQS',
  'REGION_READ',
  'REGION_WRITE',
  'DMA_READ',
  'DMA_WRITE',
  'DEVICE_RESET',
  'DIRTY_PAGES',
  'REGION_WRITE_MULTI',
  'DEVICE_FEATURE',
  'MIG_DATA_READ',
  'MIG_DATA_WRITE',
] as const;

/** "VFIO_USER_VERSION": major 2, minor 2, then JSON and a zero byte. */
export const VERSION_BYTES = 4;
/** What a peer has that does not say: "Capabilities". */
export const DEFAULT_MAX_MSG_FDS = 1;
export const DEFAULT_MAX_DATA_XFER_SIZE = 1048576;
export const DEFAULT_PGSIZES = 4096;
export const DEFAULT_MAX_DMA_MAPS = 65535;
export const DEFAULT_MAX_BITMAP_SIZE = 256 * 1024 * 1024;

/** "VFIO_USER_DMA_MAP": argsz 4, flags 4, offset 8, address 8, size 8. */
export const DMA_MAP_BYTES = 32;
export const DMA_MAP_READABLE = 1;
export const DMA_MAP_WRITEABLE = 2;

/** "VFIO_USER_DMA_UNMAP": argsz 4, flags 4, address 8, size 8. */
export const DMA_UNMAP_BYTES = 24;
/** struct vfio_iommu_type1_dma_unmap: what is asked for beside the unmapping. */
export const DMA_UNMAP_GET_DIRTY_BITMAP = 1;
export const DMA_UNMAP_ALL = 2;

/** A bitmap of pages: page size 8, bytes of bitmap 8; then the bitmap, lowest bit first. */
export const BITMAP_BYTES = 16;

/** struct vfio_iommu_type1_dirty_bitmap: argsz 4, flags 4. */
export const DIRTY_PAGES_BYTES = 8;
export const DIRTY_PAGES_START = 1;
export const DIRTY_PAGES_STOP = 2;
export const DIRTY_PAGES_GET_BITMAP = 4;
/** struct vfio_iommu_type1_dirty_bitmap_get, behind it: address 8, size 8, bitmap. */
export const DIRTY_RANGE_BYTES = 16 + BITMAP_BYTES;

/** "VFIO_USER_DEVICE_GET_INFO": argsz 4, flags 4, regions 4, interrupt types 4. */
export const DEVICE_INFO_BYTES = 16;
export const DEVICE_FLAGS_RESET = 1;
export const DEVICE_FLAGS_PCI = 2;

/** Regions of a PCI device (VFIO_PCI_*_REGION_INDEX). */
export const REGION_BAR0 = 0;
export const REGION_ROM = 6;
export const REGION_CONFIG = 7;
export const REGION_VGA = 8;
export const PCI_REGIONS = 9;

/** "VFIO_USER_DEVICE_GET_REGION_INFO": argsz 4, flags 4, index 4, cap_offset 4, size 8, offset 8. */
export const REGION_INFO_BYTES = 32;
export const REGION_FLAG_READ = 1;
export const REGION_FLAG_WRITE = 2;
export const REGION_FLAG_MMAP = 4;
export const REGION_FLAG_CAPS = 8;

/** "VFIO cap header format": id 2, version 2, next 4. */
export const CAP_HEADER_BYTES = 8;
export const CAP_SPARSE_MMAP = 1;
export const CAP_SPARSE_MMAP_VERSION = 1;
/** "VFIO region info cap sparse mmap", behind the header: areas 4, reserved 4; then the areas. */
export const SPARSE_MMAP_BYTES = 8;
/** offset 8, size 8 */
export const SPARSE_AREA_BYTES = 16;

/** "VFIO_USER_DEVICE_GET_REGION_IO_FDS": argsz 4, flags 4, index 4, count 4. */
export const REGION_IO_FDS_BYTES = 16;

/** Interrupt types of a PCI device (VFIO_PCI_*_IRQ_INDEX). */
export const IRQ_INTX = 0;
export const IRQ_MSI = 1;
export const IRQ_MSIX = 2;
export const IRQ_ERR = 3;
export const IRQ_REQ = 4;
export const PCI_IRQS = 5;

/** "VFIO_USER_DEVICE_GET_IRQ_INFO": argsz 4, flags 4, index 4, count 4. */
export const IRQ_INFO_BYTES = 16;
export const IRQ_INFO_EVENTFD = 1;
export const IRQ_INFO_MASKABLE = 2;
export const IRQ_INFO_AUTOMASKED = 4;
export const IRQ_INFO_NORESIZE = 8;

/** "VFIO_USER_DEVICE_SET_IRQS": argsz 4, flags 4, index 4, start 4, count 4; then the data. */
export const IRQ_SET_BYTES = 20;
export const IRQ_SET_DATA_NONE = 1;
export const IRQ_SET_DATA_BOOL = 2;
export const IRQ_SET_DATA_EVENTFD = 4;
export const IRQ_SET_DATA_MASK = 7;
export const IRQ_SET_ACTION_MASK = 8;
export const IRQ_SET_ACTION_UNMASK = 16;
export const IRQ_SET_ACTION_TRIGGER = 32;
export const IRQ_SET_ACTIONS = 56;

/** "VFIO_USER_REGION_READ" and _WRITE: offset 8, region 4, count 4; then the data. */
export const REGION_ACCESS_BYTES = 16;

/** "VFIO_USER_DMA_READ" and _WRITE: address 8, count 8; then the data. */
export const DMA_ACCESS_BYTES = 16;
/** What the specification gives for the reply to DMA_WRITE: address 8, count 4. Peers send 16 too. */
export const DMA_WRITE_REPLY_BYTES = 12;

/** "VFIO_USER_REGION_WRITE_MULTI": number of writes 8; then the writes. */
export const WRITE_MULTI_BYTES = 8;
/** "Single Device Write Format": offset 8, region 4, count 4, data 8. */
export const SINGLE_WRITE_BYTES = 24;
export const SINGLE_WRITE_DATA = 8;
