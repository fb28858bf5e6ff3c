"""The mount system calls that Python lacks, through ctypes: the raw ABI and nothing else. All raise OSError."""

from __future__ import annotations

import ctypes
import os
import struct
import threading

from vmtui.host import trace

# include/uapi/asm-generic/unistd.h: the same numbers on all architectures since 5.1
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_OPENAT2 = 437
NR_MOUNT_SETATTR = 442

# include/uapi/linux/mount.h
MS_NOSUID = 2
MS_NODEV = 4
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_IDMAP = 0x100000

# include/uapi/linux/fcntl.h, sched.h, openat2.h
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
CLONE_NEWNS = 0x20000
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """unshare(2) for the calling thread."""
    with trace.begin(trace.Way.SYSCALL, (f"unshare({'CLONE_NEWNS' if flags == CLONE_NEWNS else hex(flags)})",)):
        _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    """mount(2)."""
    encoded = [os.fsencode(text) for text in (source, target, fstype)]
    # Each is made in a namespace that belongs to one thread, and with it.
    inside = f"--mount=/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/mnt"
    words = ("nsenter", inside, *_mount_words(source, target, fstype, flags, data))
    with trace.begin(trace.Way.MOUNT, words, cwd=_here()):
        result = _libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(data))
        _checked(result, f"mount {fstype or source} on {target}")


def _here() -> str:
    """The thread's working directory, which relative names of a mount's options begin at."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _mount_words(source: str, target: str, fstype: str, flags: int, data: str) -> tuple[str, ...]:
    """What mount(8) needs to make the same call."""
    if flags & MS_PRIVATE:
        return ("mount", "--make-rprivate" if flags & MS_REC else "--make-private", target)
    named = {MS_NOSUID: "nosuid", MS_NODEV: "nodev"}
    options = ",".join([*(name for flag, name in named.items() if flags & flag), *([data] if data else [])])
    return ("mount", "-t", fstype, *(("-o", options) if options else ()), source, target)


def open_tree(path: str, *, recursive: bool = False) -> int:
    """A detached clone of the mount at `path`, as a descriptor that the caller closes."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    with trace.begin(trace.Way.SYSCALL, lambda: (f'open_tree(AT_FDCWD, "{path}", {flags:#x})',)):
        return _checked(
            _libc.syscall(ctypes.c_long(NR_OPEN_TREE), AT_FDCWD, os.fsencode(path), ctypes.c_uint(flags)),
            f"open_tree {path}",
        )


def mount_setattr(fd: int, attributes: int, *, userns_fd: int = 0, recursive: bool = False) -> None:
    """Set attributes of a detached mount; with MOUNT_ATTR_IDMAP its ids are mapped by `userns_fd`."""
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    attr = struct.pack("QQQQ", attributes, 0, 0, userns_fd)  # struct mount_attr, version 0
    said = f'mount_setattr({fd}, "", {flags:#x}, {{attr_set={attributes:#x}, userns_fd={userns_fd}}})'
    with trace.begin(trace.Way.SYSCALL, (said,)):
        size = ctypes.c_size_t(len(attr))
        _checked(
            _libc.syscall(ctypes.c_long(NR_MOUNT_SETATTR), fd, b"", ctypes.c_uint(flags), attr, size), "mount_setattr"
        )


def move_mount(fd: int, target: str) -> None:
    """Attach a detached mount at `target`."""
    flags = ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH)
    said = f'move_mount({fd}, "", AT_FDCWD, "{target}", MOVE_MOUNT_F_EMPTY_PATH)'
    with trace.begin(trace.Way.SYSCALL, (said,)):
        _checked(
            _libc.syscall(ctypes.c_long(NR_MOVE_MOUNT), fd, b"", AT_FDCWD, os.fsencode(target), flags),
            f"move_mount on {target}",
        )


def open_in_root(root_fd: int, path: str, flags: int) -> int:
    """openat2(2) with `root_fd` as the root: neither `..` nor symlinks lead out of a hostile tree."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)  # struct open_how
    return _checked(
        _libc.syscall(ctypes.c_long(NR_OPENAT2), root_fd, os.fsencode(path), how, ctypes.c_size_t(len(how))),
        f"openat2 {path}",
    )
