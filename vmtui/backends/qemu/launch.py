"""Sees QEMU up after its start."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from vmtui.backends.qemu import qmp
from vmtui.core.errors import OperationFailed
from vmtui.core.resource import Ref
from vmtui.guests import run as files
from vmtui.guests.launch import POLL_S, START_S
from vmtui.host.files import write_atomic

PARENT = Path(__file__).with_name("parent.sh")
ALIVE = frozenset(
    {"running", "paused", "shutdown", "debug", "guest-panicked", "watchdog"}
)  # QMP RunState after a start


async def wait_up(ref: Ref, run: Path, sockets: Path) -> None:
    """Wait until QEMU answers, then confirm the start. Raises OperationFailed with what QEMU said."""
    deadline = time.monotonic() + START_S
    qmp_socket = files.socket_path(str(sockets), "qmp")
    while True:
        if (run / files.EXIT).exists():
            if files.read(run / files.EXIT).strip() == b"0":
                return  # a guest that was faster than we
            raise OperationFailed(f"qemu did not start {ref}", details=files.errors(run))
        if (run / files.PROCESS).exists() and qmp_socket.exists():
            try:
                runstate = await qmp.status(qmp_socket)
            except OperationFailed as fault:
                if time.monotonic() > deadline:
                    raise OperationFailed(f"qemu started {ref} and does not answer", details=str(fault)) from None
            else:
                if runstate not in ALIVE:
                    raise OperationFailed(f"qemu started {ref} into state {runstate}", details=files.errors(run))
                write_atomic(run / files.STARTED, b"")
                return
        if time.monotonic() > deadline:
            raise OperationFailed(f"qemu did not start {ref} within {START_S:g} s", details=files.errors(run))
        await asyncio.sleep(POLL_S)
