"""Commands run inside a VM that our init booted: the host's side of guest/exec.

A session takes a slot, that is three virtio-serial ports, each a unix socket here. The kernel's flock says whose a
slot is, so it is free again when a front end dies; the guest sees the hang-up and ends what still runs.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from vmtui.backends.qemu.command import port_names
from vmtui.core.errors import OperationFailed, ResourceBusy
from vmtui.guests import agent
from vmtui.guests.agent import CHUNK, READY_S, GuestSession
from vmtui.guests.initramfs import SLOTS, Command
from vmtui.guests.run import socket_path

ATTEMPT_S = 3.0  # after this another slot is tried: the guest may still be tidying this one up
HANG_UP_S = 0.5  # QEMU notices at once, unless it still has input that the guest does not take
CLOSE_S = 2.0


class Slot:
    """The connections of one slot, held by a lock. Closing it hangs up."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self.readers: list[asyncio.StreamReader] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, sockets: Path, number: int) -> None:
        """Raises OSError."""
        stdin, stdout, stderr = port_names(number)
        made = {}
        for name in (stdin, stderr, stdout):  # the guest begins when it sees the last one
            made[name] = await asyncio.open_unix_connection(socket_path(str(sockets), name), limit=CHUNK)
            self.writers = [writer for _, writer in made.values()]
        self.readers = [made[name][0] for name in (stdin, stdout, stderr)]
        self.writers = [made[name][1] for name in (stdin, stdout, stderr)]

    async def aclose(self) -> None:
        """Hang up, and wait until QEMU has noticed, so that the guest has too before the next one calls."""
        for writer in self.writers:
            if writer.can_write_eof() and not writer.is_closing():
                with suppress(OSError):
                    writer.write_eof()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(HANG_UP_S):
                for reader in self.readers:
                    while await reader.read(CHUNK):
                        pass
        for writer in self.writers:
            writer.close()
        for writer in self.writers:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await writer.wait_closed()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


async def open_session(sockets: Path, command: Command, *, tty: bool, rows: int, columns: int) -> GuestSession:
    """Run a command in the guest. Raises InvalidInput, ResourceBusy (all slots taken), OperationFailed (no answer)."""
    return await agent.open_session(lambda: _ready_slot(sockets), command, tty=tty, rows=rows, columns=columns)


async def _ready_slot(sockets: Path) -> Slot:
    deadline = time.monotonic() + READY_S
    number, taken = secrets.randbelow(SLOTS), 0
    while True:
        slot = await _try_slot(sockets, number % SLOTS, min(ATTEMPT_S, max(0.1, deadline - time.monotonic())))
        if slot is not None:
            return slot
        taken = taken + 1 if _is_locked(sockets, number % SLOTS) else 0
        number += 1
        if taken >= SLOTS:
            raise ResourceBusy(f"all {SLOTS} exec sessions of the VM are in use", hint="end one of them")
        if time.monotonic() > deadline:
            raise OperationFailed("the VM's agent does not answer", hint="see its log: vmtui logs")


def _lock_path(sockets: Path, number: int) -> Path:
    return sockets / f"{number}.lock"


def _is_locked(sockets: Path, number: int) -> bool:
    try:
        fd = os.open(_lock_path(sockets, number), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


async def _try_slot(sockets: Path, number: int, timeout: float) -> Slot | None:
    """None if it is taken or does not get ready. Raises OperationFailed: the VM is gone."""
    try:
        lock = os.open(_lock_path(sockets, number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OperationFailed(f"the VM is gone: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    slot = Slot(lock)
    try:
        async with asyncio.timeout(timeout):
            await slot.connect(sockets, number)
            await agent.heard_ready(slot.readers[1])
            return slot
    except TimeoutError:
        await slot.aclose()
        return None
    except OSError as error:
        await slot.aclose()
        raise OperationFailed(f"the VM's agent is gone: {error}") from None
    except BaseException:
        await slot.aclose()
        raise
