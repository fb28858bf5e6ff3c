"""Namespaces of the machine's own, and a root without a file in it."""

from __future__ import annotations

import os

from vmtui.walls import calls

ALL = calls.CLONE_NEWNS | calls.CLONE_NEWNET | calls.CLONE_NEWIPC | calls.CLONE_NEWUTS | calls.CLONE_NEWCGROUP
QUIET = calls.MS_NOSUID | calls.MS_NODEV | calls.MS_NOEXEC


def isolate() -> None:
    """Mounts, network (without an interface), IPC, host name and cgroups of one's own. Raises OSError.

    Who is not root and in no user namespace where that is allowed gets one.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        calls.unshare(ALL, "namespaces")
    except PermissionError:
        if uid == 0:
            raise
        calls.unshare(ALL | calls.CLONE_NEWUSER, "namespaces, user")
        calls.map_user(uid, gid)
    calls.set_host_name("vm")


def empty_root() -> None:
    """The root and the working directory are a folder that is empty and cannot be written. Raises OSError."""
    calls.mount("none", "/", None, calls.MS_REC | calls.MS_PRIVATE)
    # /proc is there on any host, and is of no use from here on
    calls.mount("empty", "/proc", "tmpfs", QUIET, "mode=555,size=4k,nr_inodes=1")
    calls.change_root("/proc")
    calls.mount("none", "/", None, calls.MS_REMOUNT | calls.MS_BIND | calls.MS_RDONLY | QUIET)
