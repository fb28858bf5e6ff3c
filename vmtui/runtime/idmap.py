"""User namespaces of containers: which host ids a container gets, and mounts seen through that mapping.

Layers and volumes carry the ids that containers see (root is 0) and the kernel maps them per mount. So they are shared
by containers with different ranges, and nothing is chowned but the empty directory for a container's own changes,
whose files carry the ids of the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from vmtui.core.errors import OperationFailed
from vmtui.core.resource import Ref
from vmtui.host import trace
from vmtui.host.process import which
from vmtui.runtime import syscalls

ENTER_S = 60.0  # as long as an outside command has: many containers may be starting at once
COUNT = 65536  # every id that an image can use (16 bits, nobody included)
# Without a range of user `containers` in subuid(5): above what distributions give to people (login.defs SUB_UID_MAX is
# 600100000 at most for useradd's defaults; systemd-nspawn takes 524288-1879048191 by request, so the upper half of the
# positive 32-bit range is left, below 2^31 for the sake of programs that read ids as signed).
DEFAULT_FIRST = 0x7000_0000
DEFAULT_COUNT = 0x0E00_0000  # sandboxes and VMs have their users above
# What a kernel (before 5.19 for overlayfs, before 5.12 at all) or a file system without idmapped mounts answers.
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class IdMapUnsupported(OperationFailed):
    """The kernel or the file system cannot map ids on a mount."""


class IdRanges:
    """Which container has which range. One symlink per range in use, so that giving one out is atomic."""

    def __init__(self, directory: Path, workspace: str) -> None:
        self._directory = directory
        self._workspace = workspace

    def of(self, ref: Ref) -> int | None:
        """The first host id of a container's range, None if it has none."""
        for slot, owner in self._slots().items():
            if owner == str(ref):
                return _range_of_containers()[0] + slot * COUNT
        return None

    def take(self, ref: Ref) -> int:
        """The first host id of the range of `ref`, the same each time. Raises OSError, OperationFailed (all given)."""
        taken = self.of(ref)
        if taken is not None:
            return taken
        first, count = _range_of_containers()
        slots = count // COUNT
        # Begins at a place that depends on the workspace: two workspaces meet only by a rare accident.
        begin = int.from_bytes(hashlib.sha256(f"{self._workspace}\0{ref}".encode()).digest()[:8], "big") % slots
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for step in range(slots):
            slot = (begin + step) % slots
            with contextlib.suppress(FileExistsError):
                os.symlink(str(ref), self._directory / str(slot))
                return first + slot * COUNT
        raise OperationFailed(f"all {slots} id ranges for containers are in use", hint="vmtui ls")

    def release(self, ref: Ref) -> None:
        """Give it back. Absent is success."""
        for slot, owner in self._slots().items():
            if owner == str(ref):
                (self._directory / str(slot)).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._directory.rmdir()

    def _slots(self) -> dict[int, str]:
        found = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.name.isdecimal():
                        found[int(entry.name)] = os.readlink(entry.path)
        return found


def _range_of_containers(subuid: Path = Path("/etc/subuid"), subgid: Path = Path("/etc/subgid")) -> tuple[int, int]:
    """First id and count: what both files give to user `containers` (as podman's userns=auto reads them)."""
    ranges = [_subordinate(file) for file in (subuid, subgid)]
    if ranges[0] is not None and ranges[0] == ranges[1] and ranges[0][1] >= COUNT:
        return ranges[0]
    return DEFAULT_FIRST, DEFAULT_COUNT


def _subordinate(file: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            name, _, numbers = line.partition(":")
            if name == "containers":
                first, count = (int(number) for number in numbers.split(":"))
                return first, count
    return None


@contextlib.asynccontextmanager
async def user_namespace(base: int) -> AsyncIterator[int]:
    """A descriptor of a user namespace that maps 0..COUNT to `base`; for mount_setattr. Raises OperationFailed."""
    # A process must be in it until the maps are written: unshare(2) refuses that in a process with threads.
    argv = (which("unshare"), "--user", which("cat"))
    holder = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    act = trace.begin(trace.Way.COMMAND, argv)
    fd = -1
    try:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"\n")
        try:
            async with asyncio.timeout(ENTER_S):
                entered = await holder.stdout.read(1)  # cat answers, so unshare is done
        except TimeoutError:
            raise OperationFailed(f"making a user namespace took more than {ENTER_S:g} s") from None
        if not entered:
            raise OperationFailed("cannot make a user namespace", hint='set userns = "host" in its [oci] table')
        for name in ("uid_map", "gid_map"):
            path, line = Path(f"/proc/{holder.pid}/{name}"), f"0 {base} {COUNT}\n"
            with trace.write(path, line):
                path.write_text(line)
        fd = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        yield fd
    finally:
        if fd >= 0:
            os.close(fd)
        with contextlib.suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()
        act.ended()  # it has done what it was there for


def clone_mapped(path: str, userns_fd: int | None, *, attributes: int = 0, recursive: bool = False) -> int:
    """A detached clone of the mount at `path`, its ids mapped (with `userns_fd`); the caller closes the descriptor.

    Raises OSError (no such path), IdMapUnsupported.
    """
    fd = syscalls.open_tree(path, recursive=recursive)
    try:
        if attributes:
            syscalls.mount_setattr(fd, attributes, recursive=recursive)
        if userns_fd is not None:
            syscalls.mount_setattr(fd, syscalls.MOUNT_ATTR_IDMAP, userns_fd=userns_fd, recursive=recursive)
    except OSError as error:
        os.close(fd)
        if error.errno in UNSUPPORTED:
            raise IdMapUnsupported(f"the file system of {path} cannot map ids: {error.strerror}") from error
        raise
    return fd
