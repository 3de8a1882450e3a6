/**
 * Intel 8254x gigabit controllers (PCI/PCI-X Family of Gigabit Ethernet Controllers Software
 * Developer's Manual, "SDM") and 82574 (82574 GbE Controller Family Datasheet, "DS"): registers,
 * descriptors, EEPROM, PHY. All little-endian.
 */

/** What a register does when it is accessed. What has effects of its own is in the device model. */
export type E1000Access =
  /** Storage of the bits in its mask. */
  | 'rw'
  /** Reads what the device put there; writes do nothing. */
  | 'ro'
  /** A counter: a read clears it, writes do nothing. */
  | 'rc'
  /** Writes have an effect, reads give zero. */
  | 'wo'
  /** A one that is written clears the bit. */
  | 'w1c';

export interface E1000Register {
  readonly offset: number;
  readonly access: E1000Access;
  /** Bits that are implemented. */
  readonly mask: number;
  readonly meaning: string;
  /** Registers in a row, four bytes apart. */
  readonly count: number;
  /** 82574 only. */
  readonly express: boolean;
}

const ALL = 0xffff_ffff;

function both(
  offset: number,
  access: E1000Access,
  meaning: string,
  mask = ALL,
  count = 1,
): E1000Register {
  return { offset, access, mask, meaning, count, express: false };
}

function express(
  offset: number,
  access: E1000Access,
  meaning: string,
  mask = ALL,
  count = 1,
): E1000Register {
  return { offset, access, mask, meaning, count, express: true };
}

/** Every register (SDM §13.3, DS §10.2): offset, access, meaning, bits, number. */
export const E1000_REGISTERS = {
  // General
  CTRL: both(0x00000, 'rw', 'device control'),
  STATUS: both(0x00008, 'ro', 'device status'),
  EECD: both(0x00010, 'rw', 'EEPROM control: the microwire lines'),
  EERD: both(0x00014, 'rw', 'EEPROM read'),
  CTRL_EXT: both(0x00018, 'rw', 'extended device control'),
  FLA: both(0x0001c, 'rw', 'flash access'),
  MDIC: both(0x00020, 'rw', 'MDI control: access to the PHY'),
  FCAL: both(0x00028, 'rw', 'flow control address, low'),
  FCAH: both(0x0002c, 'rw', 'flow control address, high', 0xffff),
  FCT: both(0x00030, 'rw', 'flow control type', 0xffff),
  VET: both(0x00038, 'rw', 'EtherType of a VLAN tag', 0xffff),
  FCTTV: both(0x00170, 'rw', 'flow control transmit timer', 0xffff),
  TXCW: both(0x00178, 'rw', 'transmit configuration word', 0xc000_ffff),
  RXCW: both(0x00180, 'ro', 'receive configuration word'),
  LEDCTL: both(0x00e00, 'rw', 'LED control'),
  EXTCNF_CTRL: express(0x00f00, 'rw', 'extended configuration: PHY ownership'),
  EXTCNF_SIZE: express(0x00f08, 'rw', 'extended configuration size'),
  PBA: both(0x01000, 'rw', 'packet buffer allocation'),
  PBS: both(0x01008, 'rw', 'packet buffer size'),
  EEMNGCTL: express(0x01010, 'ro', 'EEPROM management control'),
  EEWR: express(0x0102c, 'rw', 'EEPROM write'),
  // Interrupts
  ICR: both(0x000c0, 'ro', 'interrupt cause; a read clears it'),
  ITR: both(0x000c4, 'rw', 'interrupt throttling, in 256 ns', 0xffff),
  ICS: both(0x000c8, 'wo', 'interrupt cause set'),
  IMS: both(0x000d0, 'ro', 'interrupt mask set/read'),
  IMC: both(0x000d8, 'wo', 'interrupt mask clear'),
  EIAC: express(0x000dc, 'rw', 'causes that MSI-X clears by itself', 0x01f0_0000),
  IAM: express(0x000e0, 'rw', 'causes that are masked automatically'),
  IVAR: express(0x000e4, 'rw', 'MSI-X vectors of causes', 0x800f_ffff),
  EITR: express(0x000e8, 'rw', 'throttling of each MSI-X vector, in 256 ns', 0xffff, 5),
  // Receive
  RCTL: both(0x00100, 'rw', 'receive control', 0x07ff_fffe),
  PSRCTL: express(0x02170, 'rw', 'packet split receive control'),
  FCRTL: both(0x02160, 'rw', 'flow control threshold, low', 0x8000_fff8),
  FCRTH: both(0x02168, 'rw', 'flow control threshold, high', 0x8000_fff8),
  RDFH: both(0x02410, 'rw', 'receive FIFO head', 0x1fff),
  RDFT: both(0x02418, 'rw', 'receive FIFO tail', 0x1fff),
  RDFHS: both(0x02420, 'rw', 'receive FIFO head, saved', 0x1fff),
  RDFTS: both(0x02428, 'rw', 'receive FIFO tail, saved', 0x1fff),
  RDFPC: both(0x02430, 'rw', 'packets in the receive FIFO', 0x1fff),
  RDBAL: both(0x02800, 'rw', 'receive ring, low', 0xffff_fff0),
  RDBAH: both(0x02804, 'rw', 'receive ring, high'),
  RDLEN: both(0x02808, 'rw', 'bytes of the receive ring', 0x000f_ff80),
  RDH: both(0x02810, 'rw', 'receive head', 0xffff),
  RDT: both(0x02818, 'rw', 'receive tail', 0xffff),
  RDTR: both(0x02820, 'rw', 'receive delay timer, in 1.024 us; bit 31 flushes', 0xffff),
  RXDCTL: both(0x02828, 'rw', 'receive descriptor control'),
  RADV: both(0x0282c, 'rw', 'receive absolute delay, in 1.024 us', 0xffff),
  RDBAL1: express(0x02900, 'rw', 'second receive ring, low', 0xffff_fff0),
  RDBAH1: express(0x02904, 'rw', 'second receive ring, high'),
  RDLEN1: express(0x02908, 'rw', 'bytes of the second receive ring', 0x000f_ff80),
  RDH1: express(0x02910, 'rw', 'second receive head', 0xffff),
  RDT1: express(0x02918, 'rw', 'second receive tail', 0xffff),
  RXDCTL1: express(0x02928, 'rw', 'second receive descriptor control'),
  RSRPD: both(0x02c00, 'rw', 'small packet detect: bytes', 0xfff),
  RAID: express(0x02c08, 'rw', 'ACK interrupt delay', 0xffff),
  RXCSUM: both(0x05000, 'rw', 'receive checksum control'),
  RFCTL: express(0x05008, 'rw', 'receive filter control'),
  MTA: both(0x05200, 'rw', 'multicast table', ALL, 128),
  RA: both(0x05400, 'rw', 'receive addresses: low, high, 16 times', ALL, 32),
  VFTA: both(0x05600, 'rw', 'VLAN filter table', ALL, 128),
  MRQC: express(0x05818, 'rw', 'multiple receive queues command'),
  RETA: express(0x05c00, 'rw', 'redirection table', ALL, 32),
  RSSRK: express(0x05c80, 'rw', 'RSS key', ALL, 10),
  // Transmit
  TCTL: both(0x00400, 'rw', 'transmit control'),
  TCTL_EXT: express(0x00404, 'rw', 'extended transmit control'),
  TIPG: both(0x00410, 'rw', 'inter packet gap', 0x3fff_ffff),
  AIT: both(0x00458, 'rw', 'adaptive inter frame spacing', 0xffff),
  TDFH: both(0x03410, 'rw', 'transmit FIFO head', 0x1fff),
  TDFT: both(0x03418, 'rw', 'transmit FIFO tail', 0x1fff),
  TDFHS: both(0x03420, 'rw', 'transmit FIFO head, saved', 0x1fff),
  TDFTS: both(0x03428, 'rw', 'transmit FIFO tail, saved', 0x1fff),
  TDFPC: both(0x03430, 'rw', 'packets in the transmit FIFO', 0x1fff),
  TDBAL: both(0x03800, 'rw', 'transmit ring, low', 0xffff_fff0),
  TDBAH: both(0x03804, 'rw', 'transmit ring, high'),
  TDLEN: both(0x03808, 'rw', 'bytes of the transmit ring', 0x000f_ff80),
  TDH: both(0x03810, 'rw', 'transmit head', 0xffff),
  TDT: both(0x03818, 'rw', 'transmit tail', 0xffff),
  TIDV: both(0x03820, 'rw', 'transmit interrupt delay, in 1.024 us; bit 31 flushes', 0xffff),
  TXDCTL: both(0x03828, 'rw', 'transmit descriptor control'),
  TADV: both(0x0382c, 'rw', 'transmit absolute delay, in 1.024 us', 0xffff),
  TSPMT: both(0x03830, 'rw', 'TCP segmentation pad and threshold'),
  TARC0: express(0x03840, 'rw', 'transmit arbitration'),
  TDBAL1: express(0x03900, 'rw', 'second transmit ring, low', 0xffff_fff0),
  TDBAH1: express(0x03904, 'rw', 'second transmit ring, high'),
  TDLEN1: express(0x03908, 'rw', 'bytes of the second transmit ring', 0x000f_ff80),
  TDH1: express(0x03910, 'rw', 'second transmit head', 0xffff),
  TDT1: express(0x03918, 'rw', 'second transmit tail', 0xffff),
  TXDCTL1: express(0x03928, 'rw', 'second transmit descriptor control'),
  TARC1: express(0x03940, 'rw', 'second transmit arbitration'),
  // Wake-up and management: storage (nothing here sleeps)
  WUC: both(0x05800, 'rw', 'wake-up control'),
  WUFC: both(0x05808, 'rw', 'wake-up filter control'),
  WUS: both(0x05810, 'w1c', 'wake-up status'),
  MANC: both(0x05820, 'rw', 'management control'),
  IPAV: both(0x05838, 'rw', 'IP address valid'),
  IP4AT: both(0x05840, 'rw', 'IPv4 addresses', ALL, 8),
  MANC2H: express(0x05860, 'rw', 'management to host'),
  IP6AT: both(0x05880, 'rw', 'IPv6 address', ALL, 4),
  WUPL: both(0x05900, 'ro', 'length of the packet that woke'),
  WUPM: both(0x05a00, 'ro', 'the packet that woke', ALL, 32),
  FFLT: both(0x05f00, 'rw', 'flexible filter lengths', ALL, 8),
  FFMT: both(0x09000, 'rw', 'flexible filter masks', ALL, 256),
  FFVT: both(0x09800, 'rw', 'flexible filter values', ALL, 256),
  // PCI Express
  GCR: express(0x05b00, 'rw', 'PCI Express control'),
  GSCL_1: express(0x05b10, 'rw', 'PCI Express statistics control', ALL, 4),
  FACTPS: express(0x05b30, 'ro', 'function active and power state'),
  SWSM: express(0x05b50, 'rw', 'software semaphore', 0x3),
  FWSM: express(0x05b54, 'ro', 'firmware semaphore'),
  SWSM2: express(0x05b58, 'rw', 'driver loaded semaphore'),
  GCR2: express(0x05b64, 'rw', 'PCI Express control 2'),
  // Time stamps: storage
  TSYNCRXCTL: express(0x0b620, 'rw', 'receive time stamp control', 0x1e),
  TSYNCTXCTL: express(0x0b614, 'rw', 'transmit time stamp control', 0x10),
  SYSTIML: express(0x0b600, 'rw', 'system time, low'),
  SYSTIMH: express(0x0b604, 'rw', 'system time, high'),
  TIMINCA: express(0x0b608, 'rw', 'increment of the system time'),
  RXMTRL: express(0x0b634, 'rw', 'time stamped message types'),
  RXUDP: express(0x0b638, 'rw', 'time stamped UDP port', 0xffff),
  // Statistics
  CRCERRS: both(0x04000, 'rc', 'CRC errors'),
  ALGNERRC: both(0x04004, 'rc', 'alignment errors'),
  SYMERRS: both(0x04008, 'rc', 'symbol errors'),
  RXERRC: both(0x0400c, 'rc', 'receive errors'),
  MPC: both(0x04010, 'rc', 'missed packets: no receive buffer'),
  SCC: both(0x04014, 'rc', 'single collisions'),
  ECOL: both(0x04018, 'rc', 'excessive collisions'),
  MCC: both(0x0401c, 'rc', 'multiple collisions'),
  LATECOL: both(0x04020, 'rc', 'late collisions'),
  COLC: both(0x04028, 'rc', 'collisions'),
  DC: both(0x04030, 'rc', 'deferrals'),
  TNCRS: both(0x04034, 'rc', 'transmits without carrier'),
  SEC: both(0x04038, 'rc', 'sequence errors'),
  CEXTERR: both(0x0403c, 'rc', 'carrier extension errors'),
  RLEC: both(0x04040, 'rc', 'receive length errors'),
  XONRXC: both(0x04048, 'rc', 'XON received'),
  XONTXC: both(0x0404c, 'rc', 'XON sent'),
  XOFFRXC: both(0x04050, 'rc', 'XOFF received'),
  XOFFTXC: both(0x04054, 'rc', 'XOFF sent'),
  FCRUC: both(0x04058, 'rc', 'unsupported flow control received'),
  PRC64: both(
    0x0405c,
    'rc',
    'received by size: 64, 65-127, 128-255, 256-511, 512-1023, more',
    ALL,
    6,
  ),
  GPRC: both(0x04074, 'rc', 'good packets received'),
  BPRC: both(0x04078, 'rc', 'broadcasts received'),
  MPRC: both(0x0407c, 'rc', 'multicasts received'),
  GPTC: both(0x04080, 'rc', 'good packets sent'),
  GORCL: both(0x04088, 'rc', 'good octets received, low'),
  GORCH: both(0x0408c, 'rc', 'good octets received, high; a read clears both'),
  GOTCL: both(0x04090, 'rc', 'good octets sent, low'),
  GOTCH: both(0x04094, 'rc', 'good octets sent, high; a read clears both'),
  RNBC: both(0x040a0, 'rc', 'packets that found no buffer'),
  RUC: both(0x040a4, 'rc', 'undersize received'),
  RFC: both(0x040a8, 'rc', 'fragments received'),
  ROC: both(0x040ac, 'rc', 'oversize received'),
  RJC: both(0x040b0, 'rc', 'jabber received'),
  MGTPRC: both(0x040b4, 'rc', 'management packets received'),
  MGTPDC: both(0x040b8, 'rc', 'management packets dropped'),
  MGTPTC: both(0x040bc, 'rc', 'management packets sent'),
  TORL: both(0x040c0, 'rc', 'octets received, low'),
  TORH: both(0x040c4, 'rc', 'octets received, high; a read clears both'),
  TOTL: both(0x040c8, 'rc', 'octets sent, low'),
  TOTH: both(0x040cc, 'rc', 'octets sent, high; a read clears both'),
  TPR: both(0x040d0, 'rc', 'packets received'),
  TPT: both(0x040d4, 'rc', 'packets sent'),
  PTC64: both(0x040d8, 'rc', 'sent by size: as received', ALL, 6),
  MPTC: both(0x040f0, 'rc', 'multicasts sent'),
  BPTC: both(0x040f4, 'rc', 'broadcasts sent'),
  TSCTC: both(0x040f8, 'rc', 'segmentation contexts sent'),
  TSCTFC: both(0x040fc, 'rc', 'segmentation contexts that failed'),
  IAC: express(0x04100, 'rc', 'interrupts asserted'),
  ICRXPTC: express(0x04104, 'rc', 'interrupts by the receive timer'),
  ICRXATC: express(0x04108, 'rc', 'interrupts by the absolute receive timer'),
  ICTXPTC: express(0x0410c, 'rc', 'interrupts by the transmit timer'),
  ICTXATC: express(0x04110, 'rc', 'interrupts by the absolute transmit timer'),
  ICTXQEC: express(0x04118, 'rc', 'interrupts by an empty transmit queue'),
  ICTXQMTC: express(0x0411c, 'rc', 'interrupts by a transmit threshold'),
  ICRXDMTC: express(0x04120, 'rc', 'interrupts by the receive threshold'),
  ICRXOC: express(0x04124, 'rc', 'interrupts by overrun'),
} as const satisfies Readonly<Record<string, E1000Register>>;

export type E1000RegisterName = keyof typeof E1000_REGISTERS;

/** Bytes of the register BAR, and of the I/O BAR with IOADDR at 0 and IODATA at 4 (SDM §13.2.2). */
export const E1000_REGISTER_BYTES = 0x20000;
export const E1000_IO_BYTES = 64;
export const E1000_IOADDR = 0;
export const E1000_IODATA = 4;
/** MSI-X of the 82574 (DS §9.1.3.10): BAR 3, five vectors, the pending bits behind the table. */
export const E1000_MSIX_BAR = 3;
export const E1000_MSIX_BAR_BYTES = 0x4000;
export const E1000_MSIX_VECTORS = 5;
export const E1000_MSIX_TABLE = 0;
export const E1000_MSIX_PBA = 0x2000;

export const E1000_VENDOR_INTEL = 0x8086;
export const E1000_DEVICE_82540EM = 0x100e;
export const E1000_DEVICE_82574L = 0x10d3;

/** CTRL (SDM §13.4.1; DS §10.2.2.1). */
export const CTRL_FD = 0x0000_0001;
export const CTRL_GIO_MASTER_DISABLE = 0x0000_0004;
export const CTRL_SLU = 0x0000_0040;
export const CTRL_SPEED_1000 = 0x0000_0200;
export const CTRL_SWDPIN0 = 0x0004_0000;
export const CTRL_SWDPIN2 = 0x0010_0000;
export const CTRL_RST = 0x0400_0000;
export const CTRL_VME = 0x4000_0000;
export const CTRL_PHY_RST = 0x8000_0000;

/** STATUS (SDM §13.4.2; DS §10.2.2.2). */
export const STATUS_FD = 0x0000_0001;
export const STATUS_LU = 0x0000_0002;
export const STATUS_SPEED_1000 = 0x0000_0080;
export const STATUS_ASDV_1000 = 0x0000_0300;
export const STATUS_PHYRA = 0x0000_0400;
export const STATUS_GIO_MASTER_ENABLE = 0x0008_0000;

/** EECD (SDM §13.4.3; DS §10.2.2.3). */
export const EECD_SK = 0x001;
export const EECD_CS = 0x002;
export const EECD_DI = 0x004;
export const EECD_DO = 0x008;
export const EECD_FWE_DISABLED = 0x010;
export const EECD_REQ = 0x040;
export const EECD_GNT = 0x080;
export const EECD_PRES = 0x100;
/** 82574: the configuration was loaded. (82540EM: 256 words instead of 64.) */
export const EECD_AUTO_RD = 0x200;
/** What software drives. */
export const EECD_LINES = EECD_SK | EECD_CS | EECD_DI | EECD_REQ;

/** EEMNGCTL: the configuration of both ports is done (DS §10.2.2.8). */
export const EEMNGCTL_DONE = 0x000c_0000;

/** EERD and EEWR (SDM §13.4.4; DS §10.2.2.4): address and done stand elsewhere in the 82574. */
export const EERD_START = 0x1;
export const EERD_DONE = 0x10;
export const EERD_ADDRESS_SHIFT = 8;
export const EERD_DONE_82574 = 0x2;
export const EERD_ADDRESS_SHIFT_82574 = 2;
export const EERD_DATA_SHIFT = 16;

/** EEPROM words (SDM §5.6). The sum of words 0 to 0x3f is {@link EEPROM_SUM}. */
export const EEPROM_WORDS = 64;
export const EEPROM_MAC = 0x00;
export const EEPROM_COMPATIBILITY = 0x03;
export const EEPROM_VERSION = 0x05;
export const EEPROM_PBA_NUMBER = 0x08;
export const EEPROM_INIT_CONTROL_1 = 0x0a;
export const EEPROM_SUBSYSTEM_ID = 0x0b;
export const EEPROM_SUBSYSTEM_VENDOR = 0x0c;
export const EEPROM_DEVICE_ID = 0x0d;
export const EEPROM_VENDOR_ID = 0x0e;
export const EEPROM_INIT_CONTROL_2 = 0x0f;
/** Wake-up after power up: APME is bit 10. */
export const EEPROM_INIT_CONTROL_3 = 0x24;
export const EEPROM_CHECKSUM = 0x3f;
export const EEPROM_SUM = 0xbaba;
/** Microwire (SDM §5.4): a start bit, two bits of opcode, six of address. */
export const MICROWIRE_READ = 0b10;
export const MICROWIRE_WRITE = 0b01;
export const MICROWIRE_ERASE = 0b11;
export const MICROWIRE_SPECIAL = 0b00;
export const MICROWIRE_ADDRESS_BITS = 6;

/** MDIC (SDM §13.4.7). */
export const MDIC_REGISTER_SHIFT = 16;
export const MDIC_PHY_SHIFT = 21;
export const MDIC_WRITE = 0x0400_0000;
export const MDIC_READ = 0x0800_0000;
export const MDIC_READY = 0x1000_0000;
export const MDIC_INTERRUPT = 0x2000_0000;
export const MDIC_ERROR = 0x4000_0000;
export const E1000_PHY_ADDRESS = 1;

/** PHY registers (IEEE 802.3 §22.2.4, §40.5; Marvell 88E1011 and the 82574's own). */
export const PHY_BMCR = 0;
export const PHY_BMSR = 1;
export const PHY_ID1 = 2;
export const PHY_ID2 = 3;
export const PHY_ADVERTISE = 4;
export const PHY_PARTNER = 5;
export const PHY_EXPANSION = 6;
export const PHY_1000T_CONTROL = 9;
export const PHY_1000T_STATUS = 10;
export const PHY_EXTENDED_STATUS = 15;
export const PHY_SPECIFIC_CONTROL = 16;
export const PHY_SPECIFIC_STATUS = 17;
export const PHY_INTERRUPT_ENABLE = 18;
export const PHY_INTERRUPT_STATUS = 19;
export const PHY_EXTENDED_CONTROL = 20;
export const PHY_RECEIVE_ERRORS = 21;
export const PHY_PAGE = 22;
export const BMCR_RESET = 0x8000;
export const BMCR_LOOPBACK = 0x4000;
export const BMCR_AUTONEG = 0x1000;
export const BMCR_POWER_DOWN = 0x0800;
export const BMCR_RESTART = 0x0200;
/** 10, 100 in both duplexes, extended status, preamble suppression, autonegotiation, extended registers. */
export const BMSR_CAPABILITIES = 0x7949;
export const BMSR_AUTONEG_DONE = 0x0020;
export const BMSR_LINK = 0x0004;
export const PHY_ID1_MARVELL = 0x0141;
export const PHY_ID2_88E1011 = 0x0c20;
export const PHY_ID2_82574 = 0x0cb1;

/** ICR, ICS, IMS, IMC (SDM §13.4.17; DS §10.2.4.1). */
export const INT_TXDW = 0x0000_0001;
export const INT_TXQE = 0x0000_0002;
export const INT_LSC = 0x0000_0004;
export const INT_RXDMT0 = 0x0000_0010;
export const INT_RXO = 0x0000_0040;
export const INT_RXT0 = 0x0000_0080;
export const INT_MDAC = 0x0000_0200;
export const INT_TXD_LOW = 0x0000_8000;
export const INT_SRPD = 0x0001_0000;
export const INT_ACK = 0x0002_0000;
export const INT_RXQ0 = 0x0010_0000;
export const INT_RXQ1 = 0x0020_0000;
export const INT_TXQ0 = 0x0040_0000;
export const INT_TXQ1 = 0x0080_0000;
export const INT_OTHER = 0x0100_0000;
export const INT_ASSERTED = 0x8000_0000;
export const INT_CAUSES_82540 = 0x0001_ffff;
export const INT_CAUSES_82574 = 0x01f7_ffff;
/** Causes that have an MSI-X vector: bits 20 to 24, four bits each in IVAR (DS §10.2.4.9). */
export const INT_MSIX = 0x01f0_0000;
export const INT_MSIX_SHIFT = 20;
export const INT_MSIX_CAUSES = 5;
export const IVAR_VALID = 0x8;
export const IVAR_VECTOR = 0x7;
/** CTRL_EXT (DS §10.2.2.5). */
export const CTRL_EXT_EIAME = 0x0100_0000;
export const CTRL_EXT_IAME = 0x0800_0000;
/** Unit of ITR and EITR, and of the delay timers, in ns. */
export const ITR_UNIT_NS = 256;
export const DELAY_UNIT_NS = 1024;
/** RDTR and TIDV: interrupt now. */
export const DELAY_FLUSH = 0x8000_0000;

/** RCTL (SDM §13.4.22; DS §10.2.5.1). */
export const RCTL_EN = 0x0000_0002;
export const RCTL_UPE = 0x0000_0008;
export const RCTL_MPE = 0x0000_0010;
export const RCTL_LPE = 0x0000_0020;
export const RCTL_LBM_MAC = 0x0000_0040;
export const RCTL_RDMTS_SHIFT = 8;
export const RCTL_DTYP_SHIFT = 10;
export const RCTL_MO_SHIFT = 12;
export const RCTL_BAM = 0x0000_8000;
export const RCTL_BSIZE_SHIFT = 16;
export const RCTL_VFE = 0x0004_0000;
export const RCTL_BSEX = 0x0200_0000;
export const RCTL_SECRC = 0x0400_0000;
/** RAH: the address is valid. */
export const RAH_AV = 0x8000_0000;
export const RAH_MASK = 0x8003_ffff;
export const RECEIVE_ADDRESSES = 16;
/** RXCSUM: IP, and TCP and UDP checksums are verified. */
export const RXCSUM_IPOFLD = 0x100;
export const RXCSUM_TUOFLD = 0x200;
export const RXCSUM_PCSD = 0x2000;
/** RFCTL: extended descriptors. */
export const RFCTL_EXTEN = 0x8000;

/** Receive descriptor, legacy (SDM §3.2.3): address 8, length 2, checksum 2, status 1, errors 1, VLAN 2. */
export const RX_DESCRIPTOR_BYTES = 16;
/** With packet split (DS §7.1.5.2): four addresses. */
export const RX_SPLIT_DESCRIPTOR_BYTES = 32;
export const RXD_DD = 0x01;
export const RXD_EOP = 0x02;
export const RXD_IXSM = 0x04;
export const RXD_VP = 0x08;
/** UDP checksum, in extended status only (DS §7.1.5.1.2). */
export const RXD_UDPCS = 0x10;
export const RXD_TCPCS = 0x20;
export const RXD_IPCS = 0x40;
/** Passed by the multicast or promiscuous filter, not by an exact address. */
export const RXD_PIF = 0x80;
export const RXD_ERROR_TCPE = 0x20;
export const RXD_ERROR_IPE = 0x40;
/** Where the errors stand in the extended status and error word. */
export const RXD_EXTENDED_ERRORS_SHIFT = 24;

/** TCTL (SDM §13.4.33). */
export const TCTL_EN = 0x0000_0002;
/** Transmit descriptors (SDM §3.3): command and type in the second word. */
export const TX_DESCRIPTOR_BYTES = 16;
export const TXD_LENGTH_LEGACY = 0xffff;
export const TXD_LENGTH = 0xf_ffff;
export const TXD_TYPE_MASK = 0x00f0_0000;
export const TXD_TYPE_CONTEXT = 0x0000_0000;
export const TXD_TYPE_DATA = 0x0010_0000;
export const TXD_EOP = 0x0100_0000;
/** Legacy: insert a checksum. Data: TCP segmentation. */
export const TXD_IC = 0x0400_0000;
export const TXD_TSE = 0x0400_0000;
export const TXD_RS = 0x0800_0000;
export const TXD_EXTENDED = 0x2000_0000;
export const TXD_VLE = 0x4000_0000;
export const TXD_IDE = 0x8000_0000;
/** Status, in the third word: done. */
export const TXD_DD = 0x1;
/** Legacy: where the checksum goes (second word), and where it begins (third word). */
export const TXD_CSO_SHIFT = 16;
export const TXD_CSS_SHIFT = 8;
/** Data: options in the third word. */
export const TXD_POPTS_IXSM = 0x100;
export const TXD_POPTS_TXSM = 0x200;
/** Context: commands in the second word. */
export const TXC_TCP = 0x0100_0000;
export const TXC_IPV4 = 0x0200_0000;
