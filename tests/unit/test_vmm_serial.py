"""The UART as the driver of Linux tests and uses it (drivers/tty/serial/8250/8250_port.c)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.consoles import Consoles, received, until
from vmtui.vmm.devices.serial import (
    DATA,
    FIFO,
    IER,
    IER_RECEIVED,
    IER_SENT,
    IIR_FCR,
    LCR,
    LCR_DLAB,
    LSR,
    MCR,
    MCR_LOOP,
    MSR,
    SCRATCH,
    Serial,
)

BYTE = 1
NO_INTERRUPT, SENT, RECEIVED = 0x01, 0x02, 0x04


@pytest.fixture
def consoles() -> Iterator[Consoles]:
    with Consoles() as made:
        yield made


def reason(serial: Serial) -> int:
    return serial.read(IIR_FCR, BYTE) & 0x0F


def put(serial: Serial, data: bytes) -> None:
    for byte in data:
        serial.write(DATA, BYTE, byte)


def test_it_is_found_to_be_a_16550a(consoles: Consoles) -> None:
    """autoconfig(): IER and scratch hold, loopback ties the lines, the FIFO says so, and there is no EFR."""
    serial = consoles.serial
    serial.write(IER, BYTE, 0)
    assert serial.read(IER, BYTE) & 0x0F == 0
    serial.write(IER, BYTE, 0x0F)
    assert serial.read(IER, BYTE) & 0x0F == 0x0F
    serial.write(IER, BYTE, 0)
    serial.write(MCR, BYTE, MCR_LOOP | 0x0A)
    assert serial.read(MSR, BYTE) & 0xF0 == 0x90
    serial.write(MCR, BYTE, 0)
    serial.write(IIR_FCR, BYTE, 1)
    assert serial.read(IIR_FCR, BYTE) >> 6 == 3
    serial.write(LCR, BYTE, 0xBF)
    assert serial.read(IIR_FCR, BYTE) != 0
    serial.write(LCR, BYTE, 0)
    serial.write(SCRATCH, BYTE, 0x5A)
    assert serial.read(SCRATCH, BYTE) == 0x5A


@pytest.mark.parametrize(("outputs", "inputs"), [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80), (0, 0)])
def test_loopback_ties_each_output_to_an_input(consoles: Consoles, outputs: int, inputs: int) -> None:
    consoles.serial.write(MCR, BYTE, MCR_LOOP | outputs)
    assert consoles.serial.read(MSR, BYTE) == inputs


def test_loopback_keeps_what_is_sent_inside(consoles: Consoles) -> None:
    serial = consoles.serial
    serial.write(MCR, BYTE, MCR_LOOP)
    put(serial, b"inside")
    assert bytes(serial.read(DATA, BYTE) for _ in range(6)) == b"inside"
    assert not serial.read(LSR, BYTE) & 1
    put(serial, b"x" * 100)
    taken = 0
    while serial.read(LSR, BYTE) & 1:
        serial.read(DATA, BYTE)
        taken += 1
    assert taken == FIFO
    serial.write(MCR, BYTE, 0)
    put(serial, b"outside")
    consoles.await_log(b"outside")
    assert bytes(consoles.log) == b"outside"


def test_the_divisor_is_behind_its_latch(consoles: Consoles) -> None:
    serial = consoles.serial
    serial.write(LCR, BYTE, LCR_DLAB | 3)
    serial.write(DATA, BYTE, 1)
    serial.write(IER, BYTE, 2)
    assert (serial.read(DATA, BYTE), serial.read(IER, BYTE)) == (1, 2)
    serial.write(LCR, BYTE, 3)
    assert (serial.read(LCR, BYTE), serial.read(IER, BYTE), serial.read(DATA, BYTE)) == (3, 0, 0)
    consoles.settled()
    assert not consoles.log


def test_the_transmitter_is_empty_again_at_once(consoles: Consoles) -> None:
    put(consoles.serial, b"early")
    assert consoles.serial.read(LSR, BYTE) & 0x60 == 0x60
    consoles.await_log(b"early")
    assert not consoles.interrupt.drain()


def test_empty_is_told_once_until_it_is_asked_about(consoles: Consoles) -> None:
    """serial8250_do_startup() tests for this: UART_BUG_TXEN, and the THRE test."""
    serial, interrupt = consoles.serial, consoles.interrupt
    serial.write(IER, BYTE, IER_SENT)
    assert interrupt.drain() == 1
    assert reason(serial) == SENT
    assert reason(serial) == NO_INTERRUPT
    put(serial, b"0123456789abcdef")
    assert interrupt.drain() == 1
    assert reason(serial) == SENT
    put(serial, b"next")
    assert interrupt.drain() == 1
    serial.write(IER, BYTE, 0)
    assert reason(serial) == NO_INTERRUPT
    serial.write(IER, BYTE, IER_SENT)
    assert interrupt.drain() == 1
    assert reason(serial) == SENT


def test_input_interrupts_and_is_read_by_sixteen(consoles: Consoles) -> None:
    serial, interrupt = consoles.serial, consoles.interrupt
    serial.write(IIR_FCR, BYTE, 1)
    serial.write(IER, BYTE, IER_RECEIVED)
    client = consoles.attach()
    text = b"the quick brown fox jumps over the lazy dog"
    client.sendall(text)
    until(interrupt.drain)
    got = bytearray()
    while reason(serial) == RECEIVED:
        while serial.read(LSR, BYTE) & 1:
            got.append(serial.read(DATA, BYTE))
    assert bytes(got) == text
    assert serial.read(DATA, BYTE) == 0


def test_received_goes_before_sent(consoles: Consoles) -> None:
    serial = consoles.serial
    serial.write(IER, BYTE, IER_SENT | IER_RECEIVED)
    consoles.attach().sendall(b"x")
    until(lambda: serial.read(LSR, BYTE) & 1)
    assert reason(serial) == RECEIVED
    assert serial.read(DATA, BYTE) == ord("x")
    assert reason(serial) == SENT


def test_what_was_typed_too_early_does_not_hold_up_the_rest(consoles: Consoles) -> None:
    """The driver clears the FIFO when it starts: what is in it is lost, what is behind it is not."""
    serial, interrupt = consoles.serial, consoles.interrupt
    serial.write(IIR_FCR, BYTE, 1)
    consoles.attach().sendall(b"0123456789abcdef" + b"behind")
    until(lambda: consoles.terminal.waiting == len(b"behind"))
    serial.write(IER, BYTE, IER_RECEIVED)
    serial.write(IIR_FCR, BYTE, 3)
    assert interrupt.drain()
    assert bytes(serial.read(DATA, BYTE) for _ in range(6)) == b"behind"


def test_input_is_bounded_and_waits_at_the_client(consoles: Consoles) -> None:
    client = consoles.attach()
    client.setblocking(False)
    sent = 0
    try:
        for _ in range(1000):
            sent += client.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    assert sent < 1 << 20
    assert consoles.terminal.waiting <= 8 << 10
    serial = consoles.serial
    taken = 0
    while taken < sent:
        until(lambda: serial.read(LSR, BYTE) & 1)
        while serial.read(LSR, BYTE) & 1:
            serial.read(DATA, BYTE)
            taken += 1
    assert taken == sent


def test_who_is_attached_sees_it(consoles: Consoles) -> None:
    client = consoles.attach()
    put(consoles.serial, b"login: ")
    assert received(client, 7) == b"login: "


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 7), st.sampled_from((1, 2, 4)), st.integers(0, 0xFFFFFFFF)),
        max_size=200,
    )
)
def test_no_access_raises_and_each_reads_as_a_byte(
    accesses: list[tuple[bool, int, int, int]],
) -> None:
    with Consoles() as consoles:
        for reads, offset, size, value in accesses:
            if reads:
                assert 0 <= consoles.serial.read(offset, size) <= 0xFF
            else:
                consoles.serial.write(offset, size, value)
