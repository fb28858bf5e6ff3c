"""Whatever guest and hosts do in whatever order: nothing raises, nothing grows, and what arrives is what was sent."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.vsock_guest import CID, ROOM, VsockGuest
from vmtui.vmm.devices.vsock import packet
from vmtui.vmm.devices.vsock.connection import BUFFER_BYTES
from vmtui.vmm.devices.vsock.device import MOST_CONNECTIONS, MOST_REPLIES, TX
from vmtui.vmm.devices.vsock.packet import REQUEST, RESPONSE, RST, RW, SHUTDOWN, Header
from vmtui.vmm.loop import Loop

PATTERN = bytes(range(251)) * 80
FIRST_HOST_PORT = 2000
numbers = st.one_of(st.sampled_from((0, 1, 2, 3, 4, 7, 8, 2000, 2001, 1 << 30, 0xFFFFFFFF)), st.integers(0, 0xFFFFFFFF))
few = st.integers(0, 3)


def sockets() -> int:
    """Open here."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


class Stream:
    """A host's end. What each side has sent is a piece of PATTERN from its beginning on."""

    def __init__(self, end: socket.socket, greeted: bool) -> None:
        self.socket = end
        self.greeted = greeted
        self.sent = self.received = 0

    def receive(self) -> None:
        try:
            data = self.socket.recv(1 << 14)
        except OSError:
            return
        if not self.greeted and data:
            line, found, data = data.partition(b"\n")
            assert line.startswith(b"OK ")
            assert found
            self.greeted = True
        assert data == (PATTERN * 60)[self.received : self.received + len(data)]
        self.received += len(data)


class Streams(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []
        self.folder = tempfile.TemporaryDirectory()
        self.loop = Loop("vsock", lambda _, error: self.errors.append(error))
        self.fds = sockets()
        self.guest = VsockGuest(Path(self.folder.name), self.loop)
        self.guest.hosts = {2000, 2001}
        self.streams: list[Stream] = []
        self.sent: dict[tuple[int, int], int] = {}  # guest to host, by ports
        self.asked: list[int] = []  # ports of hosts that wait for the guest
        self.guest.start()

    def turn(self) -> None:
        for _ in range(4):
            self.loop.turn(0)
        for end in self.guest.got:
            end.setblocking(False)
            self.streams.append(Stream(end, greeted=True))
        self.guest.got.clear()

    def put(self, header: Header, data: bytes = b"") -> None:
        ring = self.guest.driver.drivers[TX]
        ring.add([header.pack(), data] if data else [header.pack()])
        self.guest.driver.kick(TX)
        self.turn()
        while ring.take():
            pass

    def header(self, op: int, ports: tuple[int, int], length: int = 0, flags: int = 0, room: int = ROOM) -> Header:
        return Header(CID, packet.HOST_CID, *ports, length, packet.STREAM, op, flags, room, 0)

    def ports(self, number: int) -> tuple[int, int]:
        known = [*self.sent, *((7, port) for port in self.asked)]
        return known[number % len(known)] if known else (1, 2)

    @rule(guest_port=few, host_port=st.sampled_from((2000, 2001, 9)))
    def ask_host(self, guest_port: int, host_port: int) -> None:
        ports = (5000 + guest_port, host_port)
        self.put(self.header(REQUEST, ports))
        self.sent[ports] = 0

    @rule()
    def knock(self) -> None:
        if len(self.streams) < 20:
            with suppress(OSError):
                self.streams.append(Stream(self.guest.knock(7), greeted=False))
                self.streams[-1].socket.setblocking(False)
        self.turn()

    @rule(number=few)
    def answer(self, number: int) -> None:
        if self.asked:
            ports = (7, self.asked.pop(number % len(self.asked)))
            self.put(self.header(RESPONSE, ports))
            self.sent[ports] = 0

    @rule(number=st.integers(0, 20), length=st.integers(0, 16000))
    def say(self, number: int, length: int) -> None:
        ports = self.ports(number)
        at = self.sent.get(ports, 0)
        if at + length < 50 * len(PATTERN):
            self.put(self.header(RW, ports, length), (PATTERN * 60)[at : at + length])
            self.sent[ports] = at + length

    @rule(number=st.integers(0, 20), flags=st.integers(0, 7))
    def shut(self, number: int, flags: int) -> None:
        self.put(self.header(SHUTDOWN, self.ports(number), flags=flags))

    @rule(number=st.integers(0, 20))
    def reset(self, number: int) -> None:
        ports = self.ports(number)
        self.put(self.header(RST, ports))
        self.sent.pop(ports, None)

    @rule(number=st.integers(0, 20), op=st.integers(0, 9), room=numbers, taken=numbers, flags=numbers)
    def odd(self, number: int, op: int, room: int, taken: int, flags: int) -> None:
        if op != RW:  # which would break the pattern, not the device
            ports = self.ports(number)
            self.put(self.header(op, ports, 0, flags, room)._replace(forwarded=taken))
            if op == REQUEST and ports in self.sent:  # a stream that is new, or none any more
                self.sent[ports] = 0

    @rule(fields=st.tuples(*[numbers] * 10))
    def junk(self, fields: tuple[int, ...]) -> None:
        header = Header(*fields)
        if header.op & 0xFFFF != RW:
            self.put(header._replace(kind=header.kind & 0xFFFF, op=header.op & 0xFFFF))

    @precondition(lambda self: self.streams)
    @rule(number=st.integers(0, 20), length=st.integers(1, 16000))
    def host_says(self, number: int, length: int) -> None:
        stream = self.streams[number % len(self.streams)]
        with suppress(OSError):
            stream.sent += stream.socket.send((PATTERN * 2)[stream.sent % 251 :][:length])
        self.turn()

    @precondition(lambda self: self.streams)
    @rule(number=st.integers(0, 20))
    def host_hears(self, number: int) -> None:
        self.streams[number % len(self.streams)].receive()
        self.turn()

    @precondition(lambda self: self.streams)
    @rule(number=st.integers(0, 20), how=st.sampled_from((socket.SHUT_RD, socket.SHUT_WR, None)))
    def host_leaves(self, number: int, how: int | None) -> None:
        at = number % len(self.streams)
        if how is None:
            self.streams.pop(at).socket.close()
        else:
            with suppress(OSError):
                self.streams[at].socket.shutdown(how)
        self.turn()

    @rule()
    def guest_hears(self) -> None:
        while (heard := self.guest.heard()) is not None:
            header = heard.header
            assert header.dst_cid == CID or header.op == RST
            if header.op == REQUEST:
                self.asked.append(header.src_port)
            elif header.op == RST:
                self.sent.pop((header.dst_port, header.src_port), None)
            elif header.op == RW:
                start = heard.data[0]
                assert heard.data == (PATTERN * 2)[start : start + len(heard.data)]
            self.turn()
        self.asked = self.asked[-8:]

    @rule()
    def start_again(self) -> None:
        self.guest.driver.reset()
        assert self.guest.device.counters()["connections"] == 0
        self.sent, self.asked = {}, []
        self.guest.start()
        self.turn()

    @invariant()
    def nothing_is_wrong_and_nothing_grows(self) -> None:
        assert self.errors == []
        assert self.guest.driver.failures == []
        device = self.guest.device
        assert len(device._connections) + len(device._leaving) <= MOST_CONNECTIONS
        assert len(device._replies) <= MOST_REPLIES
        for connection in (*device._connections.values(), *device._leaving):
            assert len(connection._unsent) <= BUFFER_BYTES
            assert len(connection._due) <= 4

    def teardown(self) -> None:
        self.start_again()
        self.put(self.header(REQUEST, (1, 2000)))
        self.put(self.header(RW, (1, 2000), 5), b"works")
        assert self.streams[-1].socket.recv(8) == b"works"
        self.guest.driver.reset()
        for stream in self.streams:
            stream.socket.close()
        self.guest.close()
        assert sockets() <= self.fds
        self.loop.close()
        self.folder.cleanup()


TestStreams = Streams.TestCase
TestStreams.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_ports_that_are_asked_for_once_more_have_a_stream_that_begins_anew() -> None:
    streams = Streams()
    streams.ask_host(0, 2000)
    streams.say(0, 5)
    streams.shut(0, 3)
    streams.odd(0, REQUEST, ROOM, 0, 0)
    assert len(streams.streams) == 2
    streams.say(0, 5)
    streams.host_hears(1)
    assert streams.streams[1].received == 5
    streams.teardown()
