"""An ELF kernel by its PVH entry: an uncompressed vmlinux, or any kernel that carries Xen's note.

Numbers: the ELF-64 Object File Format; Xen's docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h,
xen/include/public/elfnote.h. Every field of the file is hostile.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.arch.x86_64.registers import Entry, Protocol
from vmtui.vmm.boot.e820 import MapEntry
from vmtui.vmm.boot.placement import low_ram_end, place_command_line, place_initrd
from vmtui.vmm.boot.source import BootError, BootFile
from vmtui.vmm.memory import GuestMemory

ELF_MAGIC = b"\x7fELF"
ELFCLASS64, ELFDATA2LSB, EM_X86_64 = 2, 1, 62
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
PT_LOAD, PT_NOTE = 1, 4
MAX_SEGMENTS = 64  # a vmlinux has five
MAX_NOTES = 64 << 10  # bytes; a vmlinux has some hundred
XEN_ELFNOTE_PHYS32_ENTRY = 18

START_INFO = struct.Struct("<IIIIQQQQII")
START_INFO_MAGIC, START_INFO_VERSION = 0x336EC578, 1
MODULE = struct.Struct("<QQQQ")
MAP_ENTRY = struct.Struct("<QQII")
MODULES_OFFSET, MAP_OFFSET = 0x40, 0x80  # in the page of the start information
COMMAND_LINE_LIMIT = 2047  # Linux: COMMAND_LINE_SIZE in arch/x86/include/asm/setup.h, less the NUL


class Segment(NamedTuple):
    """Of a program header, what a loader needs. Offsets and sizes in bytes."""

    type: int
    offset: int
    addr: int  # physical
    file_size: int
    memory_size: int


def is_elf(head: bytes) -> bool:
    return head.startswith(ELF_MAGIC)


def load(
    memory: GuestMemory,
    kernel: BootFile,
    command_line: str,
    initrd: BootFile | None,
    memory_map: tuple[MapEntry, ...],
    rsdp: int,
) -> Entry:
    """Place the segments and the start information. Raises BootError. Memory that a segment only reserves stays 0."""
    segments = _segments(kernel)
    entry = _pvh_entry(kernel, segments)
    loads = [segment for segment in segments if segment.type == PT_LOAD and segment.memory_size]
    if not any(part.addr <= entry < part.addr + part.file_size for part in loads):
        raise BootError(f"{kernel.name}: its entry {entry:#x} is in none of its segments", "is it damaged?")
    end = max(part.addr + part.memory_size for part in loads)
    if end > layout.HOLE_START or min(part.addr for part in loads) < layout.HIGH_RAM:
        raise BootError(f"{kernel.name} asks to be loaded where no RAM can be", "is it damaged?")
    if end > low_ram_end(memory):
        raise BootError(
            f"kernel {kernel.name} needs {-(-end // layout.MIB)} MiB, the VM has "
            f"{low_ram_end(memory) // layout.MIB} MiB",
            "give the VM more memory",
        )
    pointer = place_command_line(memory, command_line, COMMAND_LINE_LIMIT)
    page = bytearray(layout.PAGE)
    modules = 0
    if initrd is not None:
        at, size = place_initrd(memory, initrd, above=end, last=layout.HOLE_START - 1)
        MODULE.pack_into(page, MODULES_OFFSET, at, size, 0, 0)
        modules = 1
    here = layout.PVH_START_INFO
    START_INFO.pack_into(
        page, 0, START_INFO_MAGIC, START_INFO_VERSION, 0, modules, here + MODULES_OFFSET, pointer, rsdp,
        here + MAP_OFFSET, len(memory_map), 0,
    )  # fmt: skip
    for index, piece in enumerate(memory_map):
        MAP_ENTRY.pack_into(page, MAP_OFFSET + MAP_ENTRY.size * index, *piece, 0)
    memory.write(here, page)
    for part in loads:
        kernel.load(memory, part.addr, part.offset, part.file_size)
    return Entry(Protocol.PVH, entry, here)


def _segments(kernel: BootFile) -> list[Segment]:
    """The program headers, each one's bytes inside the file."""
    header = EHDR.unpack(kernel.read(0, EHDR.size))
    ident, machine, table, entry_size, count = header[0], header[2], header[5], header[9], header[10]
    if ident[4] != ELFCLASS64 or ident[5] != ELFDATA2LSB or machine != EM_X86_64:
        raise BootError(f"{kernel.name} is an ELF file, not for x86-64", "use a kernel of this machine's architecture")
    if entry_size != PHDR.size or not 0 < count <= MAX_SEGMENTS:
        raise BootError(f"{kernel.name} is an ELF file without usable program headers", "use a vmlinux, not a module")
    raw = kernel.read(table, PHDR.size * count)
    segments = []
    for kind, _, offset, _, addr, file_size, memory_size, _ in PHDR.iter_unpack(raw):
        if kind not in (PT_LOAD, PT_NOTE):
            continue
        if offset + file_size > kernel.size:
            raise kernel.truncated()
        if kind == PT_LOAD and file_size > memory_size:
            raise BootError(f"{kernel.name} has a segment that is larger in the file than in memory", "is it damaged?")
        segments.append(Segment(kind, offset, addr, file_size, memory_size))
    return segments


def _pvh_entry(kernel: BootFile, segments: list[Segment]) -> int:
    """The address in Xen's note; raises BootError without one."""
    for segment in segments:
        if segment.type != PT_NOTE:
            continue
        notes = kernel.read(segment.offset, min(segment.file_size, MAX_NOTES))
        at = 0
        while at + 12 <= len(notes):
            name_size, size, kind = struct.unpack_from("<III", notes, at)
            name_at, at = at + 12, at + 12 + (name_size + 3 & ~3)
            data_at, at = at, at + (size + 3 & ~3)
            if kind != XEN_ELFNOTE_PHYS32_ENTRY or notes[name_at : name_at + name_size] != b"Xen\0":
                continue
            if size in (4, 8) and data_at + size <= len(notes):
                return int.from_bytes(notes[data_at : data_at + size], "little")
    raise BootError(
        f"{kernel.name} is an ELF file without a PVH entry", "use the bzImage (vmlinuz), or build with CONFIG_PVH=y"
    )
