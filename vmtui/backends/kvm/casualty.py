"""Whether the kernel killed a process for want of memory: it says so in its log, to those who may read it."""

from __future__ import annotations

import os
from functools import lru_cache

from vmtui.host.process import ProcessId

RECORD_BYTES = 8192  # CONSOLE_EXT_LOG_MAX, kernel/printk
MOST_RECORDS = 20_000


@lru_cache(maxsize=256)
def of_memory(process: ProcessId) -> bool:
    """mm/oom_kill.c, __oom_kill_process: "…: Killed process PID (NAME) …". False where the log cannot be read."""
    wanted = f": Killed process {process.pid} (".encode()
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for _ in range(MOST_RECORDS):
            try:
                if wanted in os.read(log, RECORD_BYTES):
                    return True
            except BrokenPipeError:
                continue  # records were overwritten meanwhile: the next is the oldest there is
            except OSError:
                return False
    finally:
        os.close(log)
    return False
