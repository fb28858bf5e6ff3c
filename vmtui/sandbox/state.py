"""The two files that say what became of a run: `process.json` from its start, `result.json` from its end.

A result counts for the run whose monitor it names; with another one, that run's process vanished.
"""

from __future__ import annotations

import json
import os
from typing import Any

PROCESS = "process.json"
RESULT = "result.json"


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat (proc(5)). Raises OSError."""
    with open(f"/proc/{pid}/stat") as file:
        text = file.read()
    return int(text[text.rindex(")") + 2 :].split()[19])


def identify(pid: int) -> dict[str, Any]:
    """What tells a process from a later one of the same pid. Raises OSError."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    return {"pid": pid, "start_ticks": start_ticks(pid), "boot": boot}


def write(directory: str, name: str, value: dict[str, Any]) -> None:
    """Replace the file as a whole. Raises OSError."""
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, os.path.join(directory, name))
    except BaseException:
        os.unlink(temporary)
        raise
