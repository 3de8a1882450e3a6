/**
 * Virtual functions of the 82599 and their mailbox (82599 10 GbE Controller Datasheet §7.10.2.9,
 * §8.3), with the messages that Intel's drivers exchange in it: API 1.0 to 1.7, as in Linux.
 *
 *     message  word 0: request in bits 15:0, detail in bits 23:16, answer in bits 31:29; 15 words more
 */

/** Registers of a virtual function, in its BAR 0 (§8.3.3). Queues are as the physical function's. */
export const IXGBE_VF_CTRL = 0x00000;
export const IXGBE_VF_STATUS = 0x00008;
export const IXGBE_VF_LINKS = 0x00010;
export const IXGBE_VF_FRTIMER = 0x00048;
export const IXGBE_VF_RXMEMWRAP = 0x03190;
export const IXGBE_VF_EICR = 0x00100;
export const IXGBE_VF_EICS = 0x00104;
export const IXGBE_VF_EIMS = 0x00108;
export const IXGBE_VF_EIMC = 0x0010c;
export const IXGBE_VF_EIAC = 0x00110;
export const IXGBE_VF_EIAM = 0x00114;
export const IXGBE_VF_IVAR = 0x00120;
export const IXGBE_VF_IVAR_MISC = 0x00140;
export const IXGBE_VF_RSCINT = 0x00180;
export const IXGBE_VF_PSRTYPE = 0x00300;
export const IXGBE_VF_EITR = 0x00820;
export const IXGBE_VF_PBACL = 0x04f04;
export const IXGBE_VF_RX_QUEUES = 0x01000;
export const IXGBE_VF_TX_QUEUES = 0x02000;
export const IXGBE_VF_GPRC = 0x0101c;
export const IXGBE_VF_GORCL = 0x01020;
export const IXGBE_VF_GORCH = 0x01024;
export const IXGBE_VF_MPRC = 0x01034;
export const IXGBE_VF_GPTC = 0x0201c;
export const IXGBE_VF_GOTCL = 0x02020;
export const IXGBE_VF_GOTCH = 0x02024;
/** The mailbox: 16 words of memory, and its control. */
export const IXGBE_VF_MAILBOX_MEMORY = 0x00200;
export const IXGBE_VF_MAILBOX = 0x002fc;
export const IXGBE_VF_REGISTER_BYTES = 0x4000;
/** Two for queues, one for the mailbox; queues by the number of pools (64, 32, 16). */
export const IXGBE_VF_MSIX_VECTORS = 3;
export const IXGBE_VF_MSIX_BAR = 3;
export const IXGBE_VF_QUEUES_MAX = 8;

export const IXGBE_MAILBOX_WORDS = 16;

/** VFMAILBOX (§8.3.5.1.5): what the VF tells, and what it reads of the PF. */
export const IXGBE_VFMAILBOX_REQUEST = 0x01;
export const IXGBE_VFMAILBOX_ACK = 0x02;
export const IXGBE_VFMAILBOX_VF_OWNS = 0x04;
export const IXGBE_VFMAILBOX_PF_OWNS = 0x08;
export const IXGBE_VFMAILBOX_PF_STATUS = 0x10;
export const IXGBE_VFMAILBOX_PF_ACK = 0x20;
/** A reset is going on; and one is over. */
export const IXGBE_VFMAILBOX_RESETTING = 0x40;
export const IXGBE_VFMAILBOX_RESET_DONE = 0x80;
/** Bits that a read clears. */
export const IXGBE_VFMAILBOX_CLEARED = 0xb0;

/** PFMAILBOX (§8.2.3.27.4), and the halves of PFMBICR. */
export const IXGBE_PFMAILBOX_STATUS = 0x01;
export const IXGBE_PFMAILBOX_ACK = 0x02;
export const IXGBE_PFMAILBOX_VF_OWNS = 0x04;
export const IXGBE_PFMAILBOX_PF_OWNS = 0x08;
/** Takes the buffer away from a VF that is stuck. */
export const IXGBE_PFMAILBOX_RESET_VF_OWNS = 0x10;
export const IXGBE_PFMBICR_REQUESTS = 0x0000_ffff;
export const IXGBE_PFMBICR_ACK_SHIFT = 16;
export const IXGBE_PFMBICR_VFS = 16;

/** Word 0 of a message. */
export const IXGBE_MESSAGE_REQUEST = 0x0000_ffff;
export const IXGBE_MESSAGE_INFO_SHIFT = 16;
export const IXGBE_MESSAGE_INFO = 0xff;
export const IXGBE_MESSAGE_ACK = 0x8000_0000;
export const IXGBE_MESSAGE_NACK = 0x4000_0000;
/** The VF may go on sending requests: it has been reset since the PF was. */
export const IXGBE_MESSAGE_CLEAR_TO_SEND = 0x2000_0000;

/** Versions as API_NEGOTIATE has them in word 1: 1.0, 2.0 (Solaris), 1.1 and on. */
export const IXGBE_API_10 = 0;
export const IXGBE_API_20 = 1;
export const IXGBE_API_11 = 2;
export const IXGBE_API_12 = 3;
export const IXGBE_API_13 = 4;
export const IXGBE_API_14 = 5;
export const IXGBE_API_15 = 6;
export const IXGBE_API_16 = 7;
export const IXGBE_API_17 = 8;

/** Requests, with the version that brought them. */
export const IXGBE_VF_RESET = 0x01;
export const IXGBE_VF_SET_MAC = 0x02;
export const IXGBE_VF_SET_MULTICAST = 0x03;
export const IXGBE_VF_SET_VLAN = 0x04;
export const IXGBE_VF_SET_LPE = 0x05;
export const IXGBE_VF_SET_MACVLAN = 0x06;
export const IXGBE_VF_API_NEGOTIATE = 0x08;
/** 1.1 */
export const IXGBE_VF_GET_QUEUES = 0x09;
/** 1.2 */
export const IXGBE_VF_GET_RETA = 0x0a;
export const IXGBE_VF_GET_RSS_KEY = 0x0b;
/** 1.2, promiscuous with 1.3 */
export const IXGBE_VF_UPDATE_XCAST_MODE = 0x0c;
/** 1.4 */
export const IXGBE_VF_IPSEC_ADD = 0x0d;
export const IXGBE_VF_IPSEC_DEL = 0x0e;
/** 1.5 */
export const IXGBE_VF_GET_LINK_STATE = 0x10;
/** 1.6 */
export const IXGBE_VF_GET_PF_LINK_STATE = 0x11;
/** 1.7 */
export const IXGBE_VF_FEATURES_NEGOTIATE = 0x12;
/** Of the PF: its state has changed, or the VF is to reset itself (without CLEAR_TO_SEND). */
export const IXGBE_PF_CONTROL = 0x0100;

/** Words of the answer to GET_QUEUES: queues to send, to receive, port VLAN, default queue. */
export const IXGBE_QUEUES_TX = 1;
export const IXGBE_QUEUES_RX = 2;
export const IXGBE_QUEUES_PORT_VLAN = 3;
export const IXGBE_QUEUES_DEFAULT = 4;
/** Words of the answer to RESET: the MAC address in words 1 and 2, MCSTCTRL.MO in word 3. */
export const IXGBE_RESET_WORDS = 4;
export const IXGBE_RESET_MULTICAST = 3;
/** Words of the answers to GET_RETA (128 entries of two bits) and GET_RSS_KEY, without word 0. */
export const IXGBE_RETA_ENTRIES = 128;
export const IXGBE_RETA_WORDS = 8;
export const IXGBE_RSS_KEY_WORDS = 10;
/** Words of the answer to GET_PF_LINK_STATE: the speed as below, and whether the link is up. */
export const IXGBE_PF_LINK_SPEED = 1;
export const IXGBE_PF_LINK_UP = 2;
export const IXGBE_LINK_SPEED_10G = 0x80;
/** Word 1 of FEATURES_NEGOTIATE: IPsec offload; the mailbox protocol of API 1.5. */
export const IXGBE_FEATURE_IPSEC = 0x1;
export const IXGBE_FEATURE_ESX_MAILBOX = 0x2;
/** Hashes of SET_MULTICAST: two a word, of twelve bits each. */
export const IXGBE_MULTICAST_HASHES_MAX = 30;
/** Modes of UPDATE_XCAST_MODE. */
export const IXGBE_XCAST_NONE = 0;
export const IXGBE_XCAST_MULTICAST = 1;
export const IXGBE_XCAST_ALL_MULTICAST = 2;
export const IXGBE_XCAST_PROMISCUOUS = 3;
