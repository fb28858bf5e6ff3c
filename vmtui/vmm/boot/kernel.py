"""A kernel, chosen how to start by what it is, into guest memory."""

from __future__ import annotations

from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.arch.x86_64.registers import Entry
from vmtui.vmm.boot import bzimage, pvh
from vmtui.vmm.boot.e820 import memory_map
from vmtui.vmm.boot.placement import low_ram_end, place_reset_code
from vmtui.vmm.boot.source import BootError, BootFile
from vmtui.vmm.memory import GuestMemory

# What people take for a kernel: offset, bytes, what it is, what to do
_NOT_KERNELS = (
    (0, b"\x1f\x8b", "compressed by gzip", "zcat {name} > vmlinux"),
    (0, b"\xfd7zXZ\0", "compressed by xz", "xzcat {name} > vmlinux"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", "zstdcat {name} > vmlinux"),
    (0, b"\x02\x21\x4c\x18", "compressed by lz4", "lz4cat {name} > vmlinux"),
    (0, b"\x04\x22\x4d\x18", "compressed by lz4", "lz4cat {name} > vmlinux"),
    (0, b"BZh", "compressed by bzip2", "bzcat {name} > vmlinux"),
    (0x38, b"ARM\x64", "a kernel for arm64", "use a kernel of this machine's architecture"),
    (0, b"\x27\x05\x19\x56", "an image for U-Boot", "use the bzImage (vmlinuz) that it was made of"),
    (0, b"QFI\xfb", "a qcow2 disk", "name it as a disk, and a kernel beside it"),
    (0, b"07070", "a cpio archive", "an initramfs goes into initrd"),
    (0, b"MZ", "an EFI program", 'backend = "qemu" starts it by firmware'),
)


def load(
    memory: GuestMemory,
    kernel: BootFile,
    command_line: str,
    initrd: BootFile | None = None,
    rsdp: int = layout.ACPI_TABLES.start,
) -> Entry:
    """Place everything that the guest starts with but the ACPI tables, which are to be at `rsdp`. Raises BootError.

    `memory` is as it was made, all zeros: what is zero at start is not written. After an error it is spoilt.
    """
    if low_ram_end(memory) < 2 * layout.MIB:
        raise BootError("the VM has less than 2 MiB of memory", "give the VM more memory")
    place_reset_code(memory)
    head = kernel.read(0, min(layout.PAGE, kernel.size))
    entries = memory_map(memory.size_bytes)
    if bzimage.is_bzimage(head):
        return bzimage.load(memory, kernel, command_line, initrd, entries, rsdp)
    if pvh.is_elf(head):
        return pvh.load(memory, kernel, command_line, initrd, entries, rsdp)
    for offset, magic, what, hint in _NOT_KERNELS:
        if head[offset:].startswith(magic):
            raise BootError(f"{kernel.name} is not a kernel that can be started: it is {what}", _hint(hint, kernel))
    raise BootError(
        f"{kernel.name} is not a kernel: neither a Linux bzImage nor an ELF file",
        f"see what it is: file {kernel.name}",
    )


def _hint(text: str, kernel: BootFile) -> str:
    return text.replace("{name}", kernel.name)
