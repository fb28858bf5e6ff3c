"""Between monitor and machine: small messages, each with at most one descriptor. The machine's are not trusted."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

MESSAGE_BYTES = 16 << 10
Message = dict[str, Any]


class Channel:
    """One end. Owns the socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.fd = connected.fileno()

    def send(self, message: Message, fd: int | None = None) -> None:
        """`fd` stays the caller's. Raises OSError: the other end is gone."""
        socket.send_fds(self._socket, [json.dumps(message).encode()], [] if fd is None else [fd])

    def receive(self) -> tuple[Message, int | None] | None:
        """The next message and its descriptor, which is the caller's; None when the other end is gone.

        Raises ValueError for what is no message, BlockingIOError.
        """
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 1)
        except ConnectionError:
            return None
        if not data and not fds:
            return None
        fd = fds[0] if fds else None
        try:
            message = json.loads(data)
            if not isinstance(message, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError):
            if fd is not None:
                os.close(fd)
            raise ValueError("not a message") from None
        return message, fd

    def close(self) -> None:
        self._socket.close()


def channels() -> tuple[Channel, Channel]:
    """Two connected ends, for before a fork. Neither blocks when it receives."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    return Channel(left), Channel(right)
