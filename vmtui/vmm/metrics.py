"""Exits by name: what a person can do something about."""

from __future__ import annotations

from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.devices import pvpanic
from vmtui.vmm.kvm import constants as kvm

PORTS = {
    **dict.fromkeys(range(layout.COM1_PORT, layout.COM1_PORT + 8), "serial"),
    **dict.fromkeys(range(layout.PCI_CONFIG_PORT, layout.PCI_CONFIG_PORT + 8), "pci-config-ports"),
    **dict.fromkeys(range(layout.POWER_PORT, layout.POWER_PORT + 8), "power"),
    **dict.fromkeys((0x70, 0x71), "cmos"),
    **dict.fromkeys((0x60, 0x64), "i8042"),
    pvpanic.PORT: "pvpanic",
    0x80: "io-delay",
}
ECAM_SLOTS = range(layout.ECAM.start >> 16, layout.ECAM.end >> 16)


def named(key: tuple[int, int], places: dict[int, str]) -> str:
    """A key of `Vcpu.exits`; `places` has the names of devices by the 64 KiB slot where their BAR is."""
    reason, where = key
    if reason == kvm.EXIT_IO:
        return PORTS.get(where, f"port {where:#x}")
    if reason == kvm.EXIT_MMIO:
        if where in ECAM_SLOTS:
            return "pci-config-writes"
        return places.get(where, f"memory {where << 16:#x}")
    return kvm.EXIT_NAMES.get(reason, f"reason {reason}")
