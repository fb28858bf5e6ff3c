"""A panel that is served over a connection: what the server tells it, and what of that stays in sight."""

from __future__ import annotations

import time
from math import ceil
from typing import TYPE_CHECKING

from textual.timer import Timer

from vmtui.tui.saying import Saying
from vmtui.tui.text import plain

if TYPE_CHECKING:
    from vmtui.tui.server_line import ServerLine

NAMES_SHOWN = 3
NAME_SHOWN = 24
TICK_S = 1.0


class Served(Saying):
    """An application that may be served. `alerts` is what its user has to see all the time."""

    def begin_served(self, fd: int | None) -> None:
        self._served_fd = fd
        self._line: ServerLine | None = None
        self.watchers: tuple[str, ...] = ()
        self._idle_at: float | None = None  # when the session ends for want of a key
        self._ending = ""
        self._ticks: Timer | None = None

    def on_mount(self) -> None:
        if self._served_fd is not None:
            from vmtui.tui.server_line import ServerLine

            self._line = ServerLine(self._served_fd, self)

    async def on_unmount(self) -> None:
        if self._line is not None:
            self._line.stop()

    def server_lost(self) -> None:
        """Nobody serves this any more."""

    def stand(self) -> None:
        """Show anew what holds for the whole panel."""

    def repaint(self) -> None:
        """All of the screen, for somebody who has not seen it yet."""

    def watched(self, names: tuple[str, ...]) -> None:
        """Others see this session now, or no more; each in words."""
        before, self.watchers = self.watchers, names
        for name in names:
            if name not in before:
                self.say(f"{name} this session", "warning")
        if before and not names:
            self.say("nobody else sees this session any more")
        self.stand()

    def ends(self, reason: str) -> None:
        """The session is about to be hung up."""
        self._ending = plain(reason, 200) or "the server ends it"
        self.say(f"this session ends: {self._ending}", "warning")
        self.stand()

    def idle(self, left_s: float) -> None:
        """The session ends in so many seconds unless a key comes; 0: one came."""
        if left_s <= 0:
            self._idle_at = None
            if self._ticks is not None:
                self._ticks.stop()
                self._ticks = None
            self.stand()
            return
        if self._idle_at is None:
            self.say(f"no key for long: this session ends in {ceil(left_s)} s unless one comes", "warning")
            self.bell()
        self._idle_at = time.monotonic() + left_s
        if self._ticks is None:
            self._ticks = self.set_interval(TICK_S, self.stand)
        self.stand()

    def alerts(self) -> list[str]:
        """What is to be seen before anything else; after a colon what can be left out where there is no room."""
        said = [f"ends now: {self._ending}"] if self._ending else []
        if self._idle_at is not None and not self._ending:
            said.append(f"idle {max(0, ceil(self._idle_at - time.monotonic()))} s: a key goes on")
        shown = [plain(name, NAME_SHOWN) for name in self.watchers[:NAMES_SHOWN]]
        more = len(self.watchers) - len(shown)
        return [*said, *shown, *([f"{more} more watch"] if more > 0 else [])]
