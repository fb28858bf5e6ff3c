"""Memory that goes back to the host, and what the guest says of its own."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.virtqueue import Driver, Piece
from vmtui.vmm.devices.balloon import (
    CONFIG_ACTUAL,
    DEFLATE,
    DEFLATE_ON_OOM,
    HINTS,
    INFLATE,
    REPORTING,
    REPORTS,
    STATS,
    STATS_VQ,
    Balloon,
    guest_address,
)
from vmtui.vmm.loop import Loop
from vmtui.vmm.memory import HUGE_PAGE, PAGE, GuestMemory

MEMORY_BYTES = 16 << 20
DATA = 8 << 20  # pages from here on are the tests'


@pytest.fixture
def loop() -> Iterator[Loop]:
    errors: list[BaseException] = []
    made = Loop("balloon", lambda _, error: errors.append(error))
    made.start()
    yield made
    made.stop()
    made.close()
    assert errors == []


def driver_of(balloon: Balloon, refused: int = 0) -> Driver:
    """Of a guest that has touched all its memory."""
    memory = GuestMemory(MEMORY_BYTES)
    memory.write(0, bytes(MEMORY_BYTES))
    return Driver(balloon, refused=refused, memory=memory, sizes=(16,) * 5)


@pytest.fixture
def driver(loop: Loop) -> Iterator[Driver]:
    with driver_of(Balloon("balloon0", loop, MEMORY_BYTES)) as made:
        made.start()
        made.memory.write(DATA, b"x" * (MEMORY_BYTES - DATA))
        yield made


def backed_bytes(memory: GuestMemory) -> int:
    """How much of it the host has given pages."""
    return os.fstat(memory.fd).st_blocks * 512


def pages(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *(DATA // PAGE + number for number in numbers))


def until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)


def balloon_of(driver: Driver) -> Balloon:
    assert isinstance(driver.device, Balloon)
    return driver.device


def test_what_the_guest_puts_in_goes_back_to_the_host(driver: Driver) -> None:
    before = backed_bytes(driver.memory)
    driver.request([pages(*range(255, -1, -1))], queue=INFLATE)  # as Linux does: 256 pages, downwards
    assert backed_bytes(driver.memory) == before - 256 * PAGE
    driver.request([pages(300, 302, 300)], queue=INFLATE)
    assert backed_bytes(driver.memory) == before - 258 * PAGE
    assert driver.memory.read(DATA, PAGE) == bytes(PAGE)
    assert driver.memory.read(DATA + 256 * PAGE, 1) == b"x"
    assert driver.memory.read(DATA + 301 * PAGE, 1) == b"x"
    assert driver.device.counters()["inflated_bytes"] == 258 * PAGE


def test_what_it_takes_out_is_memory_again(driver: Driver) -> None:
    driver.request([pages(1)], queue=INFLATE)
    driver.request([pages(1)], queue=DEFLATE)
    driver.memory.write(DATA + PAGE, b"again")
    assert driver.memory.read(DATA + PAGE, 5) == b"again"


def test_the_target_is_a_matter_of_configuration(driver: Driver) -> None:
    balloon = balloon_of(driver)
    balloon.set_target(5 << 20)
    assert driver.config_changes == 1
    assert balloon.config() == struct.pack("<IIII", (5 << 20) // PAGE, 0, 0, 0)
    balloon.write_config(CONFIG_ACTUAL, 4, 1000)
    assert balloon.actual_bytes == 1000 * PAGE
    assert balloon.read_config(CONFIG_ACTUAL, 4) == 1000
    for offset, size in ((0, 4), (CONFIG_ACTUAL, 2), (8, 4), (12, 4), (4000, 4)):
        balloon.write_config(offset, size, 7)
    assert balloon.config() == struct.pack("<IIII", (5 << 20) // PAGE, 1000, 0, 0)
    balloon.write_config(CONFIG_ACTUAL, 4, 0xFFFFFFFF)
    assert balloon.actual_bytes == MEMORY_BYTES
    for wrong in (-1, MEMORY_BYTES + 1):
        with pytest.raises(ValueError, match="a balloon of"):
            balloon.set_target(wrong)
    assert balloon.counters()["target_bytes"] == 5 << 20


def test_a_new_driver_finds_the_target(loop: Loop) -> None:
    balloon = Balloon("balloon0", loop, MEMORY_BYTES)
    balloon.set_target(1 << 20)
    with driver_of(balloon) as driver:
        driver.start()
        balloon.write_config(CONFIG_ACTUAL, 4, 256)
        driver.reset()
        driver.start()
        assert balloon.config()[:8] == struct.pack("<II", 256, 0)


def test_pages_that_are_no_memory_are_passed_over(driver: Driver) -> None:
    before = backed_bytes(driver.memory)
    listed = struct.pack("<4I", 0xFFFFFFFF, MEMORY_BYTES // PAGE, 0xC0000, DATA // PAGE)
    driver.request([listed + b"odd"], queue=INFLATE)
    assert backed_bytes(driver.memory) == before - PAGE
    assert driver.device.counters()["refused_ranges"] == 3
    assert driver.failures == []


@pytest.mark.parametrize(("refused", "queue"), [(0, REPORTS), (0, HINTS), (STATS_VQ, STATS)])
def test_free_pages_that_are_reported_go_back(loop: Loop, refused: int, queue: int) -> None:
    """By the queue of the specification, and by those that older Linux kernels take for it."""
    with driver_of(Balloon("balloon0", loop, MEMORY_BYTES), refused) as driver:
        driver.start()
        driver.memory.write(DATA, b"x" * (MEMORY_BYTES - DATA))
        before = backed_bytes(driver.memory)
        ring = driver.drivers[queue]
        ring.add_pieces([Piece(DATA, 2 << 20, True), Piece(DATA + (3 << 20) + 5, 3 * PAGE, True)])
        driver.kick(queue)
        until(lambda: ring.used == 1)  # to look at the pages would bring them back
        assert backed_bytes(driver.memory) == before - (2 << 20) - 2 * PAGE  # the whole pages
        assert driver.memory.read(DATA + (3 << 20), 1) == b"x"
        assert driver.device.counters()["reported_bytes"] == (2 << 20) + 2 * PAGE


def test_without_the_feature_nothing_is_reported(loop: Loop) -> None:
    with driver_of(Balloon("balloon0", loop, MEMORY_BYTES), REPORTING) as driver:
        driver.start()
        driver.memory.write(DATA, b"x" * PAGE)
        driver.drivers[REPORTS].add_pieces([Piece(DATA, PAGE, True)])
        driver.kick(REPORTS)
        driver.wait(REPORTS)
        assert driver.memory.read(DATA, 1) == b"x"


def test_with_huge_pages_only_whole_ones_go(loop: Loop) -> None:
    with driver_of(Balloon("balloon0", loop, MEMORY_BYTES, HUGE_PAGE)) as driver:
        driver.start()
        driver.memory.write(DATA, b"x" * (MEMORY_BYTES - DATA))
        before = backed_bytes(driver.memory)
        driver.request([pages(*range(200))], queue=INFLATE)
        assert backed_bytes(driver.memory) == before
        driver.drivers[REPORTS].add_pieces([Piece(DATA + PAGE, 6 << 20, True)])
        driver.kick(REPORTS)
        until(lambda: driver.drivers[REPORTS].used == 1)
        assert backed_bytes(driver.memory) == before - 2 * HUGE_PAGE
        assert driver.memory.read(DATA, 1) == b"x"


def stats(*entries: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<HQ", *entry) for entry in entries)


def give_statistics(driver: Driver, data: bytes) -> None:
    """As the driver does when it is asked: its one buffer, which stays with the device."""
    driver.drivers[STATS].add([data])
    driver.kick(STATS)


def test_statistics_come_when_they_are_asked_for(driver: Driver) -> None:
    balloon = balloon_of(driver)
    assert balloon.statistics() == ({}, 0.0)
    balloon.ask_statistics()  # too early: the driver has not given its buffer
    asked = threading.Event()
    balloon.loop.call(asked.set)
    assert asked.wait(5)
    give_statistics(driver, stats((4, 1000), (5, 5000), (2, 7)))
    until(lambda: bool(balloon.statistics()[0]))
    assert balloon.statistics()[0] == {"free_bytes": 1000, "total_bytes": 5000, "major_faults": 7}
    assert driver.drivers[STATS].take() is None
    seen: list[int] = []
    for number in range(3):
        balloon.ask_statistics()
        driver.wait(STATS)
        give_statistics(driver, stats((4, number)))
        until(lambda: balloon.statistics()[0] == {"free_bytes": len(seen)})
        seen.append(number)
    assert balloon.statistics()[1] < 5
    driver.reset()
    assert balloon.statistics() == ({}, 0.0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=2000),
    entries=st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**64 - 1)), max_size=90),
)
def test_statistics_are_numbers_that_have_names(
    driver: Driver, data: bytes, entries: Sequence[tuple[int, int]]
) -> None:
    balloon = balloon_of(driver)
    for each in (data, stats(*entries), b""):
        give_statistics(driver, each)
    until(lambda: driver.drivers[STATS].used == driver.drivers[STATS].avail - 1 & 0xFFFF)
    found, _ = balloon.statistics()
    assert all(0 <= value < 1 << 64 for value in found.values())
    assert len(found) <= 16
    while driver.drivers[STATS].take():
        pass
    assert driver.failures == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    listed=st.lists(
        st.integers(DATA // PAGE, 0xFFFFFFFF) | st.integers(DATA // PAGE, MEMORY_BYTES // PAGE + 5), max_size=100
    ),
    ranges=st.lists(st.tuples(st.integers(DATA, MEMORY_BYTES - 1), st.integers(0, 1 << 20)), min_size=1, max_size=4),
)
def test_whatever_is_given_the_rest_stays(
    driver: Driver, listed: Sequence[int], ranges: Sequence[tuple[int, int]]
) -> None:
    driver.memory.write(DATA, b"x" * (MEMORY_BYTES - DATA))
    driver.request([struct.pack(f"<{len(listed)}I", *listed)], queue=INFLATE)
    whole = [(addr, min(length, MEMORY_BYTES - addr)) for addr, length in ranges]
    driver.drivers[REPORTS].add_pieces([Piece(addr, length, True) for addr, length in whole])
    driver.kick(REPORTS)
    driver.wait(REPORTS)
    gone = {number for number in listed if DATA // PAGE <= number < MEMORY_BYTES // PAGE}
    for addr, length in whole:
        gone |= set(range(-(-addr // PAGE), (addr + length) // PAGE))
    for number in range(DATA // PAGE, MEMORY_BYTES // PAGE):
        there = driver.memory.read(number * PAGE, 1) == b"x"
        assert there or number in gone
        # a run that leaves memory is refused as a whole
        assert not there or number not in gone or MEMORY_BYTES // PAGE in listed
    assert driver.failures == []


def test_a_view_knows_where_it_is() -> None:
    memory = GuestMemory(1 << 20)
    for addr in (0, 1, 4096, (1 << 20) - 1):
        assert guest_address(memory, memory.view(addr, 1)) == addr
    with pytest.raises(ValueError, match="something else"):
        guest_address(memory, memoryview(bytearray(8)))
    memory.close()


def test_what_is_offered() -> None:
    assert Balloon.features == STATS_VQ | DEFLATE_ON_OOM | REPORTING
