"""Linux's bzImage by its 64-bit entry: what distributions ship, started as it is.

All numbers: Documentation/arch/x86/boot.rst and zero-page.rst, arch/x86/include/uapi/asm/bootparam.h.
The header is the file's word and hostile: what is taken from it is checked first.
"""

from __future__ import annotations

import os
import struct

from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.arch.x86_64.registers import Entry, Protocol
from vmtui.vmm.boot.e820 import MapEntry
from vmtui.vmm.boot.placement import low_ram_end, place_command_line, place_initrd
from vmtui.vmm.boot.source import BootError, BootFile
from vmtui.vmm.memory import GuestMemory

SECTOR = 512
HEADER_ROOM = 0x290  # struct boot_params has other things from here on

# Offsets, the same in the file and in the zero page
SETUP_SECTS, HEADER_START, SYSSIZE, BOOT_FLAG = 0x1F1, 0x1F1, 0x1F4, 0x1FE
HEADER_LENGTH, MAGIC, VERSION = 0x201, 0x202, 0x206
TYPE_OF_LOADER, LOADFLAGS = 0x210, 0x211
RAMDISK_IMAGE, RAMDISK_SIZE = 0x218, 0x21C
CMD_LINE_PTR, INITRD_ADDR_MAX = 0x228, 0x22C
XLOADFLAGS, CMDLINE_SIZE = 0x236, 0x238
SETUP_DATA, PREF_ADDRESS, INIT_SIZE = 0x250, 0x258, 0x260
HEADER_USED_END = 0x264
# Offsets in the zero page alone
ACPI_RSDP, E820_ENTRIES, E820_TABLE = 0x70, 0x1E8, 0x2D0

BOOT_FLAG_VALUE = 0xAA55
PROTOCOL_2_12 = 0x020C  # the first with xloadflags: Linux 3.8
LOADED_HIGH = 1
XLF_KERNEL_64 = 1
LOADER_UNDEFINED = 0xFF
SETUP_RNG_SEED = 9
ENTRY_64 = 0x200  # startup_64, from where the protected-mode part was loaded
SEED_BYTES = 32


def is_bzimage(head: bytes) -> bool:
    """`head`: the file's first page, or all of a shorter one."""
    return head[MAGIC : MAGIC + 4] == b"HdrS" and head[BOOT_FLAG : BOOT_FLAG + 2] == b"\x55\xaa"


def load(
    memory: GuestMemory,
    kernel: BootFile,
    command_line: str,
    initrd: BootFile | None,
    memory_map: tuple[MapEntry, ...],
    rsdp: int,
) -> Entry:
    """Place the kernel's protected-mode part where it wants to be, and the zero page. Raises BootError.

    `pref_address` saves the kernel a copy of itself before it unpacks; `init_size` from there is what it needs for
    unpacking, so nothing else may be there. A seed for the guest's random numbers goes with it (setup_data, Linux 6.0):
    without one, a guest whose processor has no RDRAND waits for its own noise.
    """
    head = kernel.read(0, HEADER_USED_END)
    version, xloadflags = _u16(head, VERSION), _u16(head, XLOADFLAGS)
    if version < PROTOCOL_2_12 or not xloadflags & XLF_KERNEL_64:
        raise BootError(
            f"{kernel.name} is a kernel without a 64-bit entry (boot protocol {version >> 8}.{version & 0xFF:02})",
            'use a 64-bit kernel, Linux 3.8 or newer; backend = "qemu" starts 32-bit ones',
        )
    if MAGIC + head[HEADER_LENGTH] < HEADER_USED_END:
        raise BootError(f"{kernel.name} has a header that ends before its fields do", "is it damaged?")
    if not head[LOADFLAGS] & LOADED_HIGH:
        raise BootError(f"{kernel.name} is a zImage, to be loaded below 1 MiB", "build a bzImage")
    setup_bytes = ((head[SETUP_SECTS] or 4) + 1) * SECTOR
    length = kernel.size - setup_bytes
    if length <= ENTRY_64 or length < _u32(head, SYSSIZE) * 16:  # a signature may come after
        raise kernel.truncated()

    addr = _u64(head, PREF_ADDRESS)
    end = addr + max(length, _u32(head, INIT_SIZE))
    if addr < layout.HIGH_RAM or end > layout.HOLE_START:
        raise BootError(f"{kernel.name} asks for {addr:#x} to {end:#x}, where no RAM can be", "is it damaged?")
    if end > low_ram_end(memory):
        raise BootError(
            f"kernel {kernel.name} needs {-(-end // layout.MIB)} MiB to unpack, the VM has "
            f"{low_ram_end(memory) // layout.MIB} MiB",
            "give the VM more memory",
        )
    zero_page = _zero_page(memory, kernel, head)
    pointer = place_command_line(memory, command_line, _u32(head, CMDLINE_SIZE))
    struct.pack_into("<I", zero_page, CMD_LINE_PTR, pointer)
    if initrd is not None:
        placed = place_initrd(memory, initrd, above=end, last=_u32(head, INITRD_ADDR_MAX))
        struct.pack_into("<II", zero_page, RAMDISK_IMAGE, *placed)
    struct.pack_into("<Q", zero_page, ACPI_RSDP, rsdp)
    zero_page[E820_ENTRIES] = len(memory_map)
    for index, entry in enumerate(memory_map):
        struct.pack_into("<QQI", zero_page, E820_TABLE + 20 * index, *entry)
    memory.write(layout.ZERO_PAGE, zero_page)
    kernel.load(memory, addr, setup_bytes, length)
    return Entry(Protocol.LINUX_64, addr + ENTRY_64, layout.ZERO_PAGE)


def _zero_page(memory: GuestMemory, kernel: BootFile, head: bytes) -> bytearray:
    """The kernel's own header in a page of zeros, with what a loader owes it."""
    page = bytearray(layout.PAGE)
    header_end = min(MAGIC + head[HEADER_LENGTH], HEADER_ROOM)
    page[HEADER_START:header_end] = kernel.read(HEADER_START, header_end - HEADER_START)
    page[TYPE_OF_LOADER] = LOADER_UNDEFINED
    memory.write(layout.RNG_SEED, struct.pack("<QII", 0, SETUP_RNG_SEED, SEED_BYTES) + os.urandom(SEED_BYTES))
    struct.pack_into("<Q", page, SETUP_DATA, layout.RNG_SEED)
    struct.pack_into("<II", page, RAMDISK_IMAGE, 0, 0)
    return page


def _u16(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 2], "little")


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def _u64(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")
