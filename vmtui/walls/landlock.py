"""Landlock: what a process may reach by name, refused by the kernel beside all other walls.

Numbers from include/uapi/linux/landlock.h. A kernel knows the rights of its own ABI and refuses later ones.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

from vmtui.walls.calls import check, libc

SYS_CREATE_RULESET, SYS_ADD_RULE, SYS_RESTRICT_SELF = 444, 445, 446  # the same on all machines
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
FIRST_ABI_RIGHTS = (1 << 13) - 1
RIGHTS_SINCE = {2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}  # ABI → what it added
NET_ABI, NET_RIGHTS = 4, 1 << 0 | 1 << 1  # bind and connect of TCP
SCOPE_ABI, SCOPES = 6, 1 << 0 | 1 << 1  # abstract unix sockets and signals of others
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # the rest belong to folders


def abi() -> int:
    """0 where the kernel has none, or was started without it."""
    return max(0, int(libc.syscall(SYS_CREATE_RULESET, None, ctypes.c_size_t(0), CREATE_RULESET_VERSION)))


def rights(version: int) -> int:
    """Every right on files that an ABI can refuse."""
    return FIRST_ABI_RIGHTS | sum(right for since, right in RIGHTS_SINCE.items() if since <= version)


def restrict(allow: Iterable[tuple[str, int]] = ()) -> int:
    """From now on nothing is opened, made or executed but beneath these paths, with these rights; no TCP; no signal.

    A path that is not there is passed over. What is open stays usable. For this thread and those that it starts; needs
    no_new_privs. Returns the ABI, 0 if there is none and nothing was done. Raises OSError.
    """
    version = abi()
    if version == 0:
        return 0
    handled = rights(version)
    attributes = struct.pack(
        "QQQ", handled, NET_RIGHTS if version >= NET_ABI else 0, SCOPES if version >= SCOPE_ABI else 0
    )
    # A kernel refuses a longer structure than it knows unless the rest is zero, which it is.
    ruleset = check(
        libc.syscall(SYS_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock_create_ruleset"
    )
    try:
        for path, wanted in allow:
            _add(ruleset, path, wanted & handled)
        check(libc.syscall(SYS_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return version


def _add(ruleset: int, path: str, wanted: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:  # a rule only ever allows: without it all stays forbidden
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            wanted &= FILE_RIGHTS
        rule = struct.pack("=Qi", wanted, fd)  # struct landlock_path_beneath_attr is packed
        check(libc.syscall(SYS_ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(fd)
