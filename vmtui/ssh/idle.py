"""When a session has had no key for too long: a warning first, then its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class IdleClock:
    """Counts from the last `touch`. `warn` gets the seconds that are left, and 0 when a key came in time."""

    def __init__(
        self, limit_s: float, warning_s: float, warn: Callable[[float], None], end: Callable[[], None]
    ) -> None:
        self._limit_s = limit_s
        self._warning_s = min(warning_s, limit_s / 2)
        self._warn, self._end = warn, end
        self._loop = asyncio.get_running_loop()
        self._touched = self._loop.time()
        self._warned = False
        self._timer = self._loop.call_later(limit_s - self._warning_s, self._look)

    def touch(self) -> None:
        """A key: cheap, since no timer is moved but after a warning."""
        self._touched = self._loop.time()
        if self._warned:
            self._warned = False
            self._warn(0.0)
            self._again(self._limit_s - self._warning_s)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left = self._touched + self._limit_s - self._loop.time()
        if self._warned and left <= 0:
            self._end()
        elif self._warned:
            self._again(left)
        elif left <= self._warning_s:
            self._warned = True
            self._warn(left)
            self._again(left)
        else:
            self._again(left - self._warning_s)

    def _again(self, after_s: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, after_s), self._look)
