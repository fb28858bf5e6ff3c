"""What a seccomp filter says of a call: an interpreter of the classic BPF that ours are made of."""

from __future__ import annotations

import struct

from vmtui.walls import bpf


def verdict(code: bytes, arch: int, number: int, *arguments: int) -> int:
    """The filter's return value. Raises IndexError for a jump out of the program, KeyError for another instruction."""
    instructions = list(struct.iter_unpack("HBBI", code))
    padded = [argument & (1 << 64) - 1 for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    data = struct.pack("iIQ6Q", number, arch, 0, *padded)
    accumulator, at = 0, 0
    while True:
        operation, yes, no, value = instructions[at]
        at += 1
        if operation == bpf.LD_W_ABS:
            accumulator = struct.unpack_from("I", data, value)[0]
        elif operation == bpf.RET:
            return int(value)
        elif operation == bpf.JMP_JA:
            at += value
        else:
            truth = {
                bpf.JMP_JEQ: accumulator == value,
                bpf.JMP_JGE: accumulator >= value,
                bpf.JMP_JSET: bool(accumulator & value),
            }[operation]
            at += yes if truth else no
