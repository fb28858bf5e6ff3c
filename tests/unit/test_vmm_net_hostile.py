"""Rings of any kind under the network card: it breaks a queue at most, and writes where the guest has said alone."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.frames import Header
from tests.support.virtqueue import DriverQueue
from vmtui.vmm.devices.net.features import OFFERED
from vmtui.vmm.devices.net.receive import Receiver
from vmtui.vmm.devices.net.transmit import Transmitter
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.queue import DESC_INDIRECT, DESC_NEXT, DESC_WRITE, VERSION_1, Queue, QueueBroken

SIZE = 8
MEMORY_BYTES = 1 << 20
RING_AT, DATA_AT = 0x1000, 0x8000


class Descriptor(NamedTuple):
    addr: int
    length: int
    flags: int
    following: int


addresses = st.integers(DATA_AT, DATA_AT + 0x4000) | st.sampled_from(
    [0, RING_AT, MEMORY_BYTES - 64, MEMORY_BYTES, 1 << 32, (1 << 64) - 1]
)
lengths = st.integers(0, 4096) | st.sampled_from([11, 12, 2048, MEMORY_BYTES, (1 << 32) - 1])
flags = st.sampled_from([0, DESC_NEXT, DESC_WRITE, DESC_WRITE | DESC_NEXT, DESC_INDIRECT, 0xFFFF])
descriptors = st.builds(Descriptor, addresses, lengths, flags, st.integers(0, SIZE))
tables = st.lists(descriptors, min_size=SIZE, max_size=SIZE)
kind = st.builds(
    Descriptor, st.integers(DATA_AT, DATA_AT + 0x4000), st.integers(0, 3000), st.just(DESC_WRITE), st.just(0)
)
steps = st.lists(
    st.tuples(
        tables | st.lists(kind, min_size=SIZE, max_size=SIZE),
        st.lists(st.integers(0, SIZE), max_size=SIZE),  # heads to offer
        st.integers(0, 3) | st.integers(0, 0xFFFF),  # and how far to say that they go beyond
        st.lists(st.integers(1, 70_000), max_size=3),  # packets
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(steps, st.booleans())
def test_what_is_received_goes_where_the_guest_said(
    steps: list[tuple[list[Descriptor], list[int], int, list[int]]], mergeable: bool
) -> None:
    memory = GuestMemory(MEMORY_BYTES)
    ring = DriverQueue(memory, SIZE, RING_AT, 0, 0)
    queue = Queue(SIZE)
    ring.configure(queue)
    queue.activate(memory, VERSION_1 | OFFERED)
    receiver = Receiver(queue, memory, mergeable)
    allowed = bytearray(MEMORY_BYTES)  # what the guest has ever offered, and the used ring
    allowed[ring.used_addr : ring.end] = b"\1" * (ring.end - ring.used_addr)
    tap, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tap.setblocking(False)
    host.setblocking(False)
    host.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    try:
        for table, heads, beyond, packets in steps:
            for index, each in enumerate(table):
                ring.set_descriptor(index, *each)
                _offer(allowed, each)
                if each.flags & DESC_INDIRECT:  # a table in which anything stands
                    allowed[DATA_AT:] = b"\1" * (MEMORY_BYTES - DATA_AT)
            for head in heads:
                ring.offer(head)
            if beyond > 3:
                ring.set_avail(ring.avail + beyond)
            before = memory.read(0, MEMORY_BYTES)
            for size in packets:
                with contextlib.suppress(BlockingIOError):
                    host.send(b"\xaa" * size)
            try:
                for _ in range(3):
                    receiver.fill(tap.fileno())
            except QueueBroken:
                break
            finally:
                for at in _differing(before, memory.read(0, MEMORY_BYTES)):
                    assert allowed[at], f"{at:#x} was written, which the guest had not offered"
    finally:
        tap.close()
        host.close()
        memory.close()


def _offer(allowed: bytearray, each: Descriptor) -> None:
    if each.addr + each.length <= MEMORY_BYTES:
        allowed[each.addr : each.addr + each.length] = b"\1" * each.length


def _differing(before: bytes, after: bytes) -> list[int]:
    found = []
    for page in range(0, MEMORY_BYTES, 4096):
        if before[page : page + 4096] != after[page : page + 4096]:
            found += [at for at in range(page, page + 4096) if before[at] != after[at]]
    return found


@settings(max_examples=100, deadline=None)
@given(steps)
def test_what_is_sent_changes_nothing(steps: list[tuple[list[Descriptor], list[int], int, list[int]]]) -> None:
    memory = GuestMemory(MEMORY_BYTES)
    ring = DriverQueue(memory, SIZE, RING_AT, 0, 0)
    queue = Queue(SIZE)
    ring.configure(queue)
    queue.activate(memory, VERSION_1 | OFFERED)
    transmitter = Transmitter(queue)
    tap, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    tap.setblocking(False)
    try:
        memory.write(DATA_AT, Header().pack() + struct.pack("<QIHH", DATA_AT, 64, 0, 0) * 100)
        for table, heads, beyond, _ in steps:
            for index, each in enumerate(table):
                ring.set_descriptor(index, *each)
            for head in heads:
                ring.offer(head)
            if beyond > 3:
                ring.set_avail(ring.avail + beyond)
            before = memory.read(0, MEMORY_BYTES)
            with contextlib.suppress(QueueBroken):
                transmitter.drain(tap.fileno())
            after = memory.read(0, MEMORY_BYTES)
            assert before[: ring.used_addr] == after[: ring.used_addr]
            assert before[ring.end :] == after[ring.end :]
    finally:
        tap.close()
        host.close()
        memory.close()
