"""The two paths of the network card over a socket in the TAP's place, and what the card says of itself."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.consoles import until
from tests.support.frames import Header
from tests.support.virtqueue import Driver, DriverQueue, Piece
from vmtui.vmm.devices.net import features
from vmtui.vmm.devices.net.card import RX, TX
from vmtui.vmm.devices.net.device import Net
from vmtui.vmm.devices.net.features import HEADER_BYTES, MAX_PACKET_BYTES, tap_offloads
from vmtui.vmm.devices.net.receive import TURN_PACKETS, Receiver
from vmtui.vmm.devices.net.tap import Tap, open_tap
from vmtui.vmm.devices.net.transmit import Transmitter
from vmtui.vmm.devices.net.vhost_kernel import VhostKernel, host_address
from vmtui.vmm.loop import Loop
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.queue import VERSION_1, Queue, QueueBroken

SIZE = 16
MEMORY_BYTES = 4 << 20


class Wire:
    """A queue of SIZE entries, and a socket that keeps packets apart as a TAP does."""

    def __init__(self) -> None:
        self.memory = GuestMemory(MEMORY_BYTES)
        self.ring = DriverQueue(self.memory, SIZE, 0x10000, 0x20000, MEMORY_BYTES - 0x20000)
        self.queue = Queue(SIZE)
        self.ring.configure(self.queue)
        self.queue.activate(self.memory, VERSION_1)
        self.tap, self.host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.tap, self.host):
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)

    def taken(self) -> list[bytes]:
        """Packets in the buffers that came back, by their own count of buffers."""
        found = []
        while (first := self.ring.take()) is not None:
            used, data = first
            packet = data[: used.written]
            for _ in range(Header.of(data).num_buffers - 1):
                more = self.ring.take()
                assert more is not None
                packet += more[1][: more[0].written]
            found.append(packet)
        return found

    def close(self) -> None:
        self.tap.close()
        self.host.close()
        self.memory.close()


@contextmanager
def wire() -> Iterator[Wire]:
    made = Wire()
    try:
        yield made
    finally:
        made.close()


def packet(payload: bytes) -> bytes:
    return Header().pack() + payload


def numbered(sent: bytes, got: bytes) -> bool:
    """The same but for the count of buffers, which the TAP leaves to us."""
    return sent[: features.NUM_BUFFERS] + sent[HEADER_BYTES:] == got[: features.NUM_BUFFERS] + got[HEADER_BYTES:]


shapes = st.lists(st.integers(12, 300) | st.sampled_from([12, 2048, 5000]), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(
        st.tuples(
            st.lists(shapes, max_size=8), st.lists(st.integers(0, 6000) | st.integers(60_000, 65_594), max_size=4)
        ),
        max_size=12,
    )
)
def test_each_packet_arrives_whole_and_in_order(steps: list[tuple[list[list[int]], list[int]]]) -> None:
    """Whatever the buffers' sizes and whenever they come. One that is larger than all buffers together is dropped."""
    with wire() as w:
        receiver = Receiver(w.queue, w.memory, mergeable=True)
        sent: list[bytes] = []
        got: list[bytes] = []
        for number, (buffers, sizes) in enumerate(steps):
            for shape in buffers:
                if len(shape) <= len(w.ring._free):
                    w.ring.add([], shape)
            for size in sizes:
                whole = packet(bytes([number]) * size)
                with suppress(BlockingIOError):  # the socket has no more room, as net.core.wmem_max may have it
                    w.host.send(whole)
                    sent.append(whole)
            receiver.fill(w.tap.fileno())
            got += w.taken()
        for _ in range(40):
            while w.ring._free:
                w.ring.add([], [6000])
            receiver.fill(w.tap.fileno())
            got += w.taken()
        remaining = iter(sent)
        for each in got:
            assert any(numbered(original, each) for original in remaining), (
                "a packet that was not sent, or out of order"
            )
        assert receiver.packets == len(got)
        assert receiver.bytes == sum(map(len, got)) - HEADER_BYTES * len(got)
        assert len(got) + receiver.dropped == len(sent)


def test_a_packet_is_kept_until_there_is_room() -> None:
    with wire() as w:
        receiver = Receiver(w.queue, w.memory, mergeable=True)
        large = packet(bytes(range(250)) * 40)
        w.host.send(large)
        for _ in range(6):
            w.ring.add([], [2000])
            receiver.fill(w.tap.fileno())
        (got,) = w.taken()
        assert numbered(large, got)
        assert Header.of(got).num_buffers == 6
        assert (receiver.packets, receiver.dropped, receiver.starved) == (1, 0, True)


def test_a_packet_larger_than_the_whole_ring_is_dropped() -> None:
    with wire() as w:
        receiver = Receiver(w.queue, w.memory, mergeable=True)
        for _ in range(SIZE):
            w.ring.add([], [100])
        w.host.send(packet(bytes(5000)))
        w.host.send(packet(b"fits"))
        receiver.fill(w.tap.fileno())
        assert [each[HEADER_BYTES:] for each in w.taken()] == [b"fits"]
        assert receiver.dropped == 1


def test_without_merging_a_packet_has_one_buffer_or_none() -> None:
    with wire() as w:
        receiver = Receiver(w.queue, w.memory, mergeable=False)
        w.ring.add([], [12, 1000])
        w.ring.add([], [3, 9, 1000])
        for size in (1001, 1000, 2000, 999):
            w.host.send(Header(num_buffers=7).pack() + bytes(size))
        receiver.fill(w.tap.fileno())
        got = w.taken()
        assert [len(each) - HEADER_BYTES for each in got] == [1000, 999]
        assert [Header.of(each).num_buffers for each in got] == [1, 1]
        assert receiver.dropped == 2


def test_a_turn_ends() -> None:
    with wire() as w:
        receiver, transmitter = Receiver(w.queue, w.memory, mergeable=True), Transmitter(w.queue)
        taken = 0
        for _ in range(TURN_PACKETS + 5):
            w.host.send(packet(b"x"))
        for _ in range(20):
            while w.ring._free:
                w.ring.add([], [64])
            receiver.fill(w.tap.fileno())
            taken += len(w.taken())
        assert taken == TURN_PACKETS + 5
        assert transmitter.packets == 0


def test_a_buffer_too_small_for_a_header_breaks_the_queue() -> None:
    with wire() as w:
        w.ring.add([], [11])
        with pytest.raises(QueueBroken, match="11 bytes"):
            Receiver(w.queue, w.memory, mergeable=True).fill(w.tap.fileno())


def test_many_small_buffers_are_more_than_a_read_takes() -> None:
    """Indirect chains of 256 descriptors each: the kernel takes 1024 at once, ours are in several reads' worth."""
    memory = GuestMemory(MEMORY_BYTES)
    ring = DriverQueue(memory, 256, 0x10000, 0x20000, MEMORY_BYTES - 0x20000)
    queue = Queue(256)
    ring.configure(queue)
    queue.activate(memory, VERSION_1 | features.OFFERED)
    tap, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tap.setblocking(False)
    receiver = Receiver(queue, memory, mergeable=True)
    try:
        for _ in range(20):
            at = ring.allocate(256 * 16)
            ring.add_pieces([Piece(at + 16 * part, 16, True) for part in range(256)], indirect=True)
        for _ in range(2):  # the second time it knows that packets are large
            payload = bytes(range(256)) * 100
            host.send(packet(payload))
            receiver.fill(tap.fileno())
            data = b""
            for _ in range(7):
                taken = ring.take()
                assert taken is not None
                data += taken[1][: taken[0].written]
            assert data[HEADER_BYTES:] == payload
            assert Header.of(data).num_buffers == 7
    finally:
        tap.close()
        host.close()
        memory.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=4), max_size=40))
def test_what_the_guest_sends_leaves_as_it_is(packets: list[list[int]]) -> None:
    with wire() as w:
        transmitter = Transmitter(w.queue)
        expected = []
        for number, shape in enumerate(packets):
            if len(shape) > len(w.ring._free):
                transmitter.drain(w.tap.fileno())
                while w.ring.take():
                    pass
            pieces = [bytes([number]) * size for size in shape]
            w.ring.add(pieces)
            expected.append(b"".join(pieces))
        transmitter.drain(w.tap.fileno())
        got = [w.host.recv(1 << 16) for _ in filter(None, expected)]  # a socket knows no empty packet
        assert got == [each for each in expected if each]
        assert transmitter.packets == sum(len(each) >= HEADER_BYTES + features.MIN_FRAME_BYTES for each in expected)
        assert transmitter.packets + transmitter.dropped == len(expected)


def test_what_cannot_be_sent_is_dropped() -> None:
    with wire() as w:
        transmitter = Transmitter(w.queue)
        for fd in (-1, os.open("/dev/full", os.O_WRONLY)):
            w.ring.add([packet(bytes(60))])
            transmitter.drain(fd)
            taken = w.ring.take()
            assert taken is not None
            assert taken[0].written == 0
        os.close(fd)
        assert (transmitter.packets, transmitter.dropped) == (0, 2)


def test_offloads_stand_on_checksums() -> None:
    assert tap_offloads(features.OFFERED) == 7
    assert tap_offloads(features.OFFERED & ~features.GUEST_CSUM) == 0
    assert tap_offloads(features.GUEST_CSUM | features.GUEST_TSO6) == 5
    assert MAX_PACKET_BYTES > 65_535 + HEADER_BYTES


def test_the_configuration_space() -> None:
    loop = Loop("test", lambda *_: None)
    net = Net("net0", loop, None, bytes.fromhex("020000000002"), 1400)
    assert net.config() == struct.pack("<6sHHH", bytes.fromhex("020000000002"), 0, 1, 1400)
    assert net.read_config(10, 2) == 1400
    assert net.read_config(12, 4) == 0
    net.write_config(0, 4, 0xFFFFFFFF)
    assert net.read_config(0, 4) == 2
    for mac, mtu in ((bytes(5), 1500), (b"\x01" + bytes(5), 1500), (bytes(6), 67), (bytes(6), 65_536)):
        with pytest.raises(ValueError, match="not"):
            Net("net0", loop, None, mac, mtu)
    loop.close()


def test_without_a_tap_what_is_sent_is_lost_and_counted() -> None:
    loop = Loop("test", lambda *_: None)
    loop.start()
    net = Net("net0", loop, None, bytes.fromhex("020000000002"), 1500)
    with Driver(net) as driver:
        driver.start()
        driver.drivers[RX].add([], [2000])
        driver.kick(RX)
        for _ in range(300):
            driver.request([packet(bytes(60))], queue=TX)
        assert driver.failures == []
        until(lambda: net.counters()["tx_dropped"] == 300)  # it counts after it has given a buffer back
    loop.stop()
    loop.close()


def test_what_is_no_vhost_net_is_refused() -> None:
    with open("/dev/null", "rb") as file, pytest.raises(OSError, match="/dev/vhost-net: Inappropriate ioctl"):
        VhostKernel(file.fileno())


def test_where_the_kernel_finds_guest_memory() -> None:
    memory = GuestMemory((3 << 30) + (1 << 20))
    low, high = memory.regions
    assert host_address(memory, 5) == low.host_addr + 5
    assert host_address(memory, (4 << 30) + 5) == high.host_addr + 5
    for addr in (3 << 30, (4 << 30) + (1 << 20), 1 << 63):
        with pytest.raises(ValueError, match="not RAM"):
            host_address(memory, addr)
    memory.close()


def test_what_is_no_tap_is_refused() -> None:
    with open("/dev/null", "rb") as file, pytest.raises(OSError, match="not a TAP"):
        Tap(file.fileno())
    with pytest.raises(OSError, match="cannot open TAP a-name-too-long-for-it"):
        open_tap("a-name-too-long-for-it")
    with pytest.raises(OSError, match="cannot open TAP absent0: no such"):
        open_tap("absent0")
