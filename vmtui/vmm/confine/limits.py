"""Resource limits of the machine: what a guest that has taken it over can use up."""

from __future__ import annotations

import os
import resource

OPEN_FILES = 4096  # descriptors of 32 vCPUs, of queues, of vsock connections and of control clients
THREADS = 256  # 32 vCPUs, loops, a pool for disk requests
SIGNALS = 4 * THREADS  # kicks that wait for their vCPU
PRIVATE_BYTES = 1 << 30  # beyond what there is at the time: thread stacks are 8 MiB each, glibc's arenas 64 MiB
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def limit(*, file_bytes: int | None) -> None:
    """For good. Guest memory that is mapped already is unaffected. Needs /proc. Raises OSError.

    `file_bytes`: no file is written beyond it; None: nothing is said of files.
    """
    with open("/proc/self/statm", "rb") as file:
        data_pages = int(file.read().split()[5])  # proc_pid_statm(5): data + stack
    _set(resource.RLIMIT_CORE, 0)  # guest memory, and keys in it
    _set(resource.RLIMIT_NOFILE, OPEN_FILES)
    _set(resource.RLIMIT_DATA, data_pages * PAGE_BYTES + PRIVATE_BYTES)
    _set(resource.RLIMIT_MEMLOCK, 0)
    _set(resource.RLIMIT_MSGQUEUE, 0)
    _set(resource.RLIMIT_SIGPENDING, SIGNALS)
    if file_bytes is not None:
        _set(resource.RLIMIT_FSIZE, file_bytes)


def limit_threads() -> None:
    """Of this user, whose other processes count as well."""
    _set(resource.RLIMIT_NPROC, THREADS)


def _set(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (bounded, bounded))
