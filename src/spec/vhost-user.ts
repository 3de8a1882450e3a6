/**
 * The vhost-user protocol: message ids, flags, features and layouts.
 * Source: QEMU, docs/interop/vhost-user.rst; sections are named in quotes. Numbers are in the byte
 * order of the machine, which is little-endian wherever Sluice runs.
 */

/** "Header": request 4, flags 4, size of the payload 4. */
export const HEADER_BYTES = 12;
export const VERSION_MASK = 0x3;
export const VERSION = 0x1;
export const FLAG_REPLY = 0x4;
export const FLAG_NEED_REPLY = 0x8;

/** "Front-end message types". */
export const VHOST_USER_GET_FEATURES = 1;
export const VHOST_USER_SET_FEATURES = 2;
export const VHOST_USER_SET_OWNER = 3;
export const VHOST_USER_RESET_OWNER = 4;
export const VHOST_USER_SET_MEM_TABLE = 5;
export const VHOST_USER_SET_LOG_BASE = 6;
export const VHOST_USER_SET_LOG_FD = 7;
export const VHOST_USER_SET_VRING_NUM = 8;
export const VHOST_USER_SET_VRING_ADDR = 9;
export const VHOST_USER_SET_VRING_BASE = 10;
export const VHOST_USER_GET_VRING_BASE = 11;
export const VHOST_USER_SET_VRING_KICK = 12;
export const VHOST_USER_SET_VRING_CALL = 13;
export const VHOST_USER_SET_VRING_ERR = 14;
export const VHOST_USER_GET_PROTOCOL_FEATURES = 15;
export const VHOST_USER_SET_PROTOCOL_FEATURES = 16;
export const VHOST_USER_GET_QUEUE_NUM = 17;
export const VHOST_USER_SET_VRING_ENABLE = 18;
export const VHOST_USER_SEND_RARP = 19;
export const VHOST_USER_NET_SET_MTU = 20;
export const VHOST_USER_SET_BACKEND_REQ_FD = 21;
export const VHOST_USER_IOTLB_MSG = 22;
export const VHOST_USER_SET_VRING_ENDIAN = 23;
export const VHOST_USER_GET_CONFIG = 24;
export const VHOST_USER_SET_CONFIG = 25;
export const VHOST_USER_CREATE_CRYPTO_SESSION = 26;
export const VHOST_USER_CLOSE_CRYPTO_SESSION = 27;
export const VHOST_USER_POSTCOPY_ADVISE = 28;
export const VHOST_USER_POSTCOPY_LISTEN = 29;
export const VHOST_USER_POSTCOPY_END = 30;
export const VHOST_USER_GET_INFLIGHT_FD = 31;
export const VHOST_USER_SET_INFLIGHT_FD = 32;
export const VHOST_USER_GPU_SET_SOCKET = 33;
export const VHOST_USER_RESET_DEVICE = 34;
export const VHOST_USER_VRING_KICK = 35;
export const VHOST_USER_GET_MAX_MEM_SLOTS = 36;
export const VHOST_USER_ADD_MEM_REG = 37;
export const VHOST_USER_REM_MEM_REG = 38;
export const VHOST_USER_SET_STATUS = 39;
export const VHOST_USER_GET_STATUS = 40;
export const VHOST_USER_GET_SHARED_OBJECT = 41;
export const VHOST_USER_SET_DEVICE_STATE_FD = 42;
export const VHOST_USER_CHECK_DEVICE_STATE = 43;

/** Names of the front-end's requests; the index is the id. */
export const FRONT_END_REQUESTS = [
  'NONE',
  'GET_FEATURES',
  'SET_FEATURES',
  'SET_OWNER',
  'RESET_OWNER',
  'SET_MEM_TABLE',
  'SET_LOG_BASE',
  'SET_LOG_FD',
  'SET_VRING_NUM',
  'SET_VRING_ADDR',
  'SET_VRING_BASE',
  'GET_VRING_BASE',
  'SET_VRING_KICK',
  'SET_VRING_CALL',
  'SET_VRING_ERR',
  'GET_PROTOCOL_FEATURES',
  'SET_PROTOCOL_FEATURES',
  'GET_QUEUE_NUM',
  'SET_VRING_ENABLE',
  'SEND_RARP',
  'NET_SET_MTU',
  'SET_BACKEND_REQ_FD',
  'IOTLB_MSG',
  'SET_VRING_ENDIAN',
  'GET_CONFIG',
  'SET_CONFIG',
  'CREATE_CRYPTO_SESSION',
  'CLOSE_CRYPTO_SESSION',
  'POSTCOPY_ADVISE',
  'POSTCOPY_LISTEN',
  'POSTCOPY_END',
  'GET_INFLIGHT_FD',
  'SET_INFLIGHT_FD',
  'GPU_SET_SOCKET',
  'RESET_DEVICE',
  'VRING_KICK',
  'GET_MAX_MEM_SLOTS',
  'ADD_MEM_REG',
  'REM_MEM_REG',
  'SET_STATUS',
  'GET_STATUS',
  'GET_SHARED_OBJECT',
  'SET_DEVICE_STATE_FD',
  'CHECK_DEVICE_STATE',
] as const;

/** "Back-end message types". */
export const VHOST_USER_BACKEND_IOTLB_MSG = 1;
export const VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2;
export const VHOST_USER_BACKEND_VRING_HOST_NOTIFIER_MSG = 3;
export const VHOST_USER_BACKEND_VRING_CALL = 4;
export const VHOST_USER_BACKEND_VRING_ERR = 5;
export const VHOST_USER_BACKEND_SHARED_OBJECT_ADD = 6;
export const VHOST_USER_BACKEND_SHARED_OBJECT_REMOVE = 7;
export const VHOST_USER_BACKEND_SHARED_OBJECT_LOOKUP = 8;

/** Names of the back-end's requests; the index is the id. */
export const BACK_END_REQUESTS = [
  'BACKEND_NONE',
  'BACKEND_IOTLB_MSG',
  'BACKEND_CONFIG_CHANGE_MSG',
  'BACKEND_VRING_HOST_NOTIFIER_MSG',
  'BACKEND_VRING_CALL',
  'BACKEND_VRING_ERR',
  'BACKEND_SHARED_OBJECT_ADD',
  'BACKEND_SHARED_OBJECT_REMOVE',
  'BACKEND_SHARED_OBJECT_LOOKUP',
] as const;

/** "Protocol features", as bit numbers. */
export const VHOST_USER_PROTOCOL_F_MQ = 0;
export const VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1;
export const VHOST_USER_PROTOCOL_F_RARP = 2;
export const VHOST_USER_PROTOCOL_F_REPLY_ACK = 3;
export const VHOST_USER_PROTOCOL_F_MTU = 4;
export const VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5;
export const VHOST_USER_PROTOCOL_F_CROSS_ENDIAN = 6;
export const VHOST_USER_PROTOCOL_F_CRYPTO_SESSION = 7;
export const VHOST_USER_PROTOCOL_F_PAGEFAULT = 8;
export const VHOST_USER_PROTOCOL_F_CONFIG = 9;
export const VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD = 10;
export const VHOST_USER_PROTOCOL_F_HOST_NOTIFIER = 11;
export const VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12;
export const VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13;
export const VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS = 14;
export const VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15;
export const VHOST_USER_PROTOCOL_F_STATUS = 16;
export const VHOST_USER_PROTOCOL_F_XEN_MMAP = 17;
export const VHOST_USER_PROTOCOL_F_SHARED_OBJECT = 18;
export const VHOST_USER_PROTOCOL_F_DEVICE_STATE = 19;

/** Names of the protocol features; the index is the bit. */
export const PROTOCOL_FEATURES = [
  'MQ',
  'LOG_SHMFD',
  'RARP',
  'REPLY_ACK',
  'MTU',
  'BACKEND_REQ',
  'CROSS_ENDIAN',
  'CRYPTO_SESSION',
  'PAGEFAULT',
  'CONFIG',
  'BACKEND_SEND_FD',
  'HOST_NOTIFIER',
  'INFLIGHT_SHMFD',
  'RESET_DEVICE',
  'INBAND_NOTIFICATIONS',
  'CONFIGURE_MEM_SLOTS',
  'STATUS',
  'XEN_MMAP',
  'SHARED_OBJECT',
  'DEVICE_STATE',
] as const;

export type ProtocolFeature = (typeof PROTOCOL_FEATURES)[number];

/** Feature bits that only vhost has ("Communication", "Migration"). */
export const VHOST_F_LOG_ALL = 26;
export const VHOST_USER_F_PROTOCOL_FEATURES = 30;

/** "Multiple queue support": the payload of SET_VRING_KICK, _CALL and _ERR. */
export const VRING_INDEX_MASK = 0xff;
export const VRING_NO_FD = 0x100;

/** "A vring address description": writes to the used ring are to be logged. */
export const VHOST_VRING_F_LOG = 0;

/** "Virtio device config space": most bytes of payload, and what a write is for. */
export const MAX_CONFIG_BYTES = 256;
export const CONFIG_FLAG_WRITABLE = 0;
export const CONFIG_FLAG_LIVE_MIGRATION = 1;

/** "VHOST_USER_SET_VRING_ENDIAN". */
export const VRING_ENDIAN_LITTLE = 0;
export const VRING_ENDIAN_BIG = 1;

/** Payloads of fixed size, in bytes ("Payload"). */
export const U64_BYTES = 8;
/** index 4, num 4 */
export const VRING_STATE_BYTES = 8;
/** index 4, flags 4, descriptor 8, used 8, available 8, log 8 */
export const VRING_ADDRESS_BYTES = 40;
/** number of regions 4, padding 4; then the regions */
export const MEMORY_TABLE_BYTES = 8;
/** guest address 8, size 8, user address 8, mmap offset 8 */
export const REGION_BYTES = 32;
/** padding 8, region 32 */
export const SINGLE_REGION_BYTES = 8 + REGION_BYTES;
/** size 8, offset 8 */
export const LOG_BYTES = 16;
/** offset 4, size 4, flags 4; then the contents */
export const CONFIG_BYTES = 12;
/** mmap size 8, mmap offset 8, queues 2, queue size 2 */
export const INFLIGHT_BYTES = 20;
/** The same with the padding that a C compiler puts after it; most peers send this. */
export const INFLIGHT_PADDED_BYTES = 24;

/**
 * "Inflight I/O tracking": struct QueueRegionSplit and its entries.
 * Each name gives the offset; entries follow the header.
 */
export const INFLIGHT_SPLIT = {
  features: 0,
  version: 8,
  descNum: 10,
  lastBatchHead: 12,
  usedIdx: 14,
  headerBytes: 16,
  entry: { inflight: 0, next: 6, counter: 8 },
  entryBytes: 16,
} as const;

/** struct QueueRegionPacked and its entries, as a C compiler lays them out. */
export const INFLIGHT_PACKED = {
  features: 0,
  version: 8,
  descNum: 10,
  freeHead: 12,
  oldFreeHead: 14,
  usedIdx: 16,
  oldUsedIdx: 18,
  usedWrapCounter: 20,
  oldUsedWrapCounter: 21,
  headerBytes: 32,
  entry: {
    inflight: 0,
    next: 2,
    last: 4,
    num: 6,
    counter: 8,
    id: 16,
    flags: 18,
    len: 20,
    addr: 24,
  },
  entryBytes: 32,
} as const;

/** Version of the in-flight regions; zero means that nobody has used the region yet. */
export const INFLIGHT_VERSION = 1;

/** Alignment of each queue's in-flight region within the area: that of QEMU's and DPDK's back-ends. */
export const INFLIGHT_ALIGNMENT = 64;
