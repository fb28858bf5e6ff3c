"""System calls that Python's library has no function for. Each raises OSError with the call's name."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Container, Iterable

# linux/sched.h
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
# linux/mount.h, sys/mount.h; MOUNT_ATTR_RDONLY to NOEXEC are equal to the first four
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 4096, 16384, 1 << 18, 1 << 19
MNT_DETACH = 2
MOUNT_ATTR_IDMAP = 0x00100000
OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = 1, 4
# linux/fcntl.h
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
# linux/prctl.h, linux/capability.h
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_READ, PR_CAPBSET_DROP = 1, 4, 23, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
LINUX_CAPABILITY_VERSION_3 = 0x20080522
SIGKILL = 9
# asm/unistd_64.h, asm-generic/unistd.h
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_CAPGET = {"x86_64": 125, "aarch64": 90}
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442  # from 424 on the same on all machines

libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd"))


def check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int, what: str) -> None:
    check(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {what}")


def die_with_parent(*, wanted: bool = True) -> None:
    """SIGKILL when the parent ends, or no longer. Children do not inherit it; a change of user cancels it."""
    prctl(PR_SET_PDEATHSIG, SIGKILL if wanted else 0, "parent's death")


def unshare(flags: int, what: str) -> None:
    check(libc.unshare(flags), f"unshare {what}")


def map_user(uid: int, gid: int) -> None:
    """In a user namespace of one's own, the only user and group are those that one was."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def join(namespace: int, kind: int, what: str) -> None:
    """The namespace that is open as a descriptor."""
    check(libc.setns(namespace, kind), f"setns {what}")


def fork_in_pid_namespace() -> int:
    """Like os.fork, the child alone in a process namespace. Needs root."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWPID, "pid")
        pid = os.fork()
        if pid:
            join(own, CLONE_NEWPID, "pid")  # later children are ordinary ones
        return pid
    finally:
        os.close(own)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    check(libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def set_mount_attributes(path: str, flags: int, *, at: int = AT_FDCWD, owners: int | None = None) -> None:
    """Of the mount at a path (below the descriptor `at`; "" is that itself) and of those below it.

    `owners` is a user namespace: files of user 0 in it, which the disk has, belong to whom that is outside.
    """
    attributes = _MountAttributes(set=flags)
    if owners is not None:
        attributes.set |= MOUNT_ATTR_IDMAP
        attributes.userns_fd = owners
    which = AT_RECURSIVE | (0 if path else AT_EMPTY_PATH)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    result = libc.syscall(SYS_MOUNT_SETATTR, at, os.fsencode(path), which, ctypes.byref(attributes), size)
    check(result, f"mount_setattr {path}")


def clone_mount(fd: int) -> int:
    """A mount of what is open as `fd`, of a file alone or of a folder and all below it, attached nowhere yet."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE
    return check(libc.syscall(SYS_OPEN_TREE, fd, b"", flags), "open_tree")


def attach_mount(tree: int, target: str) -> None:
    check(libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH), "move_mount")


def change_root(new: str) -> None:
    """The mount at `new` becomes the root and the working directory; what was the root is gone."""
    os.chdir(new)
    check(libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")


def drop_bounding_set(keep: Container[int] = ()) -> None:
    """No program executed from here on has or gains a capability, but for these. Needs CAP_SETPCAP."""
    capability = 0
    while libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0:
        if capability not in keep:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        capability += 1


def drop_capabilities(keep: Iterable[int] = ()) -> None:
    """This thread has none but these, where it has them, and none that it could take back."""
    machine = os.uname().machine
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of the lower 32, then of the upper
    check(libc.syscall(SYS_CAPGET[machine], header, sets), "capget")
    kept = sum(1 << capability for capability in keep)
    for half in (0, 1):
        permitted = sets[3 * half + 1] & (kept >> 32 * half)
        sets[3 * half : 3 * half + 3] = [permitted, permitted, 0]
    check(libc.syscall(SYS_CAPSET[machine], header, sets), "capset")


def become(uid: int, gid: int) -> None:
    """Needs root."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def set_host_name(name: str) -> None:
    """Of the UTS namespace; needs CAP_SYS_ADMIN in it."""
    encoded = name.encode()
    check(libc.sethostname(encoded, len(encoded)), "sethostname")
