"""An owned eventfd(2): how a guest's kick, an interrupt, or another thread is told of something."""

from __future__ import annotations

import os
import select


class EventFd:
    """A counter that is readable when it is not zero. Never blocks."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def signal(self) -> None:
        """Add one. A counter that is full already says all that there is to say."""
        try:
            os.eventfd_write(self.fd, 1)
        except BlockingIOError:
            pass

    def drain(self) -> int:
        """Take the count, 0 if nothing was signalled."""
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0

    @property
    def pending(self) -> bool:
        """Whether the count is not zero, without taking it."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
