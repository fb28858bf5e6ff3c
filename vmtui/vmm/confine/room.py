"""The root of a back-end: the host's programs and libraries read-only, the files that it serves, and nothing else."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from vmtui.vmm.confine import owners
from vmtui.vmm.confine.namespaces import QUIET
from vmtui.walls import calls, landlock

# Where programs and their libraries are; those of Nix and Guix are under the last two.
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache", "/nix/store", "/gnu/store")
NULL = "/dev/null"  # QEMU learns from it what locks there are
BASE = "/sys"  # on any host, and of no use to a back-end
READ = landlock.READ_FILE | landlock.READ_DIR
WRITE = landlock.FIRST_ABI_RIGHTS & ~landlock.EXECUTE | landlock.TRUNCATE | landlock.REFER


class Share(NamedTuple):
    """A file or folder that a back-end may use, at the absolute path that it has on the host."""

    path: str
    writable: bool


class Tree(NamedTuple):
    """A mount of a share, attached nowhere yet."""

    fd: int
    share: Share
    status: os.stat_result


def build(shares: tuple[Share, ...], *, uid: int | None, processes: bool) -> tuple[int, int]:
    """Make the root and enter it, in a mount namespace of one's own. Raises OSError.

    Returns the user and group to become, who may use the shares: `uid`, if the file systems can be told so (idmapped
    mounts), else the owner of the first share that is written. None: to stay who we are. `processes`: with /proc, of
    this process namespace.
    """
    calls.mount("none", "/", None, calls.MS_REC | calls.MS_PRIVATE)
    trees = [_tree(share) for share in shares]
    identity = os.geteuid(), os.getegid()
    if uid is not None:
        try:
            _give(trees, uid)
            identity = uid, uid
        except OSError:
            for tree in trees:
                os.close(tree.fd)
            trees = [_tree(share) for share in shares]  # those that have an owner already keep it
            first = next((tree for tree in trees if tree.share.writable), trees[0])
            identity = first.status.st_uid, first.status.st_gid
    calls.mount("room", BASE, "tmpfs", QUIET, "mode=755,size=1m")
    os.umask(0o022)  # whoever it becomes passes through the folders that are made here
    if processes:
        os.mkdir(f"{BASE}/proc")
        calls.mount("proc", f"{BASE}/proc", "proc", QUIET)
    for path in SYSTEM:
        _add_system(path)
    for tree in (_tree(Share(NULL, writable=True)), *trees):
        _attach(tree)
    calls.change_root(BASE)
    calls.mount("none", "/", None, calls.MS_REMOUNT | calls.MS_BIND | calls.MS_RDONLY | QUIET)
    return identity


def rules(shares: tuple[Share, ...], executables: tuple[str, ...]) -> list[tuple[str, int]]:
    """What Landlock is to allow: these shares, reading the system, and running these."""
    allowed = [(path, READ) for path in SYSTEM if os.path.exists(path)]
    for share in (Share(NULL, writable=True), *shares):
        wanted = READ | (WRITE if share.writable else 0)
        allowed.append((share.path, wanted | (landlock.IOCTL_DEV if _is_device(os.stat(share.path)) else 0)))
    return allowed + [(path, READ | landlock.EXECUTE) for path in executables]


def _is_device(status: os.stat_result) -> bool:
    return stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)


def _tree(share: Share, flags: int = calls.MS_NOSUID | calls.MS_NOEXEC) -> Tree:
    fd = os.open(share.path, os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not share.writable:
            flags |= calls.MS_RDONLY
        if not _is_device(status):
            flags |= calls.MS_NODEV
        tree = calls.clone_mount(fd)
        calls.set_mount_attributes("", flags, at=tree)
        return Tree(tree, share, status)
    finally:
        os.close(fd)


def _give(trees: list[Tree], uid: int) -> None:
    """Raises OSError where a file system has no idmapped mounts (9p, NFS, FUSE, overlayfs); some are changed then."""
    maps: dict[tuple[int, int], int] = {}
    try:
        for tree in trees:
            owner = tree.status.st_uid, tree.status.st_gid
            if owner not in maps:
                maps[owner] = owners.make((owner[0], uid, 1), (owner[1], uid, 1))
            calls.set_mount_attributes("", 0, at=tree.fd, owners=maps[owner])
    finally:
        for fd in maps.values():
            os.close(fd)


def _add_system(path: str) -> None:
    if os.path.islink(path):  # /lib, where /usr is merged
        os.symlink(os.readlink(path), BASE + path)
    elif os.path.exists(path):
        _attach(_tree(Share(path, writable=False), calls.MS_NOSUID | calls.MS_NODEV))


def _attach(tree: Tree) -> None:
    target = BASE + os.path.abspath(tree.share.path)
    if not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if stat.S_ISDIR(tree.status.st_mode):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    calls.attach_mount(tree.fd, target)
    os.close(tree.fd)
