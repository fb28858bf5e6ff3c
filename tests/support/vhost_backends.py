"""Real vhost-user back-ends without confinement, to be killed, stopped and started again by tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from vmtui.vmm.backends.directory import virtiofsd_argv
from vmtui.vmm.backends.qmp import Qmp
from vmtui.vmm.backends.storage import NODE, storage_argv

STORAGE = shutil.which("qemu-storage-daemon") or ""
VIRTIOFSD = next((path for path in ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd") if os.path.exists(path)), "")
needs_storage = pytest.mark.skipif(not STORAGE, reason="needs qemu-storage-daemon (apt install qemu-system-common)")
needs_virtiofsd = pytest.mark.skipif(
    not VIRTIOFSD or os.geteuid() != 0, reason="needs root and virtiofsd (apt install virtiofsd)"
)


class Server:
    """A process that listens on a socket of its own; `connect` starts it anew if it has ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def argv(self, listener: int) -> tuple[list[str], tuple[int, ...]]:
        """What to run, and the descriptors that it needs beside the listener."""
        raise AssertionError

    def connect(self) -> socket.socket:
        path = str(self.folder / "socket")
        with suppress(FileNotFoundError):
            os.unlink(path)
        connection = socket.socket(socket.AF_UNIX)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            connection.connect(path)
            argv, more = self.argv(listener.fileno())
            self.process = subprocess.Popen(argv, pass_fds=(listener.fileno(), *more))
        return connection

    def hang(self) -> None:
        """From now on it neither answers nor ends."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def end(self, number: int) -> int:
        """By a signal. Returns the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.process = None
        return code


class StorageDaemon(Server):
    """Serves one image."""

    def __init__(self, folder: Path, path: Path, image_format: str, *, writable: bool = True, queues: int = 1) -> None:
        super().__init__(folder)
        self.path, self.format, self.writable, self.queues = path, image_format, writable, queues
        self.qmp: Qmp | None = None

    def argv(self, listener: int) -> tuple[list[str], tuple[int, ...]]:
        ours, theirs = socket.socketpair()
        self.qmp = Qmp(ours)
        monitor = theirs.detach()
        os.set_inheritable(monitor, True)
        argv = storage_argv(
            STORAGE,
            str(self.path),
            self.format,
            writable=self.writable,
            queues=self.queues,
            listener=listener,
            monitor=monitor,
        )
        return argv, (monitor,)

    def resize(self, size_bytes: int) -> None:
        assert self.qmp is not None
        self.qmp.execute("block_resize", {"node-name": NODE, "size": size_bytes})


class Virtiofsd(Server):
    """Shares `folder`/shared."""

    def argv(self, listener: int) -> tuple[list[str], tuple[int, ...]]:
        return virtiofsd_argv(VIRTIOFSD, str(self.folder / "shared"), listener=listener), ()
