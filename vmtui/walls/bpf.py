"""Seccomp filters: the few instructions of classic BPF that they need, and their installation."""

from __future__ import annotations

import ctypes
import os
import struct

from vmtui.walls.calls import libc

# linux/bpf_common.h, linux/seccomp.h
LD_W_ABS, JMP_JA, JMP_JEQ, JMP_JGE, JMP_JSET, RET = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
RET_ALLOW, RET_ERRNO, RET_KILL = 0x7FFF0000, 0x00050000, 0x80000000
DATA_NR, DATA_ARCH, DATA_ARG0 = 0, 4, 16  # struct seccomp_data, little-endian
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 1, 1
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
CLONE_THREAD = 0x10000  # linux/sched.h
X32_BIT = 0x40000000  # asm/unistd.h: the calls of another ABI, on x86_64 alone

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand: struct sock_filter
_INSTRUCTION = struct.Struct("HBBI")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def pack(code: list[Instruction]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def install(code: bytes) -> None:
    """For every thread of this process and those to come; needs no_new_privs. Raises OSError."""
    filters = _Program(len(code) // _INSTRUCTION.size, code)
    result = libc.syscall(
        SYS_SECCOMP[os.uname().machine], SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ctypes.byref(filters)
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), "seccomp: " + os.strerror(ctypes.get_errno()))
    if result > 0:
        raise OSError(f"seccomp: thread {result} has a filter of its own")
