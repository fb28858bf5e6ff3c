"""Commands run inside a VM that our init booted: the host's side of guest/exec.

A session takes a slot, that is three virtio-serial ports, each a unix socket here. The kernel's flock says whose a
slot is, so it is free again when a front end dies; the guest sees the hang-up and ends what still runs.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from vmtui.backends.qemu import telnet
from vmtui.backends.qemu.command import port_names
from vmtui.backends.qemu.initramfs import SLOTS, Command
from vmtui.backends.qemu.state import socket_path
from vmtui.core.errors import InvalidInput, OperationFailed, ResourceBusy

READY = b"vmtui-exec-ready\n"
KNOCK = b"\n"
READY_S = 15.0  # a guest may just be booting
ATTEMPT_S = 3.0  # after this another slot is tried: the guest may still be tidying this one up
REQUEST_MAX_BYTES = 96 << 10  # one argument of Linux holds 128 KiB
CHUNK = 64 << 10
QUEUE_CHUNKS = 16
HANG_UP_S = 0.5  # QEMU notices at once, unless it still has input that the guest does not take
CLOSE_S = 2.0


class Bracket:
    """Passes on what is between the first mark and the second, as soon as it cannot be the second's beginning."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._rest = b""
        self._begun = False
        self.ended = False
        self.after = b""

    def feed(self, data: bytes) -> bytes:
        if self.ended:
            self.after = (self.after + data)[:64]
            return b""
        rest = self._rest + data
        if not self._begun:
            _, found, behind = rest.partition(self._mark)
            if not found:
                self._rest = rest[-len(self._mark) :]
                return b""
            self._begun, rest = True, behind
        inside, found, behind = rest.partition(self._mark)
        if found:
            self.ended, self._rest, self.after = True, b"", behind[:64]
            return inside
        keep = next((n for n in range(len(self._mark) - 1, 0, -1) if rest.endswith(self._mark[:n])), 0)
        self._rest = rest[len(rest) - keep :]
        return rest[: len(rest) - keep]


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


class GuestSession:
    """An ExecSession over a slot."""

    def __init__(self, slot: Slot, nonce: str, *, tty: bool) -> None:
        self._slot = slot
        self._nonce = nonce
        self._stdin = slot.writers[0]
        self._telnet = telnet.Decoder() if tty else None
        self._queue: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(QUEUE_CHUNKS)
        self._code: int | None = None
        mark = b"\0" + nonce.encode()
        self._brackets = {"stdout": Bracket(mark), "stderr": Bracket(mark)}
        self._pump = asyncio.create_task(self._run())
        self._over = False

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._drain("stdout", self._slot.readers[1]))
            group.create_task(self._drain("stderr", self._slot.readers[2]))
        code = self._brackets["stderr"].after.strip()
        self._code = int(code) & 0xFF if code.isdigit() else None
        await self._queue.put(None)

    async def _drain(self, stream: str, reader: asyncio.StreamReader) -> None:
        bracket = self._brackets[stream]
        complete = False
        while not complete:
            try:
                data = await reader.read(CHUNK)
            except OSError:
                return
            if not data:
                return
            inside = bracket.feed(data)
            if inside and self._telnet is not None and stream == "stdout":
                inside = self._telnet.feed(inside)
            if inside:
                await self._queue.put((stream, inside))
            complete = bracket.ended and (stream == "stdout" or b"\n" in bracket.after)

    async def read(self) -> tuple[str, bytes] | None:
        if self._over:
            return None
        item = await self._queue.get()
        self._over = item is None
        return item

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the VM is gone; what comes after the command's end is dropped."""
        if self._stdin.is_closing():
            raise ConnectionResetError("the session is closed")
        self._stdin.write(telnet.escape(data) if self._telnet is not None else data)
        await self._stdin.drain()

    async def close_stdin(self) -> None:
        if self._telnet is not None:
            await self.write(b"\x04")  # a terminal has no other end of input
        elif self._stdin.can_write_eof() and not self._stdin.is_closing():
            self._stdin.write_eof()

    async def resize(self, rows: int, columns: int) -> None:
        if self._telnet is not None and not self._stdin.is_closing():
            self._stdin.write(telnet.window_size(rows, columns))
            await self._stdin.drain()

    async def wait(self) -> int:
        """Raises OperationFailed: the VM ended first."""
        while await self.read() is not None:
            pass
        if self._code is None:
            raise OperationFailed("the VM ended, or its agent, before the command did")
        return self._code

    async def aclose(self) -> None:
        self._pump.cancel()
        await asyncio.wait([self._pump])
        if self._code is None and not self._slot.writers[2].is_closing():
            # Said, not left to the hang-up: the guest may miss that when the next one connects at once.
            self._slot.writers[2].write(self._nonce.encode() + b"\n")
        await self._slot.aclose()


async def open_session(sockets: Path, command: Command, *, tty: bool, rows: int, columns: int) -> GuestSession:
    """Run a command in the guest. Raises InvalidInput, ResourceBusy (all slots taken), OperationFailed (no answer)."""
    nonce = secrets.token_hex(16)
    terminal = f"tty={'yes' if tty else 'no'}\nrows={max(1, rows)}\ncolumns={max(1, columns)}\n"
    script = f"nonce={nonce}\n{terminal}task() {{ {command.script(terminal=tty)}; }}\n"
    if "\0" in script:
        raise InvalidInput("a command cannot hold a NUL byte")
    request = base64.b64encode(script.encode("utf-8", "surrogateescape"))
    if len(request) > REQUEST_MAX_BYTES:
        raise InvalidInput(f"the command and its environment are too long: {len(request)} of {REQUEST_MAX_BYTES} bytes")
    slot = await _ready_slot(sockets)
    try:
        slot.writers[0].write(KNOCK + request + b"\n")
        await slot.writers[0].drain()
        return GuestSession(slot, nonce, tty=tty)
    except OSError as error:
        await slot.aclose()
        raise OperationFailed(f"the VM's agent hung up: {error}") from None
    except BaseException:
        await slot.aclose()
        raise


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
            seen = b""
            while not seen.endswith(READY):
                data = await slot.readers[1].read(CHUNK)
                if not data:
                    raise ConnectionResetError("it hung up")
                seen = (seen + data)[-len(READY) :]
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
