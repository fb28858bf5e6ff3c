"""What one can reach over SFTP: /PROFILE/container/NAME/VOLUME/… and /PROFILE/disk/NAME/IMAGE, and nothing else.

Volumes are full of what their containers made: symbolic links to anywhere, FIFOs, device nodes. Each path is resolved
by the kernel with the volume as its root (openat2), what is opened is first looked at without being opened, and what
changes a name goes by the descriptor of its folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from vmtui.core.backend import FileTree
from vmtui.core.errors import Fault
from vmtui.core.resource import Ref
from vmtui.runtime.syscalls import open_in_root

PERMITTED_MODE = 0o777  # nobody makes a file set-user-ID over SFTP
Held = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Volume:
    """A part of a resource. While `held` is entered nobody else changes it."""

    ref: Ref
    tree: FileTree
    held: Held = contextlib.nullcontext


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: into a volume, with the rest of the path, or (without one) to a folder of names."""

    names: Mapping[str, object] = field(default_factory=dict)
    volume: Volume | None = None
    inside: str = ""


class Tree:
    """The folders above the volumes are only names."""

    def __init__(self, volumes: list[Volume]) -> None:
        self._top: dict[str, object] = {}
        for volume in volumes:
            ref = volume.ref
            here = self._top
            for step in (ref.profile, str(ref.kind), ref.name):
                here = here.setdefault(step, {})  # type: ignore[assignment]
            here[volume.tree.name] = volume

    def find(self, path: str) -> Place:
        """Raises OSError for what is not there. `..` and links of a volume stay in it."""
        if "\0" in path:
            raise _not_there(path)
        here: object = self._top
        steps = [step for step in path.split("/") if step not in ("", ".")]
        for at, step in enumerate(steps):
            if isinstance(here, Volume):
                if here.tree.image:
                    raise _not_there(path)
                return Place(volume=here, inside="/".join(steps[at:]))
            if not isinstance(here, dict) or step not in here:
                raise _not_there(path)
            here = here[step]
        if isinstance(here, Volume):
            return Place(volume=here)
        assert isinstance(here, dict)
        return Place(names=here)


def normal(path: str) -> str:
    """An absolute path without `.` and `..`, as if there were no links: what the client believes to be in."""
    steps: list[str] = []
    for step in path.split("/"):
        if step == "..":
            del steps[-1:]
        elif step not in ("", "."):
            steps.append(step)
    return "/" + "/".join(steps)


def _not_there(path: str) -> OSError:
    return OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)


@contextlib.contextmanager
def rooted(volume: Volume) -> Iterator[int]:
    """The folder of a volume, as a descriptor. Raises OSError."""
    fd = os.open(volume.tree.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def seen(volume: Volume, inside: str, *, follow: bool = True) -> Iterator[int]:
    """What is there, as a descriptor that only names it: no FIFO is waited for, no device is opened. Raises OSError."""
    if volume.tree.image:
        fd = os.open(volume.tree.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    elif follow or not inside:
        with rooted(volume) as root:
            fd = open_in_root(root, inside or ".", os.O_PATH)
    else:
        with parent(volume, inside) as (folder, name):
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def parent(volume: Volume, inside: str) -> Iterator[tuple[int, str]]:
    """The folder of a name, as a descriptor, and the name in it. Raises OSError: the volume itself has none."""
    folder, _, name = inside.rpartition("/")
    if volume.tree.image or name in ("", ".", ".."):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), inside)
    with rooted(volume) as root:
        fd = open_in_root(root, folder or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd, name
    finally:
        os.close(fd)


def reopened(fd: int, flags: int) -> int:
    """What `fd` names, opened: only a file or a folder can be. Raises OSError."""
    kind = stat.S_IFMT(os.fstat(fd).st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise OSError(errno.EPERM, "neither a file nor a folder")
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC | os.O_NONBLOCK)


def open_file(volume: Volume, inside: str, flags: int, mode: int) -> int:
    """A file of a volume; O_CREAT makes it if nothing has the name. Raises OSError."""
    making = flags & (os.O_CREAT | os.O_EXCL)
    if volume.tree.image and flags & (os.O_ACCMODE | making | os.O_TRUNC):
        raise OSError(errno.EROFS, "the image of a disk is only read")
    if making & os.O_CREAT:
        with parent(volume, inside) as (folder, name):
            try:
                only_new = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(name, flags & ~os.O_TRUNC | only_new, mode & PERMITTED_MODE, dir_fd=folder)
            except FileExistsError:
                if making & os.O_EXCL:
                    raise
            else:
                own(fd, folder)
                return fd
    with seen(volume, inside) as fd:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EPERM, "not a file")
        return reopened(fd, flags & ~making)


def own(fd: int, folder: int) -> None:
    """Give what was made the owner of its folder: in a container that is whose volume it is."""
    if os.geteuid() == 0:
        whose = os.fstat(folder)
        os.fchown(fd, whose.st_uid, whose.st_gid)


def make_folder(volume: Volume, inside: str, mode: int) -> None:
    """Raises OSError."""
    with parent(volume, inside) as (folder, name):
        os.mkdir(name, mode & PERMITTED_MODE, dir_fd=folder)
        if os.geteuid() == 0:
            whose = os.fstat(folder)
            os.chown(name, whose.st_uid, whose.st_gid, dir_fd=folder, follow_symlinks=False)


def in_words(error: BaseException) -> str:
    """For the client."""
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return f"{error} ({error.hint})" if isinstance(error, Fault) and error.hint else str(error)
