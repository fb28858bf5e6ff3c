"""Who uses an image, asked of the kernel: QEMU's image locks, and the files that processes hold open.

Looking takes no lock, so it never gets in the way of a guest that starts at the same moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vmtui.backends.qcow2.files import reading
from vmtui.core.errors import ResourceBusy
from vmtui.host.process import tail

# block/file-posix.c of QEMU: a byte per permission that is held, and one per permission that is denied to others
HELD, DENIED = 100, 200
WRITE, RESIZE = 1, 3  # bit numbers of BLK_PERM_WRITE and BLK_PERM_RESIZE, include/block/block-common.h
PERMISSIONS = 64
FLOCK = struct.Struct("hhqqi0q")  # struct flock, fcntl(2)


class Use(StrEnum):
    """What others do with an image, by their locks."""

    FREE = "free"
    READ = "read"  # others read it and need it unchanged
    WRITTEN = "written"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has the image open."""

    pid: int
    command: str
    writes: bool

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})"


def usage(fd: int) -> Use:
    """How others use the open file. Our own open file description does not count."""
    if _locked(fd, HELD + WRITE, RESIZE - WRITE + 1):
        return Use.WRITTEN
    return Use.READ if _locked(fd, DENIED, PERMISSIONS) else Use.FREE


def _locked(fd: int, start: int, length: int) -> bool:
    query = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query)
    return bool(FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def holders(path: Path) -> tuple[Holder, ...]:
    """The other processes that have `path` open, as far as this user may see; the kernel hides pids of OFD locks."""
    try:
        wanted = path.stat()
    except OSError:
        return ()
    found: dict[int, Holder] = {}
    for entry in os.scandir("/proc"):
        pid = int(entry.name) if entry.name.isdigit() else os.getpid()
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                flags = _opened(pid, name, wanted)
                if flags is None or (flags & os.O_CLOEXEC and _is_starting(pid)):
                    continue
                if not (pid in found and found[pid].writes):
                    writes = flags & os.O_ACCMODE != os.O_RDONLY
                    found[pid] = Holder(pid, tail(Path(f"/proc/{pid}/comm").read_bytes()), writes)
    return tuple(found.values())


def _is_starting(pid: int) -> bool:
    """Whether it is a child of ours that has not come to its exec, which closes what it has from us. Raises OSError."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    parent = int(stat[stat.rindex(")") + 2 :].split()[1])  # field 4, proc(5)
    return parent == os.getpid() and os.path.samefile(f"/proc/{pid}/exe", "/proc/self/exe")


def _opened(pid: int, fd: str, wanted: os.stat_result) -> int | None:
    """The flags with which descriptor `fd` of a process was opened; None if it is another file."""
    try:
        opened = os.stat(f"/proc/{pid}/fd/{fd}")
        if (opened.st_ino, opened.st_dev) != (wanted.st_ino, wanted.st_dev):
            return None
        for line in Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines():
            if line.startswith("flags:"):
                return int(line[6:], 8)
    except OSError:
        return None
    return None


def busy(path: Path, users: tuple[Holder, ...] = ()) -> ResourceBusy:
    """The error that says who uses `path`."""
    known = users or holders(path)
    names = ", ".join(map(str, known)) or "another process"
    pids = ",".join(str(holder.pid) for holder in known)
    return ResourceBusy(f"{path} is in use by {names}", hint=f"ps -fp {pids}" if pids else f"fuser -v {path}")


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold `path` so that no QEMU can open it meanwhile. Raises ResourceBusy if any process uses it, OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        claim = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, HELD, DENIED + PERMISSIONS - HELD, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, claim)
        except (BlockingIOError, PermissionError):  # EAGAIN, EACCES: held by another, fcntl(2)
            raise busy(path) from None
        _refuse_open(path)
        yield
    finally:
        os.close(fd)


def refuse_users(path: Path) -> None:
    """Raises ResourceBusy if another process writes to `path` or needs it unchanged, OSError."""
    _refuse_locked(path, (Use.READ, Use.WRITTEN))
    _refuse_open(path)


def refuse_writers(path: Path) -> None:
    """Raises ResourceBusy if another process may write to `path`, OSError."""
    _refuse_locked(path, (Use.WRITTEN,))
    _refuse_open(path)


def _refuse_locked(path: Path, uses: tuple[Use, ...]) -> None:
    with reading(path) as fd:
        if usage(fd) in uses:
            raise busy(path)


def _refuse_open(path: Path) -> None:
    """A writer that takes no locks (cp, dd, locking=off) is found by its open descriptor."""
    writers = tuple(holder for holder in holders(path) if holder.writes)
    if writers:
        raise busy(path, writers)
