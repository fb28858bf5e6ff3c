"""qemu-storage-daemon: one process for each disk that is not raw."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

from vmtui.vmm.backends.program import BackEnd, find
from vmtui.vmm.backends.qmp import Qmp
from vmtui.vmm.confine.backend import Started, start_storage
from vmtui.vmm.confine.room import Share
from vmtui.vmm.loop import Loop

PROGRAMS = ("/usr/bin/qemu-storage-daemon", "/usr/local/bin/qemu-storage-daemon")
HINT = "apt install qemu-system-common"
FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc")  # as QEMU's drivers are called
# What a guest was told is written, and has not flushed, is in the image's file or the host's page cache: for all but
# qcow2, whose tables the daemon keeps to itself for a while. They are lost with it, unless it ends by itself.
DURABLE = frozenset(FORMATS) - {"qcow2"}
NODE = "disk"


def storage_argv(
    program: str, path: str, image_format: str, *, writable: bool, queues: int, listener: int, monitor: int
) -> list[str]:
    """`listener` and `monitor`: descriptors that it inherits. Everything as JSON: a path may have commas in it."""
    file = {"driver": "file", "filename": path, "read-only": not writable, "discard": "unmap"}
    disk = {"driver": image_format, "node-name": NODE, "read-only": not writable, "discard": "unmap", "file": file}
    export = {
        "type": "vhost-user-blk",
        "id": "export",
        "node-name": NODE,
        "writable": writable,
        "num-queues": queues,
        "addr": {"type": "fd", "str": str(listener)},
    }
    return [
        program,
        *("--blockdev", json.dumps(disk)),
        *("--export", json.dumps(export)),
        *("--chardev", f"socket,id=monitor,fd={monitor}"),
        *("--monitor", "chardev=monitor"),
    ]


class Storage(BackEnd):
    """Owns the process and the connection to its QMP monitor."""

    def __init__(
        self,
        name: str,
        sockets: str,
        log: int,
        loop: Loop,
        *,
        path: str,
        image_format: str,
        backing: tuple[str, ...] = (),
        writable: bool = True,
        queues: int = 1,
        uid: int | None = None,
        connected: Callable[[socket.socket, bool], None],
        ended: Callable[[str], None],
    ) -> None:
        """`path`, `backing`: absolute; all files that the image leans on. `uid`: its own user, for root."""
        super().__init__(name, sockets, log, loop, connected=connected, ended=ended)
        if image_format not in FORMATS:
            raise ValueError(f"{image_format!r} is not one of {', '.join(FORMATS)}")
        self._path_of_image, self._format, self._writable = path, image_format, writable
        self._shares = (Share(path, writable), *(Share(each, False) for each in backing))
        self._queues, self._uid = queues, uid
        self._qmp: Qmp | None = None

    def launch(self, listener: int) -> Started:
        program = find(PROGRAMS, HINT)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                started = start_storage(
                    storage_argv(
                        program,
                        self._path_of_image,
                        self._format,
                        writable=self._writable,
                        queues=self._queues,
                        listener=listener,
                        monitor=theirs.fileno(),
                    ),
                    shares=self._shares,
                    keep=tuple(sorted((listener, theirs.fileno()))),
                    uid=self._uid,
                    log=self.log,
                )
            except BaseException:
                ours.close()
                raise
        self.over()
        self._qmp = Qmp(ours)
        return started

    def resize(self, size_bytes: int) -> None:
        """Make the disk larger; the guest hears of it by itself. Raises OSError."""
        if self._qmp is None:
            raise OSError(f"{self.name} does not run")
        self._qmp.execute("block_resize", {"node-name": NODE, "size": size_bytes})

    def over(self) -> None:
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
