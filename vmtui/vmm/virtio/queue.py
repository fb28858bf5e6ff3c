"""The device's side of a split virtqueue (VIRTIO 2.7): takes descriptor chains, gives them back as used.

Everything in a ring is the guest's and may change at any time. Each value is read once, checked, and only then used;
a chain that breaks the rules raises QueueBroken, upon which the device asks for a reset (2.1.1, DEVICE_NEEDS_RESET).
"""

from __future__ import annotations

import struct
import threading

from vmtui.vmm.memory import GuestFault, GuestMemory

MAX_QUEUE_SIZE = 32768  # 2.7
# 2.7.5 virtq_desc flags, 2.7.6 virtq_avail flags, 2.7.8 virtq_used flags
DESC_NEXT, DESC_WRITE, DESC_INDIRECT = 1, 2, 4
AVAIL_NO_INTERRUPT = 1
USED_NO_NOTIFY = 1
# 6, feature bits
RING_INDIRECT_DESC, RING_EVENT_IDX, VERSION_1, ACCESS_PLATFORM = 1 << 28, 1 << 29, 1 << 32, 1 << 33

_descriptor = struct.Struct("<QIHH").unpack_from  # struct virtq_desc: addr, len, flags, next


class QueueBroken(Exception):
    """The guest's ring or a chain in it breaks the rules: the device is of no more use until it is reset."""


class Chain:
    """One request: the buffers that the device reads, then those that it writes, as views of guest memory."""

    __slots__ = ("head", "readable", "writable")
    # Queue.pop alone makes one, and fills it in: a call of __init__ takes a tenth of a small request's time.
    head: int
    readable: list[memoryview]
    writable: list[memoryview]

    @property
    def readable_bytes(self) -> int:
        return sum(map(len, self.readable))

    @property
    def writable_bytes(self) -> int:
        return sum(map(len, self.writable))

    def copy_in(self, limit: int) -> bytes:
        """The first `limit` bytes of what the guest wrote, gathered."""
        return gather(self.readable, limit)

    def copy_out(self, data: bytes | memoryview, skip: int = 0) -> int:
        """Scatter `data` over the writable buffers from byte `skip` on; returns how much found room."""
        return scatter(self.writable, data, skip)


def gather(views: list[memoryview], limit: int) -> bytes:
    """Their first `limit` bytes."""
    parts, left = [], limit
    for view in views:
        if left <= 0:
            break
        parts.append(bytes(view[:left]))
        left -= len(parts[-1])
    return b"".join(parts)


def scatter(views: list[memoryview], data: bytes | memoryview, skip: int = 0) -> int:
    """Write `data` into them from byte `skip` on; returns how much found room."""
    done = 0
    for view in views:
        if skip >= len(view):
            skip -= len(view)
            continue
        piece = data[done : done + len(view) - skip]
        view[skip : skip + len(piece)] = piece
        done += len(piece)
        skip = 0
        if done == len(data):
            break
    return done


class Queue:
    """One virtqueue. The transport fills in the public fields; `activate` checks them; then `pop`, `push`, `interrupt`.

    For one thread at a time: the device's own lock sees to that.
    """

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.reset()

    def reset(self) -> None:
        """As after power-on (4.1.4.3.2: not enabled, the largest size)."""
        self.size = self.max_size
        self.enabled = False
        self.desc_addr = self.avail_addr = self.used_addr = 0
        self.popped = 0  # the avail index of the next chain, as a 16-bit number
        self.used = 0  # the used index, likewise
        self.kicks = 0
        self._signalled = 0  # the used index at the last interrupt

    def activate(self, memory: GuestMemory, features: int) -> None:
        """Take the ring that the guest has set up. Raises QueueBroken: it is not one (2.7: size, alignment, in RAM)."""
        size = self.size
        if not 0 < size <= self.max_size or size & (size - 1):
            raise QueueBroken(f"a queue of {size} entries, of at most {self.max_size} and a power of two")
        if self.desc_addr % 16 or self.avail_addr % 2 or self.used_addr % 4:
            raise QueueBroken("a queue that is not aligned")
        try:
            self._desc = memory.view(self.desc_addr, 16 * size)
            self._avail = memory.view(self.avail_addr, 6 + 2 * size).cast("H")
            used = memory.view(self.used_addr, 6 + 8 * size)
        except GuestFault as fault:
            raise QueueBroken(f"a queue that is not in memory: {fault}") from None
        self._used16 = used.cast("H")
        self._used32 = used[: 4 + 8 * size].cast("I")
        self._low, self._view = memory.low, memory.view
        self._mask = size - 1
        self._event_idx = bool(features & RING_EVENT_IDX)
        self._indirect = bool(features & RING_INDIRECT_DESC)
        self._fence = threading.Lock()

    @property
    def indices(self) -> tuple[int, int]:
        """The available and the used index as they are in the ring, of a queue that another process serves."""
        return self._avail[1], self._used16[1]

    @property
    def available(self) -> int:
        """Chains that wait. Raises QueueBroken: more than the ring holds (2.7.13.3)."""
        waiting = (self._avail[1] - self.popped) & 0xFFFF
        if waiting > self.size:
            raise QueueBroken(f"{waiting} chains in a queue of {self.size}")
        return waiting

    def pop(self) -> Chain | None:
        """The next chain, None if there is none. Raises QueueBroken."""
        popped, size = self.popped, self.size
        waiting = (self._avail[1] - popped) & 0xFFFF
        if not waiting:
            return None
        if waiting > size:
            raise QueueBroken(f"{waiting} chains in a queue of {size}")
        head = at = self._avail[2 + (popped & self._mask)]
        if head >= size:
            raise QueueBroken(f"descriptor {head} of {size}")
        table, limit, left, indirect = self._desc, size, size, False
        low = self._low
        low_bytes = len(low)
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        try:
            while True:
                addr, length, flags, following = _descriptor(table, at << 4)
                end = addr + length
                if flags & DESC_INDIRECT:
                    table, limit = self._indirect_table(addr, length, flags, indirect), length >> 4
                    at, left, indirect = 0, min(limit, self.max_size), True
                    continue
                if flags & DESC_WRITE:
                    writable.append(low[addr:end] if end <= low_bytes else self._view(addr, length))
                elif writable:
                    raise QueueBroken("a readable buffer behind a writable one")  # 2.7.4.2
                else:
                    readable.append(low[addr:end] if end <= low_bytes else self._view(addr, length))
                if not flags & DESC_NEXT:
                    break
                left -= 1
                if following >= limit or not left:
                    raise QueueBroken("a chain that leaves its table" if left else "a chain without end")
                at = following
        except GuestFault as fault:
            raise QueueBroken(str(fault)) from None
        self.popped = (popped + 1) & 0xFFFF
        chain = Chain()
        chain.head, chain.readable, chain.writable = head, readable, writable
        return chain

    def _indirect_table(self, addr: int, length: int, flags: int, nested: bool) -> memoryview:
        """2.7.5.3: refused if not negotiated, in another table, or with NEXT; it holds whole entries."""
        if nested or not self._indirect or flags & DESC_NEXT or not length or length % 16:
            raise QueueBroken("an indirect descriptor where there may be none")
        if length >> 4 > MAX_QUEUE_SIZE:
            raise QueueBroken(f"an indirect table of {length >> 4}")
        return self._view(addr, length)

    def push(self, head: int, written: int) -> None:
        """Give a chain back, `written` bytes of its writable buffers filled from their beginning."""
        used = self.used
        entry = 1 + ((used & self._mask) << 1)
        self._used32[entry] = head
        self._used32[entry + 1] = written
        self.used = used = (used + 1) & 0xFFFF
        self._used16[1] = used  # x86 stores become visible in order: the entry first

    def interrupt_wanted(self) -> bool:
        """Whether what was pushed since the last time is to be signalled (2.7.7, 2.7.10)."""
        new, old = self.used, self._signalled
        if new == old:
            return False
        with self._fence:  # a full barrier: x86 may load the guest's wish before the store of the index is visible
            pass
        self._signalled = new
        if self._event_idx:
            event = self._avail[2 + self.size]
            return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF
        return not self._avail[0] & AVAIL_NO_INTERRUPT

    def suppress_kicks(self) -> None:
        """The guest need not kick: we look by ourselves. With EVENT_IDX an old index says the same."""
        if not self._event_idx:
            self._used16[0] = USED_NO_NOTIFY

    def want_kicks(self) -> bool:
        """Ask to be kicked for the next chain. True: one came meanwhile, look again. Raises QueueBroken."""
        if self._event_idx:
            self._used16[2 + 4 * self.size] = self.popped
        else:
            self._used16[0] = 0
        with self._fence:  # as above: our wish must be visible before we look for the last time
            pass
        return self.available > 0
