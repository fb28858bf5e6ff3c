"""What a served session and the server say to each other: one JSON object a line, over a socket of the session's own.

The server distrusts the session, which may run what it should not: lines are bounded, and what is said is held to
the session's person by the server, never by what a line claims.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from vmtui.wire.lines import MAX_LINE_BYTES, WireError

T = TypeVar("T")
MAX_TEXT = 2000  # of a message in an audit record
MAX_REFS, MAX_REF = 128, 256  # how many, and how long each


class Watched(msgspec.Struct, frozen=True, tag="watched"):
    """Who sees this session now, in words for people: ("anna observes", "bert drives")."""

    names: tuple[str, ...] = ()


class Repaint(msgspec.Struct, frozen=True, tag="repaint"):
    """Somebody new sees the screen: draw all of it again."""


class Idle(msgspec.Struct, frozen=True, tag="idle"):
    """The session ends in so many seconds unless a key comes; 0: a key came."""

    left_s: float = 0.0


class Ending(msgspec.Struct, frozen=True, tag="ending"):
    """The session is about to be hung up."""

    reason: str = ""


class Audited(msgspec.Struct, frozen=True, tag="audited"):
    """Something for the audit log. `result` is done, failed, denied, asked or approved."""

    verb: str
    refs: tuple[str, ...] = ()
    result: str = "done"
    message: str = ""


ToSession = Watched | Repaint | Idle | Ending
ToServer = Audited


def encode(message: ToSession | ToServer) -> bytes:
    """One line. What is too long of an audit record is cut. Raises WireError when a line would still be too long."""
    if isinstance(message, Audited):
        message = Audited(
            verb=_fit(message.verb, MAX_REF),
            refs=tuple(_fit(ref, MAX_REF) for ref in message.refs[:MAX_REFS]),
            result=_fit(message.result, MAX_REF),
            message=_fit(message.message, MAX_TEXT),
        )
    line = msgspec.json.encode(message) + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise WireError(f"a message of {len(line)} bytes is longer than {MAX_LINE_BYTES}")
    return line


def _fit(text: str, longest: int) -> str:
    """Cut, and without the surrogates that bytes of a command line become."""
    return text[:longest].encode("utf-8", "replace").decode()


class Lines:
    """Cuts a byte stream into messages of one direction. Holds at most one line, however the stream is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises WireError; this is then of no more use."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if max(map(len, [*lines, self._rest])) > MAX_LINE_BYTES:
            raise WireError(f"a line is longer than {MAX_LINE_BYTES} bytes")
        return [line for line in lines if line.strip()]


class ToSessionReader:
    """For the session: what the server says."""

    def __init__(self) -> None:
        self._lines = Lines()

    def feed(self, data: bytes) -> list[ToSession]:
        """Raises WireError."""
        return [_decoded(line, _TO_SESSION) for line in self._lines.cut(data)]


class ToServerReader:
    """For the server: what a session says."""

    def __init__(self) -> None:
        self._lines = Lines()

    def feed(self, data: bytes) -> list[ToServer]:
        """Raises WireError, and nothing else, whatever the bytes."""
        return [_decoded(line, _TO_SERVER) for line in self._lines.cut(data)]


_TO_SESSION: msgspec.json.Decoder[ToSession] = msgspec.json.Decoder(ToSession)
_TO_SERVER: msgspec.json.Decoder[ToServer] = msgspec.json.Decoder(ToServer)


def _decoded(line: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"a line is no message: {error}") from None
