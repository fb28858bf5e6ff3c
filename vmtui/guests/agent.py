"""Commands run in a VM that our init booted: what is said on the three streams of guest/exec, whatever carries them."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

from vmtui.core.errors import InvalidInput, OperationFailed
from vmtui.guests import telnet
from vmtui.guests.initramfs import Command

READY = b"vmtui-exec-ready\n"
KNOCK = b"\n"
READY_S = 15.0  # a guest may just be booting
REQUEST_MAX_BYTES = 96 << 10  # one argument of Linux holds 128 KiB
CHUNK = 64 << 10
QUEUE_CHUNKS = 16


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


class Slot(Protocol):
    """Three connections to the guest: its stdin, stdout and stderr. Closing it hangs up."""

    readers: list[asyncio.StreamReader]
    writers: list[asyncio.StreamWriter]

    async def aclose(self) -> None: ...


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


async def heard_ready(reader: asyncio.StreamReader) -> None:
    """Wait for the line that the guest says until somebody knocks. Raises OSError: it hung up."""
    seen = b""
    while not seen.endswith(READY):
        data = await reader.read(CHUNK)
        if not data:
            raise ConnectionResetError("it hung up")
        seen = (seen + data)[-len(READY) :]


async def open_session(
    take_slot: Callable[[], Awaitable[Slot]], command: Command, *, tty: bool, rows: int, columns: int
) -> GuestSession:
    """Run a command in the guest, on a ready slot. Raises InvalidInput, OperationFailed, what `take_slot` does."""
    nonce = secrets.token_hex(16)
    terminal = f"tty={'yes' if tty else 'no'}\nrows={max(1, rows)}\ncolumns={max(1, columns)}\n"
    script = f"nonce={nonce}\n{terminal}task() {{ {command.script(terminal=tty)}; }}\n"
    if "\0" in script:
        raise InvalidInput("a command cannot hold a NUL byte")
    request = base64.b64encode(script.encode("utf-8", "surrogateescape"))
    if len(request) > REQUEST_MAX_BYTES:
        raise InvalidInput(f"the command and its environment are too long: {len(request)} of {REQUEST_MAX_BYTES} bytes")
    slot = await take_slot()
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
