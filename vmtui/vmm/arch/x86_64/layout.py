"""Every address of the guest that is not the guest's to choose, each with its reason. Pure data.

0            RAM; below 1 MiB lie what the boot hands over and the ACPI tables
0xA0000      RAM that is not told of (VGA's place on a PC; Linux takes what is told here for video memory)
0xE0000      ACPI tables, told as reserved
1 MiB        RAM
3 GiB        the hole: PCI window, PCI configuration space, interrupt controllers, pages KVM keeps for itself
4 GiB        the rest of RAM
above RAM    PCI window for large BARs
"""

from __future__ import annotations

from typing import NamedTuple

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE = 4 * KIB


class Window(NamedTuple):
    """A piece of the address space. In bytes; `end` is the first address after it."""

    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


# What the boot hands over, below 1 MiB. The first 0x500 bytes are the BIOS's (vectors, data area): Linux reads the
# words at 0x40E and 0x413 and takes zeros for "not there" (arch/x86/kernel/ebda.c). From 0x9D000 on, its decompressor
# puts a trampoline below the end of low RAM (arch/x86/boot/compressed/pgtable_64.c). All is free once Linux runs.
GDT = 0x500
RNG_SEED = 0x5000  # struct setup_data
PVH_START_INFO = 0x6000  # with the module list and the memory map after it, in one page
ZERO_PAGE = 0x7000  # struct boot_params, one page
BOOT_STACK = 0x8FF0  # grows down; Linux brings its own before it pushes anything
PML4 = 0x9000  # one page
PDPT = 0xA000  # one page
PAGE_DIRECTORIES = 0xB000  # four pages: 4 GiB by 2 MiB
COMMAND_LINE = 0x20000
COMMAND_LINE_ROOM = 0x10000  # the header's cmdline_size is less; a hostile one may say more
LOW_RAM_END = 0x9FC00  # 639 KiB: where a PC's extended BIOS data area begins
ACPI_TABLES = Window(0xE0000, 0x1E000)  # the RSDP at its start: where it is looked for (ACPI 5.2.5.1)
VMGENID = 0xFE000  # a page of its own: nothing else may share it (Virtual Machine Generation ID, Microsoft 2012)
RESET_VECTOR = 0xFFFF0  # F000:FFF0, where a PC's BIOS begins
HIGH_RAM = 1 * MIB  # the kernel and the initrd are above

# The hole. 1 GiB of it holds all below; RAM that does not fit beneath it goes on at 4 GiB.
HOLE_START = 3 * GIB
HOLE_END = 4 * GIB
PCI_WINDOW_32 = Window(0xC0000000, 0x20000000)  # BARs are placed from its start, before the guest boots
ECAM = Window(0xE0000000, 1 * MIB)  # bus 0 alone (PCI Express 7.2.2: 1 MiB for each bus)
IOAPIC = 0xFEC00000  # the in-kernel irqchip's; where every PC has it
LAPIC = 0xFEE00000  # IA32_APIC_BASE after reset (SDM 3, 11.4.4)
# KVM on Intel runs real mode by a task and a page table in guest memory, which the guest is not to see: one page, then
# three, just below the top, where other machines have their firmware (Documentation/virt/kvm/api.rst 4.37 and 4.8).
KVM_IDENTITY_MAP = 0xFFFBC000
KVM_TSS = 0xFFFBD000

# Ports and interrupts
PCI_CONFIG_PORT = 0xCF8  # address; data at 0xCFC (PCI Local Bus 3.0, 3.2.2.3.2)
COM1_PORT, COM1_GSI = 0x3F8, 4  # `console=ttyS0` and `earlyprintk` expect it there (arch/x86/include/asm/serial.h)
POWER_PORT = 0x600  # ours: sleep control, sleep status and reset
GED_GSI = 9  # ours, where a PC has the SCI: the power button
VMGENID_GSI = 10  # ours: the VM generation ID is another
IOAPIC_PINS = 24  # KVM_IOAPIC_NUM_PINS
FIRST_MSI_GSI = IOAPIC_PINS  # what is routed to message-signalled interrupts begins after the pins

MAX_CPUS = 32


def high_ram_end(ram_bytes: int) -> int:
    """The first address after all RAM that is above 4 GiB; 4 GiB if there is none."""
    return HOLE_END + max(0, ram_bytes - HOLE_START)


def pci_window_64(ram_bytes: int) -> Window:
    """16 GiB after RAM, on a boundary of 1 GiB.

    Small enough to stay within 36 address bits, the least that KVM's hosts have, with up to 40 GiB of RAM.
    """
    return Window(-(-high_ram_end(ram_bytes) // GIB) * GIB, 16 * GIB)
