"""What a process and all that descends from it use (proc(5))."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from bench.pty import TICKS_PER_S


@dataclass(frozen=True, slots=True)
class Use:
    """`cpu_s` is of those that are there now, and of their children that have ended and were waited for."""

    processes: int
    pss_bytes: int
    cpu_s: float
    descriptors: int


def children(pid: int) -> list[int]:
    """None of a process that is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def pids(root: int) -> list[int]:
    """The process itself, then its descendants."""
    found = [root]
    for pid in found:
        found += children(pid)
    return found


def runs(pid: int) -> bool:
    """Whether a thread of it runs, or could if there were a processor for it."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "stat").read_text().rpartition(")")[2].split()[0] == "R":
                return True
    return False


def use(root: int) -> Use:
    """What has ended while one looks is left out."""
    processes = pss = descriptors = 0
    cpu_s = 0.0
    for pid in pids(root):
        with contextlib.suppress(OSError, IndexError):
            cpu_s += sum(map(int, _stat(pid)[11:15])) / TICKS_PER_S
            descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            pss += pss_bytes(pid)
            processes += 1
    return Use(processes, pss, cpu_s, descriptors)


def pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _stat(pid: int) -> list[str]:
    """The fields from the third on, which is the state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
