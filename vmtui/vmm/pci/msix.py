"""MSI-X (PCI Local Bus 3.0, 6.8.2): the table and the pending bits, on irqfds.

A vector is an eventfd. While it is unmasked the eventfd is an irqfd of its GSI; while it is masked nobody reads it, so
that what a back-end signals stays in its count. That count is the pending bit, and KVM injects it when it is given the
irqfd again: no interrupt is lost, and no code here is on its way.
"""

from __future__ import annotations

import struct
import threading

from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.kvm.vm import Vm

ENTRY = 16  # address low, address high, data, control
MASKED = 1  # vector control, bit 0; set after reset
NO_VECTOR = 0xFFFF  # VIRTIO 4.1.4.3
_TABLE_ENTRY = struct.Struct("<QII")


class Vector:
    """One entry of the table."""

    __slots__ = ("address", "assigned", "control", "data", "event", "gsi")

    def __init__(self) -> None:
        self.event = EventFd()
        self.gsi: int | None = None
        self.assigned = False
        self.address = 0
        self.data = 0
        self.control = MASKED


class Msix:
    """`count` vectors. `read_table` and the others may be called by any vCPU thread; none raises."""

    def __init__(self, vm: Vm, count: int) -> None:
        self._vm = vm
        self._lock = threading.Lock()
        self._enabled = False
        self._function_masked = False
        self.vectors = [Vector() for _ in range(count)]
        self._nowhere = EventFd()

    def event(self, number: int) -> EventFd:
        """What to signal for vector `number`; for NO_VECTOR, or one that is not there, an eventfd nobody hears."""
        return self.vectors[number].event if number < len(self.vectors) else self._nowhere

    def control(self, enabled: bool, function_masked: bool) -> None:
        """Bits 15 and 14 of the capability's message control."""
        with self._lock:
            self._enabled, self._function_masked = enabled, function_masked
            for vector in self.vectors:
                self._settle(vector)

    def read_table(self, offset: int, size: int) -> int:
        number, at = divmod(offset, ENTRY)
        if number >= len(self.vectors):
            return 0
        vector = self.vectors[number]
        entry = _TABLE_ENTRY.pack(vector.address, vector.data, vector.control)
        return int.from_bytes(entry[at : at + size], "little")

    def write_table(self, offset: int, size: int, value: int) -> None:
        """Only whole 32- and 64-bit accesses are allowed (6.8.2); others do nothing."""
        number, at = divmod(offset, ENTRY)
        if number >= len(self.vectors) or size not in (4, 8) or at % size:
            return
        with self._lock:
            vector = self.vectors[number]
            entry = bytearray(_TABLE_ENTRY.pack(vector.address, vector.data, vector.control))
            entry[at : at + size] = value.to_bytes(size, "little")
            vector.address, vector.data, control = _TABLE_ENTRY.unpack(entry)
            vector.control = control & MASKED
            self._settle(vector)

    def read_pending(self, offset: int, size: int) -> int:
        bits = 0
        for number, vector in enumerate(self.vectors):
            if not vector.assigned and vector.event.pending:
                bits |= 1 << number
        return bits >> 8 * offset & (1 << 8 * size) - 1

    def _settle(self, vector: Vector) -> None:
        """Give the eventfd to KVM, or take it back, as enable and mask bits say; the lock is held."""
        wanted = self._enabled and not self._function_masked and not vector.control & MASKED
        try:
            if vector.gsi is None:
                if not wanted:
                    return
                vector.gsi = self._vm.routing.allocate()
            if wanted:
                self._vm.routing.set_message(vector.gsi, vector.address, vector.data)
            if wanted and not vector.assigned:
                self._vm.add_irqfd(vector.gsi, vector.event)
            elif vector.assigned and not wanted:
                self._vm.remove_irqfd(vector.gsi, vector.event)
            vector.assigned = wanted
        except OSError:
            return  # the guest asked for a message that KVM does not take: this vector is silent, nothing else

    def close(self) -> None:
        """After the vCPUs have ended."""
        for vector in self.vectors:
            vector.event.close()
        self._nowhere.close()
