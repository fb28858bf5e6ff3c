"""Resource limits of the machine: what a guest that has taken it over can use up."""

from __future__ import annotations

import os
import resource

OPEN_FILES = 1024  # descriptors of 32 vCPUs, their queues, and the clients of the control socket
THREADS = 256  # 32 vCPUs, loops, a pool for disk requests
PRIVATE_BYTES = 1 << 30  # beyond what there is at the time: thread stacks are 8 MiB each, glibc's arenas 64 MiB
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def limit(*, file_bytes: int) -> None:
    """Hard limits. `file_bytes`: no file is written beyond it. Guest memory that is mapped already is unaffected.

    Needs /proc. Raises OSError.
    """
    with open("/proc/self/statm", "rb") as file:
        data_pages = int(file.read().split()[5])  # proc(5): data + stack
    limits = {
        resource.RLIMIT_CORE: 0,  # guest memory and keys in it
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_DATA: data_pages * PAGE_BYTES + PRIVATE_BYTES,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: THREADS,  # kicks of vCPU threads
    }
    for which, value in limits.items():
        _set(which, value)


def limit_threads() -> None:
    """Of this user, whose other processes count as well."""
    _set(resource.RLIMIT_NPROC, THREADS)


def _set(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (bounded, bounded))
