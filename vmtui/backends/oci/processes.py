"""Who started whom: the processes of one container's keepers, from proc(5)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from vmtui.host.process import ProcessId


def children(pid: int) -> list[ProcessId]:
    """The processes that the first thread of `pid` started and that live."""
    with contextlib.suppress(OSError):
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [process for pid in pids if (process := ProcessId.of(int(pid))) is not None]
    return []


def descendants(pid: int) -> list[ProcessId]:
    """All processes below `pid`, whichever of its threads started them."""
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                process = ProcessId.of(int(child))
                if process is not None:
                    found += [process, *descendants(process.pid)]
    return found


def ancestors() -> set[int]:
    """This process and those above it: a restart is done by the exit command of the very conmon that is cleared."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat[stat.rindex(")") + 2 :].split()[1])
    return found


def with_argument(path: Path) -> list[ProcessId]:
    """The processes that have `path` as one of their arguments."""
    wanted, found = os.fsencode(path), []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                arguments = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                process = ProcessId.of(int(entry.name)) if wanted in arguments else None
                if process is not None:
                    found.append(process)
    return found
