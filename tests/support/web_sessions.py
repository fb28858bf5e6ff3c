"""Sessions without processes, for tests of what stands between them and a browser: each echoes what it is told."""

from __future__ import annotations

import asyncio

from vmtui.core.errors import ResourceBusy
from vmtui.core.policy import Person
from vmtui.ssh.session import Outlet, Request, Session, Watcher


class Echo(Session):
    """Greets, echoes, and ends with code 0 on "q", 3 on "x". `pieces` is what it was fed."""

    def __init__(self, number: int, request: Request, outlet: Outlet) -> None:
        super().__init__(f"s{number}", request)
        self.pieces: list[bytes] = []
        self.sizes = [request.size]
        self.hung_up = False
        self.room = asyncio.Event()
        self.room.set()
        self.written = 0
        self._outlet = outlet
        self._queue: asyncio.Queue[bytes | int] = asyncio.Queue()
        rows, columns = request.size or (0, 0)
        self.say(f"{request.person.name} is {request.role.name} on {columns}x{rows}\r\n".encode())
        self._task = asyncio.create_task(self._run())

    def say(self, data: bytes) -> None:
        self._queue.put_nowait(data)

    async def _run(self) -> int:
        while True:
            told = await self._queue.get()
            if isinstance(told, int):
                return told
            try:
                await self._outlet.write("stdout", told)
            except ConnectionError:
                return 129
            self.written += len(told)

    def feed(self, data: bytes) -> None:
        self.pieces.append(data)
        self._queue.put_nowait({b"q": 0, b"x": 3}.get(data, data))

    async def drained(self) -> None:
        await self.room.wait()

    def eof(self) -> None: ...

    def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))
        self.say(f"now {columns}x{rows}\r\n".encode())

    def signal(self, name: str) -> None: ...

    def hang_up(self, reason: str = "") -> None:
        if not self.hung_up:
            self.hung_up, self.reason = True, reason
            self._task.cancel()

    async def wait(self) -> int:
        await asyncio.wait({self._task})
        return 129 if self._task.cancelled() else self._task.result()

    def watched_by(self, outlet: Outlet, person: Person, *, drives: bool) -> Watcher:
        raise ResourceBusy("nobody watches an echo")


class Echoes:
    """Opens them. Once `full` it opens no more, and none before `ready`."""

    def __init__(self) -> None:
        self.opened: list[Echo] = []
        self.asked = 0
        self.full = False
        self.ready = asyncio.Event()
        self.ready.set()

    async def open(self, request: Request, outlet: Outlet) -> Session:
        self.asked += 1
        await self.ready.wait()
        if self.full:
            raise ResourceBusy("there are too many sessions")
        self.opened.append(Echo(len(self.opened), request, outlet))
        return self.opened[-1]
