/**
 * PCI Local Bus 3.0 (header, MSI, MSI-X), PCI Bus Power Management 1.2, PCI Express Base 4.0 (PCI
 * Express capability, AER, ACS, ARI, DSN, SR-IOV), Address Translation Services 1.1, Advanced
 * Capabilities for Conventional PCI ECN: offsets and bits. Offsets within a capability are from its
 * header. All little-endian.
 */

/** Bytes of configuration space: of conventional PCI, and of PCI Express. */
export const PCI_CONFIG_BYTES = 256;
export const PCIE_CONFIG_BYTES = 4096;
/** Where capabilities may begin: behind the header (PCI 3.0 §6.7), and the extended ones (PCIe §7.6). */
export const PCI_FIRST_CAPABILITY = 0x40;
export const PCIE_FIRST_EXTENDED = 0x100;

/** Header type 0 (PCI 3.0 §6.1). */
export const PCI_VENDOR_ID = 0x00; // 2
export const PCI_DEVICE_ID = 0x02; // 2
export const PCI_COMMAND = 0x04; // 2
export const PCI_STATUS = 0x06; // 2
export const PCI_REVISION_ID = 0x08; // 1
export const PCI_CLASS_CODE = 0x09; // 3: interface, subclass, base class
export const PCI_CACHE_LINE_SIZE = 0x0c; // 1
export const PCI_LATENCY_TIMER = 0x0d; // 1
export const PCI_HEADER_TYPE = 0x0e; // 1
export const PCI_BIST = 0x0f; // 1
export const PCI_BAR0 = 0x10; // 6 × 4
export const PCI_CARDBUS_CIS = 0x28; // 4
export const PCI_SUBSYSTEM_VENDOR_ID = 0x2c; // 2
export const PCI_SUBSYSTEM_ID = 0x2e; // 2
export const PCI_ROM_BAR = 0x30; // 4
export const PCI_CAPABILITIES_POINTER = 0x34; // 1
export const PCI_INTERRUPT_LINE = 0x3c; // 1
export const PCI_INTERRUPT_PIN = 0x3d; // 1
export const PCI_MIN_GNT = 0x3e; // 1
export const PCI_MAX_LAT = 0x3f; // 1

export const PCI_BARS = 6;

/** Command (PCI 3.0 §6.2.2). */
export const PCI_COMMAND_IO = 0x0001;
export const PCI_COMMAND_MEMORY = 0x0002;
export const PCI_COMMAND_MASTER = 0x0004;
export const PCI_COMMAND_SPECIAL = 0x0008;
export const PCI_COMMAND_MWI = 0x0010;
export const PCI_COMMAND_VGA_SNOOP = 0x0020;
export const PCI_COMMAND_PARITY = 0x0040;
export const PCI_COMMAND_SERR = 0x0100;
export const PCI_COMMAND_FAST_BACK = 0x0200;
export const PCI_COMMAND_INTX_DISABLE = 0x0400;

/** Status (§6.2.3). */
export const PCI_STATUS_INTERRUPT = 0x0008;
export const PCI_STATUS_CAPABILITIES = 0x0010;
export const PCI_STATUS_66MHZ = 0x0020;
export const PCI_STATUS_MASTER_PARITY = 0x0100;
export const PCI_STATUS_SIGNALED_TARGET_ABORT = 0x0800;
export const PCI_STATUS_RECEIVED_TARGET_ABORT = 0x1000;
export const PCI_STATUS_RECEIVED_MASTER_ABORT = 0x2000;
export const PCI_STATUS_SIGNALED_SYSTEM_ERROR = 0x4000;
export const PCI_STATUS_DETECTED_PARITY = 0x8000;
/** What a one written to it clears. */
export const PCI_STATUS_ERRORS = 0xf900;

export const PCI_HEADER_MULTIFUNCTION = 0x80;

/** Base address registers (§6.2.5.1). */
export const PCI_BAR_IO = 0x1;
export const PCI_BAR_MEMORY_64 = 0x4;
export const PCI_BAR_PREFETCHABLE = 0x8;
export const PCI_BAR_MIN_MEMORY_BYTES = 16;
export const PCI_BAR_MIN_IO_BYTES = 4;
/** §6.2.5.1: devices of conventional PCI take no more I/O space than this. */
export const PCI_BAR_MAX_IO_BYTES = 256;
/** Expansion ROM (§6.2.5.2). */
export const PCI_ROM_ENABLE = 0x1;
export const PCI_ROM_MIN_BYTES = 2048;
export const PCI_ROM_MAX_BYTES = 16 * 1024 * 1024;

/** Capability ids (PCI Code and ID Assignment 1.11 §2). */
export const PCI_CAP_ID_PM = 0x01;
export const PCI_CAP_ID_MSI = 0x05;
export const PCI_CAP_ID_VENDOR = 0x09;
export const PCI_CAP_ID_EXPRESS = 0x10;
export const PCI_CAP_ID_MSIX = 0x11;
export const PCI_CAP_ID_SATA = 0x12;
export const PCI_CAP_ID_AF = 0x13;

/** Extended capability ids (§3). */
export const PCI_EXT_CAP_ID_AER = 0x0001;
export const PCI_EXT_CAP_ID_DSN = 0x0003;
export const PCI_EXT_CAP_ID_VENDOR = 0x000b;
export const PCI_EXT_CAP_ID_ACS = 0x000d;
export const PCI_EXT_CAP_ID_ARI = 0x000e;
export const PCI_EXT_CAP_ID_ATS = 0x000f;
export const PCI_EXT_CAP_ID_SRIOV = 0x0010;

/** Power management (PM 1.2 §3.2). */
export const PCI_PM_CAPABILITIES = 2; // 2
export const PCI_PM_CONTROL = 4; // 2
export const PCI_PM_BYTES = 8;
export const PCI_PM_CAP_VERSION_3 = 0x0003;
export const PCI_PM_CAP_DSI = 0x0020;
export const PCI_PM_CAP_D1 = 0x0200;
export const PCI_PM_CAP_D2 = 0x0400;
/** PME# from D0, and shifted left by one each: D1, D2, D3hot, D3cold. */
export const PCI_PM_CAP_PME_D0 = 0x0800;
export const PCI_PM_CAP_PME_D3COLD = 0x8000;
export const PCI_PM_CONTROL_STATE = 0x0003;
export const PCI_PM_CONTROL_NO_SOFT_RESET = 0x0008;
export const PCI_PM_CONTROL_PME_ENABLE = 0x0100;
export const PCI_PM_CONTROL_PME_STATUS = 0x8000;

/** MSI (PCI 3.0 §6.8.1). Where data and masks stand depends on the address's width. */
export const PCI_MSI_CONTROL = 2; // 2
export const PCI_MSI_ADDRESS = 4; // 4
export const PCI_MSI_ADDRESS_HIGH = 8; // 4, 64-bit only
export const PCI_MSI_DATA_32 = 8; // 2
export const PCI_MSI_DATA_64 = 12; // 2
export const PCI_MSI_MASK_32 = 12; // 4
export const PCI_MSI_MASK_64 = 16; // 4
export const PCI_MSI_PENDING_32 = 16; // 4
export const PCI_MSI_PENDING_64 = 20; // 4
export const PCI_MSI_CONTROL_ENABLE = 0x0001;
/** log2 of the vectors that the function has, and that it was given. */
export const PCI_MSI_CONTROL_CAPABLE_SHIFT = 1;
export const PCI_MSI_CONTROL_ENABLED_SHIFT = 4;
export const PCI_MSI_CONTROL_COUNT_MASK = 0x7;
export const PCI_MSI_CONTROL_64BIT = 0x0080;
export const PCI_MSI_CONTROL_MASKING = 0x0100;
export const PCI_MSI_MAX_VECTORS = 32;

/** MSI-X (PCI 3.0 §6.8.2). */
export const PCI_MSIX_CONTROL = 2; // 2
export const PCI_MSIX_TABLE = 4; // 4: offset, and the BAR in the lowest 3 bits
export const PCI_MSIX_PBA = 8; // 4: as the table
export const PCI_MSIX_BYTES = 12;
export const PCI_MSIX_CONTROL_SIZE = 0x07ff;
export const PCI_MSIX_CONTROL_MASK_ALL = 0x4000;
export const PCI_MSIX_CONTROL_ENABLE = 0x8000;
export const PCI_MSIX_BAR_MASK = 0x7;
export const PCI_MSIX_MAX_VECTORS = 2048;
/** An entry of the table (§6.8.2.6). */
export const PCI_MSIX_ENTRY_BYTES = 16;
export const PCI_MSIX_ENTRY_ADDRESS = 0;
export const PCI_MSIX_ENTRY_ADDRESS_HIGH = 4;
export const PCI_MSIX_ENTRY_DATA = 8;
export const PCI_MSIX_ENTRY_CONTROL = 12;
export const PCI_MSIX_ENTRY_MASKED = 0x1;

/** PCI Express capability (PCIe 4.0 §7.5.3). */
export const PCIE_CAPABILITIES = 0x02; // 2
export const PCIE_DEVICE_CAPABILITIES = 0x04; // 4
export const PCIE_DEVICE_CONTROL = 0x08; // 2
export const PCIE_DEVICE_STATUS = 0x0a; // 2
export const PCIE_LINK_CAPABILITIES = 0x0c; // 4
export const PCIE_LINK_CONTROL = 0x10; // 2
export const PCIE_LINK_STATUS = 0x12; // 2
export const PCIE_DEVICE_CAPABILITIES_2 = 0x24; // 4
export const PCIE_DEVICE_CONTROL_2 = 0x28; // 2
export const PCIE_DEVICE_STATUS_2 = 0x2a; // 2
export const PCIE_LINK_CAPABILITIES_2 = 0x2c; // 4
export const PCIE_LINK_CONTROL_2 = 0x30; // 2
export const PCIE_LINK_STATUS_2 = 0x32; // 2
export const PCIE_BYTES = 0x3c;
export const PCIE_CAP_VERSION_2 = 0x0002;
export const PCIE_CAP_TYPE_SHIFT = 4;
export const PCIE_TYPE_ENDPOINT = 0;
export const PCIE_TYPE_ROOT_COMPLEX_ENDPOINT = 9;
/** Device capabilities (§7.5.3.3). Payload sizes: 128 << n bytes. */
export const PCIE_DEVCAP_PAYLOAD = 0x0000_0007;
export const PCIE_DEVCAP_EXTENDED_TAG = 0x0000_0020;
export const PCIE_DEVCAP_L0S_LATENCY_SHIFT = 6;
export const PCIE_DEVCAP_L1_LATENCY_SHIFT = 9;
export const PCIE_DEVCAP_ROLE_BASED_ERRORS = 0x0000_8000;
export const PCIE_DEVCAP_FLR = 0x1000_0000;
/** Device control (§7.5.3.4). */
export const PCIE_DEVCTL_ERROR_REPORTING = 0x000f;
export const PCIE_DEVCTL_RELAXED_ORDER = 0x0010;
export const PCIE_DEVCTL_PAYLOAD = 0x00e0;
export const PCIE_DEVCTL_PAYLOAD_SHIFT = 5;
export const PCIE_DEVCTL_EXTENDED_TAG = 0x0100;
export const PCIE_DEVCTL_PHANTOM = 0x0200;
export const PCIE_DEVCTL_AUX_POWER = 0x0400;
export const PCIE_DEVCTL_NO_SNOOP = 0x0800;
export const PCIE_DEVCTL_READ_REQUEST = 0x7000;
export const PCIE_DEVCTL_READ_REQUEST_SHIFT = 12;
export const PCIE_DEVCTL_FLR = 0x8000;
/** Device status (§7.5.3.5). */
export const PCIE_DEVSTA_CORRECTABLE = 0x0001;
export const PCIE_DEVSTA_NON_FATAL = 0x0002;
export const PCIE_DEVSTA_FATAL = 0x0004;
export const PCIE_DEVSTA_UNSUPPORTED = 0x0008;
export const PCIE_DEVSTA_ERRORS = 0x000f;
export const PCIE_DEVSTA_AUX_POWER = 0x0010;
export const PCIE_DEVSTA_PENDING = 0x0020;
/** Link capabilities (§7.5.3.6) and status (§7.5.3.8): speed in bits 3:0, width in 9:4. */
export const PCIE_LINK_SPEED = 0x000f;
export const PCIE_LINK_WIDTH = 0x03f0;
export const PCIE_LINK_WIDTH_SHIFT = 4;
export const PCIE_LNKCAP_ASPM_SHIFT = 10;
export const PCIE_LNKCAP_L0S_EXIT_SHIFT = 12;
export const PCIE_LNKCAP_L1_EXIT_SHIFT = 15;
export const PCIE_LNKCAP_ASPM_OPTIONAL = 0x0040_0000;
export const PCIE_LNKCAP_PORT_SHIFT = 24;
export const PCIE_LNKSTA_SLOT_CLOCK = 0x1000;
/** Link control (§7.5.3.7): what an endpoint has. */
export const PCIE_LNKCTL_ASPM = 0x0003;
export const PCIE_LNKCTL_RCB = 0x0008;
export const PCIE_LNKCTL_COMMON_CLOCK = 0x0040;
export const PCIE_LNKCTL_EXTENDED_SYNCH = 0x0080;
/** Device capabilities 2 and control 2 (§7.5.3.15, §7.5.3.16). */
export const PCIE_DEVCAP2_TIMEOUT_DISABLE = 0x0010;
export const PCIE_DEVCTL2_TIMEOUT_DISABLE = 0x0010;
/** Link capabilities 2 (§7.5.3.18): bit n of the vector is speed n, from bit 1 on. */
export const PCIE_LNKCAP2_SPEEDS_SHIFT = 1;
export const PCIE_LNKCTL2_SPEED = 0x000f;
export const PCIE_LNKCTL2_COMPLIANCE = 0x0010;

/** Link speeds in GT/s: the number in the register is the index (§7.5.3.6). */
export const PCIE_SPEEDS = [0, 2.5, 5, 8, 16, 32] as const;
export const PCIE_WIDTHS = [1, 2, 4, 8, 12, 16, 32] as const;

/** Advanced features of conventional PCI (ECN of 2007): FLR without PCI Express. */
export const PCI_AF_LENGTH = 2; // 1
export const PCI_AF_CAPABILITIES = 3; // 1
export const PCI_AF_CONTROL = 4; // 1
export const PCI_AF_STATUS = 5; // 1
export const PCI_AF_BYTES = 6;
export const PCI_AF_CAP_PENDING = 0x1;
export const PCI_AF_CAP_FLR = 0x2;
export const PCI_AF_CONTROL_FLR = 0x1;
export const PCI_AF_STATUS_PENDING = 0x1;

/** An extended capability's header: id in bits 15:0, version 19:16, next 31:20 (PCIe §7.6.3). */
export const PCIE_EXT_VERSION_SHIFT = 16;
export const PCIE_EXT_NEXT_SHIFT = 20;

/** Advanced Error Reporting (§7.8.4). */
export const PCIE_AER_UNCORRECTABLE_STATUS = 0x04; // 4
export const PCIE_AER_UNCORRECTABLE_MASK = 0x08; // 4
export const PCIE_AER_UNCORRECTABLE_SEVERITY = 0x0c; // 4
export const PCIE_AER_CORRECTABLE_STATUS = 0x10; // 4
export const PCIE_AER_CORRECTABLE_MASK = 0x14; // 4
export const PCIE_AER_CONTROL = 0x18; // 4
export const PCIE_AER_HEADER_LOG = 0x1c; // 4 × 4
export const PCIE_AER_BYTES = 0x2c;
/** Uncorrectable errors that an endpoint can have (§7.8.4.2), and those fatal by default (§7.8.4.4). */
export const PCIE_AER_UNCORRECTABLE = 0x005f_f010;
export const PCIE_AER_FATAL_DEFAULT = 0x0046_2010;
export const PCIE_AER_POISONED = 0x0000_1000;
export const PCIE_AER_COMPLETION_TIMEOUT = 0x0000_4000;
export const PCIE_AER_UNSUPPORTED_REQUEST = 0x0010_0000;
/** Correctable errors (§7.8.4.5); advisory ones and internal ones are masked at first (§7.8.4.6). */
export const PCIE_AER_CORRECTABLE = 0x0000_f1c1;
export const PCIE_AER_CORRECTABLE_MASK_DEFAULT = 0x0000_e000;
export const PCIE_AER_ADVISORY = 0x0000_2000;
/** Internal errors are masked at first (§7.8.4.3). */
export const PCIE_AER_UNCORRECTABLE_MASK_DEFAULT = 0x0040_0000;
export const PCIE_AER_FIRST_ERROR = 0x0000_001f;

/** Device Serial Number (§7.9.3): an EUI-64, low half first. */
export const PCIE_DSN_LOW = 4; // 4
export const PCIE_DSN_HIGH = 8; // 4
export const PCIE_DSN_BYTES = 12;

/** Access Control Services (§7.7.8). */
export const PCIE_ACS_CAPABILITIES = 4; // 2
export const PCIE_ACS_CONTROL = 6; // 2
export const PCIE_ACS_BYTES = 8;
export const PCIE_ACS_P2P_REQUEST_REDIRECT = 0x04;
export const PCIE_ACS_P2P_COMPLETION_REDIRECT = 0x08;
export const PCIE_ACS_DIRECT_TRANSLATED_P2P = 0x40;

/** Address Translation Services (ATS 1.1 §5.1). */
export const PCIE_ATS_CAPABILITIES = 4; // 2
export const PCIE_ATS_CONTROL = 6; // 2
export const PCIE_ATS_BYTES = 8;
export const PCIE_ATS_QUEUE_DEPTH = 0x001f;
export const PCIE_ATS_PAGE_ALIGNED = 0x0020;
export const PCIE_ATS_CONTROL_STU = 0x001f;
export const PCIE_ATS_CONTROL_ENABLE = 0x8000;

/** Alternative Routing-ID Interpretation (PCIe §7.8.7). */
export const PCIE_ARI_CAPABILITIES = 4; // 2
export const PCIE_ARI_CONTROL = 6; // 2
export const PCIE_ARI_BYTES = 8;
export const PCIE_ARI_NEXT_FUNCTION_SHIFT = 8;

/** Single Root I/O Virtualization (PCIe §9.3.3; SR-IOV 1.1 §3.3). */
export const PCIE_SRIOV_CAPABILITIES = 0x04; // 4
export const PCIE_SRIOV_CONTROL = 0x08; // 2
export const PCIE_SRIOV_STATUS = 0x0a; // 2
export const PCIE_SRIOV_INITIAL_VFS = 0x0c; // 2
export const PCIE_SRIOV_TOTAL_VFS = 0x0e; // 2
export const PCIE_SRIOV_NUM_VFS = 0x10; // 2
export const PCIE_SRIOV_DEPENDENCY_LINK = 0x12; // 1
export const PCIE_SRIOV_FIRST_OFFSET = 0x14; // 2
export const PCIE_SRIOV_STRIDE = 0x16; // 2
export const PCIE_SRIOV_VF_DEVICE_ID = 0x1a; // 2
export const PCIE_SRIOV_SUPPORTED_PAGES = 0x1c; // 4
export const PCIE_SRIOV_SYSTEM_PAGE = 0x20; // 4
export const PCIE_SRIOV_BAR0 = 0x24; // 6 × 4
export const PCIE_SRIOV_MIGRATION = 0x3c; // 4
export const PCIE_SRIOV_BYTES = 0x40;
export const PCIE_SRIOV_CAP_ARI_PRESERVED = 0x0000_0002;
export const PCIE_SRIOV_CONTROL_VF_ENABLE = 0x0001;
export const PCIE_SRIOV_CONTROL_VF_MEMORY = 0x0008;
export const PCIE_SRIOV_CONTROL_ARI_HIERARCHY = 0x0010;
/** Page sizes of 4 KiB << n for each bit n that every PF must take: 4K 8K 64K 256K 1M 4M (§9.3.3.12). */
export const PCIE_SRIOV_PAGES = 0x0000_0553;
