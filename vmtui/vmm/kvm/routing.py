"""Which GSI leads where: the table that KVM takes as a whole each time."""

from __future__ import annotations

import struct
import threading

from vmtui.vmm.kvm import constants as kvm
from vmtui.vmm.kvm import ioctl

_ENTRY = struct.Struct("<IIII32s")  # struct kvm_irq_routing_entry
_MSI = struct.Struct("<IIII16x")  # struct kvm_irq_routing_msi
MAX_MSI_ROUTES = 1024  # far below KVM_MAX_IRQ_ROUTES of 4096


def _pin(gsi: int, chip: int, pin: int) -> bytes:
    return _ENTRY.pack(gsi, kvm.IRQ_ROUTING_IRQCHIP, 0, 0, struct.pack("<II24x", chip, pin))


def _fixed() -> bytes:
    """GSIs 0 to 23 to the I/O APIC, 0 to 15 also to the two PICs: what KVM has by itself until it is given a table."""
    entries = []
    for gsi in range(kvm.IOAPIC_PINS):
        # The PIT's interrupt 0 is at pin 2, as everywhere since the first I/O APICs (KVM's default routing agrees).
        entries.append(_pin(gsi, kvm.IRQCHIP_IOAPIC, 2 if gsi == 0 else gsi))
        if gsi < 8:
            entries.append(_pin(gsi, kvm.IRQCHIP_PIC_MASTER, gsi))
        elif gsi < 16:
            entries.append(_pin(gsi, kvm.IRQCHIP_PIC_SLAVE, gsi - 8))
    return b"".join(entries)


class Routing:
    """Messages (MSI) get GSIs from 24 on. vCPU threads change it, hence the lock."""

    def __init__(self, vm_fd: int) -> None:
        self._vm_fd = vm_fd
        self._fixed = _fixed()
        self._messages: dict[int, tuple[int, int]] = {}
        self._next = kvm.IOAPIC_PINS
        self._lock = threading.Lock()

    def allocate(self) -> int:
        """A GSI for one message. Raises OSError (ENOSPC)."""
        with self._lock:
            if self._next >= kvm.IOAPIC_PINS + MAX_MSI_ROUTES:
                raise OSError(28, "no GSI is left for another MSI-X vector")
            self._next += 1
            return self._next - 1

    def set_message(self, gsi: int, address: int, data: int) -> None:
        """Lead `gsi` to a message. The same again costs nothing. Raises OSError: it leads where it did before."""
        with self._lock:
            before = self._messages.get(gsi)
            if before == (address, data):
                return
            self._messages[gsi] = (address, data)
            try:
                self._give()
            except OSError:
                del self._messages[gsi]  # else it would spoil every other one's table
                if before is not None:
                    self._messages[gsi] = before
                raise

    def _give(self) -> None:
        entries = [self._fixed]
        for gsi, (address, data) in self._messages.items():
            message = _MSI.pack(address & 0xFFFFFFFF, address >> 32, data, 0)
            entries.append(_ENTRY.pack(gsi, kvm.IRQ_ROUTING_MSI, 0, 0, message))
        table = b"".join(entries)
        header = struct.pack("<II", len(table) // _ENTRY.size, 0)
        ioctl.give(self._vm_fd, kvm.KVM_SET_GSI_ROUTING, "KVM_SET_GSI_ROUTING", header + table)
