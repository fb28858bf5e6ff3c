"""Terminals for the console's tests: one that repeats what it is sent, and one with a real program behind a pty."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path


class EchoTerminal:
    """Says what the test says, and keeps what it is sent and how big it is."""

    def __init__(self, *, echo: bool = True) -> None:
        self.sent = b""
        self.size = (0, 0)
        self.closed = False
        self.refusal = ""
        self.echo = echo
        self._output: asyncio.Queue[bytes] = asyncio.Queue()

    def say(self, data: bytes) -> None:
        self._output.put_nowait(data)

    def end(self) -> None:
        self.say(b"")

    async def read(self) -> bytes:
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        if self.closed:
            raise ConnectionResetError("closed")
        if self.refusal:
            raise ConnectionError(self.refusal)
        self.sent += data
        if self.echo:
            self.say(data)

    async def resize(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)

    async def aclose(self) -> None:
        self.closed = True
        self.end()


class PtyTerminal:
    """A program on a pty of its own. End it with `aclose`."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, rows: int = 24, columns: int = 80
    ) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            with contextlib.suppress(OSError):
                os.chdir(folder)
                os.execvpe(argv[0], list(argv), dict(environment))
            os._exit(127)
        self._set_size(rows, columns)
        os.set_blocking(self._master, False)

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def read(self) -> bytes:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self._master, 65536)
            except BlockingIOError:
                pass
            except OSError:  # EIO: nobody has the other end open any more
                return b""
            ready = asyncio.Event()
            loop.add_reader(self._master, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(self._master)

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._master, view) :]
            except BlockingIOError:
                await asyncio.sleep(0.005)
            except OSError as error:
                raise ConnectionError("the program has ended") from error

    async def resize(self, rows: int, columns: int) -> None:
        self._set_size(rows, columns)

    async def aclose(self) -> None:
        if self._master < 0:
            return
        os.close(self._master)
        self._master = -1
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, self.pid, 0)
