"""What is outside of the walls, and the attempts to reach it."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.claims import WORKER
from vmtui.vmm.confine.enter import Walls, enter
from vmtui.walls import calls

UID = 0x7FFF_0100 + WORKER  # of each worker one, since the kernel counts the processes of a user
FILE_BYTES = 1 << 20


def attempt(function: Callable[[], Any]) -> str:
    """The name of the error that it raised, or "worked"."""
    try:
        function()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except (MemoryError, RuntimeError, ImportError, ValueError) as error:
        return type(error).__name__
    return "worked"


def call(number: int, *arguments: Any) -> Callable[[], None]:
    def made() -> None:
        if calls.libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "")

    return made


def address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def uid() -> int | None:
    return UID if os.geteuid() == 0 else None


def lock_in() -> Walls:
    return enter(uid(), file_bytes=FILE_BYTES)


class Host:
    """What there is outside, made before the walls: a listener of each sort, a file, a process, an open file."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vmtui-confined-"))
        self.folder.chmod(0o755)
        self.secret = self.folder / "secret"
        self.secret.write_text("secret")
        self.secret.chmod(0o600)
        self.listeners = {
            "path": self._listen(socket.AF_UNIX, str(self.folder / "socket")),
            "abstract": self._listen(socket.AF_UNIX, f"\0{self.folder}"),
            "tcp": self._listen(socket.AF_INET, ("127.0.0.1", 0)),
        }
        self.pid = os.getpid()
        self.file = os.open(self.folder / "file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def _listen(self, family: int, address: Any) -> socket.socket:
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen()
        return listener

    def clients(self) -> dict[str, Callable[[], None]]:
        """To each listener, over a socket that was made in time."""
        return {name: self._client(listener) for name, listener in self.listeners.items()}

    def _client(self, listener: socket.socket) -> Callable[[], None]:
        client, address = socket.socket(listener.family), listener.getsockname()
        return lambda: client.connect(address)

    def close(self) -> None:
        for listener in self.listeners.values():
            listener.close()
        os.close(self.file)
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()


def attacks(secret: str, folder: str, pid: int, clients: dict[str, Callable[[], None]]) -> dict[str, str]:
    return {
        "open": attempt(lambda: os.open(secret, os.O_RDONLY)),
        "create": attempt(lambda: os.mkdir(f"{folder}/new")),
        "kill": attempt(lambda: os.kill(pid, 0)),
        **{f"connect {name}": attempt(client) for name, client in clients.items()},
    }
