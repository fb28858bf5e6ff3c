"""virtiofsd: one process for each directory that is shared with the guest."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from vmtui.vmm.backends.program import BackEnd, find
from vmtui.vmm.confine.backend import Started, start_virtiofsd
from vmtui.vmm.confine.room import Share
from vmtui.vmm.loop import Loop

QEMUS = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/qemu/virtiofsd")  # up to QEMU 7.2, in C: other options
PROGRAMS = ("/usr/libexec/virtiofsd", "/usr/bin/virtiofsd", "/usr/lib/virtiofsd", *QEMUS)
HINT = "apt install virtiofsd || apt install qemu-system-common"


def virtiofsd_argv(program: str, path: str, *, listener: int) -> list[str]:
    """`listener`: a descriptor that it inherits. Raises OSError for a path that QEMU's virtiofsd would misread."""
    if os.path.realpath(program) not in QEMUS:
        return [program, f"--fd={listener}", f"--shared-dir={path}"]
    if "," in path or "\\" in path:  # FUSE's option parser parts at the first, and takes the second away
        raise OSError(f"{path}: this virtiofsd cannot share a path with a comma or a backslash")
    return [program, f"--fd={listener}", "-f", "-o", f"source={path}"]


class Directory(BackEnd):
    """Read-only by its mount: what is written fails with EROFS."""

    def __init__(
        self,
        name: str,
        sockets: str,
        log: int,
        loop: Loop,
        *,
        path: str,
        writable: bool = True,
        connected: Callable[[socket.socket, bool], None],
        ended: Callable[[str], None],
    ) -> None:
        """`path`: absolute."""
        super().__init__(name, sockets, log, loop, connected=connected, ended=ended)
        self._shared = Share(path, writable)

    def launch(self, listener: int) -> Started:
        argv = virtiofsd_argv(find(PROGRAMS, HINT), self._shared.path, listener=listener)
        return start_virtiofsd(argv, shared=self._shared, keep=(listener,), log=self.log)
