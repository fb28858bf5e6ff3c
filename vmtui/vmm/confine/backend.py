"""Starts qemu-storage-daemon and virtiofsd, confined to the files that they serve."""

from __future__ import annotations

from typing import NamedTuple


class Share(NamedTuple):
    """A file or folder that a back-end may use, at the path that it has on the host."""

    path: str
    writable: bool


def start_storage(
    argv: list[str], *, shares: tuple[Share, ...], keep: tuple[int, ...], uid: int | None, log: int
) -> int:
    """Run qemu-storage-daemon with these words, as a child that dies with this process; returns its pid.

    It sees the programs and libraries of the host read-only, its images (with every backing file) and nothing else:
    no network, no other process. `keep`: descriptors that it inherits under the same numbers (its listening socket,
    passed by `addr.type=fd,addr.str=N`). `log` becomes its stdout and stderr. The images need not belong to `uid`.
    Raises OSError with the step that failed, also when the program cannot be executed.
    """
    raise OSError("not built yet")


def start_virtiofsd(argv: list[str], *, shared: Share, keep: tuple[int, ...], log: int) -> int:
    """The same for virtiofsd, which needs root, and confines itself: it gets what it cannot do without for that."""
    raise OSError("not built yet")
