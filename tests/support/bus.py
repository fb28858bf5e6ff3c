"""A bus in a real VM without vCPUs, a device that does what the test says, and a driver's hands on its registers."""

from __future__ import annotations

import struct

from vmtui.vmm.arch.x86_64 import layout
from vmtui.vmm.bus import MmioBus
from vmtui.vmm.kvm.system import System
from vmtui.vmm.kvm.vm import Vm
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.pci.function import COMMAND
from vmtui.vmm.pci.root import Root
from vmtui.vmm.virtio.device import Activation, VirtioDevice
from vmtui.vmm.virtio.queue import VERSION_1
from vmtui.vmm.virtio.transport import COMMON, VirtioFunction

MEMORY_BYTES = 2 << 20
STATUS, SELECT = 20, 22  # of struct virtio_pci_common_cfg
ADDRESS, DATA = 0, 4  # of ports 0xCF8 and 0xCFC


class Probe(VirtioDevice):
    """Remembers what it is told."""

    type_id = 4
    name = "probe"
    features = 1 << 5 | 1 << 28 | 1 << 40
    queue_sizes = (8, 16)

    def __init__(self) -> None:
        self.sessions: list[Activation] = []
        self.resets = 0
        self.space = bytearray(b"configuration")

    def config(self) -> bytes:
        return bytes(self.space)

    def write_config(self, offset: int, size: int, value: int) -> None:
        if offset + size <= len(self.space):
            self.space[offset : offset + size] = value.to_bytes(size, "little")

    def activate(self, activation: Activation) -> None:
        self.sessions.append(activation)

    def reset(self) -> None:
        self.resets += 1


class Bus:
    """`functions[0]` carries `probe`, in slot 1. Registers of a BAR are reached as a guest reaches them."""

    def __init__(self) -> None:
        self.memory = GuestMemory(MEMORY_BYTES)
        self.system = System()
        self.vm = Vm(self.system)
        for slot, region in enumerate(self.memory.regions):
            self.vm.set_memory(slot, region.guest_addr, region.size_bytes, region.host_addr)
        self.mmio = MmioBus()
        self.root = Root(self.vm, self.mmio, MEMORY_BYTES)
        self.functions: list[VirtioFunction] = []
        self.failures: list[tuple[str, str]] = []
        self.probe = Probe()
        self.function = self.plug(self.probe)

    def plug(self, device: VirtioDevice) -> VirtioFunction:
        slot = self.root.free_device()
        tell = lambda name, reason: self.failures.append((name, reason))  # noqa: E731
        function = VirtioFunction(self.root.page(slot), self.vm, self.memory, device, tell)
        self.root.plug(slot, function)
        self.functions.append(function)
        self.write_ecam(slot, COMMAND, 2, 6)
        return function

    # Configuration space

    def read_ports(self, slot: int, register: int, size: int) -> int:
        self.root.write(ADDRESS, 4, 1 << 31 | slot << 11 | register & 0xFC)
        return self.root.read(DATA + (register & 3), size)

    def write_ports(self, slot: int, register: int, size: int, value: int) -> None:
        self.root.write(ADDRESS, 4, 1 << 31 | slot << 11 | register & 0xFC)
        self.root.write(DATA + (register & 3), size, value)

    def read_ecam(self, slot: int, register: int, size: int) -> int:
        """As the guest does: from the memory that it sees."""
        at = (slot << 15) + register
        return int.from_bytes(self.root.space[at : at + size], "little")

    def write_ecam(self, slot: int, register: int, size: int, value: int) -> None:
        self.mmio.write(layout.ECAM.start + (slot << 15) + register, size, value)

    # The BAR

    def read(self, offset: int, size: int) -> int:
        return self.mmio.read(self.function.bar_addr + offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self.mmio.write(self.function.bar_addr + offset, size, value)

    def field(self, offset: int, size: int) -> int:
        """Of the common configuration."""
        return self.read(COMMON + offset, size)

    def set_field(self, offset: int, size: int, value: int) -> None:
        self.write(COMMON + offset, size, value)

    @property
    def offered(self) -> int:
        features = 0
        for half in (0, 1):
            self.set_field(0, 4, half)
            features |= self.field(4, 4) << 32 * half
        return features

    def accept(self, features: int) -> None:
        for half in (0, 1):
            self.set_field(8, 4, half)
            self.set_field(12, 4, features >> 32 * half & 0xFFFFFFFF)

    def set_up(self, number: int, at: int = 0x10000) -> None:
        """A queue of 8, and enable it."""
        self.set_field(SELECT, 2, number)
        self.set_field(24, 2, 8)
        for offset, addr in ((32, at), (40, at + 0x1000), (48, at + 0x2000)):
            self.set_field(offset, 8, addr)
        self.set_field(28, 2, 1)

    def negotiate(self, features: int = VERSION_1) -> None:
        """As far as FEATURES_OK."""
        for status in (0, 1, 3):
            self.set_field(STATUS, 1, status)
        self.accept(features)
        self.set_field(STATUS, 1, 11)

    def bring_up(self) -> None:
        """Both queues, vectors 1 and 2, the configuration's 0; DRIVER_OK."""
        self.negotiate()
        self.set_field(16, 2, 0)
        for number in (0, 1):
            self.set_up(number, 0x10000 + 0x4000 * number)
            self.set_field(26, 2, number + 1)
        self.set_field(STATUS, 1, 15)

    def capabilities(self, slot: int = 1) -> list[tuple[int, bytes]]:
        """Offset and bytes of each, by the list's own pointers; each with the length that it has (MSI-X: 12)."""
        page = bytes(self.root.page(slot))
        found: list[tuple[int, bytes]] = []
        at = page[0x34]
        while at:
            assert len(found) < 48, "the list has no end"
            length = page[at + 2] if page[at] == 0x09 else 12
            found.append((at, page[at : at + length]))
            at = page[at + 1]
        return found

    def message_control(self, value: int) -> None:
        """Of MSI-X: bit 15 enables, bit 14 masks all."""
        (at,) = (at for at, body in self.capabilities() if body[0] == 0x11)
        self.write_ecam(1, at + 2, 2, value)

    def close(self) -> None:
        for function in self.functions:
            function.close()
        self.root.close()
        self.vm.close()
        self.system.close()
        self.memory.close()


def window(body: bytes) -> tuple[int, int, int, int]:
    """Of struct virtio_pci_cap: cfg_type, bar, offset, length."""
    kind, bar = body[3], body[4]
    offset, length = struct.unpack_from("<II", body, 8)
    return kind, bar, offset, length
