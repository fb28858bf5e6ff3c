"""The host bridge of bus 0: slots, the two ways to configuration space, and where BARs are mapped.

By ports (PCI Local Bus 3.0, 3.2.2.3.2) every access is an exit. ECAM (PCI Express 4.0, 7.2.2) is memory that the guest
may read and not write: reads cost nothing, writes come here. Linux takes ports for the first 256 bytes wherever they
answer (raw_pci_read in arch/x86/pci/common.c), so they are there only for a guest that is known to need them.
"""

from __future__ import annotations

import ctypes
import mmap
import os

from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.bus import SLOT, MmioBus
from vmtui.vmm.kvm.vm import Vm
from vmtui.vmm.pci.function import SPACE, Function

DEVICES = 32  # of a bus; function 0 of each is all that there is
HOST_BRIDGE = (0x8086, 0x0D57, 0x060000)  # a bridge that Linux knows no quirks of
CONFIG_ENABLE = 1 << 31
ECAM_SLOT = 31  # the memory slot; RAM has the first ones


class Bar:
    """A function's BAR as a device on the bus."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def read(self, offset: int, size: int) -> int:
        return self._function.bar_read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._function.bar_write(offset, size, value)


class Ecam:
    """Writes to configuration space by memory; reads only where KVM could not serve them."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._root.space[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        function, register = self._root.functions.get(offset >> 15), offset & 0x7FFF  # 8 functions of 4 KiB
        if function is not None and register < SPACE:
            function.write(register, size, value)


class Root:
    """Owns configuration space. Raises OSError at its construction."""

    def __init__(self, vm: Vm, mmio: MmioBus, ram_bytes: int) -> None:
        self._vm = vm
        self._mmio = mmio
        self._windows = (layout.PCI_WINDOW_32, layout.pci_window_64(ram_bytes))
        self._next_bar = layout.PCI_WINDOW_32.start
        self._address = 0
        self.functions: dict[int, Function] = {}
        fd = os.memfd_create("ecam", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, layout.ECAM.size)
            self._map = mmap.mmap(fd, layout.ECAM.size, mmap.MAP_SHARED)
        finally:
            os.close(fd)
        self.space = memoryview(self._map)
        for device in range(DEVICES):  # who is not there reads as all ones; other functions are not asked for
            self.space[device << 15 : (device << 15) + SPACE] = b"\xff" * SPACE
        host_addr = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        vm.set_memory(ECAM_SLOT, layout.ECAM.start, layout.ECAM.size, host_addr, read_only=True)
        mmio.add(layout.ECAM.start, layout.ECAM.size, Ecam(self))
        self.functions[0] = Function(self.page(0), *HOST_BRIDGE)

    def page(self, device: int) -> memoryview:
        return self.space[device << 15 : (device << 15) + SPACE]

    def free_device(self) -> int:
        """Raises ValueError: the bus is full."""
        for device in range(1, DEVICES):
            if device not in self.functions:
                return device
        raise ValueError(f"more than {DEVICES - 1} devices")

    def plug(self, device: int, function: Function) -> None:
        """Put a function made on `page(device)` there, its BAR placed."""
        if function.bar_bytes:
            start = -(-self._next_bar // function.bar_bytes) * function.bar_bytes
            self._next_bar = start + function.bar_bytes
            function.set_bar(start, self)
        self.functions[device] = function

    # BarOwner

    def map(self, function: Function, addr: int) -> bool:
        size = function.bar_bytes
        if not any(window.start <= addr and addr + size <= window.end for window in self._windows) or addr % SLOT:
            return False
        if not self._mmio.add(addr, size, Bar(function)):
            return False
        for offset, event in function.doorbells():
            try:
                self._vm.add_ioeventfd(addr + offset, event)
            except OSError:
                pass  # the write then comes as an exit, and `bar_write` signals it
        return True

    def unmap(self, function: Function, addr: int) -> None:
        self._mmio.remove(addr, function.bar_bytes)
        for offset, event in function.doorbells():
            try:
                self._vm.remove_ioeventfd(addr + offset, event)
            except OSError:
                pass  # it was never there

    # BusDevice, on ports 0xCF8 to 0xCFF

    def read(self, offset: int, size: int) -> int:
        if offset < 4:
            return self._address >> 8 * offset & (1 << 8 * size) - 1
        function, register = self._selected(offset)
        if function is None or register + size > SPACE:
            return (1 << 8 * size) - 1
        return function.read(register, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0 and size == 4:
            self._address = value & 0x80FFFFFC
        elif offset >= 4:
            function, register = self._selected(offset)
            if function is not None:
                function.write(register, size, value)

    def _selected(self, offset: int) -> tuple[Function | None, int]:
        address = self._address
        if not address & CONFIG_ENABLE or address >> 8 & 0xFF07:  # bus 0 and function 0 alone
            return None, 0
        return self.functions.get(address >> 11 & 0x1F), (address & 0xFC) + (offset & 3)

    def close(self) -> None:
        """After the vCPUs have ended; the memory goes with the process."""
        self.functions.clear()
