"""Memory that was freed in between is filled before forks are made.

Else what a session makes would lie in the gaps between what it shares, a little in each page, and every page that is
written is the session's own from then on. It saves a megabyte for each.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

POOL_BYTES, POOL_HEADER_BYTES = 1 << 14, 48  # Objects/obmalloc.c of CPython 3.10 and later
LARGEST = 512  # of its small objects; larger ones are malloc's
BYTES_HEADER = 33
MOST = 100_000  # of one size, should pools be laid out otherwise
CHUNKS = tuple(1 << power for power in range(14, 3, -1))
CHUNK_HEADER_BYTES = 8  # malloc.c of glibc


class _Info(ctypes.Structure):
    """struct mallinfo2: mallinfo(3). `fordblks` bytes are free, `keepcost` of them at the end of the heap."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")
    )  # fmt: skip


def pack() -> list[object]:
    """What fills the pools of small objects, to be kept while forks are made. What fills the heap is never freed."""
    _fill_heap()
    return [kept for size in range(16, LARGEST + 1, 16) for kept in _fill_pools(size)]


def _fill_pools(size: int) -> list[object]:
    """Until an object of this size is the first one in its pool: no pool before it had room."""
    make: Callable[[], object] = object
    if size == 32:
        make = _float
    elif size > 32:
        make = lambda: b"x" * (size - BYTES_HEADER)  # noqa: E731
    kept: list[object] = []
    while len(kept) < MOST:
        kept.append(make())
        if id(kept[-1]) % POOL_BYTES == POOL_HEADER_BYTES:
            break
    return kept


def _float() -> float:
    return float("1.5")


def _fill_heap() -> None:
    """Chunks from large to small, until what is free lies at the end. Without glibc nothing is done."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return
    info = libc.mallinfo2
    info.restype = _Info
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    for size in CHUNKS:
        now = info()
        while now.fordblks - now.keepcost >= 2 * size:
            end = now.keepcost
            libc.malloc(size - CHUNK_HEADER_BYTES)
            now = info()
            if now.keepcost < end:
                break  # no gap was that large
