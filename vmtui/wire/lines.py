"""The framing: one JSON object a line, in UTF-8, with a bound on the length. Each side treats the other as hostile."""

from __future__ import annotations

import json
import os
from typing import Any

VERSION = 1
MAX_LINE_BYTES = 64 << 10
MAX_DEPTH = 16

Message = dict[str, Any]


class WireError(Exception):
    """The other side broke the protocol, or is gone. The connection is of no more use."""


def encode(message: Message) -> bytes:
    """One message as a line. Raises WireError if it is longer than a line may be."""
    line = json.dumps(message, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise WireError(f"a message of {len(line)} bytes is longer than {MAX_LINE_BYTES}")
    return line


def decode(line: bytes) -> Message:
    """One line, with or without its newline, as a message. Raises WireError, and nothing else, whatever the bytes."""
    if len(line) > MAX_LINE_BYTES:
        raise WireError(f"a line is longer than {MAX_LINE_BYTES} bytes")
    try:
        message = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a line is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError("a line is not a JSON object")
    if _depth(message) > MAX_DEPTH:
        raise WireError(f"a message is nested deeper than {MAX_DEPTH}")
    return message


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _depth(value: Any) -> int:
    """How deep lists and objects are nested in `value`; without recursion, and no further than one past the bound."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not any(isinstance(item, dict | list) for item in level):
            break
        level, depth = inner, depth + 1
    return depth


class Decoder:
    """Cuts a byte stream into messages. Holds at most one line, however the stream is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. Raises WireError; the decoder is then of no more use."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_BYTES:
            raise WireError(f"a line is longer than {MAX_LINE_BYTES} bytes")
        return [decode(line) for line in lines if line.strip()]

    @property
    def partial(self) -> bool:
        """Whether a line was begun and not ended: at the end of a stream, the sender died in the middle."""
        return bool(self._rest)


class Channel:
    """Messages over a pair of blocking file descriptors (pipes between a process and its child). Owns both."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self._write_fd = write_fd
        self._decoder = Decoder()
        self._ready: list[Message] = []

    def fds(self) -> tuple[int, int]:
        return self.read_fd, self._write_fd

    def send(self, message: Message) -> None:
        """Raises WireError when the other end is gone."""
        line = encode(message)
        try:
            while line:
                line = line[os.write(self._write_fd, line) :]
        except OSError as error:
            raise WireError(f"the other end is gone: {error.strerror}") from None

    def receive(self) -> Message | None:
        """The next message, waiting for it; None at the end. Raises WireError."""
        while not self._ready:
            data = os.read(self.read_fd, MAX_LINE_BYTES)
            if not data:
                return None
            self._ready.extend(self._decoder.feed(data))
        return self._ready.pop(0)

    def available(self) -> list[Message] | None:
        """What one read brings, perhaps nothing complete; None at the end. For use after poll(2). Raises WireError."""
        data = os.read(self.read_fd, MAX_LINE_BYTES)
        if not data:
            return None
        ready, self._ready = [*self._ready, *self._decoder.feed(data)], []
        return ready

    def close(self) -> None:
        for fd in (self.read_fd, self._write_fd):
            if fd >= 0:
                os.close(fd)
        self.read_fd = self._write_fd = -1


def channels() -> tuple[Channel, Channel]:
    """Two connected ends, for before a fork. Each process closes the end that is not its own."""
    left_read, right_write = os.pipe()
    right_read, left_write = os.pipe()
    return Channel(left_read, left_write), Channel(right_read, right_write)
