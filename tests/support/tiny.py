"""Guests of some bytes: 32-bit code for flat segments, assembled here. They run on any KVM, long mode or not."""

from __future__ import annotations

import struct

from vmtui.vmm.arch.x86_64 import layout

AT = 16 << 20  # where `tests.support.kernels.vmlinux` is loaded, and begins
DATA = AT + 0x2000  # in the same segment, behind the code
SPIN = b"\xeb\xfe"  # jmp $
HALT = b"\xf4\xeb\xfd"  # hlt, again and again
TRIPLE_FAULT = b"\x31\xc9\xf7\xf1"  # xor ecx, ecx; div ecx: an exception, with no IDT
_ACCUMULATOR = {1: (b"", 0), 2: (b"\x66", 1), 4: (b"", 1)}  # operand size → prefix, opcode's low bit


def out(port: int, value: int, size: int = 1) -> bytes:
    """mov edx, port; mov eax, value; out dx, al|ax|eax."""
    prefix, wide = _ACCUMULATOR[size]
    return struct.pack("<BIBI", 0xBA, port, 0xB8, value) + prefix + bytes((0xEE + wide,))


def take(port: int, size: int = 1) -> bytes:
    """in al|ax|eax, dx; the rest of eax is 0."""
    prefix, wide = _ACCUMULATOR[size]
    return b"\x31\xc0" + struct.pack("<BI", 0xBA, port) + prefix + bytes((0xEC + wide,))


def store(addr: int, value: int, size: int = 4) -> bytes:
    """mov eax, value; mov [addr], al|ax|eax."""
    return struct.pack("<BI", 0xB8, value) + keep(addr, size)


def keep(addr: int, size: int = 4) -> bytes:
    """mov [addr], al|ax|eax."""
    prefix, wide = _ACCUMULATOR[size]
    return prefix + struct.pack("<BI", 0xA2 + wide, addr)


def load(addr: int, size: int = 4) -> bytes:
    """mov al|ax|eax, [addr]; the rest of eax is 0."""
    prefix, wide = _ACCUMULATOR[size]
    return b"\x31\xc0" + prefix + struct.pack("<BI", 0xA0 + wide, addr)


def out_string(port: int, addr: int, count: int, size: int = 1) -> bytes:
    """mov esi, addr; mov ecx, count; mov edx, port; cld; rep outs."""
    prefix, wide = _ACCUMULATOR[size]
    setup = struct.pack("<BIBIBI", 0xBE, addr, 0xB9, count, 0xBA, port)
    return setup + b"\xfc" + prefix + b"\xf3" + bytes((0x6E + wide,))


def take_string(port: int, addr: int, count: int, size: int = 1) -> bytes:
    """mov edi, addr; mov ecx, count; mov edx, port; cld; rep ins."""
    prefix, wide = _ACCUMULATOR[size]
    setup = struct.pack("<BIBIBI", 0xBF, addr, 0xB9, count, 0xBA, port)
    return setup + b"\xfc" + prefix + b"\xf3" + bytes((0x6C + wide,))


def printed(text: bytes) -> bytes:
    """To the serial port."""
    return b"".join(out(layout.COM1_PORT, byte) for byte in text)


def until(addr: int, value: int) -> bytes:
    """cmp dword [addr], value; jne back: wait for who writes it there."""
    return b"\x81\x3d" + struct.pack("<II", addr, value) + b"\x75\xf4"


POWER_OFF = out(layout.POWER_PORT, 0x34)  # SLP_EN, and S5 as SLP_TYP (vmtui/vmm/devices/power.py)
RESET = out(layout.POWER_PORT, 1)
