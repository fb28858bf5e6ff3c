"""A panel that is served over a connection: what the server tells it, and what of that stays in sight."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from math import ceil

from textual.timer import Timer

from vmtui.tui.saying import Saying
from vmtui.tui.text import plain
from vmtui.wire.lines import WireError
from vmtui.wire.served import Ending, Idle, Repaint, ToSession, ToSessionReader, Watched

READ_BYTES = 1 << 16
NAMES_SHOWN = 3
NAME_SHOWN = 24
TICK_S = 1.0


class Line:
    """The way from the server, on the loop. The descriptor's flags stay as they are: others write into it."""

    def __init__(self, fd: int, hear: Callable[[ToSession], None], lost: Callable[[], None]) -> None:
        self._socket = socket.socket(fileno=fd)
        self._reader = ToSessionReader()
        self._hear, self._lost = hear, lost
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
            messages = self._reader.feed(data)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, WireError):
            data, messages = b"", []
        for message in messages:
            self._hear(message)
        if not data:
            self.stop()
            self._lost()

    def stop(self) -> None:
        """Hear no more; the descriptor stays open, as it was."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.detach())


class Served(Saying):
    """An application that may be served. `alerts` is what its user has to see all the time."""

    def begin_served(self, fd: int | None) -> None:
        self._served_fd = fd
        self._line: Line | None = None
        self.watchers: tuple[str, ...] = ()
        self._idle_at: float | None = None  # when the session ends for want of a key
        self._ending = ""
        self._ticks: Timer | None = None

    def on_mount(self) -> None:
        if self._served_fd is not None:
            self._line = Line(self._served_fd, self.heard, self.server_lost)

    async def on_unmount(self) -> None:
        if self._line is not None:
            self._line.stop()

    def server_lost(self) -> None:
        """Nobody serves this any more."""

    def stand(self) -> None:
        """Show anew what holds for the whole panel."""

    def heard(self, message: ToSession) -> None:
        """The server says something."""
        if isinstance(message, Watched):
            self._watched(message.names)
        elif isinstance(message, Idle):
            self._idle(message.left_s)
        elif isinstance(message, Ending):
            self._ending = plain(message.reason, 200) or "the server ends it"
            self.say(f"this session ends: {self._ending}", "warning")
        elif isinstance(message, Repaint):
            self.repaint()
        self.stand()

    def repaint(self) -> None:
        """All of the screen, for somebody who has not seen it yet."""

    def _watched(self, names: tuple[str, ...]) -> None:
        before, self.watchers = self.watchers, names
        for name in names:
            if name not in before:
                self.say(f"{name} this session", "warning")
        if before and not names:
            self.say("nobody else sees this session any more")

    def _idle(self, left_s: float) -> None:
        if left_s <= 0:
            self._idle_at = None
            if self._ticks is not None:
                self._ticks.stop()
                self._ticks = None
            return
        if self._idle_at is None:
            self.say(f"no key for long: this session ends in {ceil(left_s)} s unless one comes", "warning")
            self.bell()
        self._idle_at = time.monotonic() + left_s
        if self._ticks is None:
            self._ticks = self.set_interval(TICK_S, self.stand)

    def alerts(self) -> list[str]:
        """What is to be seen before anything else; after a colon what can be left out where there is no room."""
        said = [f"ends now: {self._ending}"] if self._ending else []
        if self._idle_at is not None:
            said.append(f"idle {max(0, ceil(self._idle_at - time.monotonic()))} s: a key goes on")
        shown = [plain(name, NAME_SHOWN) for name in self.watchers[:NAMES_SHOWN]]
        more = len(self.watchers) - len(shown)
        return [*said, *shown, *([f"{more} more watch"] if more > 0 else [])]
