"""A guest's side of vsock without a guest: packets made and read by hand, well or badly, over real rings."""

from __future__ import annotations

import socket
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.virtqueue import Driver, Piece
from vmtui.vmm.devices.vsock import packet
from vmtui.vmm.devices.vsock.device import RX, TX, Reply, Vsock
from vmtui.vmm.devices.vsock.packet import HEADER_BYTES, Header
from vmtui.vmm.loop import Loop

CID = 3
RX_BYTES = 4096
ROOM = 256 << 10  # what the guest says it has room for


class Heard(NamedTuple):
    header: Header
    data: bytes

    @property
    def op(self) -> int:
        return self.header.op


class VsockGuest:
    """`hosts`: what the guest may connect to, by port; the other ends of what it got are in `got`."""

    def __init__(self, folder: Path, loop: Loop) -> None:
        self.path = folder / "vsock.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.path))
        listener.listen(128)
        self.hosts: set[int] = set()
        self.got: deque[socket.socket] = deque()
        self.asked: list[tuple[int, Reply]] = []
        self.from_ports: list[int] = []
        self.answers = True  # at once, or when the test calls `answer`
        self.device = Vsock("vsock0", loop, CID, listener, self._ask)
        self.driver = Driver(self.device, queues=(RX, TX, 2))
        self._sockets: list[socket.socket] = []

    def _ask(self, port: int, guest_port: int, reply: Reply) -> None:
        self.from_ports.append(guest_port)
        self.asked.append((port, reply))
        if self.answers:
            self.answer()

    def answer(self) -> None:
        port, reply = self.asked.pop(0)
        if port not in self.hosts:
            reply(None)
            return
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        self.got.append(ours)
        self._sockets.append(ours)
        reply(theirs)

    def start(self, buffers: int = 32) -> None:
        self.driver.start()
        self.offer(buffers)

    def offer(self, buffers: int, size: int = RX_BYTES) -> None:
        """Two descriptors each, as Linux before 6.3 had them."""
        ring = self.driver.drivers[RX]
        for _ in range(buffers):
            at = ring.allocate(size)
            ring.add_pieces([Piece(at, HEADER_BYTES, True), Piece(at + HEADER_BYTES, size - HEADER_BYTES, True)])
        self.driver.kick(RX)

    def knock(self, port: int) -> socket.socket:
        """A program of the host that wants a port of the guest."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sockets.append(made)
        made.settimeout(60)
        made.connect(str(self.path))
        made.sendall(b"CONNECT %d\n" % port)
        return made

    def send(
        self,
        op: int,
        guest_port: int,
        host_port: int,
        data: bytes = b"",
        *,
        flags: int = 0,
        room: int = ROOM,
        taken: int = 0,
        **other: int,
    ) -> None:
        header = Header(
            CID, packet.HOST_CID, guest_port, host_port, len(data), packet.STREAM, op, flags, room, taken
        )._replace(**other)
        self.driver.request([header.pack(), data] if data else [header.pack()], queue=TX)

    def hear(self, timeout_s: float = 60.0) -> Heard:
        """The next packet; its buffer is offered again."""
        ring = self.driver.drivers[RX]
        buffers = {head: pieces for head, (pieces, _) in ring.chains.items()}
        used, data = self.driver.wait(RX, timeout_s)
        header = packet.unpack(data[:HEADER_BYTES])
        assert header is not None
        assert used.written == HEADER_BYTES + header.length
        assert (header.src_cid, header.dst_cid) in ((packet.HOST_CID, CID), (header.src_cid, CID))
        ring.add_pieces(buffers[used.head])
        self.driver.kick(RX)
        return Heard(header, data[HEADER_BYTES : used.written])

    def heard(self) -> Heard | None:
        """The next packet if there is one already."""
        return self.hear() if self.driver.drivers[RX].used != self.driver.drivers[RX].seen else None

    def silent(self, for_s: float = 0.05) -> bool:
        try:
            heard = self.hear(for_s)
        except AssertionError:
            return True
        raise AssertionError(f"heard {heard}")

    def open_to_host(self, guest_port: int, host_port: int) -> socket.socket:
        self.hosts.add(host_port)
        self.send(packet.REQUEST, guest_port, host_port)
        assert self.hear().op == packet.RESPONSE
        return self.got.pop()

    def close(self) -> None:
        self.driver.close()
        self.device.close()
        for each in self._sockets:
            each.close()


@contextmanager
def vsock_guest(buffers: int = 32) -> Iterator[VsockGuest]:
    """Started, in a loop of its own; no exception may have come out of a callback at the end."""
    errors: list[BaseException] = []
    loop = Loop("vsock", lambda _, error: errors.append(error))
    with tempfile.TemporaryDirectory() as folder:
        guest = VsockGuest(Path(folder), loop)
        loop.start()
        try:
            guest.start(buffers)
            yield guest
        finally:
            guest.driver.device.reset()
            loop.stop()
            guest.close()
            loop.close()
    assert errors == []
