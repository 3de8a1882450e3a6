/**
 * The NBD protocol: magics, options, flags, commands, replies, errors.
 * Source: NetworkBlockDevice/nbd, doc/proto.md; sections are named in quotes. All numbers are
 * big-endian.
 */

/** The port that IANA has assigned (doc/uri.md). */
export const NBD_PORT = 10809;

/** "Fixed newstyle negotiation": the server's greeting. */
export const NBD_MAGIC = 0x4e42_444d_4147_4943n;
/** Follows the greeting, and begins each option of the client. */
export const NBD_OPTION_MAGIC = 0x4948_4156_454f_5054n;
/** Begins each reply to an option. */
export const NBD_OPTION_REPLY_MAGIC = 0x0003_e889_0455_65a9n;
/** In the place of the option magic: the negotiation that newstyle has replaced. */
export const NBD_OLDSTYLE_MAGIC = 0x0000_4202_8186_1253n;

export const GREETING_BYTES = 18;
export const CLIENT_FLAGS_BYTES = 4;
export const OPTION_BYTES = 16;
export const OPTION_REPLY_BYTES = 20;
/** The answer to NBD_OPT_EXPORT_NAME: size, flags; then zeroes unless NO_ZEROES was agreed on. */
export const EXPORT_NAME_REPLY_BYTES = 10;
export const EXPORT_NAME_ZEROES = 124;
/** "Strings": no string is longer. */
export const MAX_STRING_BYTES = 4096;

/** "Handshake flags", of the server; those of the client have the same bits. */
export const NBD_FLAG_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_NO_ZEROES = 1 << 1;

/** "Option types". */
export const NBD_OPT_EXPORT_NAME = 1;
export const NBD_OPT_ABORT = 2;
export const NBD_OPT_LIST = 3;
export const NBD_OPT_STARTTLS = 5;
export const NBD_OPT_INFO = 6;
export const NBD_OPT_GO = 7;
export const NBD_OPT_STRUCTURED_REPLY = 8;

/** "Option reply types". */
export const NBD_REP_ACK = 1;
export const NBD_REP_SERVER = 2;
export const NBD_REP_INFO = 3;
const NBD_REP_ERROR = 0x8000_0000;
export const NBD_REP_ERR_UNSUP = NBD_REP_ERROR + 1;
export const NBD_REP_ERR_POLICY = NBD_REP_ERROR + 2;
export const NBD_REP_ERR_INVALID = NBD_REP_ERROR + 3;
export const NBD_REP_ERR_PLATFORM = NBD_REP_ERROR + 4;
export const NBD_REP_ERR_TLS_REQD = NBD_REP_ERROR + 5;
export const NBD_REP_ERR_UNKNOWN = NBD_REP_ERROR + 6;
export const NBD_REP_ERR_SHUTDOWN = NBD_REP_ERROR + 7;
export const NBD_REP_ERR_BLOCK_SIZE_REQD = NBD_REP_ERROR + 8;
export const NBD_REP_ERR_TOO_BIG = NBD_REP_ERROR + 9;

/** True for a reply that refuses an option. */
export function isErrorReply(type: number): boolean {
  return type >= NBD_REP_ERROR;
}

/** Kinds of information in NBD_REP_INFO, and their sizes (the kind's own 2 bytes included). */
export const NBD_INFO_EXPORT = 0;
export const NBD_INFO_NAME = 1;
export const NBD_INFO_BLOCK_SIZE = 3;
export const INFO_EXPORT_BYTES = 12;
export const INFO_BLOCK_SIZE_BYTES = 14;

/** "Transmission flags". */
export const NBD_FLAG_HAS_FLAGS = 1 << 0;
export const NBD_FLAG_READ_ONLY = 1 << 1;
export const NBD_FLAG_SEND_FLUSH = 1 << 2;
export const NBD_FLAG_SEND_FUA = 1 << 3;
export const NBD_FLAG_ROTATIONAL = 1 << 4;
export const NBD_FLAG_SEND_TRIM = 1 << 5;
export const NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6;
export const NBD_FLAG_SEND_DF = 1 << 7;
export const NBD_FLAG_CAN_MULTI_CONN = 1 << 8;
export const NBD_FLAG_SEND_RESIZE = 1 << 9;
export const NBD_FLAG_SEND_CACHE = 1 << 10;
export const NBD_FLAG_SEND_FAST_ZERO = 1 << 11;

/** "Size constraints": what holds when the server says nothing, for clients that mean to be safe. */
export const DEFAULT_MIN_BLOCK = 512;
export const DEFAULT_PREFERRED_BLOCK = 4096;
export const DEFAULT_MAX_PAYLOAD = 2 ** 25;
/** The largest minimum block size that a server may ask for. */
export const LARGEST_MIN_BLOCK = 65_536;

/** "Request message": magic 4, flags 2, type 2, cookie 8, offset 8, length 4. */
export const NBD_REQUEST_MAGIC = 0x2560_9513;
export const REQUEST_BYTES = 28;
/** "Simple reply message": magic 4, error 4, cookie 8. */
export const NBD_SIMPLE_REPLY_MAGIC = 0x6744_6698;
export const SIMPLE_REPLY_BYTES = 16;
/** "Structured reply chunk message": magic 4, flags 2, type 2, cookie 8, length 4. */
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e_33ef;
export const STRUCTURED_REPLY_BYTES = 20;

/** "Request types". */
export const NBD_CMD_READ = 0;
export const NBD_CMD_WRITE = 1;
export const NBD_CMD_DISC = 2;
export const NBD_CMD_FLUSH = 3;
export const NBD_CMD_TRIM = 4;
export const NBD_CMD_WRITE_ZEROES = 6;

/** "Command flags". */
export const NBD_CMD_FLAG_FUA = 1 << 0;
export const NBD_CMD_FLAG_NO_HOLE = 1 << 1;
export const NBD_CMD_FLAG_FAST_ZERO = 1 << 4;

/** "Structured reply flags". */
export const NBD_REPLY_FLAG_DONE = 1 << 0;

/** "Structured reply types". */
export const NBD_REPLY_TYPE_NONE = 0;
export const NBD_REPLY_TYPE_OFFSET_DATA = 1;
export const NBD_REPLY_TYPE_OFFSET_HOLE = 2;
export const NBD_REPLY_TYPE_ERROR = 0x8001;
export const NBD_REPLY_TYPE_ERROR_OFFSET = 0x8002;
/** Set in the type of every chunk that tells of an error. */
export const NBD_REPLY_TYPE_ERROR_BIT = 0x8000;
/** What precedes the data of NBD_REPLY_TYPE_OFFSET_DATA: the offset. */
export const OFFSET_BYTES = 8;
/** The payload of NBD_REPLY_TYPE_OFFSET_HOLE: offset 8, size 4. */
export const HOLE_BYTES = 12;
/** The fixed part of an error chunk: error 4, length of the message 2. */
export const ERROR_CHUNK_BYTES = 6;

/** "Error values". */
export const NBD_EPERM = 1;
export const NBD_EIO = 5;
export const NBD_ENOMEM = 12;
export const NBD_EINVAL = 22;
export const NBD_ENOSPC = 28;
export const NBD_EOVERFLOW = 75;
export const NBD_ENOTSUP = 95;
export const NBD_ESHUTDOWN = 108;
