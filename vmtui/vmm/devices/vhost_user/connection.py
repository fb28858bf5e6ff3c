"""The connection to one back-end: requests, and replies that are checked and waited for no longer than agreed."""

from __future__ import annotations

import array
import select
import socket
import time
from contextlib import suppress

from vmtui.vmm.devices.vhost_user import messages as m

REPLY_S = 3.0
FIRST_REPLY_S = 10.0  # the back-end may still be opening its files


class BackEndLost(Exception):
    """It is gone, silent, or says what it may not: the connection is of no more use."""


class Connection:
    """Owns the socket. For one thread at a time, but for `abort`. Everything raises BackEndLost."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.features = 0  # virtio features of the back-end
        self.protocol = 0  # protocol features agreed on

    def negotiate(self, wanted: int) -> None:
        """Agree on protocol features, at most `wanted`."""
        self._send(m.SET_OWNER)
        self.features = self.ask_u64(m.GET_FEATURES, timeout_s=FIRST_REPLY_S)
        if not self.features & m.PROTOCOL_FEATURES:
            raise BackEndLost("the back-end knows no protocol features")
        self.protocol = self.ask_u64(m.GET_PROTOCOL_FEATURES) & wanted
        self._send(m.SET_PROTOCOL_FEATURES, m.U64.pack(self.protocol))

    def tell(self, request: int, payload: bytes = b"", fds: tuple[int, ...] = ()) -> None:
        """What has no reply of its own: waits for its acknowledgement, if the back-end gives any."""
        acknowledged = bool(self.protocol & m.F_REPLY_ACK)
        self._send(request, payload, fds, m.NEED_REPLY if acknowledged else 0)
        if acknowledged:
            answer = self._reply(request, REPLY_S)
            if answer != bytes(8):
                raise BackEndLost(f"the back-end refuses message {request}")

    def ask(self, request: int, payload: bytes, size: int, *, timeout_s: float = REPLY_S) -> bytes:
        """The reply, of `size` bytes."""
        self._send(request, payload)
        answer = self._reply(request, timeout_s)
        if len(answer) != size:
            raise BackEndLost(f"the back-end answers {request} by {len(answer)} bytes, not {size}")
        return answer

    def ask_u64(self, request: int, *, timeout_s: float = REPLY_S) -> int:
        (value,) = m.U64.unpack(self.ask(request, b"", m.U64.size, timeout_s=timeout_s))
        return int(value)

    def vring_base(self, index: int) -> int:
        """Stop the queue. Returns the index of the next chain that it would have taken."""
        answer = self.ask(m.GET_VRING_BASE, m.VRING_STATE.pack(index, 0), m.VRING_STATE.size)
        return int(m.VRING_STATE.unpack(answer)[1]) & 0xFFFF

    def config(self, size: int) -> bytes:
        """`size` bytes of the device's configuration space, from its beginning."""
        asked = m.CONFIG.pack(0, size, 0) + bytes(size)
        return self.ask(m.GET_CONFIG, asked, len(asked))[m.CONFIG.size :]

    def _send(self, request: int, payload: bytes = b"", fds: tuple[int, ...] = (), flags: int = 0) -> None:
        data = m.message(request, payload, flags=flags)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self.socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise BackEndLost(f"the back-end is gone: {error.strerror}") from None
        if sent != len(data):  # its socket is full: it has not read for a long time
            raise BackEndLost("the back-end does not listen")

    def _reply(self, request: int, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        try:
            header = m.header(self._receive(m.HEADER.size, deadline))
        except ValueError as error:
            raise BackEndLost(f"the back-end sends {error}") from None
        if header.request != request or not header.flags & m.REPLY:
            raise BackEndLost(f"the back-end answers {header.request} to {request}")
        return self._receive(header.size, deadline)

    def _receive(self, size: int, deadline: float) -> bytes:
        """Descriptors that come along are closed by the kernel: there is no room for them."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        data = b""
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise BackEndLost("the back-end does not answer")
            try:
                part = self.socket.recv(size - len(data))
            except BlockingIOError:
                continue
            except OSError as error:
                raise BackEndLost(f"the back-end is gone: {error.strerror}") from None
            if not part:
                raise BackEndLost("the back-end is gone")
            data += part
        return data

    def unasked(self) -> str:
        """What it means that the socket is readable while no reply is waited for; "" for nothing."""
        try:
            return "the back-end speaks unasked" if self.socket.recv(1, socket.MSG_PEEK) else "the back-end is gone"
        except BlockingIOError:
            return ""
        except OSError as error:
            return f"the back-end is gone: {error.strerror}"

    def abort(self) -> None:
        """From any thread: who waits for a reply gets BackEndLost."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.socket.close()
