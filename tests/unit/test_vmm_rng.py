"""The randomness of the host, in the guest's buffers, at a pool's pace."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.consoles import until
from tests.support.virtqueue import Driver, Piece
from vmtui.vmm.devices import rng
from vmtui.vmm.devices.rng import BURST_BYTES, BYTES_PER_S, MAX_REQUEST_BYTES, REQUEST_BYTES, Rng
from vmtui.vmm.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    errors: list[BaseException] = []
    made = Loop("rng", lambda _, error: errors.append(error))
    made.start()
    yield made
    made.stop()
    made.close()
    assert errors == []


@pytest.fixture
def driver(loop: Loop) -> Iterator[Driver]:
    with Driver(Rng("rng0", loop)) as made:
        yield made.start()


def test_each_request_is_filled_with_other_bytes(driver: Driver) -> None:
    seen = set()
    for size in (16, 64, 64, 64, 4096):
        used, data = driver.request([], [size])
        assert used.written == size
        seen.add(data)
    assert len(seen) == 5
    until(lambda: driver.device.counters() == {"bytes": 16 + 3 * 64 + 4096, "requests": 5})


def test_bytes_are_spread_over_the_pieces(driver: Driver) -> None:
    used, data = driver.request([], [1, 31, 32])
    assert used.written == 64
    assert data.count(0) < 32


def test_a_large_request_gets_a_part_and_an_empty_one_nothing(driver: Driver) -> None:
    used, data = driver.request([], [100_000])
    assert used.written == MAX_REQUEST_BYTES
    assert not any(data[MAX_REQUEST_BYTES:])
    assert driver.request([b"readable"])[0].written == 0
    assert driver.request([], [0])[0].written == 0


def test_who_asks_for_more_than_a_pool_needs_waits_and_then_gets_it(driver: Driver) -> None:
    ring = driver.drivers[0]
    at = ring.allocate(MAX_REQUEST_BYTES)
    began = time.monotonic()
    requests = 3 * BURST_BYTES // MAX_REQUEST_BYTES
    for _ in range(requests):
        ring.add_pieces([Piece(at, MAX_REQUEST_BYTES, True)])
    driver.kick()
    for _ in range(requests):
        driver.wait()
    took = time.monotonic() - began
    assert took >= (requests * MAX_REQUEST_BYTES - 2 * BURST_BYTES) / BYTES_PER_S
    assert driver.failures == []


def test_small_requests_are_no_way_around_it(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = driver.drivers[0]
    assert isinstance(driver.device, Rng)
    monkeypatch.setattr(rng, "BYTES_PER_S", 1)  # so that nothing comes after the burst
    at = ring.allocate(1)

    def served() -> int:
        """Ask for as many as there is room for."""
        for _ in range(64 - len(ring.chains)):
            ring.add_pieces([Piece(at, 1, True)])
        driver.kick()
        time.sleep(0.02)
        return sum(1 for _ in iter(ring.take, None))

    total = 0
    end = time.monotonic() + 60
    while total < BURST_BYTES // REQUEST_BYTES - 64:
        assert time.monotonic() < end
        total += served()
    total += sum(served() for _ in range(5))
    assert total <= BURST_BYTES // REQUEST_BYTES + 1


def test_a_reset_ends_a_wait(driver: Driver) -> None:
    ring = driver.drivers[0]
    at = ring.allocate(MAX_REQUEST_BYTES)
    for _ in range(40):
        ring.add_pieces([Piece(at, MAX_REQUEST_BYTES, True)])
    driver.kick()
    driver.wait()
    driver.reset()
    before = driver.memory.read(at, MAX_REQUEST_BYTES)
    used = ring.used
    time.sleep(0.1)
    assert (driver.memory.read(at, MAX_REQUEST_BYTES), ring.used) == (before, used)
    driver.start()
    assert driver.request([], [64])[0].written == 64


def test_a_broken_ring_asks_for_a_reset(driver: Driver) -> None:
    driver.drivers[0].offer(64)
    driver.kick()
    until(lambda: driver.failures)
    driver.reset()
    driver.start()
    assert driver.request([], [8])[0].written == 8
