"""The memory map that the guest is told of: what is RAM, and what the kernel must leave alone."""

from __future__ import annotations

from typing import NamedTuple

from vmtui.vmm.arch.x86_64 import layout

# ACPI 15, "AddressRangeMemory", "AddressRangeReserved"; PVH's start information uses the same numbers
RAM, RESERVED = 1, 2


class MapEntry(NamedTuple):
    """A range and its type. In bytes."""

    start: int
    size: int
    type: int


def memory_map(ram_bytes: int) -> tuple[MapEntry, ...]:
    """The map for so much RAM, in ascending order, nothing overlapping.

    Reserved are: the ACPI tables with the VM generation ID; ECAM, without which Linux does not use it
    (arch/x86/pci/mmconfig-shared.c, "not reserved in E820"); the pages that KVM keeps for itself on Intel.
    """
    low = min(ram_bytes, layout.HOLE_START)
    high = ram_bytes - low
    acpi = layout.ACPI_TABLES.start
    kvm = layout.KVM_IDENTITY_MAP
    entries = (
        MapEntry(0, min(low, layout.LOW_RAM_END), RAM),
        MapEntry(acpi, layout.HIGH_RAM - acpi, RESERVED),
        MapEntry(layout.HIGH_RAM, low - layout.HIGH_RAM, RAM),
        MapEntry(layout.ECAM.start, layout.ECAM.size, RESERVED),
        MapEntry(kvm, layout.KVM_TSS + 3 * layout.PAGE - kvm, RESERVED),
        MapEntry(layout.HOLE_END, high, RAM),
    )
    return tuple(entry for entry in entries if entry.size > 0)
