"""Two buses: ports and memory-mapped I/O. A device sees offsets into its own window, never where that lies.

What nobody answers reads as all ones, and a write to it goes nowhere, as on a real machine.
"""

from __future__ import annotations

from typing import Protocol


class BusDevice(Protocol):
    """`size` is 1, 2, 4 or 8 bytes, little-endian. Neither call may raise: the guest chooses all arguments."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class PortBus:
    """The 65,536 I/O ports."""

    def __init__(self) -> None:
        self.ports: dict[int, tuple[int, BusDevice]] = {}

    def add(self, base: int, length: int, device: BusDevice) -> None:
        """Raises ValueError: another device has one of the ports."""
        window = range(base, base + length)
        if any(port in self.ports for port in window):
            raise ValueError(f"port {base:#x}+{length:#x} is taken")
        for port in window:
            self.ports[port] = (base, device)


SLOT_SHIFT = 16  # windows are whole slots of 64 KiB: finding one is a look into a dict
SLOT = 1 << SLOT_SHIFT


class MmioBus:
    """Windows in guest physical addresses, aligned to and multiples of SLOT.

    Changed by the vCPU thread that moves a BAR while others look: a dict's operations are whole.
    """

    def __init__(self) -> None:
        self.slots: dict[int, tuple[int, BusDevice]] = {}

    def add(self, base: int, length: int, device: BusDevice) -> bool:
        """False if it is not aligned, or overlaps another window: the guest may have asked for that."""
        if base % SLOT or length % SLOT or length <= 0:
            return False
        window = range(base >> SLOT_SHIFT, (base + length) >> SLOT_SHIFT)
        if any(slot in self.slots for slot in window):
            return False
        for slot in window:
            self.slots[slot] = (base, device)
        return True

    def remove(self, base: int, length: int) -> None:
        for slot in range(base >> SLOT_SHIFT, (base + length) >> SLOT_SHIFT):
            self.slots.pop(slot, None)

    def read(self, addr: int, size: int) -> int:
        found = self.slots.get(addr >> SLOT_SHIFT)
        if found is None:
            return (1 << 8 * size) - 1
        return found[1].read(addr - found[0], size)

    def write(self, addr: int, size: int, value: int) -> None:
        found = self.slots.get(addr >> SLOT_SHIFT)
        if found is not None:
            found[1].write(addr - found[0], size, value)
