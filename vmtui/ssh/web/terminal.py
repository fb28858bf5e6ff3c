"""The terminal of a page and its session: what the browser says, by the protocol of textual-serve's script, and back.

From the browser come JSON arrays whose first element is their kind; to it go the bytes of the terminal, as they are.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from vmtui.ssh.session import Session, Stream

MESSAGE_BYTES = 96 << 10  # console.js sends 8192 characters, each at most "\\ud83d" long
REASON_BYTES = 123  # RFC 6455, 5.5.1: what a close frame has room for
SMALLEST, LARGEST = (2, 1), (1000, 500)  # columns and rows


class Stdin(msgspec.Struct, tag="stdin", array_like=True):
    """Keys, a paste, the mouse."""

    data: str


class Size(msgspec.Struct):
    """In characters."""

    width: int
    height: int


class Resize(msgspec.Struct, tag="resize", array_like=True):
    """The window has another size."""

    size: Size


class Ping(msgspec.Struct, tag="ping", array_like=True):
    """Is to be said back."""

    data: str


class Focus(msgspec.Struct, tag="focus", array_like=True):
    """Means nothing here: a terminal tells a program of it by escape sequences."""


class Blur(msgspec.Struct, tag="blur", array_like=True):
    """As Focus."""


decoder: msgspec.json.Decoder[Stdin | Resize | Ping | Focus | Blur] = msgspec.json.Decoder(
    Stdin | Resize | Ping | Focus | Blur
)


def size(width: object, height: object) -> tuple[int, int]:
    """Rows and columns that a terminal can have, whatever a page asks for."""
    return _within(height, 1, 24), _within(width, 0, 80)


def _within(value: object, axis: int, otherwise: int) -> int:
    try:
        number = int(str(value)[:9])
    except ValueError:
        return otherwise
    return max(SMALLEST[axis], min(number, LARGEST[axis]))


class Screen:
    """Where the output of a session goes: an `Outlet`."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def write(self, stream: Stream, data: bytes) -> None:  # noqa: ARG002 a terminal has one
        """Returns when the browser has room for more. Raises ConnectionError when it is gone."""
        if self._socket.closed:
            raise ConnectionResetError("the browser is gone")
        await self._socket.send_bytes(data)


async def connect(socket: web.WebSocketResponse, session: Session) -> tuple[int, str]:
    """Carries to and fro until one side has ended; the session has then been hung up.

    What to close the socket with: a code, and words if there is anything to say.
    """
    reading = asyncio.create_task(_read(socket, session))
    ending = asyncio.create_task(session.wait())
    try:
        await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            code = ending.result()
            return WSCloseCode.OK, session.reason or (f"it ended with code {code}" if code else "")
        return WSCloseCode.POLICY_VIOLATION, reading.result()
    finally:
        session.hang_up()
        for task in (reading, ending):
            task.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await task


async def _read(socket: web.WebSocketResponse, session: Session) -> str:
    """What was wrong with the last message; "" if the browser has gone."""
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            return "a message was not of this console" if message.type is WSMsgType.BINARY else ""
        try:
            told = decoder.decode(message.data)
        except (msgspec.MsgspecError, RecursionError):
            return "a message was not of this console"
        if isinstance(told, Stdin):
            session.feed(told.data.encode())
            await session.drained()
        elif isinstance(told, Resize):
            session.resize(*size(told.size.width, told.size.height))
        elif isinstance(told, Ping):
            await socket.send_str(msgspec.json.encode(("pong", told.data)).decode())
    return ""


async def close(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    """`reason` is shown on the page."""
    data = reason.encode()[:REASON_BYTES].decode(errors="ignore").encode()
    await socket.close(code=code, message=data)
