"""Who sees a session of another's. A watcher that is slow is let go; the session never waits for one."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections import deque
from collections.abc import Callable

from vmtui.core.policy import Person
from vmtui.headless.drawing import Drawing
from vmtui.ssh.session import Outlet

SLOW = "the link is too slow to watch"
LAST_S = 1.0  # for a terminal to be given back as it was
SIZE_REPORT = re.compile(rb"\x1b\[48;[0-9;:]{1,64}t")  # of another terminal than the session's


class Watching:
    """`keys` takes those of somebody who drives, `restore` says what gives a terminal back, `gone` is called once.

    A guest's bytes draw on the terminal of somebody who only looks, and do nothing else to it: it is not theirs that
    the guest was opened on.
    """

    def __init__(
        self,
        outlet: Outlet,
        person: Person,
        *,
        drives: bool,
        limit_bytes: int,
        keys: Callable[[bytes], None],
        restore: Callable[[], bytes],
        gone: Callable[[Watching], None],
    ) -> None:
        self.person = person
        self.drives = drives
        self._outlet = outlet
        self._limit = limit_bytes
        self._keys, self._restore, self._gone = keys, restore, gone
        self._drawing = None if drives else Drawing()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending: deque[bytes] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self._why: str | None = None
        self._task = asyncio.create_task(self._pass_on())

    @property
    def verb(self) -> str:
        return "drive" if self.drives else "observe"

    @property
    def says(self) -> str:
        """For the watched."""
        return f"{self.person.name} {self.verb}s"

    def show(self, data: bytes) -> None:
        if self._drawing is not None and self._why is None:
            data = self._drawing.feed(self._decoder.decode(data)).encode()
        if self._why is not None or not data:
            return
        self._pending.append(data)
        self._bytes += len(data)
        self._some.set()
        if self._bytes > self._limit:
            self.end(SLOW, drop=True)

    def feed(self, data: bytes) -> None:
        if self.drives and self._why is None:
            self._keys(SIZE_REPORT.sub(b"", data))

    def leave(self) -> None:
        self.end("", drop=True)

    def end(self, why: str, *, drop: bool = False) -> None:
        """Once what waits is shown, or at once with `drop`, give the terminal back."""
        if self._why is not None:
            return
        self._why = why
        if drop:
            self._pending.clear()
        restored = self._restore()
        if self._drawing is not None:  # it was put into no other mode
            restored = Drawing().feed(restored.decode()).encode()
        self._pending.append(restored)
        self._some.set()
        asyncio.get_running_loop().call_later(LAST_S, self._task.cancel)
        self._gone(self)

    async def wait(self) -> str:
        await asyncio.wait([self._task])
        return self._why or ""

    async def _pass_on(self) -> None:
        try:
            while self._why is None or self._pending:
                await self._some.wait()
                self._some.clear()
                while self._pending:
                    data = self._pending.popleft()
                    self._bytes -= len(data)
                    await self._outlet.write("stdout", data)
        except OSError:
            self.end("")
