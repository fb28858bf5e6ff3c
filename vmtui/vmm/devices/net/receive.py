"""From the TAP into the guest's buffers: read straight into them, several buffers to a packet where that is agreed."""

from __future__ import annotations

import os
import struct
from collections import deque

from vmtui.vmm.devices.net.features import HEADER_BYTES, MAX_PACKET_BYTES, NUM_BUFFERS
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.queue import Chain, Queue, QueueBroken

TURN_PACKETS = 64  # then other devices of the loop have their turn
SMALL_BYTES = 2048  # a packet that was not merged on its way here, in a buffer or two
CALM_PACKETS = 64  # small ones in a row, after which the next is taken to be small as well
MAX_VIEWS = 1000  # of a read; include/uapi/linux/uio.h, UIO_MAXIOV is 1024
_ONE_BUFFER = struct.pack("<H", 1)


class Receiver:
    """A session's receive queue. The device's lock is held in each call.

    How long the next packet is cannot be asked of a TAP. We offer it the buffers that a packet like the last ones
    needs, and room of our own behind them; what came to lie there is copied into more buffers. A packet for which the
    guest has too few is kept until it has.
    """

    def __init__(self, queue: Queue, memory: GuestMemory, mergeable: bool) -> None:
        self.packets = self.bytes = self.dropped = 0
        self.starved = False  # it needs buffers, and will not look at the TAP before there are some
        self._queue = queue
        self._mergeable = mergeable
        self._used_ring = memory.view(queue.used_addr, 4 + 8 * queue.size).cast("I")  # 2.7.8, after flags and index
        self._ready: deque[tuple[Chain, int]] = deque()  # taken from the ring, not yet filled; with their bytes
        self._room = 0  # theirs together
        self._spill = memoryview(bytearray(MAX_PACKET_BYTES + 1))  # full: the packet may have been longer
        self._kept = b""
        self._reach = SMALL_BYTES
        self._calm = 0

    def fill(self, fd: int) -> None:
        """A turn: until the TAP is empty, or `starved`. Raises QueueBroken, OSError (EBADFD: the TAP was deleted)."""
        self.starved = False
        ready, spill, readv = self._ready, self._spill, os.readv
        if self._kept and not self._place_kept():
            return
        for _ in range(TURN_PACKETS):
            if not self._gather(self._reach if self._mergeable else 1):
                self.starved = True
                return
            views, covered = self._views()
            views.append(spill)
            try:
                length = readv(fd, views)
            except BlockingIOError:
                return
            chain, size = ready[0]
            if length <= size:
                first = chain.writable[0]
                if len(first) >= HEADER_BYTES:
                    first[NUM_BUFFERS:HEADER_BYTES] = _ONE_BUFFER
                else:
                    chain.copy_out(_ONE_BUFFER, NUM_BUFFERS)
                ready.popleft()
                self._room -= size
                self._queue.push(chain.head, length)
                self._count(length)
            elif not self._mergeable or length - covered == len(spill):
                self.dropped += 1
            elif length <= covered:
                self._use(length)
            elif not self._place_spilled(views, covered, length - covered):
                return

    def _gather(self, wanted: int) -> bool:
        """Have room for `wanted` bytes at hand, or all that there is. False: there is none."""
        pop = self._queue.pop
        while self._room < wanted and len(self._ready) < self._queue.size:
            chain = pop()
            if chain is None:
                break
            views = chain.writable
            size = len(views[0]) if len(views) == 1 else chain.writable_bytes
            if size < HEADER_BYTES:  # 5.1.6.3.1
                raise QueueBroken(f"a receive buffer of {size} bytes")
            self._ready.append((chain, size))
            self._room += size
        return bool(self._ready)

    def _views(self) -> tuple[list[memoryview], int]:
        """Those of whole chains, as far as the next packet is thought to reach; and their bytes."""
        chain, covered = self._ready[0]
        views = chain.writable[:]
        if self._mergeable and covered < self._reach:
            for chain, size in list(self._ready)[1:]:
                if covered >= self._reach or len(views) + len(chain.writable) > MAX_VIEWS:
                    break
                views += chain.writable
                covered += size
        return views, covered

    def _place_spilled(self, views: list[memoryview], covered: int, spilled: int) -> bool:
        """False: it waits for buffers."""
        self._reach, self._calm = MAX_PACKET_BYTES, 0
        self._gather(covered + spilled)
        if self._room < covered + spilled:
            self._kept = b"".join(views[:-1]) + self._spill[:spilled]
            return self._place_kept()
        self._copy(self._spill[:spilled], covered)
        self._use(covered + spilled)
        return True

    def _place_kept(self) -> bool:
        """True: it is out of the way."""
        length = len(self._kept)
        self._gather(length)
        if self._room >= length:
            self._copy(memoryview(self._kept), 0)
            self._use(length)
        elif 2 * sum(len(chain.writable) for chain, _ in self._ready) < self._queue.size:
            self.starved = True
            return False
        else:
            self.dropped += 1  # a full ring of however long chains has that many: it may have given all that it can
        self._kept = b""
        return True

    def _copy(self, data: memoryview, skip: int) -> None:
        """Into what is ready, from byte `skip` on."""
        for chain, size in self._ready:
            if skip >= size:
                skip -= size
                continue
            data = data[chain.copy_out(data, skip) :]
            skip = 0
            if not data:
                return

    def _use(self, length: int) -> None:
        """Give back the buffers of a packet that is in them.

        All at once, by one store of the index: a driver that sees the first counts on the others (5.1.6.4).
        """
        queue, ring, take, used = self._queue, self._used_ring, self._ready.popleft, self._queue.used
        mask, left = queue.size - 1, length
        chain, size = take()
        first = chain
        while left > size:
            ring[1 + ((used & mask) << 1)] = chain.head
            ring[2 + ((used & mask) << 1)] = size
            left -= size
            used += 1
            self._room -= size
            chain, size = take()
        self._room -= size
        first.copy_out(struct.pack("<H", used - queue.used + 1), NUM_BUFFERS)
        queue.used = used & 0xFFFF
        queue.push(chain.head, left)
        self._count(length)

    def _count(self, length: int) -> None:
        self.packets += 1
        self.bytes += length - HEADER_BYTES
        if length > SMALL_BYTES:
            self._calm = 0
        elif self._reach > SMALL_BYTES:
            self._calm += 1
            if self._calm == CALM_PACKETS:
                self._reach = SMALL_BYTES
