"""The machine gives up, for good, everything that it does not need to run its guest.

The order is forced. Limits are set while /proc is there, which tells one of them. Namespaces and the empty root take
capabilities, so they precede their loss. The change of user takes one too, and cancels the death signal and what
dumpable was, which are therefore set after it. Landlock and seccomp demand no_new_privs. seccomp is last: it refuses
the calls of all other steps. It is also the only one that reaches threads that exist; the others need there to be
none.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import NamedTuple

from vmtui.vmm.confine import limits, namespaces, seccomp
from vmtui.walls import bpf, calls, landlock

PF_USER_WORKER = 0x4000  # include/linux/sched.h, since 6.4


class Walls(NamedTuple):
    """What stands. `missing` has a line for each wall that this host refuses, and why."""

    landlock_abi: int  # 0: none
    namespaces: bool
    missing: tuple[str, ...]


def enter(uid: int | None, *, file_bytes: int | None, phase: Callable[[str], None] = lambda _: None) -> Walls:
    """To be called with one thread, everything opened, the VM made; vCPUs and their threads may come after it.

    `uid`: the VM's own user and group, for root; None to stay who we are. As root every wall is required, but for
    Landlock, which the kernel may lack. Else namespaces may be refused by the host as well: `Walls.missing` tells.
    `file_bytes`: the end of the largest file that is ever written (log, raw disks); None: not limited, as where a raw
    disk may grow. `phase` is called with the name of each step once it is done. Raises OSError; the process is half
    confined then, and is to exit.

    Afterwards what is open works, and more comes by recvmsg. Nothing can be opened, connected, bound, executed or
    forked; no other process can be seen or signalled; no memory can become executable; only the ioctls of
    `seccomp.REQUESTS` work. Modules must have been imported. Threads can be started.
    """
    if (threads := sum(map(_is_ours, os.listdir("/proc/self/task")))) != 1:
        raise OSError(f"a process can only be confined with one thread, this one has {threads}")
    if os.uname().machine != seccomp.MACHINE:
        raise OSError(f"the VMM can only be confined on {seccomp.MACHINE}")
    missing = []
    ctypes.CDLL("libgcc_s.so.1")  # glibc opens it when a thread is cancelled, and aborts if it cannot
    limits.limit(file_bytes=file_bytes)
    phase("limits")
    isolated = True
    try:
        namespaces.isolate()
        phase("namespaces")
        namespaces.empty_root()
        phase("root")
    except OSError as error:
        if os.geteuid() == 0:
            raise
        isolated = False
        missing.append(f"namespaces: {error.strerror} (see `sysctl user.max_user_namespaces` and AppArmor)")
    if isolated or uid is not None:
        limits.limit_threads()  # of a user, or of one in this namespace, who is nobody else
    calls.drop_bounding_set()
    if uid is not None:
        calls.become(uid, uid)
    calls.drop_capabilities()
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")
    calls.prctl(calls.PR_SET_DUMPABLE, 0, "dumpable")
    calls.die_with_parent()
    phase("privileges")
    abi = landlock.restrict()
    if abi == 0:
        missing.append("landlock: not in this kernel, or not enabled (lsm=...,landlock on its command line)")
    phase("landlock")
    bpf.install(seccomp.program(os.getpid()))
    phase("seccomp")
    return Walls(abi, isolated, tuple(missing))


def _is_ours(thread: str) -> bool:
    """Not a thread of the kernel's, as vhost-net and KVM keep in the process of a VM: those run none of its code."""
    with open(f"/proc/self/task/{thread}/stat", "rb") as file:
        flags = int(file.read().rpartition(b")")[2].split()[6])  # proc_pid_stat(5), field 9; the name may hold spaces
    return not flags & PF_USER_WORKER
