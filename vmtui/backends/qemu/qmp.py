"""The QEMU machine protocol. The one file that uses the qemu.qmp library."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from vmtui.core.errors import OperationFailed
from vmtui.host import trace

TIMEOUT_S = 5.0
POLL_S = 0.02


@asynccontextmanager
async def _session(socket: Path, timeout: float) -> AsyncIterator[Any]:
    """One client at a time: QEMU serves one, and leaves the next unanswered. Raises OperationFailed."""
    import logging

    from qemu.qmp import QMPClient
    from qemu.qmp.error import QMPError

    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
    client = QMPClient("vmtui")
    client.logger.setLevel(logging.CRITICAL)
    path = socket.with_suffix(".lock")
    try:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError:  # who may write nothing can still take it, once it is there
            lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OperationFailed(f"qemu cannot be reached on {socket}: {error.strerror}") from None
    try:
        await _take(lock, time.monotonic() + timeout)
        async with asyncio.timeout(timeout):
            await _connect(client, socket)
            yield client
    except (QMPError, OSError, EOFError) as error:
        said = str(error).strip().splitlines()
        raise OperationFailed(
            f"qemu does not answer on {socket}: {said[-1] if said else type(error).__name__}"
        ) from error
    finally:
        with suppress(QMPError, OSError, EOFError, asyncio.CancelledError):
            await client.disconnect()
        os.close(lock)


async def _connect(client: Any, socket: Path) -> None:
    """Raises EOFError for a QEMU that ends just then: the library asserts that it does not."""
    try:
        await client.connect(str(socket))
    except AssertionError:
        raise EOFError("it has just ended") from None


async def _take(lock: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("another client holds it") from None
            await asyncio.sleep(POLL_S)


async def execute(socket: Path, command: str, *, timeout: float = TIMEOUT_S) -> Any:
    """Run one command and return its answer. Raises OperationFailed (nobody there, refused, time-out)."""
    with trace.begin(trace.Way.QMP, lambda: _words(socket, command), reads=command.startswith("query-")):
        async with _session(socket, timeout) as client:
            return await client.execute(command)


def _words(socket: Path, command: str) -> tuple[str, ...]:
    """What asks QEMU the same from a shell."""
    told = "".join(f'{{"execute":"{each}"}}' for each in ("qmp_capabilities", command))
    return ("sh", "-c", f"echo '{told}' | socat - UNIX-CONNECT:{shlex.quote(str(socket))}")


async def status(socket: Path, *, timeout: float = TIMEOUT_S) -> str:
    """QEMU's RunState: running, paused, shutdown, internal-error, … Raises OperationFailed."""
    answer = await execute(socket, "query-status", timeout=timeout)
    return str(answer["status"])


async def block_bytes(socket: Path, *, timeout: float = 1.0) -> tuple[int, int]:
    """Bytes read from and written to all disks. Raises OperationFailed."""
    answer = await execute(socket, "query-blockstats", timeout=timeout)
    counters = [entry["stats"] for entry in answer]
    return sum(int(c["rd_bytes"]) for c in counters), sum(int(c["wr_bytes"]) for c in counters)
