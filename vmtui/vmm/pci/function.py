"""One PCI function: its configuration space and its one BAR.

The configuration space is a page of the memory that the guest reads as ECAM, so reads by the guest need no exit: what
is stored here is what it sees.
"""

from __future__ import annotations

import struct
import threading
from typing import Protocol

from vmtui.vmm.eventfd import EventFd

SPACE = 4096
# PCI Local Bus 3.0, 6.1: offsets in the header
VENDOR_ID, COMMAND, STATUS, REVISION, CLASS, HEADER_TYPE = 0x00, 0x04, 0x06, 0x08, 0x09, 0x0E
BAR0, BAR1, SUBSYSTEM_VENDOR, SUBSYSTEM, CAPABILITIES = 0x10, 0x14, 0x2C, 0x2E, 0x34
COMMAND_MEMORY, COMMAND_MASTER, COMMAND_INTX_OFF = 0x0002, 0x0004, 0x0400
STATUS_CAPABILITIES = 0x0010
BAR_64_PREFETCHABLE = 0x0C  # 6.2.5.1: memory, 64 bits, prefetchable
FIRST_CAPABILITY = 0x40


class BarOwner(Protocol):
    """Where a BAR is mapped: the machine's buses."""

    def map(self, function: Function, addr: int) -> bool: ...

    def unmap(self, function: Function, addr: int) -> None: ...


class Function:
    """The generic part. Subclasses add capabilities and answer in `written`."""

    bar_bytes = 0  # a power of two, 0 for no BAR

    def __init__(self, space: memoryview, vendor: int, device: int, class_code: int, *, revision: int = 0) -> None:
        """`space`: SPACE bytes. `class_code`: base class, subclass and interface, 24 bits."""
        space[:SPACE] = bytes(SPACE)
        self.space = space
        self.lock = threading.RLock()
        self._writable = bytearray(SPACE)
        self._next = FIRST_CAPABILITY
        self._last = 0
        self._owner: BarOwner | None = None
        self._mapped: int | None = None
        struct.pack_into("<HH", space, VENDOR_ID, vendor, device)
        struct.pack_into("<I", space, REVISION, class_code << 8 | revision)
        self.allow(COMMAND, struct.pack("<H", COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_OFF))

    def allow(self, offset: int, mask: bytes) -> None:
        """Let the guest write the bits of `mask` at `offset`."""
        self._writable[offset : offset + len(mask)] = mask

    def add_capability(self, identity: int, body: bytes, writable: bytes = b"") -> int:
        """Append to the list (6.7); returns its offset. `writable` is a mask over the body."""
        at = self._next
        self.space[at] = identity
        self.space[at + 1] = 0
        self.space[at + 2 : at + 2 + len(body)] = body
        self.allow(at + 2, writable)
        self.space[self._last + 1 if self._last else CAPABILITIES] = at
        self._last = at
        self._next = at + 2 + len(body) + 3 & ~3
        self.space[STATUS] |= STATUS_CAPABILITIES
        return at

    def set_bar(self, addr: int, owner: BarOwner) -> None:
        """Place the BAR where the guest finds it after power-on; not decoded until it says so."""
        self._owner = owner
        mask = (1 << 64) - self.bar_bytes
        struct.pack_into("<Q", self.space, BAR0, addr | BAR_64_PREFETCHABLE)
        self.allow(BAR0, struct.pack("<Q", mask))

    @property
    def bar_addr(self) -> int:
        (value,) = struct.unpack_from("<Q", self.space, BAR0)
        return int(value) & ~0xF

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.space[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """As the guest does it: read-only bits stay. Never raises."""
        if offset + size > SPACE:
            return
        with self.lock:
            mask = int.from_bytes(self._writable[offset : offset + size], "little")
            if mask:
                old = int.from_bytes(self.space[offset : offset + size], "little")
                new = old & ~mask | value & mask
                self.space[offset : offset + size] = new.to_bytes(size, "little")
            if offset < BAR1 + 4 and offset + size > COMMAND:
                self._decode()
            self.written(offset, size)

    def _decode(self) -> None:
        """Map the BAR where it is now, if memory is decoded and it lies where it may; else nowhere."""
        if self._owner is None:
            return
        wanted = self.bar_addr if self.space[COMMAND] & COMMAND_MEMORY else None
        if wanted == self._mapped:
            return
        if self._mapped is not None:
            self._owner.unmap(self, self._mapped)
            self._mapped = None
        if wanted is not None and self._owner.map(self, wanted):
            self._mapped = wanted

    def written(self, offset: int, size: int) -> None:
        """A write has been stored; the lock is held."""
        return

    def doorbells(self) -> list[tuple[int, EventFd]]:
        """Offsets in the BAR at which a write, of any value, signals an eventfd."""
        return []

    def bar_read(self, offset: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def bar_write(self, offset: int, size: int, value: int) -> None:
        return
