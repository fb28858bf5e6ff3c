"""Files that get their name when they are whole, and the host's own errors as ones for people."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from vmtui.backends.qcow2.formats import Refused
from vmtui.core.errors import Conflict, OperationFailed
from vmtui.core.resource import Ref


def free_bytes(directory: Path) -> int:
    """What a user may still write on the file system that `directory` is, or will be, on."""
    while not directory.exists():
        directory = directory.parent
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def reading(path: Path) -> Iterator[int]:
    """An open file; neither a symbolic link nor something that blocks. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def sync(path: Path) -> None:
    with reading(path) as fd:
        os.fsync(fd)


def commit(partial: Path, path: Path) -> None:
    """Give a whole image its name, on the disk before its record says so: qemu-img itself does not sync."""
    partial.chmod(0o600)
    sync(partial)
    partial.rename(path)
    sync(path.parent)


def publish(partial: Path, target: Path) -> None:
    """Give a whole copy its name unless something has it by now. Raises Conflict, OSError."""
    sync(partial)
    try:
        os.link(partial, target)
    except FileExistsError:
        raise Conflict(f"{target} exists", hint=f"ls -l {shlex.quote(str(target))}") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS) or os.path.lexists(target):
            raise
        partial.rename(target)  # a file system without hard links, such as vfat


def plain(error: BaseException) -> str:
    """An error in words, without its path."""
    return (error.strerror or "unreadable").lower() if isinstance(error, OSError) else str(error)


@contextlib.contextmanager
def plain_errors(ref: Ref) -> Iterator[None]:
    """The host's own errors as ones for people."""
    try:
        yield
    except OSError as error:
        path = Path(str(error.filename or "/"))
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise (
                no_space(path) if error.filename else OperationFailed(f"no space left for {ref}", hint="df -h")
            ) from error
        raise OperationFailed(f"{ref}: {path}: {plain(error)}", hint=f"ls -ld {path}") from error
    except Refused as refusal:
        raise OperationFailed(f"{ref}: {refusal}") from refusal


def no_space(path: Path) -> OperationFailed:
    return OperationFailed(f"no space left for {path}", hint=f"df -h {shlex.quote(str(path.parent))}")
