/** A host that forbids io_uring, as many containers' do. */
import { writeFileSync } from 'node:fs';
import { testbedProgram } from './qemu-tools.ts';

const SYS_IO_URING_SETUP = 425; // On all architectures.
const EPERM = 1;

// linux/bpf_common.h, linux/seccomp.h
const LOAD_WORD = 0x20;
const JUMP_IF_EQUAL = 0x15;
const RETURN = 0x06;
const RET_ALLOW = 0x7fff_0000;
const RET_ERRNO = 0x0005_0000;

/** struct sock_filter: code, instructions to skip if true and if false, operand. */
function instruction(code: number, ifTrue: number, ifFalse: number, operand: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(code);
  bytes.writeUInt8(ifTrue, 2);
  bytes.writeUInt8(ifFalse, 3);
  bytes.writeUInt32LE(operand, 4);
  return bytes;
}

/**
 * What precedes a command whose processes are to get EPERM for io_uring_setup(2). Needs the testbed.
 * @param file where the filter is written to
 */
export function withoutIoUring(file: string): readonly string[] {
  const filter = [
    instruction(LOAD_WORD, 0, 0, 0), // struct seccomp_data begins with the number of the call.
    instruction(JUMP_IF_EQUAL, 0, 1, SYS_IO_URING_SETUP),
    instruction(RETURN, 0, 0, RET_ERRNO | EPERM),
    instruction(RETURN, 0, 0, RET_ALLOW),
  ];
  writeFileSync(file, Buffer.concat(filter));
  return [...testbedProgram('setpriv'), '--no-new-privs', '--seccomp-filter', file];
}
