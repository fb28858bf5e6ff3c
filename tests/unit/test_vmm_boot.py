"""Loading kernels: what ends up where, and what is said of those that cannot be loaded."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.kernels import MIB, SETUP_BYTES, bzimage, opened, vmlinux
from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.arch.x86_64.registers import Entry, Protocol
from vmtui.vmm.boot import kernel as kernels
from vmtui.vmm.boot.command_line import completed
from vmtui.vmm.boot.e820 import RAM, RESERVED, MapEntry, memory_map
from vmtui.vmm.boot.source import BootError, BootFile
from vmtui.vmm.memory import GuestMemory

GIB = 1 << 30


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    made = GuestMemory(64 * MIB)
    yield made
    made.close()


def load(memory: GuestMemory, image: bytes, command_line: str = "quiet", initrd: bytes | None = None) -> Entry:
    with opened(image) as kernel:
        if initrd is None:
            return kernels.load(memory, kernel, command_line)
        with opened(initrd, "initrd") as file:
            return kernels.load(memory, kernel, command_line, file)


def zero_page(memory: GuestMemory, form: str, offset: int) -> int:
    value: int = struct.unpack_from("<" + form, memory.read(layout.ZERO_PAGE, 4096), offset)[0]
    return value


def test_bzimage_is_entered_at_its_64_bit_entry(memory: GuestMemory) -> None:
    payload = os.urandom(8192)
    entry = load(memory, bzimage(payload), "console=hvc0 quiet")
    assert entry == Entry(Protocol.LINUX_64, 0x1000000 + 0x200, layout.ZERO_PAGE)
    assert memory.read(0x1000000, 8192) == payload
    assert memory.read(layout.COMMAND_LINE, 19) == b"console=hvc0 quiet\0"
    assert zero_page(memory, "I", 0x228) == layout.COMMAND_LINE
    assert zero_page(memory, "I", 0x202) == int.from_bytes(b"HdrS", "little")
    assert zero_page(memory, "B", 0x210) == 0xFF
    assert zero_page(memory, "Q", 0x70) == layout.ACPI_TABLES.start
    assert zero_page(memory, "B", 0x1EF) == 0, "the sentinel, which says that the page is clean"
    table = [
        MapEntry(*struct.unpack_from("<QQI", memory.read(layout.ZERO_PAGE, 4096), 0x2D0 + 20 * n)) for n in range(5)
    ]
    assert zero_page(memory, "B", 0x1E8) == len(memory_map(64 * MIB)) == 5
    assert tuple(table) == memory_map(64 * MIB)


def test_the_guest_gets_a_seed(memory: GuestMemory) -> None:
    load(memory, bzimage())
    at = zero_page(memory, "Q", 0x250)
    next_node, kind, length = struct.unpack("<QII", memory.read(at, 16))
    assert (next_node, kind, length) == (0, 9, 32)
    assert memory.read(at + 16, 32) != bytes(32)


def test_initrd_is_high_and_on_a_page(memory: GuestMemory) -> None:
    data = os.urandom(10_000)
    load(memory, bzimage(), initrd=data)
    addr, size = zero_page(memory, "I", 0x218), zero_page(memory, "I", 0x21C)
    assert (addr, size) == (64 * MIB - 3 * 4096, 10_000)
    assert memory.read(addr, size) == data


def test_initrd_stays_below_the_kernels_limit(memory: GuestMemory) -> None:
    load(memory, bzimage(initrd_addr_max=0x2FFFFFF), initrd=bytes(4096))
    assert zero_page(memory, "I", 0x218) == 0x2FFF000


def test_without_initrd_none_is_told(memory: GuestMemory) -> None:
    load(memory, bzimage())
    assert (zero_page(memory, "I", 0x218), zero_page(memory, "I", 0x21C)) == (0, 0)


def test_pvh_by_the_note(memory: GuestMemory) -> None:
    code, data = os.urandom(4096), os.urandom(5000)
    entry = load(memory, vmlinux(code, entry=0x1000010, memory_size=MIB), "quiet", data)
    assert entry == Entry(Protocol.PVH, 0x1000010, layout.PVH_START_INFO)
    assert memory.read(0x1000000, 4096) == code
    magic, version, flags, modules, modlist, pointer, rsdp, table, count, _ = struct.unpack(
        "<IIIIQQQQII", memory.read(entry.data, 56)
    )
    assert (magic, version, flags, modules) == (0x336EC578, 1, 0, 1)
    assert (pointer, rsdp) == (layout.COMMAND_LINE, layout.ACPI_TABLES.start)
    addr, size, _, _ = struct.unpack("<QQQQ", memory.read(modlist, 32))
    assert memory.read(addr, size) == data
    assert [MapEntry(*struct.unpack("<QQI4x", memory.read(table + 24 * n, 24))) for n in range(count)] == list(
        memory_map(64 * MIB)
    )


@pytest.mark.parametrize("ram", [4 * MIB, GIB, 3 * GIB, 3 * GIB + 4096, 40 * GIB])
def test_memory_map(ram: int) -> None:
    entries = memory_map(ram)
    assert all(a.start + a.size <= b.start for a, b in pairwise(entries))
    lost = 1 * MIB - layout.LOW_RAM_END  # what is not told of below 1 MiB
    assert sum(entry.size for entry in entries if entry.type == RAM) == ram - lost
    assert (0xE0000000, MIB, RESERVED) in entries
    tables = layout.ACPI_TABLES.start
    assert any(entry.type == RESERVED and entry.start <= tables < entry.start + entry.size for entry in entries)
    for entry in entries:
        if entry.type == RAM:
            assert entry.start + entry.size <= layout.HOLE_START or entry.start >= layout.HOLE_END


def test_restarting_by_the_bios_asks_for_a_reset(memory: GuestMemory) -> None:
    load(memory, bzimage())
    code = memory.read(0xFFFF0, 16)
    assert code == bytes.fromhex("ba0006 b001 ee f4 ebfd") + bytes(7)


def test_our_parameters_come_before_the_users() -> None:
    assert completed("8250.nr_uarts=4 -- single") == "pci=noearly 8250.nr_uarts=1 8250.nr_uarts=4 -- single"
    assert completed("") == "pci=noearly 8250.nr_uarts=1"
    assert completed("quiet", ()) == "quiet"


# What cannot be started, and what is said

REFUSED = {
    "nothing known": (os.urandom(100) + b"\0" * 5000, "not a kernel"),
    "text": (b"#!/bin/sh\n", "not a kernel"),
    "gzip": (b"\x1f\x8b" + bytes(5000), "compressed by gzip"),
    "xz": (b"\xfd7zXZ\0" + bytes(5000), "compressed by xz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(5000), "compressed by zstd"),
    "arm64": (bytes(0x38) + b"ARM\x64" + bytes(5000), "arm64"),
    "qcow2": (b"QFI\xfb" + bytes(5000), "qcow2 disk"),
    "initramfs": (b"070701" + bytes(5000), "cpio archive"),
    "efi": (b"MZ" + bytes(5000), "EFI program"),
    "old": (bzimage(version=0x20B), "without a 64-bit entry (boot protocol 2.11)"),
    "32-bit": (bzimage(xloadflags=0), "without a 64-bit entry"),
    "zImage": (bzimage(loadflags=0), "zImage"),
    "short header": (bzimage(jump_length=0x20), "ends before its fields do"),
    "cut in the header": (bzimage()[:0x210], "truncated"),
    "cut in the code": (bzimage()[:-512], "truncated"),
    "only setup": (bzimage()[:SETUP_BYTES], "truncated"),
    "too low": (bzimage(pref_address=0x1000), "where no RAM can be"),
    "in the hole": (bzimage(pref_address=0xC0000000), "where no RAM can be"),
    "far away": (bzimage(pref_address=(1 << 64) - 4096), "where no RAM can be"),
    "too large": (bzimage(init_size=49 * MIB), "needs 65 MiB to unpack, the VM has 64 MiB"),
    "elf without note": (vmlinux(owner=b"Zen\0"), "without a PVH entry"),
    "elf of arm": (vmlinux(machine=183), "not for x86-64"),
    "elf of 32 bits": (vmlinux(elf_class=1), "not for x86-64"),
    "elf cut": (vmlinux()[:-1], "truncated"),
    "elf entry elsewhere": (vmlinux(entry=0x100), "in none of its segments"),
    "elf too low": (vmlinux(addr=0x1000), "where no RAM can be"),
    "elf too large": (vmlinux(memory_size=49 * MIB), "needs 65 MiB, the VM has 64 MiB"),
    "elf shrinks": (vmlinux(memory_size=16), "larger in the file than in memory"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(memory: GuestMemory, what: str) -> None:
    image, said = REFUSED[what]
    with pytest.raises(BootError) as caught:
        load(memory, image)
    assert said in caught.value.message
    assert caught.value.message.startswith(("kernel", "initrd"))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("command_line", "said"),
    [
        ("a" * 2048, "has 2048 bytes, this kernel takes 2047"),
        ("quiet\0init=/bin/sh", "control character (0x00) at byte 5"),
        ("quiet\nro", "control character (0x0a)"),
        ("\ud800", "not text"),
    ],
)
@pytest.mark.parametrize("image", [bzimage(), vmlinux()], ids=["bzImage", "pvh"])
def test_command_lines_that_are_refused(memory: GuestMemory, image: bytes, command_line: str, said: str) -> None:
    with pytest.raises(BootError) as caught:
        load(memory, image, command_line)
    assert said in caught.value.message


def test_the_longest_command_line(memory: GuestMemory) -> None:
    load(memory, bzimage(), "ä" * 1023)
    assert memory.read(layout.COMMAND_LINE, 2047) == "ä".encode() * 1023 + b"\0"


def test_initrds_that_are_refused(memory: GuestMemory) -> None:
    for image, said in (
        (bzimage(), "44 MiB are free beside the kernel"),
        (bzimage(initrd_addr_max=0x1FFFFFF), "12 MiB are free below the kernel's limit of 0x1ffffff"),
    ):
        with pytest.raises(BootError, match=said):
            load(memory, image, initrd=bytes(45 * MIB))


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path, said in (("empty", "is empty"), (".", "not a regular file")):
        fd = os.open(tmp_path / path, os.O_RDONLY)
        try:
            with pytest.raises(BootError, match=said):
                BootFile(fd, path)
        finally:
            os.close(fd)
    with pytest.raises(BootError, match="Bad file descriptor"):
        BootFile(fd, "closed")


def test_a_file_that_shrinks_while_it_is_read(memory: GuestMemory) -> None:
    with opened(bzimage()) as kernel:
        os.ftruncate(kernel.fd, 2000)
        with pytest.raises(BootError, match="truncated"):
            kernels.load(memory, kernel, "")


def test_less_memory_than_a_kernel_can_use() -> None:
    tiny = GuestMemory(MIB)
    try:
        with pytest.raises(BootError, match="less than 2 MiB"):
            load(tiny, bzimage())
    finally:
        tiny.close()
