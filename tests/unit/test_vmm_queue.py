"""Split virtqueues: what a driver may do works, and whatever else it does breaks its queue and nothing more."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.virtqueue import RINGS_AT, DriverQueue, Piece
from vmtui.vmm.memory import GuestMemory
from vmtui.vmm.virtio.queue import (
    DESC_INDIRECT,
    DESC_NEXT,
    DESC_WRITE,
    RING_EVENT_IDX,
    RING_INDIRECT_DESC,
    VERSION_1,
    Queue,
    QueueBroken,
)

MEMORY_BYTES = 1 << 20
DATA_AT = 0x40000
SIZE = 8
ALL = VERSION_1 | RING_INDIRECT_DESC | RING_EVENT_IDX


class Ring:
    """Both sides of one queue."""

    def __init__(self, memory: GuestMemory, features: int = ALL, size: int = SIZE, max_size: int = 64) -> None:
        self.memory = memory
        self.driver = DriverQueue(memory, size, RINGS_AT, DATA_AT, MEMORY_BYTES - DATA_AT)
        memory.write(RINGS_AT, bytes(self.driver.end - RINGS_AT))
        self.queue = Queue(max_size)
        self.driver.configure(self.queue)
        self.queue.activate(memory, features)


@pytest.fixture(scope="module")
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(MEMORY_BYTES)
    yield memory
    memory.close()


@pytest.fixture
def ring(memory: GuestMemory) -> Ring:
    return Ring(memory)


def test_nothing_is_there_at_first(ring: Ring) -> None:
    assert ring.queue.pop() is None
    assert not ring.queue.interrupt_wanted()


@pytest.mark.parametrize("indirect", [False, True])
def test_buffers_come_in_their_order(ring: Ring, indirect: bool) -> None:
    ring.driver.add([b"ab", b"c"], [4, 2], indirect=indirect)
    chain = ring.queue.pop()
    assert chain is not None
    assert chain.copy_in(10) == b"abc"
    assert chain.copy_in(2) == b"ab"
    assert chain.writable_bytes == 6
    assert chain.copy_out(b"12345", skip=1) == 5
    ring.queue.push(chain.head, 6)
    assert ring.driver.take() == ((chain.head, 6), b"\x0012345")


def test_more_than_fits_is_cut(ring: Ring) -> None:
    ring.driver.add([], [3])
    chain = ring.queue.pop()
    assert chain is not None
    assert chain.copy_out(b"12345") == 3


def test_indices_wrap(memory: GuestMemory) -> None:
    ring = Ring(memory, size=4)
    for number in range(0x10000 + 10):
        ring.driver.add([struct.pack("<I", number)])
        chain = ring.queue.pop()
        assert chain is not None
        assert chain.copy_in(4) == struct.pack("<I", number)
        ring.queue.push(chain.head, 0)
        assert ring.driver.take() is not None
    assert ring.queue.popped == ring.queue.used == 10


def test_a_chain_may_be_as_long_as_the_largest_queue(memory: GuestMemory) -> None:
    """Linux makes indirect tables of more entries than the ring has (virtqueue_add_split)."""
    ring = Ring(memory, size=4, max_size=64)
    ring.driver.add([b"x"] * 64, indirect=True)
    chain = ring.queue.pop()
    assert chain is not None
    assert len(chain.readable) == 64
    ring.driver.add([b"x"] * 65, indirect=True)
    with pytest.raises(QueueBroken, match="without end"):
        ring.queue.pop()


def test_memory_above_the_hole(memory: GuestMemory) -> None:
    large = GuestMemory((3 << 30) + MEMORY_BYTES)
    try:
        ring = Ring(large)
        high = large.regions[1].guest_addr
        large.write(high, b"high")
        ring.driver.add_pieces([Piece(high, 4, False), Piece(high + 8, 4, True)])
        chain = ring.queue.pop()
        assert chain is not None
        assert chain.copy_in(4) == b"high"
        ring.driver.add_pieces([Piece((3 << 30) - 2, 4, False)])
        with pytest.raises(QueueBroken, match="not RAM"):
            ring.queue.pop()
    finally:
        large.close()


@pytest.mark.parametrize(
    ("size", "desc", "avail", "used"),
    [
        (0, 0x1000, 0x2000, 0x3000),
        (3, 0x1000, 0x2000, 0x3000),
        (128, 0x1000, 0x2000, 0x3000),
        (8, 0x1008, 0x2000, 0x3000),
        (8, 0x1000, 0x2001, 0x3000),
        (8, 0x1000, 0x2000, 0x3002),
        (8, MEMORY_BYTES - 16, 0x2000, 0x3000),
        (8, 0x1000, MEMORY_BYTES - 16, 0x3000),
        (8, 0x1000, 0x2000, MEMORY_BYTES - 16),
        (8, (1 << 64) - 16, 0x2000, 0x3000),
    ],
)
def test_rings_that_are_none(memory: GuestMemory, size: int, desc: int, avail: int, used: int) -> None:
    queue = Queue(64)
    queue.size, queue.desc_addr, queue.avail_addr, queue.used_addr = size, desc, avail, used
    with pytest.raises(QueueBroken):
        queue.activate(memory, ALL)


@pytest.mark.parametrize(
    ("descriptors", "why"),
    [
        ([(DATA_AT, 1, DESC_NEXT, 0)], "without end"),
        ([(DATA_AT, 1, DESC_NEXT, 1), (DATA_AT, 1, DESC_NEXT, 0)], "without end"),
        ([(DATA_AT, 1, DESC_NEXT, SIZE)], "leaves its table"),
        ([(DATA_AT, 1, DESC_NEXT | DESC_WRITE, 1), (DATA_AT, 1, 0, 0)], "readable buffer behind"),
        ([(MEMORY_BYTES - 1, 2, 0, 0)], "not RAM"),
        ([((1 << 64) - 1, 2, 0, 0)], "not RAM"),
        ([(DATA_AT, 0xFFFFFFFF, DESC_WRITE, 0)], "not RAM"),
        ([(DATA_AT, 0, DESC_INDIRECT, 0)], "indirect"),
        ([(DATA_AT, 17, DESC_INDIRECT, 0)], "indirect"),
        ([(DATA_AT, 16, DESC_INDIRECT | DESC_NEXT, 1)], "indirect"),
        ([(MEMORY_BYTES, 16, DESC_INDIRECT, 0)], "not RAM"),
        ([(0, 32769 * 16, DESC_INDIRECT, 0)], "table of 32769"),
        ([(RINGS_AT, 16, DESC_INDIRECT, 0)], "indirect"),  # a table that holds itself
    ],
)
def test_chains_that_are_none(ring: Ring, descriptors: list[tuple[int, int, int, int]], why: str) -> None:
    for index, descriptor in enumerate(descriptors):
        ring.driver.set_descriptor(index, *descriptor)
    ring.driver.offer(0)
    with pytest.raises(QueueBroken, match=why):
        ring.queue.pop()


def test_indirect_only_if_agreed(memory: GuestMemory) -> None:
    ring = Ring(memory, VERSION_1)
    ring.driver.add([b"x"], indirect=True)
    with pytest.raises(QueueBroken, match="indirect"):
        ring.queue.pop()


def test_a_head_that_is_none(ring: Ring) -> None:
    ring.driver.offer(SIZE)
    with pytest.raises(QueueBroken, match="descriptor 8 of 8"):
        ring.queue.pop()


@pytest.mark.parametrize("jump", [SIZE + 1, 0x8000, 0xFFFF])
def test_more_chains_than_the_ring_holds(ring: Ring, jump: int) -> None:
    ring.driver.set_avail(jump)
    with pytest.raises(QueueBroken, match=f"{jump} chains"):
        ring.queue.pop()
    with pytest.raises(QueueBroken, match=f"{jump} chains"):
        ring.queue.want_kicks()


def test_interrupts_by_flag(memory: GuestMemory) -> None:
    ring = Ring(memory, VERSION_1)
    ring.queue.push(0, 0)
    assert ring.queue.interrupt_wanted()
    assert not ring.queue.interrupt_wanted()
    memory.set_u16(ring.driver.avail_addr, 1)
    ring.queue.push(0, 0)
    assert not ring.queue.interrupt_wanted()


def test_interrupts_by_event_index(ring: Ring) -> None:
    event = ring.driver.avail_addr + 4 + 2 * SIZE
    ring.memory.set_u16(event, 2)
    ring.queue.push(0, 0)
    ring.queue.push(0, 0)
    assert not ring.queue.interrupt_wanted()
    ring.queue.push(0, 0)
    assert ring.queue.interrupt_wanted()
    ring.queue.push(0, 0)
    assert not ring.queue.interrupt_wanted()


@pytest.mark.parametrize("features", [VERSION_1, ALL])
def test_kicks_are_asked_for(memory: GuestMemory, features: int) -> None:
    ring = Ring(memory, features)
    ring.queue.suppress_kicks()
    if features == VERSION_1:
        assert memory.u16(ring.driver.used_addr) == 1
    ring.driver.add([b"x"])
    assert ring.queue.want_kicks()
    assert ring.queue.pop() is not None
    assert not ring.queue.want_kicks()
    if features == VERSION_1:
        assert memory.u16(ring.driver.used_addr) == 0
    else:
        assert memory.u16(ring.driver.used_addr + 4 + 8 * SIZE) == 1


ADDRESSES = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.integers(RINGS_AT - 64, RINGS_AT + 0x1000),
    st.integers(MEMORY_BYTES - 64, MEMORY_BYTES + 64),
)
DESCRIPTORS = st.tuples(
    ADDRESSES,
    st.one_of(st.integers(0, 256), st.integers(0, (1 << 32) - 1)),
    st.one_of(st.integers(0, 7), st.integers(0, 0xFFFF)),
    st.one_of(st.integers(0, SIZE), st.integers(0, 0xFFFF)),
)


@settings(max_examples=300, deadline=None)
@given(
    table=st.lists(DESCRIPTORS, min_size=SIZE, max_size=SIZE),
    inner=st.lists(DESCRIPTORS, max_size=4),
    entries=st.lists(st.one_of(st.integers(0, SIZE - 1), st.integers(0, 0xFFFF)), min_size=SIZE, max_size=SIZE),
    jumps=st.lists(st.one_of(st.integers(1, SIZE), st.integers(0, 0xFFFF)), max_size=4),
    features=st.sampled_from([VERSION_1, VERSION_1 | RING_INDIRECT_DESC, ALL]),
)
def test_no_ring_does_harm(
    memory: GuestMemory,
    table: list[tuple[int, int, int, int]],
    inner: list[tuple[int, int, int, int]],
    entries: list[int],
    jumps: list[int],
    features: int,
) -> None:
    """A queue yields chains that lie in RAM, as many as were offered, or breaks."""
    ring = Ring(memory, features)
    at = DATA_AT
    for index, (addr, length, flags, following) in enumerate(table):
        if flags & DESC_INDIRECT and inner and addr % 2:
            addr, length = at, 16 * len(inner)
        ring.driver.set_descriptor(index, addr, length, flags, following)
    for index, entry in enumerate(inner):
        memory.write(at + 16 * index, struct.pack("<QIHH", *entry))
    for slot, head in enumerate(entries):
        ring.driver.set_entry(slot, head)
    taken = 0
    try:
        for jump in jumps:
            ring.driver.set_avail(ring.driver.avail + jump)
            while (chain := ring.queue.pop()) is not None:
                taken += 1
                assert len(chain.readable) + len(chain.writable) <= 64
                assert all(len(view) <= MEMORY_BYTES for view in chain.readable + chain.writable)
                for view in chain.writable:
                    view[:1] = view[:1]
                ring.queue.push(chain.head, 0)
            ring.queue.want_kicks()
            ring.queue.interrupt_wanted()
    except QueueBroken:
        pass
    assert taken <= SIZE * max(1, len(jumps))
    assert ring.driver.used == taken & 0xFFFF or any(flags & DESC_WRITE for *_, flags, _ in (*table, *inner))
