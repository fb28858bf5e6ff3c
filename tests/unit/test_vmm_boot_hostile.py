"""Files that lie. Whatever a header says: loaded, or BootError, and nothing outside guest memory in either case."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.kernels import MIB, bzimage, opened, vmlinux
from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.arch.x86_64.registers import Entry, Protocol
from vmtui.vmm.boot import kernel as kernels
from vmtui.vmm.boot.source import BootError
from vmtui.vmm.memory import GuestMemory

RAM = 32 * MIB
NUMBERS = st.one_of(
    st.integers(0, 255),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0x100000, 0x1000000, 0x1FFF000, RAM, 0xBFFFFFFF, 0xC0000000, 1 << 31, 1 << 32, (1 << 64) - 1]),
)
WIDTHS = {"B": 8, "H": 16, "I": 32, "Q": 64}
Change = tuple[int, str, int]  # where, how wide, what


def changes(fields: list[int], end: int) -> st.SearchStrategy[list[Change]]:
    """Of the fields that are looked at above all, of other bytes up to `end` too."""
    where = st.one_of(st.sampled_from(fields), st.integers(0, end))
    return st.lists(st.tuples(where, st.sampled_from("BHIQ"), NUMBERS), min_size=1, max_size=8)


BZIMAGE = changes([0x1F1, 0x1F4, 0x1FE, 0x201, 0x206, 0x211, 0x22C, 0x236, 0x238, 0x258, 0x260], 0x300)
PROGRAM_HEADERS = [at + offset for at in (64, 120) for offset in (0, 8, 24, 32, 40)]
ELF = changes([4, 18, 32, 54, 56, *PROGRAM_HEADERS, 176, 180, 184, 212, 216, 220, 228], 0x100)


def changed(image: bytes, changed_to: list[Change]) -> bytes:
    data = bytearray(image)
    for offset, width, value in changed_to:
        if offset + WIDTHS[width] // 8 <= len(data):
            struct.pack_into("<" + width, data, offset, value & (1 << WIDTHS[width]) - 1)
    return bytes(data)


def attempt(image: bytes, initrd: bytes | None, command_line: str) -> None:
    """GuestMemory refuses what is outside, with GuestFault: none may come. A kernel that is loaded begins in RAM."""
    memory = GuestMemory(RAM)
    try:
        with opened(image) as kernel, opened(initrd or b"x", "initrd") as file:
            entry = kernels.load(memory, kernel, command_line, file if initrd else None)
    except BootError:
        return
    else:
        assert isinstance(entry, Entry)
        assert layout.HIGH_RAM <= entry.address < RAM
        if entry.protocol is Protocol.LINUX_64:
            check_placing(memory, entry)
    finally:
        memory.close()


def check_placing(memory: GuestMemory, entry: Entry) -> None:
    page = memory.read(layout.ZERO_PAGE, 4096)
    addr, size = struct.unpack_from("<II", page, 0x218)
    length, init_size = len(bzimage()) - 1024, struct.unpack_from("<I", page, 0x260)[0]
    if size:
        assert addr % 4096 == 0
        assert entry.address - 0x200 + max(init_size, length - 0x8000) <= addr
        assert addr + size <= min(RAM, struct.unpack_from("<I", page, 0x22C)[0] + 1)


@settings(max_examples=300, deadline=None)
@given(BZIMAGE, st.one_of(st.none(), st.binary(min_size=1, max_size=9000)), st.text(max_size=40))
def test_bzimages(changed_to: list[Change], initrd: bytes | None, command_line: str) -> None:
    attempt(changed(bzimage(), changed_to), initrd, command_line)


@settings(max_examples=300, deadline=None)
@given(ELF, st.one_of(st.none(), st.binary(min_size=1, max_size=9000)))
def test_elf_files(changed_to: list[Change], initrd: bytes | None) -> None:
    attempt(changed(vmlinux(), changed_to), initrd, "quiet")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([bzimage(), vmlinux()]), st.integers(1, 6000))
def test_cut_anywhere(image: bytes, length: int) -> None:
    attempt(image[:length], None, "quiet")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([b"", b"\x7fELF", b"MZ", b"\x1f\x8b", bytes(0x1FE) + b"\x55\xaa\xeb\x6aHdrS"]), st.binary())
def test_noise(head: bytes, tail: bytes) -> None:
    attempt(head + tail or b"\0", None, "quiet")
