"""virtio-vsock (VIRTIO 5.10): the table of streams, and the queues. Unix sockets as Firecracker has them.

To the guest: connect to vsock.sock, say "CONNECT PORT", get "OK PORT". From the guest: what `connect` replies for a
port of CID 2; the machine's monitor connects to vsock.sock_PORT.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Callable

from vmtui.vmm.devices.vsock import packet
from vmtui.vmm.devices.vsock.connection import BUFFER_BYTES, Connection, Key, Stage
from vmtui.vmm.devices.vsock.knocking import Door
from vmtui.vmm.devices.vsock.packet import HEADER_BYTES, HOST_CID, STREAM, Header, pieces
from vmtui.vmm.loop import Loop
from vmtui.vmm.virtio.device import QueueWorker
from vmtui.vmm.virtio.queue import RING_EVENT_IDX, RING_INDIRECT_DESC, Chain, Queue, QueueBroken

TYPE_VSOCK = 19
F_STREAM = 1 << 0  # 5.10.3
RX, TX, EVENT = 0, 1, 2  # 5.10.2
QUEUE_SIZE = 256
TRANSPORT_RESET = 0  # 5.10.6.7
MOST_CONNECTIONS = 128
MOST_REPLIES = 256  # resets that wait for a buffer of the guest; one that asks for more and gives none loses them
TURN_PACKETS = 64  # then other devices of the loop have their turn
FIRST_PORT, LAST_PORT = 1 << 30, (1 << 31) - 1  # for programs of the host: as Firecracker's

Reply = Callable[[socket.socket | None], None]
Connect = Callable[[int, int, Reply], None]


class Vsock(QueueWorker):
    """Whatever the guest sends costs it its own streams at most. Owns the listener."""

    type_id = TYPE_VSOCK
    queue_sizes = (QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE)
    features = F_STREAM | RING_INDIRECT_DESC | RING_EVENT_IDX

    def __init__(self, name: str, loop: Loop, cid: int, listener: socket.socket | None, connect: Connect) -> None:
        """`connect(port, guest_port, reply)`: get a socket for the guest, and call `reply` once, from any thread.

        None: there is nobody. It is called in the loop's thread with the device locked, so it must not wait.
        """
        super().__init__(loop)
        self.name = name
        self._cid = cid
        self._connect = connect
        self._asked = 0  # replies that are to come
        self._door = None if listener is None else Door(loop, listener, self._wanted)
        self._connections: dict[Key, Connection] = {}
        self._leaving: set[Connection] = set()  # the guest is done with them, the host has not taken all
        self._talking: dict[Connection, None] = {}  # may have something to say, in turn
        self._replies: deque[Header] = deque()
        self._spare: Chain | None = None  # taken from RX, not yet filled
        self._next_port = FIRST_PORT
        self._reset_due = False
        self._counters = {"read_bytes": 0, "written_bytes": 0, "connected": 0, "refused": 0, "bad_packets": 0}

    def config(self) -> bytes:
        return struct.pack("<Q", self._cid)

    def counters(self) -> dict[str, int]:
        return {**self._counters, "connections": len(self._connections)}

    # The queues

    def run(self, index: int, session: object = None) -> None:
        super().run(index)
        if index == TX and (self._talking or self._replies):
            super().run(RX)

    def process(self, index: int, queue: Queue) -> None:
        if index == RX:
            self._answer(queue)
        elif index == TX:
            for _ in range(TURN_PACKETS):
                chain = queue.pop()
                if chain is None:
                    break
                self._take(chain)
                queue.push(chain.head, 0)
        elif self._reset_due and (chain := queue.pop()) is not None:
            self._reset_due = False
            queue.push(chain.head, chain.copy_out(struct.pack("<I", TRANSPORT_RESET)))

    def more(self, index: int) -> bool:
        """What came meanwhile has its turn after other devices of the loop."""
        if self.session is not None and (index == TX or (index == RX and (self._talking or self._replies))):
            self.session.kicks[index].signal()
        return False

    def _answer(self, queue: Queue) -> None:
        for _ in range(TURN_PACKETS):
            if not self._replies and not self._talking:
                return
            chain = self._spare or queue.pop()
            self._spare = None
            if chain is None:
                return
            if chain.writable_bytes <= HEADER_BYTES:
                raise QueueBroken(f"a receive buffer of {chain.writable_bytes} bytes")
            written = self._fill(chain)
            if written:
                queue.push(chain.head, written)
            else:
                self._spare = chain

    def _fill(self, chain: Chain) -> int:
        """The next packet for the guest. 0: nobody has one."""
        if self._replies:
            return chain.copy_out(self._replies.popleft().pack())
        while self._talking:
            connection = next(iter(self._talking))
            del self._talking[connection]
            written = connection.fill(chain)
            if written:
                self._talking[connection] = None  # at the end: others have their turn
                self._counters["read_bytes"] += written - HEADER_BYTES
                return written
        return 0

    # From the guest

    def _take(self, chain: Chain) -> None:
        header = packet.unpack(chain.copy_in(HEADER_BYTES))
        if header is None or header.src_cid != self._cid:
            self._counters["bad_packets"] += 1
            return
        connection = self._connections.get(Key(header.src_port, header.dst_port))
        if header.dst_cid != HOST_CID or header.kind != STREAM:  # 5.10.6.4.1: nobody there, or of no such type
            self._refuse(header)
        elif header.op == packet.RST:
            if connection is not None:
                self._forget(connection)
        elif connection is not None:
            payload = pieces(chain.readable, HEADER_BYTES, header.length) if header.op == packet.RW else []
            if connection.heard(header, payload):
                self._counters["written_bytes"] += header.length if header.op == packet.RW else 0
            else:
                self._forget(connection)
                self._refuse(header)
        elif header.op == packet.REQUEST and self._has_room:
            self._ask_host(header)
        else:
            self._refuse(header)

    @property
    def _has_room(self) -> bool:
        """Those asked for count until they are answered, whether the guest still waits or not."""
        return max(len(self._connections), self._asked) + len(self._leaving) < MOST_CONNECTIONS

    def _refuse(self, header: Header) -> None:
        """Answer by RST, unless it was one."""
        self._counters["refused"] += 1
        if header.op != packet.RST:
            src, dst = (header.src_cid, header.src_port), (header.dst_cid, header.dst_port)
            reset = (dst[0], src[0], dst[1], src[1], 0, header.kind, packet.RST, 0, BUFFER_BYTES, 0)
            self._reply(Header(*reset))

    def _reply(self, header: Header) -> None:
        if len(self._replies) < MOST_REPLIES:
            self._replies.append(header)

    def _ask_host(self, header: Header) -> None:
        connection = Connection(self.loop, self._cid, Key(header.src_port, header.dst_port), Stage.ASKED_HOST, self)
        self._connections[connection.key] = connection
        connection.credited(header)
        self._asked += 1
        self._connect(
            header.dst_port,
            header.src_port,
            lambda found: self.loop.call(lambda: self._given(connection, header, found)),
        )

    def _given(self, connection: Connection, header: Header, found: socket.socket | None) -> None:
        with self.lock:
            self._asked -= 1
            if connection.stage is not Stage.ASKED_HOST:
                if found is not None:
                    found.close()  # it took too long
                return
            if found is None:
                self._forget(connection)
                self._refuse(header)
            else:
                self._counters["connected"] += 1
                connection.connected(found)
        self.run(RX)

    # From the host

    def _wanted(self, port: int, connection: socket.socket) -> None:
        with self.lock:
            if self.session is None or not self._has_room:
                connection.close()
                return
            key = Key(port, self._free_port(port))
            made = Connection(self.loop, self._cid, key, Stage.ASKED_GUEST, self)
            self._connections[key] = made
            self._counters["connected"] += 1
            made.accepted(connection)
        self.run(RX)

    def _free_port(self, guest_port: int) -> int:
        while True:
            port = self._next_port
            self._next_port = FIRST_PORT if port == LAST_PORT else port + 1
            if Key(guest_port, port) not in self._connections:
                return port

    # Of the connections

    def changed(self, connection: Connection) -> None:
        self._talking[connection] = None

    def ready(self, connection: Connection, events: int) -> None:
        with self.lock:
            if connection in self._leaving:
                if not connection.happened(events):
                    self._leaving.discard(connection)
                    connection.close()
                else:
                    connection.settle()
                return
            if self._connections.get(connection.key) is not connection:
                return
            if not connection.happened(events):
                self._forget(connection)
                self._reply(connection.header(packet.RST))
        self.run(RX)
        with self.lock:
            connection.settle()

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection.key, None)
        self._talking.pop(connection, None)
        if not connection.leave():
            self._leaving.add(connection)

    def ended(self) -> None:
        for connection in (*self._connections.values(), *self._leaving):
            connection.close()
        self._connections.clear()
        self._leaving.clear()
        self._talking.clear()
        self._replies.clear()
        self._spare = None
        self._reset_due = False

    def reset_transport(self) -> None:
        """All streams are over, and the guest is to hear that (5.10.6.7): it goes on in another place."""
        with self.lock:
            self.ended()
            self._reset_due = True
        self.run(EVENT)

    def close(self) -> None:
        """After `reset`, with the loop stopped or in its thread."""
        if self._door is not None:
            self._door.close()
            self._door = None
