"""A guest that does anything, to one device behind its real transport, in a real VM without vCPUs.

A driver is among what it is: it brings the device up and sends proper requests often enough to get at what lies deep.
"""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

from tests.fuzz.devices import Subject
from tests.support.virtqueue import MEMORY_BYTES, RINGS_AT, DriverQueue
from vmtui.vmm.bus import MmioBus
from vmtui.vmm.kvm.system import System
from vmtui.vmm.kvm.vm import Vm
from vmtui.vmm.loop import Loop
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.pci.function import BAR0, COMMAND
from vmtui.vmm.pci.root import Root
from vmtui.vmm.virtio.transport import (
    ACKNOWLEDGE,
    COMMON,
    DEVICE,
    DRIVER,
    DRIVER_OK,
    FEATURES_OK,
    ISR,
    NEEDS_RESET,
    NOTIFY,
    PENDING,
    TABLE,
    VirtioFunction,
)

SLOT = 1
CONFIG_PORT_ADDRESS, CONFIG_PORT_DATA = 0, 4
SIZES = (1, 2, 4, 8)
WINDOWS = (COMMON, ISR, DEVICE, NOTIFY, TABLE, PENDING)
# Offsets in struct virtio_pci_common_cfg (VIRTIO 4.1.4.3) and the sizes of its fields
FIELDS = (
    *((0, 4), (4, 4), (8, 4), (12, 4), (16, 2), (18, 2), (20, 1), (21, 1), (22, 2), (24, 2), (26, 2), (28, 2)),
    *((30, 2), (32, 4), (36, 4), (40, 4), (44, 4), (48, 4), (52, 4), (32, 8), (40, 8), (48, 8)),
)
NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 64, 128, 255, 256, 0x8000, 0xFFFF, 1 << 31, (1 << 32) - 1, (1 << 64) - 1)
TOTAL_DATA_AT = MEMORY_BYTES // 2


class Guest:
    """`act` does one thing. What goes wrong in the device's loop is raised from there."""

    def __init__(self, subject: Subject, folder: Path, random: Random) -> None:
        self.random = random
        self.subject = subject
        self.failures: list[BaseException] = []
        self.needed_reset: set[str] = set()
        self.returned = 0  # chains
        self.loop = Loop("device", lambda _, error: self.failures.append(error))
        self.memory = GuestMemory(MEMORY_BYTES)
        self.system = System()
        self.vm = Vm(self.system)
        for slot, region in enumerate(self.memory.regions):
            self.vm.set_memory(slot, region.guest_addr, region.size_bytes, region.host_addr)
        self.mmio = MmioBus()
        self.root = Root(self.vm, self.mmio, MEMORY_BYTES)
        device = subject.make(self.loop, folder)
        self.function = VirtioFunction(
            self.root.page(SLOT), self.vm, self.memory, device, lambda _, reason: self.needed_reset.add(reason)
        )
        self.root.plug(SLOT, self.function)
        self.bar = self.function.bar_addr
        self.rings: dict[int, DriverQueue] = {}
        self._acts = (
            (30, self.send_request),
            (18, self.scribble),
            (14, self.kick),
            (10, self.write_field),
            (8, self.read_bar),
            (8, self.write_bar),
            (4, self.read_space),
            (3, self.write_space),
            (3, self.bring_up),
            (2, self.write_queue_field),
        )

    def act(self) -> None:
        weights = [weight for weight, _ in self._acts]
        (act,) = self.random.choices([act for _, act in self._acts], weights)
        act()
        self.loop.turn(0)
        if self.failures:
            raise self.failures[0]
        if self.function.needs_reset:
            assert self.function.status & NEEDS_RESET
            if self.random.random() < 0.5:
                self.bring_up()

    # As registers

    def _write(self, offset: int, size: int, value: int) -> None:
        self.mmio.write(self.bar + offset, size, value & (1 << 8 * size) - 1)

    def _number(self) -> int:
        random = self.random
        return random.choice(NUMBERS) if random.random() < 0.5 else random.getrandbits(random.choice((8, 16, 32, 64)))

    def _address(self) -> int:
        random = self.random
        near = random.choice((0, RINGS_AT, TOTAL_DATA_AT, MEMORY_BYTES, 3 << 30, 1 << 32))
        return max(0, near + random.randrange(-64, 0x4000)) if random.random() < 0.8 else random.getrandbits(64)

    def write_field(self) -> None:
        offset, size = self.random.choice(FIELDS)
        self._write(COMMON + offset, size, self._number())

    def write_queue_field(self) -> None:
        self._write(COMMON + 22, 2, self.random.randrange(len(self.function.queues) + 1))
        offset, size = self.random.choice(FIELDS[9:])
        self._write(COMMON + offset, size, self._address() if offset >= 32 else self._number())

    def read_bar(self) -> None:
        size = self.random.choice(SIZES)
        offset = self.random.choice(WINDOWS) + self.random.randrange(80)
        value = self.mmio.read(self.bar + offset, size)
        assert 0 <= value < 1 << 8 * size, (offset, size, value)

    def write_bar(self) -> None:
        size = self.random.choice(SIZES)
        offset = self.random.choice(WINDOWS) + self.random.randrange(80)
        if self.random.random() < 0.1:
            offset = self.random.randrange(0x10000)
        self._write(offset, size, self._number())

    def kick(self) -> None:
        number = self.random.randrange(len(self.function.queues) + 2)
        if number < len(self.function.queues):
            self.function.kicks[number].signal()  # as KVM does it
        else:
            self._write(NOTIFY + 4 * number, 2, number)

    def _select(self, register: int) -> int:
        self.root.write(CONFIG_PORT_ADDRESS, 4, 1 << 31 | SLOT << 11 | register & 0xFC)
        return CONFIG_PORT_DATA + (register & 3)

    def read_space(self) -> None:
        register, size = self.random.randrange(256), self.random.choice((1, 2, 4))
        value = self.root.read(self._select(register), size)
        assert 0 <= value < 1 << 8 * size

    def write_space(self) -> None:
        register, size = self.random.randrange(256), self.random.choice((1, 2, 4))
        if self.random.random() < 0.5:
            self.root.write(self._select(register), size, self._number() & (1 << 8 * size) - 1)
        else:  # by ECAM, which is not bounded by ports
            self.mmio.write(0xE0000000 + (SLOT << 15) + self.random.randrange(4096), 4, self._number() & 0xFFFFFFFF)
        self._find_bar()

    def _find_bar(self) -> None:
        """It goes back to where it is found, most times."""
        if self.random.random() < 0.9:
            self.root.write(self._select(BAR0), 4, self.bar & 0xFFFFFFFF)
            self.root.write(self._select(BAR0 + 4), 4, self.bar >> 32)
            self.root.write(self._select(COMMAND), 2, 6)

    # As a driver

    def bring_up(self) -> None:
        """Reset, negotiate, set the queues up, DRIVER_OK; now and then with something wrong in it."""
        random = self.random
        self._count()
        self.root.write(self._select(COMMAND), 2, 6)
        self._write(COMMON + 20, 1, 0)
        self._write(COMMON + 20, 1, ACKNOWLEDGE | DRIVER)
        for half in (0, 1):
            self._write(COMMON, 4, half)
            offered = self.mmio.read(self.bar + COMMON + 4, 4)
            self._write(COMMON + 8, 4, half)
            taken = offered & random.getrandbits(32) | (offered if random.random() < 0.7 else half)
            self._write(COMMON + 12, 4, taken)
        self._write(COMMON + 20, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        at = RINGS_AT
        queues = len(self.function.queues)
        share = (MEMORY_BYTES - TOTAL_DATA_AT) // queues
        for number in range(queues):
            size = min(self.function.queues[number].max_size, random.choice((2, 8, 16, 64, 256)))
            ring = DriverQueue(self.memory, size, at, TOTAL_DATA_AT + number * share, share)
            self.memory.write(at, bytes(ring.end - at))
            at = ring.end
            self.rings[number] = ring
            self._write(COMMON + 22, 2, number)
            self._write(COMMON + 24, 2, size if random.random() < 0.98 else self._number())
            self._write(COMMON + 26, 2, random.choice((number + 1, 0, 0xFFFF)))
            for offset, addr in ((32, ring.desc_addr), (40, ring.avail_addr), (48, ring.used_addr)):
                self._write(COMMON + offset, 8, addr if random.random() < 0.995 else self._address())
            if random.random() < 0.95:
                self._write(COMMON + 28, 2, 1)
        self._write(COMMON + 20, 1, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)

    def _count(self) -> None:
        self.returned += sum(queue.used for queue in self.function.queues if queue.enabled)

    def send_request(self) -> None:
        if not self.rings:
            return
        number = self.random.randrange(len(self.rings))
        ring = self.rings[number]
        while ring.used != ring.seen:  # take back, as far as it is in order
            head = ring.used_entry(ring.seen).head
            if head not in ring.chains:
                ring.seen = ring.used
            else:
                ring.take()
        readable, writable = self.subject.request(self.random, number)
        indirect = self.random.random() < 0.4
        pieces = len(readable) + len(writable)
        room = sum(map(len, readable)) + sum(writable) + 32 * pieces
        if not pieces or ring.free < (1 if indirect else pieces) or ring.room < room:
            return
        ring.add(readable, writable, indirect=indirect)
        if self.random.random() < 0.8:
            self.function.kicks[number].signal()

    def scribble(self) -> None:
        """Over rings, tables and buffers."""
        if not self.rings:
            return
        random = self.random
        ring = random.choice(list(self.rings.values()))
        what = random.random()
        if what < 0.4:
            length = random.choice((0, 1, 16, 4096, random.getrandbits(32)))
            flags = random.choice((0, 1, 2, 3, 4, 5, 6, random.getrandbits(16)))
            following = random.choice((0, random.randrange(ring.size), random.getrandbits(16)))
            ring.set_descriptor(random.randrange(ring.size), self._address(), length, flags, following)
        elif what < 0.6:
            ring.set_entry(random.randrange(ring.size), random.choice((0, ring.size - 1, random.getrandbits(16))))
        elif what < 0.7:
            ring.set_avail(ring.avail + random.choice((1, ring.size, ring.size + 1, random.getrandbits(16))))
        else:
            at = random.choice((ring.desc_addr, ring.avail_addr, ring.used_addr, TOTAL_DATA_AT))
            self.memory.write(at + random.randrange(0x200), struct.pack("<Q", self._number()))

    def close(self) -> None:
        self._count()
        self.function.close()
        self.root.close()
        self.vm.close()
        self.system.close()
        self.loop.close()
        self.memory.close()
