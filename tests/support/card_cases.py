"""What holds for a network card whoever carries its packets. A test module subclasses `CardCases`."""

from __future__ import annotations

import os
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support import frames
from tests.support.frames import ACK, GSO_TCPV4, NEEDS_CSUM, PSH, SYN, TCP, UDP, Header
from tests.support.netns import ip
from tests.support.nic import GUEST, HOST, MAC, MTU, Guest, Nic, host_mac, host_udp, lan, make_tap, move_host, plug
from tests.support.virtqueue import Piece
from vmtui.vmm.devices.net.card import RX, TX, Card
from vmtui.vmm.devices.net.features import (
    GUEST_CSUM,
    GUEST_TSO4,
    GUEST_TSO6,
    MRG_RXBUF,
)
from vmtui.vmm.devices.net.tap import Tap
from vmtui.vmm.loop import Loop
from vmtui.vmm.virtio.queue import RING_EVENT_IDX, RING_INDIRECT_DESC

LINK_UP = 1


def wrong_packets(frame: bytes) -> list[list[bytes]]:
    """Buffers of packets that no TAP takes."""
    return [
        [Header().pack()],
        [Header().pack(), b"short"],
        [Header().pack(), frame[:13]],
        [Header(flags=NEEDS_CSUM, csum_start=60_000, csum_offset=60_000).pack(), frame],
        [Header(gso_type=GSO_TCPV4, gso_size=1).pack(), frame],
        [Header(gso_type=0x7F, gso_size=0xFFFF, hdr_len=0xFFFF).pack(), frame],
        [Header(flags=0xFF, gso_type=0xFF).pack(), frame],
        [Header().pack(), *[b"x" * 60_000] * 20],
    ]


def until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


class CardCases(ABC):
    @abstractmethod
    def make(self, loop: Loop, tap: Tap) -> Card: ...

    @contextmanager
    def plugged(self, refused: int = 0, buffer_bytes: int = 2048, buffers: int = 256) -> Iterator[Nic]:
        """A card on tap0, in a loop of its own; not started. What failed in the loop fails the test."""
        errors: list[BaseException] = []
        loop = Loop("net", lambda _, error: errors.append(error))
        loop.start()
        try:
            card = self.make(loop, Tap(plug("tap0")))
            try:
                with Nic(card, refused=refused, buffer_bytes=buffer_bytes, buffers=buffers) as nic:
                    yield nic
            finally:
                card.close()
        finally:
            loop.stop()
            loop.close()
        assert errors == []

    @pytest.fixture(autouse=True)
    def network(self) -> Iterator[None]:
        with lan("tap0"):
            yield

    @pytest.mark.parametrize("refused", [0, RING_EVENT_IDX, RING_EVENT_IDX | RING_INDIRECT_DESC | MRG_RXBUF])
    def test_the_host_answers_and_is_answered(self, refused: int) -> None:
        with self.plugged(refused) as nic, host_udp() as host:
            guest = Guest(nic.start(), "tap0")
            assert guest.arp() == host_mac("tap0")
            for size in (0, 1, 999, MTU - 28):
                assert guest.ping(b"x" * size) == b"x" * size
            for number in range(20 if refused else 300):  # more than a ring holds
                host.sendto(b"to the guest %d" % number, (GUEST, 5000))
                _, frame = nic.receive()
                assert frame[42:] == b"to the guest %d" % number
                udp = frames.udp((GUEST, 5000), host.getsockname(), frame[42:])
                nic.send(guest.ip(UDP, udp), indirect=not refused and number % 2 == 0)
                assert host.recvfrom(100) == (frame[42:], (GUEST, 5000))
            assert nic.driver.failures == []

    def test_checksums_are_left_to_who_reads(self) -> None:
        with self.plugged() as nic, host_udp() as host:
            guest = Guest(nic.start(), "tap0")
            host.sendto(b"unsummed", (GUEST, 5000))
            header, frame = nic.receive()
            assert (header.flags & NEEDS_CSUM, header.csum_start, header.csum_offset) == (NEEDS_CSUM, 34, 6)
            partial = frames.udp((GUEST, 5000), host.getsockname(), b"as well", partial=True)
            nic.send(guest.ip(UDP, partial), Header(flags=NEEDS_CSUM, csum_start=34, csum_offset=6))
            assert host.recv(100) == b"as well"
            assert frame[40:42] != frames.udp(host.getsockname(), (GUEST, 5000), b"unsummed")[6:8]

    def test_a_driver_without_offloads_gets_whole_packets(self) -> None:
        with self.plugged(GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6) as nic, host_udp() as host:
            nic.start()
            host.sendto(b"summed", (GUEST, 5000))
            header, frame = nic.receive()
            assert header == Header(num_buffers=1)
            assert frame[34:] == frames.udp(host.getsockname(), (GUEST, 5000), b"summed")

    def test_a_packet_takes_as_many_buffers_as_it_needs(self) -> None:
        with self.plugged(buffer_bytes=300) as nic, host_udp() as host:
            nic.start()
            for size in (0, 1, 246, 247, 545, 546, 547, 1400, 1472):
                host.sendto(b"m" * size, (GUEST, 5000))
                header, frame = nic.receive()
                assert (len(frame), header.num_buffers) == (42 + size, (12 + 42 + size + 299) // 300)

    @pytest.mark.parametrize("merging", [True, False])
    def test_segments_pass_unsegmented(self, merging: bool) -> None:
        """40 KB from the guest in one packet; from the host larger ones than the network takes."""
        shape = {} if merging else {"refused": MRG_RXBUF, "buffer_bytes": 66_000, "buffers": 64}
        with self.plugged(**shape) as nic, socket.create_server((HOST, 0)) as server:
            guest = Guest(nic.start(), "tap0")
            stream = Stream(guest, server.getsockname())
            stream.connect()
            server.settimeout(60)
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(60)
                sent = bytes(range(251)) * 160
                stream.send_large(sent)
                got = b""
                while len(got) < len(sent):
                    got += accepted.recv(1 << 16)
                assert got == sent
                back = bytes(range(241)) * 800
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                accepted.sendall(back)
                received, largest = stream.receive(len(back))
                assert received == back
                assert largest > MTU + 14

    def test_packets_wait_for_buffers(self) -> None:
        with self.plugged() as nic, host_udp() as host:
            nic.start(posted=False)
            for number in range(200):
                host.sendto(b"%d" % number, (GUEST, 5000))
            time.sleep(0.05)
            for number in range(0, 200, 4):
                nic.post(4)
                for more in range(4):
                    assert nic.receive(repost=False)[1][42:] == b"%d" % (number + more)

    def test_a_large_packet_waits_for_enough_of_them(self) -> None:
        with self.plugged(buffer_bytes=1000) as nic, socket.create_server((HOST, 0)) as server:
            stream = Stream(Guest(nic.start(posted=False), "tap0"), server.getsockname())
            nic.post(1)
            stream.connect(repost=False)
            server.settimeout(60)
            accepted, _ = server.accept()
            with accepted:
                data = bytes(range(250)) * 40
                nic.post(3)
                accepted.sendall(data)
                got = b""
                while len(got) < len(data):
                    time.sleep(0.02)
                    nic.post(2)  # a few at a time, less than a packet needs
                    while nic.driver.drivers[RX].used != nic.driver.drivers[RX].seen:
                        got += stream.accept(*nic.receive(repost=False))
                assert got == data

    def test_a_new_driver_gets_what_it_agreed_to(self) -> None:
        with self.plugged() as nic, host_udp() as host:
            guest = Guest(nic.start(), "tap0")
            assert guest.ping(b"one") == b"one"
            for _ in range(3):
                nic.driver.reset()
                before = nic.driver.memory.read(0, 1 << 20)
                nic.driver.calls[RX].drain()
                host.sendto(b"for nobody", (GUEST, 5000))
                time.sleep(0.02)
                assert nic.driver.memory.read(0, 1 << 20) == before
                assert not nic.driver.calls[RX].drain()
                nic.driver.features ^= GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | RING_EVENT_IDX
                nic.start()
                host.sendto(b"summed", (GUEST, 5000))
                header, _ = nic.receive_some(lambda frame: frame[42:] == b"summed")
                assert header.flags & NEEDS_CSUM == bool(nic.driver.features & GUEST_CSUM)
                assert guest.ping(b"again") == b"again"
            assert nic.driver.failures == []

    def test_the_guest_sees_its_tap_go_and_another_come(self) -> None:
        with self.plugged() as nic:
            card, guest = nic.driver.device, Guest(nic.start(), "tap0")
            assert isinstance(card, Card)
            assert guest.ping(b"before") == b"before"
            assert card.config()[6] & LINK_UP
            ip("link del tap0")
            nic.driver.drivers[TX].add([Header().pack(), guest.ip(UDP, b"")])  # a guest that sends shows it at once
            nic.driver.kick(TX)
            until(lambda: nic.driver.config_changes == 1)
            assert not card.config()[6] & LINK_UP
            assert card.counters()["taps_lost"] == 1
            make_tap("tap1")
            move_host("tap1")
            card.attach(plug("tap1"))
            assert nic.driver.config_changes == 2
            assert card.config()[6] & LINK_UP
            nic.driver.wait(TX)
            guest.peer_mac = host_mac("tap1")
            assert guest.arp() == host_mac("tap1")
            assert guest.ping(b"after") == b"after"
            assert nic.driver.failures == []

    def test_it_is_moved_to_another_tap(self) -> None:
        with self.plugged() as nic, host_udp() as host:
            card, guest = nic.driver.device, Guest(nic.start(), "tap0")
            assert isinstance(card, Card)
            make_tap("tap1")
            for name in ("tap1", "tap0", "tap1"):
                card.attach(plug(name))
                move_host(name)
                guest.peer_mac = host_mac(name)
                assert guest.arp() == host_mac(name)
                host.sendto(b"unsummed", (GUEST, 5000))
                header, _ = nic.receive_some(lambda frame: frame[42:] == b"unsummed")
                assert header.flags & NEEDS_CSUM
            assert nic.driver.config_changes == 0  # the link was always up
            with pytest.raises(OSError, match="not a TAP"):
                card.attach(os.open("/dev/null", os.O_RDONLY))
            assert guest.ping(b"as before") == b"as before"

    @pytest.mark.parametrize("index", [RX, TX])
    def test_a_broken_ring_asks_for_a_reset(self, index: int) -> None:
        with self.plugged() as nic, host_udp() as host:
            nic.start(posted=False)
            nic.driver.drivers[index].offer(0xFFFF)
            nic.driver.kick(index)
            host.sendto(b"for which a buffer is sought", (GUEST, 5000))
            until(lambda: len(nic.driver.failures) == 1)
            nic.driver.reset()
            assert Guest(nic.start(), "tap0").ping(b"well") == b"well"

    def test_a_queue_that_the_driver_did_not_set_up_is_left_alone(self) -> None:
        with self.plugged() as nic, host_udp() as host:
            nic.driver._enabled = (TX,)
            nic.driver.start()
            host.sendto(b"for nobody", (GUEST, 5000))
            nic.driver.kick(RX)
            nic.send(Guest(nic, "tap0").ip(UDP, frames.udp((GUEST, 9), host.getsockname(), b"out")))
            assert host.recv(100) == b"out"
            assert nic.driver.failures == []

    def test_a_card_that_came_up_without_its_tap_waits_for_one(self) -> None:
        with self.plugged() as nic:
            card = nic.driver.device
            assert isinstance(card, Card)
            ip("link del tap0")
            nic.start()
            assert not card.config()[6] & LINK_UP
            make_tap("tap0")
            move_host("tap0")
            card.attach(plug("tap0"))
            assert Guest(nic, "tap0").ping(b"late") == b"late"

    def test_buffers_of_many_pieces(self) -> None:
        with self.plugged() as nic, host_udp() as host:
            nic.start(posted=False)
            ring = nic.driver.drivers[RX]
            at = ring.allocate(1 << 16)
            ring.add_pieces([Piece(at + 64 * part, 9, True) for part in range(200)])
            nic._kick_if_wanted()
            host.sendto(bytes(range(200)) * 5, (GUEST, 5000))
            header, frame = nic.receive(repost=False)
            assert (header.num_buffers, frame[42:]) == (1, bytes(range(200)) * 5)
            if nic.driver.features & RING_INDIRECT_DESC:
                ring.add_pieces([Piece(at + 64 * part, 9, True) for part in range(200)], indirect=True)
                nic._kick_if_wanted()
                host.sendto(bytes(range(200)) * 6, (GUEST, 5000))
                assert nic.receive(repost=False)[1][42:] == bytes(range(200)) * 6


class Stream:
    """The guest's end of a TCP connection, as much of it as the tests need."""

    def __init__(self, guest: Guest, server: tuple[str, int]) -> None:
        self.guest, self.server, self.port = guest, server, 40_000
        self.seq, self.ack = 1000, 0

    def _send(self, flags: int, data: bytes = b"", options: bytes = b"", header: Header | None = None) -> None:
        segment = frames.tcp(
            (GUEST, self.port), self.server, self.seq, self.ack, flags, data, options, partial=header is not None
        )
        self.guest.nic.send(self.guest.ip(TCP, segment), header)
        self.seq += len(data) + bool(flags & SYN)

    def connect(self, *, repost: bool = True) -> None:
        self._send(SYN, options=struct.pack(">BBH", 2, 4, MTU - 40))
        _, frame = self.guest.nic.receive(repost=repost)
        (theirs,) = struct.unpack_from(">I", frame, 38)
        assert frame[47] == SYN | ACK
        self.ack = theirs + 1
        self._send(ACK)

    def send_large(self, data: bytes) -> None:
        header = Header(NEEDS_CSUM, GSO_TCPV4, hdr_len=54, gso_size=MTU - 40, csum_start=34, csum_offset=16)
        self._send(ACK | PSH, data, header=header)

    def accept(self, header: Header, frame: bytes) -> bytes:
        """The data of a packet, acknowledged."""
        assert frame[:6] == MAC
        data = frame[34 + (frame[46] >> 4) * 4 :]
        (number,) = struct.unpack_from(">I", frame, 38)
        if not data or number != self.ack:
            return b""
        assert len(frame) <= MTU + 14 or (header.gso_type == GSO_TCPV4 and header.gso_size)
        self.ack += len(data)
        self._send(ACK)
        return data

    def receive(self, size: int) -> tuple[bytes, int]:
        """So much data; and the length of the longest packet of it."""
        got, largest = b"", 0
        while len(got) < size:
            header, frame = self.guest.nic.receive()
            got += self.accept(header, frame)
            largest = max(largest, len(frame))
        return got, largest
