"""The server's side, for a small program: one thread, no asyncio, nothing but the standard library."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vmtui.wire.lines import VERSION, Decoder, Message, WireError, encode

MAX_CLIENTS = 16
MAX_UNSENT_BYTES = 1 << 20  # a client that does not read is dropped, and never makes the program wait
READ_BYTES = 64 << 10
UCRED = struct.Struct("iII")  # pid, uid, gid: unix(7), SO_PEERCRED

Handler = Callable[[dict[str, Any]], Any]


class CallFailed(Exception):
    """Raised by a handler, and by a client's `call`: a stable word, and a message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Client:
    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.decoder = Decoder()
        self.unsent = b""


class Server:
    """Answers calls on a socket of mode 0600, from processes of the same user and of root.

    Handlers run in the thread that calls `step`, one at a time, and must not wait. What a handler raises beside
    CallFailed is the program's own fault and ends `step`. Owns the socket file: `close` removes it.
    """

    def __init__(self, path: Path, service: str, handlers: Mapping[str, Handler]) -> None:
        """Raises OSError. A file left by a dead server is replaced; one in use is too, so paths must be per process."""
        self._greeting = encode({"wire": VERSION, "service": service})
        self._handlers = handlers
        self._path = path
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            path.unlink(missing_ok=True)
            old = os.umask(0o177)
            try:
                self._listener.bind(str(path))
            finally:
                os.umask(old)
            self._listener.listen(MAX_CLIENTS)
        except BaseException:
            self._listener.close()
            self._selector.close()
            raise
        self._selector.register(self._listener, selectors.EVENT_READ)

    def fileno(self) -> int:
        """Readable when `step(0)` has something to do, so that the server fits into another poll loop."""
        return self._selector.fileno()

    def step(self, timeout_s: float | None = None) -> None:
        """Wait for something to do, at most `timeout_s`, and do it."""
        for key, events in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self._accept()
                continue
            client = self._clients.get(key.fd)
            if client is None:
                continue
            try:
                if events & selectors.EVENT_READ:
                    self._read(client)
                if events & selectors.EVENT_WRITE:
                    self._flush(client)
            except (WireError, OSError):
                self._drop(client)

    def broadcast(self, event: str, **fields: Any) -> None:
        """Send an event to every client. Raises WireError if it is too long for a line."""
        line = encode({**fields, "event": event})
        for client in list(self._clients.values()):
            try:
                self._send(client, line)
            except (WireError, OSError):
                self._drop(client)

    def close(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._selector.close()
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            peer = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
            if len(self._clients) >= MAX_CLIENTS or peer[1] not in (0, os.geteuid()):
                sock.close()
                return
            sock.setblocking(False)
            client = self._clients[sock.fileno()] = _Client(sock)
            self._selector.register(sock, selectors.EVENT_READ)
            try:
                self._send(client, self._greeting)
            except (WireError, OSError):
                self._drop(client)

    def _read(self, client: _Client) -> None:
        data = client.socket.recv(READ_BYTES)
        if not data:
            raise WireError("closed")
        for message in client.decoder.feed(data):
            self._send(client, encode(self._answer(message)))

    def _answer(self, message: Message) -> Message:
        number, name, args = message.get("id"), message.get("call"), message.get("args", {})
        if not isinstance(number, int) or not isinstance(name, str) or not isinstance(args, dict):
            raise WireError("not a call")
        handler = self._handlers.get(name)
        if handler is None:
            return {"id": number, "error": {"code": "unknown-call", "message": f"there is no call {name[:40]!r}"}}
        try:
            return {"id": number, "result": handler(args)}
        except CallFailed as failure:
            return {"id": number, "error": {"code": failure.code, "message": str(failure)}}

    def _send(self, client: _Client, line: bytes) -> None:
        client.unsent += line
        self._flush(client)
        if len(client.unsent) > MAX_UNSENT_BYTES:
            raise WireError("the client does not read")

    def _flush(self, client: _Client) -> None:
        with contextlib.suppress(BlockingIOError):
            while client.unsent:
                client.unsent = client.unsent[client.socket.send(client.unsent) :]
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        self._selector.modify(client.socket, interest)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.socket.fileno(), None) is not None:
            self._selector.unregister(client.socket)
            client.socket.close()
