"""The tables around the DSDT, and all of them in guest memory. Offsets and numbers: ACPI 6.5, chapter 5.

Hardware-reduced ACPI (4.1): no PM1 registers, no SCI, no PM timer. What Linux then leaves alone saves exits by the ten
thousand: told that there is no CMOS RTC, no VGA and no 8042, it probes none of them (acpi_parse_fadt in
arch/x86/kernel/acpi/boot.c; an RTC that is not told away is polled for its update flag, port 0x70, for seconds).
"""

from __future__ import annotations

import os
import struct

from vmtui.vmm.acpi import dsdt
from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.memory import GuestMemory

OEM_ID, OEM_TABLE_ID, CREATOR_ID = b"VMTUI ", b"VMTUI   ", b"VMTU"
HEADER = struct.Struct("<4sIBB6s8sI4sI")  # 5.2.6
CHECKSUM_OFFSET = 9
RSDP_BYTES, RSDP_V1_BYTES = 36, 20
ALIGNMENT = 16

# FADT, 5.2.9
FADT_REVISION, FADT_MINOR, FADT_BYTES = 6, 5, 276
FLAG_NO_FIXED_POWER_BUTTON, FLAG_NO_FIXED_SLEEP_BUTTON = 1 << 4, 1 << 5
FLAG_RESET_REGISTER, FLAG_HARDWARE_REDUCED = 1 << 10, 1 << 20
BOOT_NO_VGA, BOOT_NO_RTC = 1 << 2, 1 << 5  # the bit for an 8042 is left clear
SYSTEM_IO, BYTE_ACCESS = 1, 1  # 5.2.3.2
RESET_VALUE = 1

# MADT, 5.2.12
MADT_REVISION = 5
LOCAL_APIC, IO_APIC, LOCAL_APIC_NMI = 0, 1, 4
ALL_PROCESSORS = 0xFF
LINT_NMI = 1


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """With its header, the bytes of it adding up to 0."""
    length = HEADER.size + len(body)
    header = HEADER.pack(signature, length, revision, 0, OEM_ID, OEM_TABLE_ID, 1, CREATOR_ID, 1)
    whole = bytearray(header + body)
    whole[CHECKSUM_OFFSET] = _checksum(whole)
    return bytes(whole)


def _checksum(data: bytes | bytearray) -> int:
    return -sum(data) & 0xFF


def fadt(dsdt_addr: int) -> bytes:
    """FACP: the flags above, and the power port for reset and sleep.

    To sleep, Linux writes 0x80 to the status register first, to clear WAK_STS, then SLP_TYP and SLP_EN to the control
    register (acpi_hw_extended_sleep in drivers/acpi/acpica/hwesleep.c): the port sees both.
    """
    port = struct.pack("<BBBBQ", SYSTEM_IO, 8, 0, BYTE_ACCESS, layout.POWER_PORT)
    flags = FLAG_NO_FIXED_POWER_BUTTON | FLAG_NO_FIXED_SLEEP_BUTTON | FLAG_RESET_REGISTER | FLAG_HARDWARE_REDUCED
    whole = bytearray(FADT_BYTES)
    struct.pack_into("<H", whole, 109, BOOT_NO_VGA | BOOT_NO_RTC)
    struct.pack_into("<I", whole, 112, flags)
    whole[116:128] = port  # RESET_REG
    whole[128] = RESET_VALUE
    whole[131] = FADT_MINOR
    struct.pack_into("<Q", whole, 140, dsdt_addr)
    whole[244:256] = port  # SLEEP_CONTROL_REG
    whole[256:268] = port  # SLEEP_STATUS_REG
    whole[268:276] = OEM_TABLE_ID  # hypervisor vendor
    return table(b"FACP", FADT_REVISION, bytes(whole[HEADER.size :]))


def madt(cpus: int) -> bytes:
    """APIC: every processor's local APIC by its id, which is its index; one I/O APIC from GSI 0 on; no PIC."""
    body = struct.pack("<II", layout.LAPIC, 0)
    body += b"".join(struct.pack("<BBBBI", LOCAL_APIC, 8, cpu, cpu, 1) for cpu in range(cpus))
    body += struct.pack("<BBBBII", IO_APIC, 12, 0, 0, layout.IOAPIC, 0)
    body += struct.pack("<BBBHB", LOCAL_APIC_NMI, 6, ALL_PROCESSORS, 0, LINT_NMI)
    return table(b"APIC", MADT_REVISION, body)


def mcfg() -> bytes:
    """ECAM: segment 0, bus 0 alone (PCI Firmware Specification 3.3, 4.1.2)."""
    return table(b"MCFG", 1, bytes(8) + struct.pack("<QHBB4x", layout.ECAM.start, 0, 0, 0))


def rsdp(xsdt_addr: int) -> bytes:
    """5.2.5.3, with both checksums."""
    whole = bytearray(struct.pack("<8sB6sBIIQ4x", b"RSD PTR ", 0, OEM_ID, 2, 0, RSDP_BYTES, xsdt_addr))
    whole[8] = _checksum(whole[:RSDP_V1_BYTES])
    whole[32] = _checksum(whole)
    return bytes(whole)


def build(cpus: int, ram_bytes: int, start: int = layout.ACPI_TABLES.start) -> bytes:
    """All tables as they are to lie from guest address `start` on, where the RSDP is. `cpus`: 1 to MAX_CPUS."""
    if not 1 <= cpus <= layout.MAX_CPUS:
        raise ValueError(f"{cpus} processors: 1 to {layout.MAX_CPUS} are possible")
    image = bytearray(_aligned(RSDP_BYTES))

    def place(data: bytes) -> int:
        addr = start + len(image)
        image.extend(data.ljust(_aligned(len(data)), b"\0"))
        return addr

    dsdt_addr = place(table(b"DSDT", 2, dsdt.devices(ram_bytes)))  # revision 2: integers have 64 bits
    addrs = [place(data) for data in (fadt(dsdt_addr), madt(cpus), mcfg())]
    xsdt_addr = place(table(b"XSDT", 1, struct.pack(f"<{len(addrs)}Q", *addrs)))
    image[:RSDP_BYTES] = rsdp(xsdt_addr)
    return bytes(image)


def _aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def write(memory: GuestMemory, cpus: int) -> int:
    """Put the tables and a first VM generation ID where the guest looks for them; returns the RSDP's address."""
    memory.write(layout.ACPI_TABLES.start, build(cpus, memory.size_bytes))
    new_generation(memory)
    return layout.ACPI_TABLES.start


def new_generation(memory: GuestMemory) -> None:
    """A VM generation ID that was never used: after a restore, before interrupt VMGENID_GSI tells the guest."""
    memory.write(layout.VMGENID, os.urandom(16))
