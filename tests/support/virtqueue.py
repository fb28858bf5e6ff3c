"""The guest's side of virtio without a guest: rings in a real GuestMemory, driven by hand, well or badly."""

from __future__ import annotations

import select
import struct
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from vmtui.vmm.eventfd import EventFd
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.device import Activation, VirtioDevice
from vmtui.vmm.virtio.queue import DESC_INDIRECT, DESC_NEXT, DESC_WRITE, RING_EVENT_IDX, VERSION_1, Queue

PAGE = 4096
MEMORY_BYTES = 4 << 20
RINGS_AT = 0x10000
_DESC = struct.Struct("<QIHH")
_USED = struct.Struct("<II")


class Piece(NamedTuple):
    """A buffer of a chain as the descriptor says it."""

    addr: int
    length: int
    writable: bool


class Used(NamedTuple):
    head: int
    written: int


class DriverQueue:
    """One split virtqueue (VIRTIO 2.7) from the driver's side.

    `add` makes proper chains and `take` reaps them; `set_descriptor`, `set_entry` and `set_avail` make any others.
    """

    def __init__(self, memory: GuestMemory, size: int, at: int, data_at: int, data_bytes: int) -> None:
        """The rings from `at` on (page-aligned), the buffers of `add` in `data_bytes` from `data_at` on."""
        self.memory, self.size = memory, size
        self.desc_addr = at
        self.avail_addr = at + 16 * size
        self.used_addr = (self.avail_addr + 6 + 2 * size + 3) & ~3
        self.end = (self.used_addr + 6 + 8 * size + PAGE - 1) & ~(PAGE - 1)
        self.avail = 0  # the next avail index
        self.seen = 0  # used index up to which `take` has come
        self.chains: dict[int, tuple[list[Piece], list[int]]] = {}  # in flight: head → buffers, descriptors
        self._free = list(range(size))
        self._data_at, self._data_end, self._next = data_at, data_at + data_bytes, data_at

    def configure(self, queue: Queue) -> None:
        """As the driver would through the transport."""
        queue.size, queue.enabled = self.size, True
        queue.desc_addr, queue.avail_addr, queue.used_addr = self.desc_addr, self.avail_addr, self.used_addr

    # Anything

    def set_descriptor(self, index: int, addr: int, length: int, flags: int = 0, following: int = 0) -> None:
        self.memory.write(self.desc_addr + 16 * index, _DESC.pack(addr, length, flags, following))

    def set_entry(self, slot: int, head: int) -> None:
        """The avail ring's entry `slot`, modulo the size."""
        self.memory.set_u16(self.avail_addr + 4 + 2 * (slot % self.size), head)

    def set_avail(self, index: int) -> None:
        self.avail = index & 0xFFFF
        self.memory.set_u16(self.avail_addr + 2, self.avail)

    def offer(self, head: int) -> None:
        self.set_entry(self.avail, head)
        self.set_avail(self.avail + 1)

    # As a driver does

    @property
    def free(self) -> int:
        """Descriptors that no chain in flight uses."""
        return len(self._free)

    @property
    def room(self) -> int:
        """Bytes that can still be allocated."""
        return self._data_end - self._next

    def allocate(self, length: int) -> int:
        """Guest address of `length` bytes, for the caller until all chains have been taken back."""
        at, self._next = self._next, (self._next + length + 15) & ~15
        assert self._next <= self._data_end, "the test needs more memory"
        return at

    def add(self, readable: Sequence[bytes], writable: Sequence[int] = (), *, indirect: bool = False) -> int:
        """Offer a chain: what the device is to read, then the lengths of what it may write. Returns the head."""
        pieces = []
        for data in readable:
            addr = self.allocate(len(data))
            self.memory.write(addr, data)
            pieces.append(Piece(addr, len(data), False))
        pieces += [Piece(self.allocate(length), length, True) for length in writable]
        return self.add_pieces(pieces, indirect=indirect)

    def add_pieces(self, pieces: Sequence[Piece], *, indirect: bool = False) -> int:
        """Offer a chain over buffers that are where the caller wants them."""
        entries = [
            (piece.addr, piece.length, DESC_WRITE * piece.writable | DESC_NEXT * (number < len(pieces) - 1))
            for number, piece in enumerate(pieces)
        ]
        if indirect:
            table = self.allocate(16 * len(entries))
            self.memory.write(table, b"".join(_DESC.pack(*entry, number + 1) for number, entry in enumerate(entries)))
            entries = [(table, 16 * len(entries), DESC_INDIRECT)]
        slots = [self._free.pop(0) for _ in entries]
        for number, entry in enumerate(entries):
            self.set_descriptor(slots[number], *entry, slots[number + 1] if number + 1 < len(slots) else 0)
        self.chains[slots[0]] = (list(pieces), slots)
        self.offer(slots[0])
        return slots[0]

    @property
    def used(self) -> int:
        return self.memory.u16(self.used_addr + 2)

    def used_entry(self, index: int) -> Used:
        return Used(*_USED.unpack(self.memory.read(self.used_addr + 4 + 8 * (index % self.size), 8)))

    def await_next(self) -> None:
        """EVENT_IDX: interrupt at the next chain that comes back."""
        self.memory.set_u16(self.avail_addr + 4 + 2 * self.size, self.seen)

    def take(self) -> tuple[Used, bytes] | None:
        """The next chain that came back, and its writable buffers whole."""
        if self.used == self.seen:
            return None
        entry = self.used_entry(self.seen)
        self.seen = (self.seen + 1) & 0xFFFF
        pieces, slots = self.chains.pop(entry.head)
        self._free += slots
        if not self.chains:
            self._next = self._data_at
        return entry, b"".join(self.memory.read(piece.addr, piece.length) for piece in pieces if piece.writable)


class Driver:
    """A device's whole session, without transport and VM: memory, one DriverQueue a queue, kicks and interrupts."""

    def __init__(
        self,
        device: VirtioDevice,
        *,
        refused: int = 0,
        memory: GuestMemory | None = None,
        sizes: Sequence[int] | None = None,
        queues: Iterable[int] | None = None,
    ) -> None:
        """`refused`: offered features not to accept. `sizes`: of each queue; `queues`: which to enable, else all."""
        self.device = device
        self.memory = memory or GuestMemory(MEMORY_BYTES)
        self.features = (device.features | VERSION_1) & ~refused
        self.sizes = tuple(sizes or device.queue_sizes)
        enabled = range(len(self.sizes)) if queues is None else queues
        self.queues = tuple(Queue(size) for size in device.queue_sizes)
        self.kicks = tuple(EventFd() for _ in self.queues)
        self.calls = tuple(EventFd() for _ in self.queues)
        self.failures: list[str] = []
        self.config_changes = 0
        self.drivers: list[DriverQueue] = []
        self._enabled = tuple(enabled)

    def start(self) -> Self:
        """Set the rings up anew, and say DRIVER_OK."""
        at = RINGS_AT
        self.drivers, self.failures = [], []
        ends = []
        for size in self.sizes:
            ring = DriverQueue(self.memory, size, at, 0, 0)
            self.memory.write(at, bytes(ring.end - at))
            ends.append((size, at))
            at = ring.end
        share = (min(self.memory.size_bytes, self.memory.regions[0].size_bytes) - at) // len(self.sizes) & ~(PAGE - 1)
        for number, (size, ring_at) in enumerate(ends):
            self.drivers.append(DriverQueue(self.memory, size, ring_at, at + number * share, share))
        for number, queue in enumerate(self.queues):
            queue.reset()
            self.kicks[number].drain()
            self.calls[number].drain()
            if number in self._enabled:
                self.drivers[number].configure(queue)
                queue.activate(self.memory, self.features)
        self.device.activate(
            Activation(
                memory=self.memory,
                features=self.features,
                queues=self.queues,
                kicks=self.kicks,
                calls=self.calls,
                config_changed=self._config_changed,
                failed=self.failures.append,
            )
        )
        return self

    def _config_changed(self) -> None:
        self.config_changes += 1

    def kick(self, queue: int = 0) -> None:
        self.kicks[queue].signal()

    def reset(self) -> None:
        self.device.reset()

    def wait(self, queue: int = 0, timeout_s: float = 60.0) -> tuple[Used, bytes]:
        """The next chain that comes back: told by an interrupt alone, so one that is missing fails the test."""
        ring, call = self.drivers[queue], self.calls[queue]
        end = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(call.fd, select.POLLIN)
        while True:
            if self.features & RING_EVENT_IDX:
                ring.await_next()
            if (taken := ring.take()) is not None:
                return taken
            left = end - time.monotonic()
            assert left > 0, f"no chain came back in {timeout_s} s; failures: {self.failures}"
            poll.poll(left * 1000)
            call.drain()

    def request(
        self,
        readable: Sequence[bytes],
        writable: Sequence[int] = (),
        *,
        queue: int = 0,
        indirect: bool = False,
        timeout_s: float = 60.0,
    ) -> tuple[Used, bytes]:
        """Offer a chain, kick, wait for it (or one before it) to come back."""
        self.drivers[queue].add(readable, writable, indirect=indirect)
        self.kick(queue)
        return self.wait(queue, timeout_s)

    def close(self) -> None:
        """The device stays the caller's."""
        self.device.reset()
        for event in (*self.kicks, *self.calls):
            event.close()
        self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
