"""One stream: a port of the guest, a socket of the host, and what each side still has room for (VIRTIO 5.10.6.3).

The device's lock is held in each call. What is kept is bounded: one buffer of BUFFER_BYTES, and flags for packets that
are due, never the packets themselves.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from enum import Enum
from typing import NamedTuple, Protocol

from vmtui.vmm.devices.vsock import packet
from vmtui.vmm.devices.vsock.packet import BOTH, HEADER_BYTES, NO_RECEIVE, NO_SEND, pieces
from vmtui.vmm.loop import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, Loop
from vmtui.vmm.virtio.queue import Chain

BUFFER_BYTES = 256 << 10  # what the guest may send before the host's program takes it, as Linux has it
TELL_BYTES = BUFFER_BYTES // 4  # passed on since the guest last heard: it is told, before it has to wait
MAX_PACKET_BYTES = 64 << 10  # linux/virtio_vsock.h, VIRTIO_VSOCK_MAX_PKT_BUF_SIZE
MAX_VIEWS = 512  # include/uapi/linux/uio.h, UIO_MAXIOV is 1024
WRAP = packet.COUNTER - 1


class Stage(Enum):
    ASKED_HOST = 1  # the guest waits for a socket of the host
    ASKED_GUEST = 2  # a program of the host waits for the guest's answer
    OPEN = 3
    OVER = 4  # the guest has no part in it; what it sent last is still on its way


class Key(NamedTuple):
    guest_port: int
    host_port: int


class Owner(Protocol):
    def changed(self, connection: Connection) -> None:
        """It may have something to say to the guest that it had not before. The lock is held."""

    def ready(self, connection: Connection, events: int) -> None:
        """Something happened to its socket. In the loop's thread, without the lock."""


class Connection:
    """Owns its socket."""

    def __init__(self, loop: Loop, cid: int, key: Key, stage: Stage, owner: Owner) -> None:
        """`cid`: the guest's."""
        self.key = key
        self.stage = stage
        self._cid = cid
        self._owner = owner
        self.socket: socket.socket | None = None
        self._loop = loop
        self._watched: int | None = None
        self._due: list[int] = []  # ops, each at most once
        self._unsent = bytearray()  # for the host
        self._forwarded = self._told = 0  # to the host; what the guest knows of it
        self._sent = self._room = self._taken = 0  # to the guest; what it has room for, and has taken
        self._readable = self._hung_up = False
        self._shut = 0  # what the guest has shut: NO_RECEIVE, NO_SEND
        self._ended = 0  # what it has been told that we have shut
        self._at_end = 0  # what we have
        if stage is Stage.ASKED_GUEST:
            self._owe(packet.REQUEST)

    # To the guest

    @property
    def _credit(self) -> int:
        return max(0, self._room - (self._sent - self._taken & WRAP))

    def _owe(self, op: int) -> None:
        if op not in self._due:
            self._due.append(op)
            self._owner.changed(self)

    def fill(self, chain: Chain) -> int:
        """Put the next packet into a buffer of the guest. How many bytes that are; 0: there is nothing to say."""
        if self._due:
            return self._put(chain, self._due.pop(0))
        if self._readable and self._credit > 0:
            length = self._read(chain)
            if length:
                self._sent = self._sent + length & WRAP
                return self._put(chain, packet.RW, length)
        if not self._readable and self._at_end != self._ended:
            self._ended = self._at_end
            return self._put(chain, packet.SHUTDOWN, flags=self._ended)
        return 0

    def _read(self, chain: Chain) -> int:
        """From the host straight into the guest's buffer. 0: nothing there, or the end."""
        assert self.socket is not None
        room = min(chain.writable_bytes - HEADER_BYTES, self._credit, MAX_PACKET_BYTES)
        views = pieces(chain.writable, HEADER_BYTES, room)[:MAX_VIEWS]
        if not views:
            return 0
        try:
            length = self.socket.recvmsg_into(views)[0]
        except BlockingIOError:
            self._readable = False
            self.settle()
            return 0
        except OSError:
            length, self._hung_up = 0, True
        if not length:
            self._readable = False
            self._at_end = BOTH if self._hung_up else NO_SEND
            self.settle()
        elif length < sum(map(len, views)) and not self._hung_up:
            self._readable = False  # it is empty: the loop says when it is not
            self.settle()
        elif not self._credit - length > 0:
            self._owe(packet.CREDIT_REQUEST)
        return length

    def _put(self, chain: Chain, op: int, length: int = 0, flags: int = 0) -> int:
        self._told = self._forwarded
        chain.copy_out(self.header(op, length, flags).pack())
        return HEADER_BYTES + length

    def header(self, op: int, length: int = 0, flags: int = 0) -> packet.Header:
        """Of a packet to the guest."""
        key = self.key
        return packet.Header(
            packet.HOST_CID,
            self._cid,
            key.host_port,
            key.guest_port,
            length,
            packet.STREAM,
            op,
            flags,
            BUFFER_BYTES,
            self._forwarded,
        )

    # From the guest

    def credited(self, header: packet.Header) -> None:
        """Each packet says what room there is."""
        self._room, self._taken = header.credit, header.forwarded

    def heard(self, header: packet.Header, payload: list[memoryview]) -> bool:
        """A packet of the guest for this stream, but for RST. False: it may not be, and the stream is to be reset."""
        self.credited(header)
        match header.op:
            case packet.RESPONSE if self.stage is Stage.ASKED_GUEST:
                return self._opened(f"OK {self.key.host_port}\n".encode())
            case packet.RW if self.stage is Stage.OPEN and not self._shut & NO_SEND:
                good = self._take(payload, header.length)
            case packet.SHUTDOWN if self.stage is Stage.OPEN:
                good = self._shut_down(header.flags & BOTH)
            case packet.CREDIT_UPDATE:
                good = True
            case packet.CREDIT_REQUEST:
                self._owe(packet.CREDIT_UPDATE)
                good = True
            case _:
                return False
        if self._readable and self._credit > 0:
            self._owner.changed(self)
        return good

    def _take(self, payload: list[memoryview], length: int) -> bool:
        """Pass on what the host takes, and keep the rest. False: more than it was told there is room for."""
        assert self.socket is not None
        if length > BUFFER_BYTES - len(self._unsent) or length != sum(map(len, payload)):
            return False
        done = 0
        if not self._unsent and payload and not self._hung_up:
            try:
                done = self.socket.sendmsg(payload[:MAX_VIEWS])
            except BlockingIOError:
                pass
            except OSError:
                return False
        self._forward(done)
        if done < length:
            self._unsent += b"".join(payload)[done:]
            self.settle()
        return not self._hung_up

    def _forward(self, count: int) -> None:
        self._forwarded = self._forwarded + count & WRAP
        if self._forwarded - self._told & WRAP >= TELL_BYTES and self.stage is Stage.OPEN:
            self._owe(packet.CREDIT_UPDATE)

    def _shut_down(self, flags: int) -> bool:
        """False: both, so that the stream is over, which is answered by RST (5.10.6.6)."""
        self._shut |= flags
        if self._shut == BOTH:
            return False
        if flags & NO_RECEIVE:
            self._readable = False
            self._shut_socket(socket.SHUT_RD)
        if flags & NO_SEND and not self._unsent:
            self._shut_socket(socket.SHUT_WR)
        self.settle()
        return True

    def _shut_socket(self, how: int) -> None:
        assert self.socket is not None
        with suppress(OSError):  # it is gone, which we shall hear
            self.socket.shutdown(how)

    # The host

    def connected(self, connection: socket.socket) -> None:
        """The host's socket for what the guest asked; takes it over."""
        connection.setblocking(False)
        self.socket = connection
        self.stage = Stage.OPEN
        self._owe(packet.RESPONSE)
        self.settle()

    def accepted(self, connection: socket.socket) -> None:
        """The socket of the program that asks for the guest; takes it over."""
        self.socket = connection
        self.settle()

    def _opened(self, greeting: bytes) -> bool:
        assert self.socket is not None
        self.stage = Stage.OPEN
        try:
            if self.socket.send(greeting) != len(greeting):
                return False
        except OSError:
            return False
        self.settle()
        return True

    def happened(self, events: int) -> bool:
        """To the socket. False: the stream is over without more words."""
        if self.socket is None:
            return True
        if events & EPOLLOUT and not self._flush():
            return False
        if events & (EPOLLHUP | EPOLLERR):
            if self.stage is not Stage.OPEN:
                return False
            self._hung_up = True
            self._unsent.clear()
            self._readable = not self._at_end and not self._shut & NO_RECEIVE
            self._at_end = BOTH if not self._readable else self._at_end
            self._owner.changed(self)
        elif events & EPOLLIN:
            self._readable = True
            if self._credit > 0:
                self._owner.changed(self)
        return True

    def _flush(self) -> bool:
        """False: all is done, or nothing more can be."""
        assert self.socket is not None
        try:
            done = self.socket.send(memoryview(self._unsent)[:MAX_PACKET_BYTES])
        except BlockingIOError:
            return True
        except OSError:
            return False
        del self._unsent[:done]
        self._forward(done)
        if not self._unsent and self._shut & NO_SEND:
            if self.stage is Stage.OVER:
                return False
            self._shut_socket(socket.SHUT_WR)
        return bool(self._unsent) or self.stage is not Stage.OVER

    def settle(self) -> None:
        """Have the loop watch for what can be used now, and for the other end's hanging up."""
        if self.socket is None:
            return
        wanted: int | None = EPOLLOUT if self._unsent else 0
        if self._hung_up:
            wanted = None  # it would be told for ever
        elif self.stage is Stage.OPEN and not (self._readable or self._at_end or self._shut & NO_RECEIVE):
            wanted = EPOLLIN | (wanted or 0)
        if wanted == self._watched:
            return
        self._watched = wanted
        if wanted is None:
            self._loop.unwatch(self.socket.fileno())
        else:
            self._loop.watch(self.socket.fileno(), lambda events: self._owner.ready(self, events), wanted)

    def leave(self) -> bool:
        """The guest is done with it. True: it is closed; False: it has to be called until the rest is sent."""
        if self._unsent and not self._hung_up and self.socket is not None:
            self.stage = Stage.OVER
            self._shut = BOTH
            self._readable = False
            self._due.clear()
            self.settle()
            return False
        self.close()
        return True

    def close(self) -> None:
        self.stage = Stage.OVER
        self._due.clear()
        self._readable = False
        self._at_end = self._ended
        if self.socket is not None:
            if self._watched is not None:
                self._loop.unwatch(self.socket.fileno())
            self.socket.close()
            self.socket = None
