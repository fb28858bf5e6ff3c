"""A mount namespace that lives in one thread: what is mounted there never shows on the host, and goes with it.

A container's root file system is put together in such a namespace and handed to the OCI runtime, which copies it into
the container's own. So the host's mount table is never touched, and a front end that dies leaves no mount behind.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from vmtui.core.errors import OperationFailed
from vmtui.runtime import syscalls

T = TypeVar("T")
# Empty by the Filesystem Hierarchy Standard (3.0, chapter 3) and open to all users: the mapped root of a container
# must be able to walk to its root file system, which it could not below a private XDG directory.
STAGES = ("/mnt", "/media", "/srv", "/opt", "/home")


class MountNamespace:
    """Owns the thread. `path` names the namespace for nsenter(1) as long as it is open."""

    def __init__(self) -> None:
        inside = contextvars.copy_context()
        entered = functools.partial(inside.run, self._enter)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="mount-namespace", initializer=entered)
        self._thread_id = 0

    def _enter(self) -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)  # implies CLONE_FS: other threads keep theirs
        syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE, "")
        self._thread_id = threading.get_native_id()

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/task/{self._thread_id}/ns/mnt"

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` inside."""
        inside = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: inside.run(work))

    def close(self) -> None:
        """Let the thread go; with the last process inside, all its mounts go too."""
        self._executor.shutdown(wait=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def make_stage(visible: tuple[Path, ...]) -> tuple[str, str]:
    """Two directories that hide none of `visible`: one to mount the root file system on, and a small tmpfs for work.

    To be called inside a namespace. The first is a directory of the host's, since runc enters it by name whenever it
    runs a command in the container (libcontainer, commandTemplate), long after this namespace is gone.
    Raises OSError, OperationFailed.
    """
    resolved = [path.resolve() for path in visible]
    free = [
        stage
        for stage in STAGES
        if os.path.isdir(stage)
        and not os.path.islink(stage)
        and not any(path.is_relative_to(stage) for path in resolved)
    ]
    if len(free) < 2:
        raise OperationFailed("no directory to build a root file system on", hint=f"mkdir {' '.join(STAGES[:3])}")
    syscalls.mount("vmtui", free[1], "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755,size=1m")
    return free[0], free[1]
