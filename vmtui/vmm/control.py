"""The control socket: `vmtui.wire` on a unix socket, served in the machine's main loop.

Clients are bounded and never waited for: one that sends a line too long, or does not read its answers, is dropped. The
call `console` ends the protocol on its connection, which from then on is the terminal.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from vmtui.vmm.loop import EPOLLIN, EPOLLOUT, Loop
from vmtui.vmm.terminal import Terminal
from vmtui.wire.lines import VERSION, Decoder, Message, WireError, encode

SERVICE = "vmm"
MOST_CLIENTS = 32
MOST_OUTPUT_BYTES = 256 << 10
PATIENCE_S = 1.0  # when descriptors are short
MOST_SIZE = 0xFFFF  # rows or columns: struct winsize has 16 bits

Call = Callable[[dict[str, Any]], Any]


class Refused(Exception):
    """A call that cannot be done: a word for programs, a text for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Client:
    __slots__ = ("decoder", "output", "socket")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.decoder = Decoder()
        self.output = bytearray()


class Control:
    """Owns the listening socket. `calls` run in the loop's thread; they raise Refused, and take what JSON gives."""

    def __init__(self, loop: Loop, listener: socket.socket, calls: dict[str, Call], terminal: Terminal) -> None:
        self._loop = loop
        self._listener = listener
        self._calls = calls
        self._terminal = terminal
        self._clients: dict[int, _Client] = {}
        listener.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.watch(self._listener.fileno(), self._accept)

    def broadcast(self, event: str, more: dict[str, Any]) -> None:
        """Tell everybody, soon. From any thread."""
        self._loop.call(lambda: self.tell(event, more))

    def tell(self, event: str, more: dict[str, Any]) -> None:
        """At once: there may be no later. In the loop's thread."""
        line = encode({"event": event, **more})
        for client in list(self._clients.values()):
            self._send(client, line)

    def _accept(self, events: int) -> None:
        try:
            connected, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                self._loop.unwatch(self._listener.fileno())  # it would be told at once, and again
                self._loop.after(PATIENCE_S, self._listen)
            return
        if len(self._clients) >= MOST_CLIENTS:
            connected.close()
            return
        connected.setblocking(False)
        client = _Client(connected)
        self._clients[connected.fileno()] = client
        self._loop.watch(connected.fileno(), lambda happened: self._ready(client, happened))
        self._send(client, encode({"wire": VERSION, "service": SERVICE}))

    def _ready(self, client: _Client, events: int) -> None:
        try:
            if events & EPOLLOUT:
                self._flush(client)
            if events & ~EPOLLOUT:
                data = client.socket.recv(65536)
                if not data:
                    self._drop(client)
                    return
                for message in client.decoder.feed(data):
                    self._answer(client, message)
                    if client.socket.fileno() not in self._clients:
                        return  # it is a terminal now, or gone
        except BlockingIOError:
            return
        except (OSError, WireError):
            self._drop(client)
        except BaseException:
            self._drop(client)
            raise

    def _answer(self, client: _Client, message: Message) -> None:
        number, name, args = message.get("id"), message.get("call"), message.get("args", {})
        if not isinstance(number, int) or not isinstance(name, str) or not isinstance(args, dict):
            raise WireError("not a call")
        if name == "console":
            self._become_terminal(client, number, args)
            return
        answer: dict[str, Any] = {"id": number}
        call = self._calls.get(name)
        try:
            if call is None:
                raise Refused("unknown", f"there is no call {name[:40]!r}")
            answer["result"] = call(args)
        except Refused as refused:
            answer["error"] = {"code": refused.code, "message": str(refused)}
        except OSError as error:
            answer["error"] = {"code": "failed", "message": error.strerror or str(error)}
        self._send(client, encode(answer))

    def _become_terminal(self, client: _Client, number: int, args: dict[str, Any]) -> None:
        try:
            if self._terminal.is_full:
                raise Refused("busy", "too many are attached to the console")
            if {"rows", "columns"} & args.keys():
                self.resize(args)
        except Refused as refused:
            error = {"code": refused.code, "message": str(refused)}
            self._send(client, encode({"id": number, "error": error}))
            return
        self._send(client, encode({"id": number, "result": {}}))
        if self._clients.pop(client.socket.fileno(), None) is None:
            return
        self._loop.unwatch(client.socket.fileno())
        if client.output:
            client.socket.close()  # it has not even read the answer
        else:
            self._terminal.attach(client.socket)

    def resize(self, args: dict[str, Any]) -> None:
        """The call `console_size`."""
        self._terminal.resized(integer(args, "rows", MOST_SIZE), integer(args, "columns", MOST_SIZE))

    def _send(self, client: _Client, line: bytes) -> None:
        if len(client.output) + len(line) > MOST_OUTPUT_BYTES:
            self._drop(client)
            return
        client.output += line
        try:
            self._flush(client)
        except OSError:
            self._drop(client)

    def _flush(self, client: _Client) -> None:
        while client.output:
            try:
                done = client.socket.send(client.output)
            except BlockingIOError:
                break
            del client.output[:done]
        if client.socket.fileno() in self._clients:
            events = EPOLLIN | (EPOLLOUT if client.output else 0)
            self._loop.watch(client.socket.fileno(), lambda happened: self._ready(client, happened), events)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.socket.fileno(), None) is not None:
            self._loop.unwatch(client.socket.fileno())
            client.socket.close()

    def close(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()


def integer(args: dict[str, Any], name: str, most: int) -> int:
    """An argument that is a number from 0 to `most`. Raises Refused."""
    value = args.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise Refused("invalid", f"{name} is a number from 0 to {most}")
    return value
