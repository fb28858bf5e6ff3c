"""The virtio console: lines out, keys in when there is room for them, and its size."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.support.consoles import Consoles, received, until
from tests.support.virtqueue import Driver
from vmtui.vmm.devices.console import EMERG_WRITE, MOST_AT_ONCE, RX, TX
from vmtui.vmm.devices.serial import DATA, LSR


@pytest.fixture
def consoles() -> Iterator[Consoles]:
    with Consoles() as made:
        yield made


@pytest.fixture
def driver(consoles: Consoles) -> Iterator[Driver]:
    with Driver(consoles.console) as made:
        yield made.start()


def test_what_is_printed_is_seen(consoles: Consoles, driver: Driver) -> None:
    client = consoles.attach()
    used, _ = driver.request([b"Debian ", b"GNU/Linux"], queue=TX)
    assert used.written == 0
    assert received(client, 16) == b"Debian GNU/Linux"
    consoles.await_log(b"Debian GNU/Linux")
    assert consoles.console.counters() == {"read_bytes": 0, "written_bytes": 16}


def test_what_is_typed_is_read(consoles: Consoles, driver: Driver) -> None:
    driver.drivers[RX].add([], [64])
    driver.kick(RX)
    consoles.attach().sendall(b"root\r")
    used, data = driver.wait(RX)
    assert data[: used.written] == b"root\r"


def test_input_waits_for_buffers_however_small(consoles: Consoles, driver: Driver) -> None:
    consoles.attach().sendall(b"0123456789")
    until(lambda: consoles.terminal.waiting == 10)
    got = b""
    for size in (1, 4, 64):
        used, data = driver.request([], [size], queue=RX)
        got += data[: used.written]
    assert got == b"0123456789"
    assert driver.failures == []


def test_a_buffer_that_waits_gets_what_comes_next(consoles: Consoles, driver: Driver) -> None:
    client = consoles.attach()
    for _ in range(4):
        driver.drivers[RX].add([], [8])
    driver.kick(RX)
    for number in range(4):
        client.sendall(b"%d" % number)
        used, data = driver.wait(RX)
        assert (used.written, data[:1]) == (1, b"%d" % number)


def test_a_buffer_of_no_bytes_takes_nothing(consoles: Consoles, driver: Driver) -> None:
    consoles.attach().sendall(b"key")
    until(lambda: consoles.terminal.waiting == 3)
    assert driver.request([b"readable"], queue=RX)[0].written == 0
    assert driver.request([], [0], queue=RX)[0].written == 0
    used, data = driver.request([], [8], queue=RX)
    assert data[: used.written] == b"key"


def test_it_has_the_input_while_its_driver_is_there(consoles: Consoles) -> None:
    client, serial = consoles.attach(), consoles.serial
    client.sendall(b"s")
    until(lambda: serial.read(LSR, 1) & 1)
    with Driver(consoles.console) as driver:
        driver.start()
        client.sendall(b"c")
        until(lambda: consoles.terminal.waiting == 1)
        assert serial.read(DATA, 1) == ord("s")
        assert not serial.read(LSR, 1) & 1
        driver.reset()
        client.sendall(b"t")
        until(lambda: serial.read(LSR, 1) & 1)
        assert serial.read(DATA, 1) == ord("c")


def test_its_size_is_that_of_who_resized_last(consoles: Consoles, driver: Driver) -> None:
    device = consoles.console
    assert struct.unpack("<HHII", device.config()) == (0, 0, 1, 0)
    consoles.terminal.resized(24, 80)
    consoles.terminal.resized(50, 132)
    assert (device.read_config(0, 2), device.read_config(2, 2)) == (132, 50)
    assert driver.config_changes == 2
    driver.reset()
    consoles.terminal.resized(1, 0xFFFF)
    assert driver.config_changes == 2


def test_a_byte_gets_out_before_there_are_queues(consoles: Consoles) -> None:
    for byte in b"help":
        consoles.console.write_config(EMERG_WRITE, 4, byte)
    consoles.console.write_config(0, 2, 80)
    consoles.await_log(b"help")
    assert bytes(consoles.log) == b"help"


def test_a_line_without_end_is_cut(consoles: Consoles, driver: Driver) -> None:
    driver.request([b"a" * (MOST_AT_ONCE + 1000)], queue=TX)
    until(lambda: len(consoles.log) >= MOST_AT_ONCE)
    driver.request([b"end"], queue=TX)
    consoles.await_log(b"end")
    assert len(consoles.log) == MOST_AT_ONCE + 3


def test_a_broken_ring_asks_for_a_reset(consoles: Consoles, driver: Driver) -> None:
    driver.drivers[TX].offer(64)
    driver.kick(TX)
    until(lambda: driver.failures)
    driver.reset()
    driver.start()
    driver.request([b"again"], queue=TX)
    consoles.await_log(b"again")
