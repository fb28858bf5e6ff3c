"""A session over SSH as its client has it, in this process: its terminal answers what it is asked, and is read."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import asyncssh

from bench.pty import ANSWERS, LONGEST, QUESTION, plain
from tests.support.ssh_clients import HOST, LOGIN, Door
from tests.support.ssh_keys import Key

ROWS, COLUMNS = 40, 120
WAIT_S = 120.0
WINDOW_BYTES = 64 << 10  # what may be under way to a client that does not read


class Visitor:
    """Use it in `async with`. `raw` is all that came so far; `began` is when the connection was asked for."""

    def __init__(self, door: Door, key: Key, command: str | None = None, *, reads: bool = True) -> None:
        self.raw = bytearray()
        self.began = 0.0
        self._door, self._key, self._command, self._reads = door, key, command, reads
        self._answered = 0
        self._came = asyncio.Event()
        self._over = False

    async def __aenter__(self) -> Self:
        self.began = time.perf_counter()
        self._connection = await asyncssh.connect(
            HOST,
            self._door.port,
            username=LOGIN,
            client_keys=[str(self._key.path)],
            known_hosts=([asyncssh.read_public_key(self._door.host_key)], [], []),
            config=None,
            agent_path=None,
        )
        self._process: asyncssh.SSHClientProcess[bytes] = await self._connection.create_process(
            self._command,
            term_type="xterm-256color",
            term_size=(COLUMNS, ROWS),
            window=WINDOW_BYTES,
            env={"COLORTERM": "truecolor", "LANG": "C.UTF-8"},
            encoding=None,
        )
        self._reading = asyncio.create_task(self._read() if self._reads else asyncio.sleep(0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._connection.abort() if error else self._connection.close()
        with contextlib.suppress(Exception):
            await self._connection.wait_closed()
        await asyncio.wait([self._reading])

    def abort(self) -> None:
        """The link is gone, without a word."""
        self._connection.abort()

    def send(self, data: bytes) -> float:
        """The time at which it was written."""
        self._process.stdin.write(data)
        return time.perf_counter()

    async def drained(self) -> None:
        """Until the other side has taken what was sent, but for what it always has room for."""
        await self._process.stdin.drain()

    async def until(self, true: Callable[[bytes], bool], *, since: int = 0, timeout_s: float = WAIT_S) -> float:
        """Wait until it holds of what came after `since`; the time then. Raises TimeoutError, EOFError."""
        async with asyncio.timeout(timeout_s):
            while not true(bytes(self.raw[since:])):
                if self._over:
                    raise EOFError(f"it ended; it showed {plain(bytes(self.raw[-2000:]))!r}")
                self._came.clear()
                await self._came.wait()
        return time.perf_counter()

    async def shows(self, text: str, *, since: int = 0, timeout_s: float = WAIT_S) -> float:
        """`text` must be of one colour."""
        wanted, seen = text.encode(), since

        def there(_: bytes) -> bool:
            nonlocal seen
            found = self.raw.find(wanted, seen) >= 0
            seen = max(since, len(self.raw) - len(wanted))
            return found

        return await self.until(there, since=len(self.raw), timeout_s=timeout_s)

    async def _read(self) -> None:
        with contextlib.suppress(asyncssh.Error, ConnectionError):
            while data := await self._process.stdout.read(1 << 16):
                self.raw += data
                self._answer()
                self._came.set()
        self._over = True
        self._came.set()

    def _answer(self) -> None:
        for found in QUESTION.finditer(self.raw, self._answered):
            self._process.stdin.write(ANSWERS[found[0]])
            self._answered = found.end()
        self._answered = max(self._answered, len(self.raw) - LONGEST)
