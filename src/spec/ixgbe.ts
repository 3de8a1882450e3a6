/**
 * Intel 82599 10 GbE controller (82599 10 GbE Controller Datasheet; sections are of it): registers of
 * the physical function and of virtual functions, EEPROM, interrupts. All little-endian. Descriptors
 * stand in `ixgbe-descriptors.ts`, the mailbox in `ixgbe-mailbox.ts`.
 */

/** What a register does when it is accessed. What has effects of its own is in the device model. */
export type IxgbeAccess =
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

export interface IxgbeRegister {
  /** From the start of BAR 0; of a queue's register: from the start of its block. */
  readonly offset: number;
  readonly access: IxgbeAccess;
  readonly meaning: string;
  /** Bits that are implemented. */
  readonly mask: number;
  /** How many there are, `stride` bytes apart. */
  readonly count: number;
  readonly stride: number;
}

const ALL = 0xffff_ffff;

function one(offset: number, access: IxgbeAccess, meaning: string, mask = ALL): IxgbeRegister {
  return { offset, access, meaning, mask, count: 1, stride: 4 };
}

function row(
  offset: number,
  count: number,
  access: IxgbeAccess,
  meaning: string,
  mask = ALL,
  stride = 4,
): IxgbeRegister {
  return { offset, access, meaning, mask, count, stride };
}

export const IXGBE_QUEUES = 128;
/** Pools of the card's switch: 63 virtual functions, and the physical one. */
export const IXGBE_POOLS = 64;
export const IXGBE_VFS = 63;
export const IXGBE_RECEIVE_ADDRESSES = 128;
export const IXGBE_TRAFFIC_CLASSES = 8;

/** Registers of each receive queue (§8.2.3.8), from the start of its block. */
export const IXGBE_RX_QUEUE_REGISTERS = {
  RDBAL: one(0x00, 'rw', 'ring, low', 0xffff_ff80),
  RDBAH: one(0x04, 'rw', 'ring, high'),
  RDLEN: one(0x08, 'rw', 'bytes of the ring', 0x000f_ff80),
  DCA_RXCTRL: one(0x0c, 'rw', 'direct cache access'),
  RDH: one(0x10, 'rw', 'head', 0xffff),
  SRRCTL: one(0x14, 'rw', 'buffer sizes, descriptor type, drop', 0x1fc0_3f1f),
  RDT: one(0x18, 'rw', 'tail', 0xffff),
  RXDCTL: one(0x28, 'rw', 'enable, take VLAN tags off', 0x4200_0000),
  RSCCTL: one(0x2c, 'rw', 'receive side coalescing', 0xd),
} as const satisfies Readonly<Record<string, IxgbeRegister>>;

/** Registers of each transmit queue (§8.2.3.9), from the start of its block. */
export const IXGBE_TX_QUEUE_REGISTERS = {
  TDBAL: one(0x00, 'rw', 'ring, low', 0xffff_ff80),
  TDBAH: one(0x04, 'rw', 'ring, high'),
  TDLEN: one(0x08, 'rw', 'bytes of the ring', 0x000f_ff80),
  DCA_TXCTRL: one(0x0c, 'rw', 'direct cache access'),
  TDH: one(0x10, 'rw', 'head', 0xffff),
  TDT: one(0x18, 'rw', 'tail', 0xffff),
  TXDCTL: one(0x28, 'rw', 'thresholds, enable', 0x027f_7f7f),
  TDWBAL: one(0x38, 'rw', 'where the head is written back, low; bit 0 enables', 0xffff_fffd),
  TDWBAH: one(0x3c, 'rw', 'where the head is written back, high'),
} as const satisfies Readonly<Record<string, IxgbeRegister>>;

/** Bytes from a queue's block to the next one's. */
export const IXGBE_QUEUE_BYTES = 0x40;
/** Where the blocks of receive queues 0 to 63, 64 to 127 and of all transmit queues begin. */
export const IXGBE_RX_QUEUES = 0x01000;
export const IXGBE_RX_QUEUES_HIGH = 0x0d000;
export const IXGBE_TX_QUEUES = 0x06000;

/** Where the block of a queue (0 to 127) begins. */
export const ixgbeRxQueue = (queue: number): number =>
  queue < 64
    ? IXGBE_RX_QUEUES + IXGBE_QUEUE_BYTES * queue
    : IXGBE_RX_QUEUES_HIGH + IXGBE_QUEUE_BYTES * (queue - 64);
export const ixgbeTxQueue = (queue: number): number => IXGBE_TX_QUEUES + IXGBE_QUEUE_BYTES * queue;

/** All other registers of the physical function (§8.2.3): offset, number, access, meaning, bits. */
export const IXGBE_REGISTERS = {
  // General (§8.2.3.1)
  CTRL: one(0x00000, 'rw', 'device control: reset, master disable'),
  STATUS: one(0x00008, 'ro', 'device status: LAN id, VFs, master enable'),
  CTRL_EXT: one(0x00018, 'rw', 'extended control: PF reset done, driver loaded'),
  ESDP: one(0x00020, 'rw', 'software definable pins'),
  I2CCTL: one(0x00028, 'rw', 'I2C lines to the SFP+ module', 0xf),
  LEDCTL: one(0x00200, 'rw', 'LEDs'),
  TCPTIMER: one(0x0004c, 'rw', 'TCP timer', 0xfff),
  EXVET: one(0x05078, 'rw', 'EtherType of an outer VLAN tag'),
  // EEPROM and flash (§8.2.3.2)
  EEC: one(0x10010, 'rw', 'EEPROM lines, presence, size'),
  EERD: one(0x10014, 'rw', 'EEPROM read'),
  EEWR: one(0x10018, 'rw', 'EEPROM write'),
  FLA: one(0x1001c, 'rw', 'flash access'),
  EEMNGCTL: one(0x10110, 'rw', 'manageability EEPROM control'),
  EEMNGDATA: one(0x10114, 'rw', 'manageability EEPROM data'),
  FLOP: one(0x1013c, 'rw', 'flash opcode'),
  SWSM: one(0x10140, 'rw', 'software semaphore', 0x3),
  FWSM: one(0x10148, 'ro', 'firmware semaphore and mode'),
  FACTPS: one(0x10150, 'ro', 'function active and power state'),
  SW_FW_SYNC: one(0x10160, 'rw', 'resources that software and firmware share'),
  GRC: one(0x10200, 'rw', 'general receive control'),
  // Flow control (§8.2.3.3)
  PFCTOP: one(0x03008, 'rw', 'priority flow control type opcode'),
  FCTTV: row(0x03200, 4, 'rw', 'transmit timer values'),
  FCRTL: row(0x03220, 8, 'rw', 'receive threshold, low', 0x8007_fff0),
  PXON2OFFCNT: row(0x03240, 8, 'rc', 'priority XON to XOFF'),
  FCRTH: row(0x03260, 8, 'rw', 'receive threshold, high', 0x8007_fff0),
  FCRTV: one(0x032a0, 'rw', 'refresh threshold', 0xffff),
  FCCFG: one(0x03d00, 'rw', 'flow control configuration', 0x18),
  TFCS: one(0x0ce00, 'ro', 'transmission is paused'),
  // PCI Express (§8.2.3.4)
  GCR: one(0x11000, 'rw', 'PCIe control'),
  GSCL_1: row(0x11010, 4, 'rw', 'PCIe statistics control'),
  GSCN: row(0x11020, 4, 'rw', 'PCIe counters'),
  GSCL_5: row(0x11030, 4, 'rw', 'PCIe counter thresholds'),
  PHYADR: one(0x11040, 'rw', 'PCIe PHY address'),
  PHYDAT: one(0x11044, 'ro', 'PCIe PHY data'),
  GCR_EXT: one(0x11050, 'rw', 'number of pools, MSI-X for VFs'),
  MREVID: one(0x11064, 'ro', 'mirrored revision id'),
  PBACL: one(0x11068, 'w1c', 'pending bits of vectors 0 to 31'),
  DCA_ID: one(0x11070, 'ro', 'direct cache access requester id'),
  DCA_CTRL: one(0x11074, 'rw', 'direct cache access control'),
  CIAA: one(0x11088, 'rw', 'a VF configuration space address'),
  CIAD: one(0x1108c, 'rw', 'a VF configuration space word'),
  PICAUSE: one(0x110b0, 'w1c', 'PCIe interrupt cause'),
  PIENA: one(0x110b8, 'rw', 'PCIe interrupt enable'),
  PBACL_HIGH: row(0x110c4, 7, 'w1c', 'pending bits of vectors 32 to 255'),
  // Interrupts (§8.2.3.5)
  EICR: one(0x00800, 'ro', 'causes; a read may clear them'),
  EICS: one(0x00808, 'wo', 'causes are set'),
  EIAC: one(0x00810, 'rw', 'causes that MSI-X clears by itself', 0x4000_ffff),
  EITR: row(0x00820, 24, 'rw', 'throttling of vectors 0 to 23', 0x81ff_8ff8),
  EIMS: one(0x00880, 'rw', 'mask is set, and read'),
  EIMC: one(0x00888, 'wo', 'mask is cleared'),
  EIAM: one(0x00890, 'rw', 'causes that are masked automatically'),
  EITRSEL: one(0x00894, 'rw', 'EITR of VFs 32 to 63'),
  GPIE: one(0x00898, 'rw', 'MSI-X mode, automatic masks'),
  IVAR: row(0x00900, 64, 'rw', 'vectors of queues: two receive, two transmit each', 0xbfbf_bfbf),
  IVAR_MISC: one(0x00a00, 'rw', 'vectors of the TCP timer and of other causes', 0xbfbf),
  EICS_EX: row(0x00a90, 2, 'wo', 'causes of vectors 0 to 63 are set'),
  EIMS_EX: row(0x00aa0, 2, 'rw', 'mask of vectors 0 to 63 is set, and read'),
  EIMC_EX: row(0x00ab0, 2, 'wo', 'mask of vectors 0 to 63 is cleared'),
  EIAM_EX: row(0x00ad0, 2, 'rw', 'vectors that are masked automatically'),
  EITR_HIGH: row(0x12300, 105, 'rw', 'throttling of vectors 24 to 128', 0x81ff_8ff8),
  RSCINT: row(0x12000, 128, 'rw', 'interrupt delay of receive side coalescing', 0x7ff),
  // Receive (§8.2.3.7, §8.2.3.8)
  RTRPCS: one(0x02430, 'rw', 'receive packet plane control'),
  RTRPT4C: row(0x02140, 8, 'rw', 'receive packet plane credits'),
  RDRXCTL: one(0x02f00, 'rw', 'receive DMA control: CRC strip, init done'),
  QDE: one(0x02f04, 'rw', 'drop enable of a queue'),
  RXCTRL: one(0x03000, 'rw', 'receive enable', 0x1),
  RTRUP2TC: one(0x03020, 'rw', 'user priority to traffic class'),
  RSCDBU: one(0x03028, 'rw', 'receive side coalescing buffers'),
  RXPBSIZE: row(0x03c00, 8, 'rw', 'packet buffers', 0x000f_fc00),
  RXCSUM: one(0x05000, 'rw', 'checksum control', 0x3000),
  RFCTL: one(0x05008, 'rw', 'receive filter control'),
  FCTRL: one(0x05080, 'rw', 'filter control: promiscuous, broadcast', 0x702),
  VLNCTRL: one(0x05088, 'rw', 'VLAN control', 0x7000_ffff),
  MCSTCTRL: one(0x05090, 'rw', 'multicast control', 0x7),
  ETQF: row(0x05128, 8, 'rw', 'EtherType filters'),
  MTA: row(0x05200, 128, 'rw', 'multicast table'),
  MRQC: one(0x05818, 'rw', 'multiple receive queues'),
  RETA: row(0x05c00, 32, 'rw', 'redirection table', 0x0f0f_0f0f),
  RSSRK: row(0x05c80, 10, 'rw', 'RSS key'),
  VFTA: row(0x0a000, 128, 'rw', 'VLAN filter table'),
  RAL: row(0x0a200, IXGBE_RECEIVE_ADDRESSES, 'rw', 'receive addresses, low', ALL, 8),
  RAH: row(0x0a204, IXGBE_RECEIVE_ADDRESSES, 'rw', 'receive addresses, high', 0x8000_ffff, 8),
  MPSAR: row(0x0a600, 256, 'rw', 'pools of receive addresses, two words each'),
  SAQF: row(0x0e000, 128, 'rw', '5-tuple filters: source address'),
  DAQF: row(0x0e200, 128, 'rw', '5-tuple filters: destination address'),
  SDPQF: row(0x0e400, 128, 'rw', '5-tuple filters: ports'),
  FTQF: row(0x0e600, 128, 'rw', '5-tuple filters: protocol, priority, pool, mask'),
  L34TIMIR: row(0x0e800, 128, 'rw', '5-tuple filters: queue, immediate interrupt'),
  PSRTYPE: row(
    0x0ea00,
    IXGBE_POOLS,
    'rw',
    'headers that are split, RSS queues of pools',
    0xe004_1330,
  ),
  ETQS: row(0x0ec00, 8, 'rw', 'EtherType filters: queue'),
  SYNQF: one(0x0ec30, 'rw', 'SYN filter'),
  RQTC: one(0x0ec70, 'rw', 'RSS queues of traffic classes'),
  LLITHRESH: one(0x0ec90, 'rw', 'low latency interrupt credits'),
  // Flow director (§8.2.3.21)
  FDIRCTRL: one(0x0ee00, 'rw', 'flow director control'),
  FDIRFREE: one(0x0ee38, 'ro', 'free flow director filters'),
  FDIRSIPV6: row(0x0ee0c, 3, 'rw', 'flow director filter: IPv6 address'),
  FDIRIPSA: one(0x0ee18, 'rw', 'flow director filter: source address'),
  FDIRIPDA: one(0x0ee1c, 'rw', 'flow director filter: destination address'),
  FDIRPORT: one(0x0ee20, 'rw', 'flow director filter: ports'),
  FDIRVLAN: one(0x0ee24, 'rw', 'flow director filter: tag, two other bytes'),
  FDIRDIP4M: one(0x0ee3c, 'rw', 'flow director mask: destination address'),
  FDIRSIP4M: one(0x0ee40, 'rw', 'flow director mask: source address'),
  FDIRTCPM: one(0x0ee44, 'rw', 'flow director mask: ports of TCP'),
  FDIRUDPM: one(0x0ee48, 'rw', 'flow director mask: ports of UDP'),
  FDIRIP6M: one(0x0ee74, 'rw', 'flow director mask: IPv6 addresses'),
  FDIRSCTPM: one(0x0ee78, 'rw', 'flow director mask: ports of SCTP'),
  FDIRCMD: one(0x0ee2c, 'rw', 'flow director command'),
  FDIRHASH: one(0x0ee28, 'rw', 'flow director hash'),
  FDIRHKEY: one(0x0ee68, 'rw', 'flow director bucket key'),
  FDIRSKEY: one(0x0ee6c, 'rw', 'flow director signature key'),
  FDIRM: one(0x0ee70, 'rw', 'flow director masks'),
  FDIRLEN: one(0x0ee4c, 'rc', 'longest flow director list'),
  FDIRUSTAT: one(0x0ee50, 'rc', 'flow director filters added and removed'),
  FDIRFSTAT: one(0x0ee54, 'rc', 'flow director filters that failed'),
  FDIRMATCH: one(0x0ee58, 'rc', 'flow director matches'),
  FDIRMISS: one(0x0ee5c, 'rc', 'flow director misses'),
  // Transmit (§8.2.3.9, §8.2.3.10)
  RTTDCS: one(0x04900, 'rw', 'transmit descriptor plane control'),
  RTTDQSEL: one(0x04904, 'rw', 'queue of the rate registers', 0x7f),
  RTTDT1C: one(0x04908, 'rw', 'descriptor plane credits of a queue'),
  RTTDT2C: row(0x04910, 8, 'rw', 'descriptor plane credits of classes'),
  TXPBTHRESH: row(0x04950, 8, 'rw', 'packet buffer thresholds'),
  RTTBCNRM: one(0x04980, 'rw', 'rate memory'),
  RTTBCNRC: one(0x04984, 'rw', 'rate of a queue'),
  DMATXCTL: one(0x04a80, 'rw', 'transmit DMA control: enable, VLAN EtherType'),
  DTXTCPFLGL: one(0x04a88, 'rw', 'TCP flags of first and middle segments', 0x0fff_0fff),
  DTXTCPFLGH: one(0x04a8c, 'rw', 'TCP flags of the last segment', 0xfff),
  DTXMXSZRQ: one(0x08100, 'rw', 'most bytes of requests', 0xfff),
  MTQC: one(0x08120, 'rw', 'multiple transmit queues'),
  TXPBSIZE: row(0x0cc00, 8, 'rw', 'packet buffers', 0x000f_fc00),
  RTTUP2TC: one(0x0c800, 'rw', 'user priority to traffic class'),
  RTTPCS: one(0x0cd00, 'rw', 'transmit packet plane control'),
  MNGTXMAP: one(0x0cd10, 'rw', 'class of management traffic'),
  RTTPT2C: row(0x0cd20, 8, 'rw', 'packet plane credits'),
  SECTXCTRL: one(0x08800, 'rw', 'security engine, transmit'),
  SECTXSTAT: one(0x08804, 'ro', 'security engine, transmit: ready'),
  SECTXBUFFAF: one(0x08808, 'rw', 'security engine, almost full'),
  SECTXMINIFG: one(0x08810, 'rw', 'security engine, least gap'),
  SECRXCTRL: one(0x08d00, 'rw', 'security engine, receive'),
  SECRXSTAT: one(0x08d04, 'ro', 'security engine, receive: ready'),
  // Wake-up (§8.2.3.24)
  WUC: one(0x05800, 'rw', 'wake-up control'),
  WUFC: one(0x05808, 'rw', 'wake-up filters'),
  WUS: one(0x05810, 'w1c', 'wake-up status'),
  MANC: one(0x05820, 'rw', 'management control'),
  // MAC (§8.2.3.22)
  PCS1GCFIG: one(0x04200, 'rw', '1 Gb/s PCS configuration'),
  PCS1GLCTL: one(0x04208, 'rw', '1 Gb/s PCS link control'),
  PCS1GLSTA: one(0x0420c, 'ro', '1 Gb/s PCS link status'),
  PCS1GANA: one(0x04218, 'rw', '1 Gb/s advertisement'),
  PCS1GANLP: one(0x0421c, 'ro', '1 Gb/s link partner'),
  HLREG0: one(0x04240, 'rw', 'CRC, padding, jumbo, loopback'),
  HLREG1: one(0x04244, 'ro', 'MAC status'),
  PAP: one(0x04248, 'rw', 'pause and pace'),
  MSCA: one(0x0425c, 'rw', 'MDI command and address'),
  MSRWD: one(0x04260, 'rw', 'MDI data'),
  MAXFRS: one(0x04268, 'rw', 'longest frame', 0xffff_0000),
  PCSS1: one(0x04288, 'ro', 'XGXS status 1'),
  PCSS2: one(0x0428c, 'ro', 'XGXS status 2'),
  XPCSS: one(0x04290, 'ro', '10GBASE-X PCS status'),
  MFLCN: one(0x04294, 'rw', 'flow control: receive', 0xf),
  SERDESC: one(0x04298, 'rw', 'SerDes control'),
  AUTOC: one(0x042a0, 'rw', 'link mode, restart of autonegotiation'),
  LINKS: one(0x042a4, 'ro', 'link status'),
  AUTOC2: one(0x042a8, 'rw', 'link mode 2'),
  ANLP1: one(0x042b0, 'ro', 'link partner, state of autonegotiation'),
  ANLP2: one(0x042b4, 'ro', 'link partner 2'),
  MMNGC: one(0x042d0, 'ro', 'management veto'),
  LINKS2: one(0x04324, 'ro', 'link status 2'),
  MACC: one(0x04330, 'rw', 'MAC control'),
  CORECTL: one(0x14f00, 'rw', 'analog configuration'),
  // Virtualization, the physical function's side (§8.2.3.27)
  PFVFLRE: one(0x00600, 'ro', 'function-level resets of VFs 0 to 31'),
  PFVFLRE_HIGH: one(0x001c0, 'ro', 'function-level resets of VFs 32 to 63'),
  PFVFLREC: row(0x00700, 2, 'w1c', 'function-level resets of VFs are noted'),
  PFMBICR: row(0x00710, 4, 'w1c', 'mailbox requests and acknowledgements, 16 VFs each'),
  PFMBIMR: row(0x00720, 2, 'rw', 'VFs whose mailbox interrupts'),
  PFMAILBOX: row(0x04b00, IXGBE_POOLS, 'rw', 'mailbox control'),
  PFMBMEM: row(0x13000, 16 * IXGBE_POOLS, 'rw', 'mailbox memory, 16 words a VF'),
  VMTXSW: row(0x05180, 2, 'rw', 'pools whose frames are switched'),
  PFVTCTL: one(0x051b0, 'rw', 'virtualization, default pool, replication'),
  PFVFRE: row(0x051e0, 2, 'rw', 'pools that receive'),
  PFVMVIR: row(0x08000, IXGBE_POOLS, 'rw', 'VLAN of the port of a pool', 0xc000_ffff),
  PFVFTE: row(0x08110, 2, 'rw', 'pools that transmit'),
  PFVFSPOOF: row(0x08200, 8, 'rw', 'spoof checks: MAC and VLAN, 8 pools each', 0xffff),
  PFDTXGSWC: one(0x08220, 'rw', 'switching between pools', 0x1),
  PFVMECM: row(0x08790, 2, 'rw', 'pools whose spoofed frames are counted'),
  PFVML2FLT: row(0x0f000, IXGBE_POOLS, 'rw', 'filters of a pool', 0x1f00_0000),
  PFVLVF: row(0x0f100, 64, 'rw', 'VLANs of pools', 0x8000_0fff),
  PFVLVFB: row(0x0f200, 128, 'rw', 'pools of VLANs, two words each'),
  PFUTA: row(0x0f400, 128, 'rw', 'unicast table'),
  PFMRCTL: row(0x0f600, 4, 'rw', 'mirroring rules', 0x3f0f),
  PFMRVLAN: row(0x0f610, 8, 'rw', 'mirrored VLANs, two words each'),
  PFMRVM: row(0x0f630, 8, 'rw', 'mirrored pools, two words each'),
  // Statistics (§8.2.3.23)
  CRCERRS: one(0x04000, 'rc', 'CRC errors'),
  ILLERRC: one(0x04004, 'rc', 'illegal bytes'),
  ERRBC: one(0x04008, 'rc', 'error bytes'),
  MLFC: one(0x04034, 'rc', 'local faults'),
  MRFC: one(0x04038, 'rc', 'remote faults'),
  RLEC: one(0x04040, 'rc', 'length errors'),
  PRC: row(0x0405c, 6, 'rc', 'received by size: 64, to 127, 255, 511, 1023, more'),
  GPRC: one(0x04074, 'rc', 'good packets received'),
  BPRC: one(0x04078, 'rc', 'broadcasts received'),
  MPRC: one(0x0407c, 'rc', 'multicasts received'),
  GPTC: one(0x04080, 'rc', 'good packets sent'),
  GORCL: one(0x04088, 'rc', 'good octets received, low'),
  GORCH: one(0x0408c, 'rc', 'good octets received, high', 0xf),
  GOTCL: one(0x04090, 'rc', 'good octets sent, low'),
  GOTCH: one(0x04094, 'rc', 'good octets sent, high', 0xf),
  RUC: one(0x040a4, 'rc', 'undersize received'),
  RFC: one(0x040a8, 'rc', 'fragments received'),
  ROC: one(0x040ac, 'rc', 'oversize received'),
  RJC: one(0x040b0, 'rc', 'jabber received'),
  MNGPRC: one(0x040b4, 'rc', 'management packets received'),
  MNGPDC: one(0x040b8, 'rc', 'management packets dropped'),
  TORL: one(0x040c0, 'rc', 'octets received, low'),
  TORH: one(0x040c4, 'rc', 'octets received, high', 0xf),
  TPR: one(0x040d0, 'rc', 'packets received'),
  TPT: one(0x040d4, 'rc', 'packets sent'),
  PTC: row(0x040d8, 6, 'rc', 'sent by size: as received'),
  MPTC: one(0x040f0, 'rc', 'multicasts sent'),
  BPTC: one(0x040f4, 'rc', 'broadcasts sent'),
  XEC: one(0x04120, 'rc', 'checksum errors'),
  PXONRXCNT: row(0x04140, 8, 'rc', 'priority XON received'),
  PXOFFRXCNT: row(0x04160, 8, 'rc', 'priority XOFF received'),
  LXONRXCNT: one(0x041a4, 'rc', 'XON received'),
  LXOFFRXCNT: one(0x041a8, 'rc', 'XOFF received'),
  RXNFGPC: one(0x041b0, 'rc', 'good packets received, not filtered'),
  RXNFGBCL: one(0x041b4, 'rc', 'their octets, low'),
  RXNFGBCH: one(0x041b8, 'rc', 'their octets, high', 0xf),
  RXDGPC: one(0x02f50, 'rc', 'good packets to queues'),
  RXDGBCL: one(0x02f54, 'rc', 'their octets, low'),
  RXDGBCH: one(0x02f58, 'rc', 'their octets, high', 0xf),
  PXONTXCNT: row(0x03f00, 8, 'rc', 'priority XON sent'),
  PXOFFTXCNT: row(0x03f20, 8, 'rc', 'priority XOFF sent'),
  LXONTXC: one(0x03f60, 'rc', 'XON sent'),
  LXOFFTXC: one(0x03f68, 'rc', 'XOFF sent'),
  RXMPC: row(0x03fa0, 8, 'rc', 'missed packets of a packet buffer'),
  TXDGPC: one(0x087a0, 'rc', 'good packets from queues'),
  TXDGBCL: one(0x087a4, 'rc', 'their octets, low'),
  TXDGBCH: one(0x087a8, 'rc', 'their octets, high', 0xf),
  SSVPC: one(0x08780, 'rc', 'spoofed packets'),
  MNGPTC: one(0x0cf90, 'rc', 'management packets sent'),
  RQSMR: row(0x02300, 32, 'rw', 'counters of receive queues, four each', 0x0f0f_0f0f),
  TQSM: row(0x08600, 32, 'rw', 'counters of transmit queues, four each', 0x0f0f_0f0f),
  QPRC: row(0x01030, 16, 'rc', 'packets received, by counter', ALL, 0x40),
  QBRCL: row(0x01034, 16, 'rc', 'octets received, by counter, low', ALL, 0x40),
  QBRCH: row(0x01038, 16, 'rc', 'octets received, by counter, high', 0xf, 0x40),
  QPRDC: row(0x01430, 16, 'rc', 'packets dropped, by counter', ALL, 0x40),
  QPTC: row(0x06030, 16, 'rc', 'packets sent, by counter', ALL, 0x40),
  QBTCL: row(0x08700, 16, 'rc', 'octets sent, by counter, low', ALL, 8),
  QBTCH: row(0x08704, 16, 'rc', 'octets sent, by counter, high', 0xf, 8),
} as const satisfies Readonly<Record<string, IxgbeRegister>>;

export type IxgbeRegisterName = keyof typeof IXGBE_REGISTERS;

/** The second address of some registers, from the 82598: `count` words at `at` are those at `to`. */
export interface IxgbeAlias {
  readonly name: string;
  readonly at: number;
  readonly stride: number;
  readonly count: number;
  readonly to: number;
  readonly toStride: number;
}

export const IXGBE_ALIASES: readonly IxgbeAlias[] = [
  { name: 'SRRCTL', at: 0x02100, stride: 4, count: 16, to: 0x01014, toStride: 0x40 },
  { name: 'DCA_RXCTRL', at: 0x02200, stride: 4, count: 16, to: 0x0100c, toStride: 0x40 },
  { name: 'RAL, RAH', at: 0x05400, stride: 4, count: 32, to: 0x0a200, toStride: 4 },
  { name: 'PSRTYPE', at: 0x05480, stride: 4, count: 16, to: 0x0ea00, toStride: 4 },
];

/** BAR 0: registers; BAR 4: the MSI-X table, with pending bits at 8 KiB (§9.3.6, §9.3.8). */
export const IXGBE_REGISTER_BYTES = 0x20000;
export const IXGBE_BAR_BYTES = 0x80000;
/** BAR 2, I/O: the address of a register, and its content (§9.3.6.2, §3.1.5.2). */
export const IXGBE_IO_BYTES = 32;
export const IXGBE_IOADDR = 0;
export const IXGBE_IODATA = 4;
export const IXGBE_MSIX_BAR = 4;
export const IXGBE_MSIX_BAR_BYTES = 0x4000;
export const IXGBE_MSIX_VECTORS = 64;
export const IXGBE_MSIX_TABLE = 0;
export const IXGBE_MSIX_PBA = 0x2000;

export const IXGBE_VENDOR_INTEL = 0x8086;
/** 82599 with SFI, for SFP+ modules; and its virtual functions. */
export const IXGBE_DEVICE_SFP = 0x10fb;
export const IXGBE_DEVICE_VF = 0x10ed;

/** CTRL (§8.2.3.1.1): both resets clear themselves. */
export const IXGBE_CTRL_MASTER_DISABLE = 0x0000_0004;
export const IXGBE_CTRL_LINK_RESET = 0x0000_0008;
export const IXGBE_CTRL_RESET = 0x0400_0000;
/** STATUS (§8.2.3.1.2). */
export const IXGBE_STATUS_LAN_ID_SHIFT = 2;
export const IXGBE_STATUS_MASTER_ENABLE = 0x0008_0000;
/** CTRL_EXT (§8.2.3.1.3). */
export const IXGBE_CTRL_EXT_DRIVER_LOADED = 0x1000_0000;
/** I2CCTL: the lines as the card sees them, and as it drives them (open drain). */
export const IXGBE_I2C_CLOCK_IN = 0x1;
export const IXGBE_I2C_CLOCK_OUT = 0x2;
export const IXGBE_I2C_DATA_IN = 0x4;
export const IXGBE_I2C_DATA_OUT = 0x8;

/** EEC (§8.2.3.2.1). */
export const IXGBE_EEC_REQUEST = 0x040;
export const IXGBE_EEC_GRANT = 0x080;
export const IXGBE_EEC_PRESENT = 0x100;
export const IXGBE_EEC_READ_DONE = 0x200;
/** Words are 64 << this field. */
export const IXGBE_EEC_SIZE_SHIFT = 11;
/** EERD and EEWR (§8.2.3.2.2): start, done, address of 14 bits, data. */
export const IXGBE_EERD_START = 0x1;
export const IXGBE_EERD_DONE = 0x2;
export const IXGBE_EERD_ADDRESS_SHIFT = 2;
export const IXGBE_EERD_ADDRESS_MASK = 0x3fff;
export const IXGBE_EERD_DATA_SHIFT = 16;
/** FWSM: the firmware's mode is valid (§8.2.3.4.12): none, with mode 0. */
export const IXGBE_FWSM_VALID = 0x8000;
/** SWSM, and the software bits of SW_FW_SYNC (§8.2.3.4.11). */
export const IXGBE_SWSM_SMBI = 0x1;
export const IXGBE_SWSM_SWESMBI = 0x2;

/** EICR and all that has its bits (§8.2.3.5.1). */
export const IXGBE_INT_QUEUES = 0x0000_ffff;
export const IXGBE_INT_FLOW_DIRECTOR = 0x0001_0000;
export const IXGBE_INT_RX_MISS = 0x0002_0000;
export const IXGBE_INT_PCI = 0x0004_0000;
export const IXGBE_INT_MAILBOX = 0x0008_0000;
export const IXGBE_INT_LINK = 0x0010_0000;
export const IXGBE_INT_LINKSEC = 0x0020_0000;
export const IXGBE_INT_MANAGEABILITY = 0x0040_0000;
export const IXGBE_INT_SDP0 = 0x0100_0000;
export const IXGBE_INT_SDP1 = 0x0200_0000;
export const IXGBE_INT_SDP2 = 0x0400_0000;
export const IXGBE_INT_ECC = 0x1000_0000;
export const IXGBE_INT_TCP_TIMER = 0x4000_0000;
export const IXGBE_INT_OTHER = 0x8000_0000;
/** GPIE (§8.2.3.5.18). */
export const IXGBE_GPIE_MSIX = 0x0000_0010;
export const IXGBE_GPIE_OTHER_CLEAR_DISABLE = 0x0000_0020;
export const IXGBE_GPIE_EIAME = 0x4000_0000;
export const IXGBE_GPIE_PBA_SUPPORT = 0x8000_0000;
/** An entry of IVAR (§8.2.3.5.16): valid, and a vector or a bit of EICR. */
export const IXGBE_IVAR_VALID = 0x80;
export const IXGBE_IVAR_VECTOR = 0x3f;
/** Vectors whose EITR is in the first row. */
export const IXGBE_EITRS = 24;
/** EITR (§8.2.3.5.12): interval in units of 2 us at 10 Gb/s, bits 11:3. */
export const IXGBE_EITR_INTERVAL = 0xff8;
export const IXGBE_EITR_INTERVAL_SHIFT = 3;
export const IXGBE_EITR_UNIT_NS = 2048;
/** The moderation counter is kept as it is by this write. */
export const IXGBE_EITR_COUNTER_KEEP = 0x8000_0000;

/** RXCTRL, RXCSUM. */
export const IXGBE_RXCTRL_ENABLE = 0x1;
export const IXGBE_RXCSUM_IP_PAYLOAD = 0x1000;
/** The write-back has the RSS hash, else a fragment's checksum. */
export const IXGBE_RXCSUM_PACKET_DISABLE = 0x2000;
/** SECTXSTAT, SECRXSTAT: nothing is in the security engine (§8.2.3.12). */
export const IXGBE_SEC_READY = 0x1;
/** The same: there are no security offloads (LinkSec, IPsec); a fuse of the chip. */
export const IXGBE_SEC_OFFLOAD_DISABLED = 0x2;
/** FDIRCTRL: the tables are laid out; FDIRCMD: the command that is being done (§8.2.3.21). */
export const IXGBE_FDIRCTRL_INIT_DONE = 0x8;
export const IXGBE_FDIRCMD_COMMAND = 0x3;
export const IXGBE_FDIRCTRL_PERFECT = 0x10;
/** Where the two bytes of any place are, in words from the frame's start. */
export const IXGBE_FDIRCTRL_FLEX_SHIFT = 16;
export const IXGBE_FDIRCTRL_FLEX = 0x1f;
export const IXGBE_FDIRCMD_ADD = 1;
export const IXGBE_FDIRCMD_REMOVE = 2;
export const IXGBE_FDIRCMD_QUERY = 3;
export const IXGBE_FDIRCMD_VALID = 0x4;
export const IXGBE_FDIRCMD_L4_SHIFT = 5;
export const IXGBE_FDIRCMD_L4TYPE = 0x3;
export const IXGBE_FDIRCMD_L4_UDP = 1;
export const IXGBE_FDIRCMD_L4_TCP = 2;
export const IXGBE_FDIRCMD_L4_SCTP = 3;
export const IXGBE_FDIRCMD_IPV6 = 0x80;
export const IXGBE_FDIRCMD_DROP = 0x200;
export const IXGBE_FDIRCMD_QUEUE_SHIFT = 16;
/** FDIRM: what is not compared. */
export const IXGBE_FDIRM_VLAN_ID = 0x01;
export const IXGBE_FDIRM_VLAN_PRIORITY = 0x02;
export const IXGBE_FDIRM_L4 = 0x08;
export const IXGBE_FDIRM_FLEX = 0x10;
/** VLAN EtherTypes: VLNCTRL in bits 15:0, DMATXCTL in bits 31:16. */
export const IXGBE_VLNCTRL_VET = 0xffff;
export const IXGBE_DMATXCTL_VT_SHIFT = 16;
/** MAXFRS: the longest frame with check sequence. */
export const IXGBE_MAXFRS_SHIFT = 16;
/** MFLCN: pause frames are obeyed (§8.2.3.22.34). */
export const IXGBE_MFLCN_RECEIVE = 0x8;
/** EtherType filters (§8.2.3.7.21, §8.2.3.7.22). */
export const IXGBE_ETQF_TYPE = 0xffff;
export const IXGBE_ETQF_ENABLE = 0x8000_0000;
export const IXGBE_ETQS_QUEUE_SHIFT = 16;
export const IXGBE_ETQS_IMMEDIATE = 0x2000_0000;
export const IXGBE_ETQS_QUEUE_ENABLE = 0x8000_0000;
/** SYN filter (§8.2.3.7.16). */
export const IXGBE_SYNQF_ENABLE = 0x1;
export const IXGBE_SYNQF_QUEUE_SHIFT = 1;
/** It goes before 5-tuple filters. */
export const IXGBE_SYNQF_PRIORITY = 0x8000_0000;
/** 5-tuple filters (§8.2.3.7.19, §8.2.3.7.20): bits of the mask say what is not compared. */
export const IXGBE_5TUPLES = 128;
export const IXGBE_FTQF_PROTOCOL = 0x3;
export const IXGBE_FTQF_TCP = 0;
export const IXGBE_FTQF_UDP = 1;
export const IXGBE_FTQF_SCTP = 2;
export const IXGBE_FTQF_PRIORITY_SHIFT = 2;
export const IXGBE_FTQF_PRIORITY = 0x7;
export const IXGBE_FTQF_ANY_SOURCE = 0x0200_0000;
export const IXGBE_FTQF_ANY_DESTINATION = 0x0400_0000;
export const IXGBE_FTQF_ANY_SOURCE_PORT = 0x0800_0000;
export const IXGBE_FTQF_ANY_DESTINATION_PORT = 0x1000_0000;
export const IXGBE_FTQF_ANY_PROTOCOL = 0x2000_0000;
export const IXGBE_FTQF_ENABLE = 0x8000_0000;
export const IXGBE_L34TIMIR_IMMEDIATE = 0x0010_0000;
export const IXGBE_L34TIMIR_QUEUE_SHIFT = 21;
export const IXGBE_QUEUE_MASK = 0x7f;
/** RDRXCTL, HLREG0, FCTRL, VLNCTRL, MCSTCTRL. */
export const IXGBE_RDRXCTL_CRC_STRIP = 0x2;
export const IXGBE_RDRXCTL_INIT_DONE = 0x8;
export const IXGBE_HLREG0_TX_CRC = 0x0001;
export const IXGBE_HLREG0_RX_CRC_STRIP = 0x0002;
export const IXGBE_HLREG0_JUMBO = 0x0004;
export const IXGBE_HLREG0_TX_PAD = 0x0400;
export const IXGBE_HLREG0_LOOPBACK = 0x8000;
export const IXGBE_FCTRL_STORE_BAD = 0x002;
export const IXGBE_FCTRL_MULTICAST_ALL = 0x100;
export const IXGBE_FCTRL_UNICAST_ALL = 0x200;
export const IXGBE_FCTRL_BROADCAST = 0x400;
export const IXGBE_VLNCTRL_FILTER = 0x4000_0000;
export const IXGBE_MCSTCTRL_OFFSET = 0x3;
export const IXGBE_MCSTCTRL_ENABLE = 0x4;
export const IXGBE_RAH_VALID = 0x8000_0000;
export const IXGBE_DMATXCTL_ENABLE = 0x1;
export const IXGBE_RTTDCS_ARBITER_DISABLE = 0x40;

/** PSRTYPE (§8.2.3.7.4): headers that are split off. */
export const IXGBE_PSRTYPE_TCP = 0x0010;
export const IXGBE_PSRTYPE_UDP = 0x0020;
export const IXGBE_PSRTYPE_IPV4 = 0x0100;
export const IXGBE_PSRTYPE_IPV6 = 0x0200;
export const IXGBE_PSRTYPE_L2 = 0x1000;
/** PSRTYPE: bits of the RSS hash that choose a queue of the pool. */
export const IXGBE_PSRTYPE_QUEUES_SHIFT = 29;

/** MRQC (§8.2.3.7.12): mode, and what is hashed. */
export const IXGBE_MRQC_MODE = 0xf;
export const IXGBE_MRQC_RSS = 0x1;
export const IXGBE_MRQC_IPV4_TCP = 0x0001_0000;
export const IXGBE_MRQC_IPV4 = 0x0002_0000;
export const IXGBE_MRQC_IPV6 = 0x0010_0000;
export const IXGBE_MRQC_IPV6_TCP = 0x0020_0000;
export const IXGBE_MRQC_IPV4_UDP = 0x0040_0000;
export const IXGBE_MRQC_IPV6_UDP = 0x0080_0000;

/** AUTOC, LINKS (§8.2.3.22.19, §8.2.3.22.20). */
export const IXGBE_AUTOC_RESTART = 0x1000;
export const IXGBE_AUTOC_MODE_SHIFT = 13;
export const IXGBE_AUTOC_MODE_10G_SERIAL = 3;
export const IXGBE_AUTOC2_10G_SFI = 0x0002_0000;
export const IXGBE_LINKS_UP = 0x4000_0000;
export const IXGBE_LINKS_10G = 0x3000_0000;
export const IXGBE_AUTOC_MODE = 0x7;
/** The link is off, in D3 or always (§8.2.3.22.21). */
export const IXGBE_AUTOC2_LINK_DISABLE = 0x3000_0000;
/** ESDP: the value of pin 2, which is low while the cage is empty as boards of this card wire it. */
export const IXGBE_ESDP_SDP2 = 0x4;
/** MSCA: go, and it is over (§8.2.3.22.11); what is read stands in the upper half of MSRWD. */
export const IXGBE_MSCA_COMMAND = 0x4000_0000;
export const IXGBE_MSRWD_READ_SHIFT = 16;
/** ANLP1: state of autonegotiation; not zero while the pipeline runs. */
export const IXGBE_ANLP1_STATE = 0x000f_0000;

/** EEPROM words (§6.2, §6.3). Words 0 to 0x3f and the areas of pointers 3 to 0xe sum up to this. */
export const IXGBE_EEPROM_SUM = 0xbaba;
export const IXGBE_EEPROM_CONTROL_1 = 0x00;
export const IXGBE_EEPROM_POINTERS = 0x03;
export const IXGBE_EEPROM_POINTERS_END = 0x0f;
export const IXGBE_EEPROM_MAC0_POINTER = 0x0b;
export const IXGBE_EEPROM_MAC1_POINTER = 0x0c;
export const IXGBE_EEPROM_FIRMWARE_POINTER = 0x0f;
export const IXGBE_EEPROM_PBA = 0x15;
export const IXGBE_EEPROM_SAN_MAC_POINTER = 0x28;
export const IXGBE_EEPROM_SFP_POINTER = 0x2b;
export const IXGBE_EEPROM_DEVICE_CAPS = 0x2c;
/** In that word: there are no offloads for FCoE. */
export const IXGBE_CAPS_NO_FCOE = 0x0002;
export const IXGBE_EEPROM_VERSION = 0x2d;
export const IXGBE_EEPROM_CHECKSUM = 0x3f;
/** Ends the list of SFP+ modules, and each module's sequence. */
export const IXGBE_EEPROM_END = 0xffff;
/** Ids of modules in that list, of port 0; those of port 1 are one higher. */
export const IXGBE_SFP_DIRECT_ATTACH = 3;
export const IXGBE_SFP_OPTICAL = 5;
export const IXGBE_SFP_ACTIVE = 7;
