"""The devices that cannot be found by looking: in AML, as the body of the DSDT.

There is no RTC, no keyboard controller, no PIC, no PIT, no PM timer and no HPET: what is not told of is not polled, and
each poll would be an exit.
"""

from __future__ import annotations

from vmtui.vmm.acpi import aml
from vmtui.vmm.arch.x86_64 import layout

# PCI Firmware Specification 3.3, 4.6: the host bridge's _DSM
PCI_DSM = "e5c937d0-3553-4d7a-9117-ea4d19c3434d"
DSM_PRESERVE_BOOT_CONFIGURATION = 5  # 4.6.5; 0: the system keeps what firmware assigned
NOTIFY_PRESSED = 0x80  # of a power button, ACPI 6.5, 5.6.6
NOTIFY_NEW_GENERATION = 0x80
SLEEP_TYPE_S5 = 5  # ours; the power port takes it


def devices(ram_bytes: int) -> bytes:
    """All of them, as AML."""
    return b"".join(
        (
            aml.scope("\\_SB", _pci(ram_bytes), _motherboard(), _serial(), _power_button(), _generation(), _events()),
            # SLP_TYPa, SLP_TYPb and two that are reserved, ACPI 6.5, 7.4.2. Only S5: nothing here sleeps
            aml.name("\\_S5", aml.package(*map(aml.integer, (SLEEP_TYPE_S5, SLEEP_TYPE_S5, 0, 0)))),
        )
    )


def _pci(ram_bytes: int) -> bytes:
    """The host bridge. No _PRT: no function has an interrupt pin, all use MSI-X.

    _DSM function 5 gives 0: BARs are to stay where they are, so that no ioeventfd has to follow them.
    """
    low, high = layout.PCI_WINDOW_32, layout.pci_window_64(ram_bytes)
    config = layout.PCI_CONFIG_PORT
    functions = 1 << 0 | 1 << DSM_PRESERVE_BOOT_CONFIGURATION
    return aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A08")),
        aml.name("_CID", aml.eisa_id("PNP0A03")),
        aml.name("_SEG", aml.ZERO),
        aml.name("_UID", aml.ZERO),
        aml.name(
            "_CRS",
            aml.resources(
                aml.bus_numbers(0, 0),
                aml.io(config, 8),
                aml.io_window(0, config - 1),
                aml.io_window(config + 8, 0xFFFF),
                aml.memory_window_32(low.start, low.end - 1),
                aml.memory_window_64(high.start, high.end - 1),
            ),
        ),
        aml.method(
            "_DSM",
            4,
            aml.when(
                aml.equal(aml.arg(0), aml.to_uuid(PCI_DSM)),
                aml.when(aml.equal(aml.arg(2), aml.ZERO), aml.give(aml.buffer(bytes((functions,))))),
                aml.when(
                    aml.equal(aml.arg(2), aml.integer(DSM_PRESERVE_BOOT_CONFIGURATION)),
                    aml.give(aml.ZERO),
                ),
            ),
            aml.give(aml.buffer(b"\0")),
        ),
    )


def _motherboard() -> bytes:
    """What nobody else may use: ECAM, which Linux wants to see reserved here as well, and the power port."""
    return aml.device(
        "MBRD",
        aml.name("_HID", aml.eisa_id("PNP0C02")),
        aml.name("_UID", aml.ZERO),
        aml.name(
            "_CRS",
            aml.resources(
                aml.memory32_fixed(layout.ECAM.start, layout.ECAM.size),
                aml.io(layout.POWER_PORT, 1),
            ),
        ),
    )


def _serial() -> bytes:
    """COM1. Without it, and with no PIC, Linux gives ttyS0 an interrupt that is not its own."""
    return aml.device(
        "COM1",
        aml.name("_HID", aml.eisa_id("PNP0501")),
        aml.name("_UID", aml.ONE),
        aml.name("_DDN", aml.string("COM1")),
        aml.name("_CRS", aml.resources(aml.interrupt(layout.COM1_GSI), aml.io(layout.COM1_PORT, 8))),
    )


def _power_button() -> bytes:
    return aml.device("PWRB", aml.name("_HID", aml.eisa_id("PNP0C0C")), aml.name("_UID", aml.ZERO))


def _generation() -> bytes:
    """Where the VM generation ID is (Virtual Machine Generation ID, Microsoft 2012); Linux knows the second name."""
    return aml.device(
        "VGEN",
        aml.name("_HID", aml.string("VMTU0001")),
        aml.name("_CID", aml.package(aml.string("VM_Gen_Counter"), aml.string("VMGENCTR"))),
        aml.name("_DDN", aml.string("VM_Gen_Counter")),
        aml.name("ADDR", aml.package(aml.integer(layout.VMGENID), aml.ZERO)),
    )


def _events() -> bytes:
    """The generic event device, ACPI 6.5, 5.6.9: an interrupt, and what happened by it."""
    return aml.device(
        "GED_",
        aml.name("_HID", aml.string("ACPI0013")),
        aml.name("_UID", aml.ZERO),
        aml.name("_CRS", aml.resources(aml.interrupt(layout.GED_GSI), aml.interrupt(layout.VMGENID_GSI))),
        aml.method(
            "_EVT",
            1,
            aml.when(
                aml.equal(aml.arg(0), aml.integer(layout.GED_GSI)),
                aml.notify("\\_SB.PWRB", NOTIFY_PRESSED),
            ),
            aml.when(
                aml.equal(aml.arg(0), aml.integer(layout.VMGENID_GSI)),
                aml.notify("\\_SB.VGEN", NOTIFY_NEW_GENERATION),
            ),
        ),
    )
