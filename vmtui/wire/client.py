"""The client's side, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vmtui.wire.lines import MAX_LINE_BYTES, VERSION, Message, WireError, decode, encode
from vmtui.wire.server import CallFailed

MAX_QUEUED_EVENTS = 1024  # older ones are dropped: an event says "look again", it is not the only copy


class Client:
    """One connection. Made by `connect`; use it in `async with`, or call `aclose`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str) -> None:
        self.service = service
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._events: asyncio.Queue[Message | None] = asyncio.Queue()
        self._next = 0
        self._failure: WireError | None = None
        self._pump = asyncio.create_task(self._receive())

    async def call(self, name: str, *, timeout: float = 10.0, **args: Any) -> Any:
        """Ask, and wait for the answer. Raises CallFailed (the program said no), WireError, TimeoutError."""
        if self._failure is not None:
            raise self._failure
        self._next += 1
        number = self._next
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                self._writer.write(encode({"id": number, "call": name, "args": args}))
                with contextlib.suppress(ConnectionError):  # `_receive` says what happened
                    await self._writer.drain()
                return await answer
        finally:
            del self._waiting[number]

    async def events(self) -> AsyncIterator[Message]:
        """The server's events, until the connection ends. For one consumer."""
        while (event := await self._events.get()) is not None:
            yield event

    async def aclose(self) -> None:
        self._pump.cancel()
        await asyncio.gather(self._pump, return_exceptions=True)
        self._fail(WireError("the connection is closed"))
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _receive(self) -> None:
        try:
            while True:
                self._dispatch(await _read(self._reader))
        except WireError as error:
            self._fail(error)

    def _dispatch(self, message: Message) -> None:
        if "event" in message:
            if self._events.qsize() >= MAX_QUEUED_EVENTS:
                self._events.get_nowait()
            self._events.put_nowait(message)
            return
        number, error = message.get("id"), message.get("error")
        waiting = self._waiting.get(number) if isinstance(number, int) else None
        if waiting is None or waiting.done():
            return  # the answer to a call that timed out
        if isinstance(error, dict):
            waiting.set_exception(CallFailed(str(error.get("code", "")), str(error.get("message", ""))))
        else:
            waiting.set_result(message.get("result"))

    def _fail(self, error: WireError) -> None:
        self._failure = self._failure or error
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
        self._events.put_nowait(None)


async def connect(path: Path, *, timeout: float = 5.0) -> Client:
    """Connect and check the greeting. Raises OSError (nobody listens), WireError (another version), TimeoutError."""
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
        try:
            greeting = await _read(reader)
            if greeting.get("wire") != VERSION:
                raise WireError(f"{path} speaks version {greeting.get('wire')!r}, not {VERSION}")
            return Client(reader, writer, str(greeting.get("service", "")))
        except BaseException:
            writer.close()
            raise


async def _read(reader: asyncio.StreamReader) -> Message:
    try:
        return decode(await reader.readuntil(b"\n"))
    except asyncio.IncompleteReadError:
        raise WireError("the other end is gone") from None
    except asyncio.LimitOverrunError:
        raise WireError(f"a line is longer than {MAX_LINE_BYTES} bytes") from None
    except OSError as error:
        raise WireError(f"the other end is gone: {error.strerror}") from None
