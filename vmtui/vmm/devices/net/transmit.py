"""From the guest to the TAP: written straight from the guest's buffers."""

from __future__ import annotations

import errno
import os

from vmtui.vmm.devices.net.features import HEADER_BYTES, MIN_FRAME_BYTES
from vmtui.vmm.virtio.queue import Queue

TURN_PACKETS = 64  # then other devices of the loop have their turn


class Transmitter:
    """A session's transmit queue. The device's lock is held in each call.

    The kernel checks a packet's header, lengths and offsets (EINVAL), and its size; what it refuses is a packet lost,
    as on any wire.
    """

    def __init__(self, queue: Queue) -> None:
        self.packets = self.bytes = self.dropped = 0
        self._queue = queue

    def drain(self, fd: int) -> None:
        """A turn. `fd` is -1 where there is no TAP. Raises QueueBroken, OSError (EBADFD: the TAP was deleted)."""
        pop, push, writev = self._queue.pop, self._queue.push, os.writev
        packets = total = dropped = 0
        gone: OSError | None = None
        try:
            for _ in range(TURN_PACKETS):
                chain = pop()
                if chain is None:
                    break
                sent = 0
                if fd >= 0:
                    try:
                        sent = writev(fd, chain.readable)
                    except OSError as error:
                        if error.errno == errno.EBADFD:
                            fd, gone = -1, error
                if sent >= HEADER_BYTES + MIN_FRAME_BYTES:
                    packets += 1
                    total += sent - HEADER_BYTES
                else:
                    dropped += 1
                push(chain.head, 0)
        finally:
            self.packets += packets
            self.bytes += total
            self.dropped += dropped
        if gone is not None:
            raise gone
