"""Kernels made by hand, byte by byte, for tests of what loads them; and files that only descriptors name."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from vmtui.vmm.boot.source import BootFile

MIB = 1 << 20
SETUP_BYTES = 2 * 512


def bzimage(payload: bytes = b"\x90" * 4096, **fields: int) -> bytes:
    """A bzImage with one setup sector and `payload` as its protected-mode part. `fields`: header fields by name."""
    header = {
        "setup_sects": 1, "syssize": len(payload) // 16, "boot_flag": 0xAA55, "jump_length": 0x6A, "version": 0x20F,
        "loadflags": 1, "initrd_addr_max": 0x7FFFFFFF, "xloadflags": 1, "cmdline_size": 2047,
        "pref_address": 0x1000000, "init_size": 4 * MIB,
    }  # fmt: skip
    header |= fields
    setup = bytearray(SETUP_BYTES)
    for name, form, offset in (
        ("setup_sects", "B", 0x1F1), ("syssize", "I", 0x1F4), ("boot_flag", "H", 0x1FE), ("jump_length", "B", 0x201),
        ("version", "H", 0x206), ("loadflags", "B", 0x211), ("initrd_addr_max", "I", 0x22C),
        ("xloadflags", "H", 0x236), ("cmdline_size", "I", 0x238), ("pref_address", "Q", 0x258),
        ("init_size", "I", 0x260),
    ):  # fmt: skip
        struct.pack_into("<" + form, setup, offset, header.pop(name))
    assert not header, f"unknown header fields {header}"
    setup[0x200], setup[0x202:0x206] = 0xEB, b"HdrS"
    return bytes(setup) + payload


def vmlinux(
    payload: bytes = b"\xf4" * 4096,
    *,
    addr: int = 0x1000000,
    entry: int | None = None,
    memory_size: int | None = None,
    owner: bytes = b"Xen\0",
    machine: int = 62,
    elf_class: int = 2,
) -> bytes:
    """An ELF file with one segment and a note of Xen's with the PVH entry. Sizes in bytes."""
    other = struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes(20)
    desc = struct.pack("<Q", addr if entry is None else entry)
    notes = other + struct.pack("<III", len(owner), len(desc), 18) + owner.ljust(-(-len(owner) // 4) * 4, b"\0") + desc
    offset = 64 + 2 * 56
    size = len(payload) if memory_size is None else memory_size
    ident = b"\x7fELF" + bytes((elf_class, 1, 1)) + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, machine, 1, addr, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    note = struct.pack("<IIQQQQQQ", 4, 4, offset, 0, 0, len(notes), len(notes), 4)
    load = struct.pack("<IIQQQQQQ", 1, 7, offset + len(notes), 0, addr, len(payload), size, 4096)
    return header + note + load + notes + payload


@contextmanager
def opened(data: bytes, name: str = "kernel") -> Iterator[BootFile]:
    """A file with these bytes and no name in any directory."""
    fd = os.memfd_create(name)
    try:
        os.write(fd, data)
        yield BootFile(fd, name)
    finally:
        os.close(fd)
