"""What every boot protocol needs in guest memory besides the kernel: the command line and the initrd."""

from __future__ import annotations

import re
import struct

from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.boot.source import BootError, BootFile
from vmtui.vmm.memory import GuestMemory

# mov dx, POWER_PORT; mov al, 1; out dx, al; then hlt for ever (Intel SDM 2)
RESET_CODE = b"\xba" + struct.pack("<H", layout.POWER_PORT) + b"\xb0\x01\xee\xf4\xeb\xfd"
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def low_ram_end(memory: GuestMemory) -> int:
    """The first address after the RAM below the hole."""
    return memory.regions[0].size_bytes


def place_reset_code(memory: GuestMemory) -> None:
    """Real-mode code where the BIOS of a PC begins, that asks for a reset.

    Linux jumps there to restart: with hardware-reduced ACPI it takes EFI to be the way (efi_reboot_required in
    drivers/firmware/efi/reboot.c), does not find it, and goes on with the BIOS, never asking for ACPI's reset register
    (native_machine_emergency_restart in arch/x86/kernel/reboot.c) unless it is told `reboot=acpi`.
    """
    memory.write(layout.RESET_VECTOR, RESET_CODE)


def place_command_line(memory: GuestMemory, command_line: str, limit: int) -> int:
    """Write it with its NUL; returns its address. `limit`: the most bytes that the kernel takes, without the NUL.

    Raises BootError: too long, or with a character that ends it early or breaks a log.
    """
    try:
        text = command_line.encode()
    except UnicodeEncodeError:
        raise BootError("the kernel command line is not text") from None
    if bad := _CONTROL.search(text):
        raise BootError(
            f"the kernel command line has a control character (0x{bad[0][0]:02x}) at byte {bad.start()}",
            "take it out: parameters are separated by spaces",
        )
    limit = min(limit, layout.COMMAND_LINE_ROOM - 1)
    if len(text) > limit:
        raise BootError(
            f"the kernel command line has {len(text)} bytes, this kernel takes {limit}",
            "shorten it, or put settings into the image",
        )
    memory.write(layout.COMMAND_LINE, text + b"\0")
    return layout.COMMAND_LINE


def place_initrd(memory: GuestMemory, initrd: BootFile, *, above: int, last: int) -> tuple[int, int]:
    """Read it in as high as it may be, on a page; returns its address and size.

    `above`: the first address that the kernel leaves to it; `last`: the highest address that a byte of it may have.
    High, to leave the kernel one large piece to unpack itself into (KASLR); on a page, so that all of it can be freed.
    Raises BootError when it does not fit.
    """
    end = min(low_ram_end(memory), last + 1)
    addr = (end - initrd.size) & -layout.PAGE
    if addr < above:
        room = max(0, end - above) >> 20
        at_limit = end < low_ram_end(memory)
        raise BootError(
            f"initrd {initrd.name} has {initrd.size >> 20} MiB, and {room} MiB are free "
            + (f"below the kernel's limit of {last:#x}" if at_limit else "beside the kernel"),
            "make the initrd smaller" if at_limit else "give the VM more memory",
        )
    initrd.load(memory, addr, 0, initrd.size)
    return addr, initrd.size
