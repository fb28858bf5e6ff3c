"""The serial console: a socket that QEMU serves to one client at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from vmtui.core.errors import OperationFailed, ResourceBusy
from vmtui.guests.stream import StreamTerminal

TIMEOUT_S = 5.0


class SerialTerminal(StreamTerminal):
    """The lock is the kernel's: it goes with the process that holds it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lock: int) -> None:
        super().__init__(reader, writer)
        self._lock = lock

    async def aclose(self) -> None:
        await super().aclose()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


async def attach(socket: Path) -> SerialTerminal:
    """Raises ResourceBusy (somebody is attached), OperationFailed (the VM is gone)."""
    try:
        lock = os.open(socket.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OperationFailed(f"the VM is gone: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(socket)
    except BlockingIOError:
        os.close(lock)
        raise ResourceBusy("somebody is attached to this console already", hint="leave it there first") from None
    except OSError as error:  # TimeoutError is one
        os.close(lock)
        raise OperationFailed(f"cannot attach to the console: {error or 'no answer'}") from None
    except BaseException:
        os.close(lock)
        raise
    return SerialTerminal(reader, writer, lock)
