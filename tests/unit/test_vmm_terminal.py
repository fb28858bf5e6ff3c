"""One terminal for many: what is seen, what is kept, and that nobody is waited for."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.consoles import Consoles, received, until
from vmtui.vmm.terminal import FRESH_BYTES, INPUT_BYTES, LOST, MOST_CLIENTS, OUTPUT_BYTES, SCROLLBACK_BYTES


@pytest.fixture
def consoles() -> Iterator[Consoles]:
    with Consoles() as made:
        yield made


def test_all_see_all_and_the_log_has_it(consoles: Consoles) -> None:
    clients = [consoles.attach() for _ in range(4)]
    consoles.terminal.write(b"one ")
    consoles.terminal.write(b"two")
    for client in clients:
        assert received(client, 7) == b"one two"
    consoles.await_log(b"one two")


def test_who_comes_late_sees_what_was(consoles: Consoles) -> None:
    consoles.terminal.write(b"before")
    consoles.settled()
    client = consoles.attach()
    consoles.terminal.write(b" and after")
    assert received(client, 16) == b"before and after"


def test_the_kept_is_bounded(consoles: Consoles) -> None:
    for number in range(20):
        consoles.terminal.write(b"%d" % (number % 10) * 8000)
        consoles.settled()
    client = consoles.attach()
    kept = received(client, SCROLLBACK_BYTES)
    assert kept == (b"".join(b"%d" % (number % 10) * 8000 for number in range(20)))[-SCROLLBACK_BYTES:]
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(1)


def test_output_is_handed_on_in_batches(consoles: Consoles) -> None:
    turns = 0
    flush = consoles.terminal.flush

    def counted() -> None:
        nonlocal turns
        turns += 1
        flush()

    consoles.terminal.flush = counted  # type: ignore[method-assign]
    began = time.monotonic()
    for byte in b"0123456789" * 300:
        consoles.terminal.write(bytes((byte,)))
    took = time.monotonic() - began
    consoles.await_log(b"0123456789" * 300)
    assert turns <= 3 + took / 0.002


def test_who_does_not_read_holds_up_nobody(consoles: Consoles) -> None:
    slow, quick = consoles.attach(), consoles.attach()
    total = 4 * OUTPUT_BYTES
    line = b"x" * 8191 + b"\n"
    for _ in range(total // len(line)):
        consoles.terminal.write(line)
        consoles.settled()
        assert received(quick, len(line)) == line
    data = bytearray()
    output = next(iter(consoles.terminal._clients.values())).output  # of the slow one

    def all_has_come() -> bool:
        waited = output.waits  # asked first: what is handed on after that is read below, or the next time
        with suppress(BlockingIOError):
            while piece := slow.recv(1 << 16):
                data.extend(piece)
        return not waited

    slow.setblocking(False)
    until(all_has_come)
    slow.settimeout(60)
    assert OUTPUT_BYTES <= len(data) < total
    consoles.terminal.write(b"the newest")
    more = b""
    while not more.endswith(b"the newest"):
        more += slow.recv(1 << 16)
    assert (bytes(data) + more).endswith(LOST + b"the newest")


def test_a_log_that_nobody_reads_holds_up_nobody() -> None:
    with Consoles(reads_log=False) as consoles:
        client = consoles.attach()
        for _ in range(300):
            consoles.terminal.write(b"y" * 8192)
            consoles.settled()
            received(client, 8192)
        logged = 0
        while True:
            try:
                logged += len(os.read(consoles.log_read, 1 << 20))
            except BlockingIOError:
                if not consoles.terminal.log_waits:
                    break
                time.sleep(0.001)
        assert OUTPUT_BYTES // 2 < logged < 300 * 8192


def test_a_flood_is_cut_and_says_so(consoles: Consoles) -> None:
    hold = threading.Event()
    consoles.loop.call(lambda: None if hold.wait(5) else pytest.fail("held up"))
    for _ in range(40):
        consoles.terminal.write(b"z" * (FRESH_BYTES // 16))
    hold.set()
    consoles.await_log(LOST)
    assert FRESH_BYTES < len(consoles.log) <= FRESH_BYTES + FRESH_BYTES // 16 + len(LOST)


def test_all_may_type(consoles: Consoles) -> None:
    heard = bytearray()
    consoles.terminal.heard = lambda: heard.extend(consoles.terminal.take(1 << 16))
    for number, client in enumerate(consoles.attach() for _ in range(3)):
        client.sendall(b"%d" % number)
    until(lambda: sorted(heard) == sorted(b"012"))


def test_input_that_nobody_takes_is_left_with_who_types(consoles: Consoles) -> None:
    clients = [consoles.attach() for _ in range(3)]
    for client in clients:
        client.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                client.send(bytes(4096))
    until(lambda: consoles.terminal.waiting >= INPUT_BYTES)
    time.sleep(0.05)
    assert consoles.terminal.waiting <= INPUT_BYTES + 3 * INPUT_BYTES
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1  # nobody turns in circles
    taken = 0
    while taken < 3 * 4096 * 10:
        until(lambda: consoles.terminal.waiting)
        taken += len(consoles.terminal.take(1000))


def test_who_hangs_up_with_input_left_over_is_let_go(consoles: Consoles) -> None:
    client = consoles.attach()
    client.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            client.send(bytes(4096))
    client.close()
    until(lambda: not consoles.terminal._clients)


def test_who_has_gone_is_not_written_to(consoles: Consoles) -> None:
    client, other = consoles.attach(), consoles.attach()
    client.close()
    for _ in range(10):
        consoles.terminal.write(b".")
        consoles.settled()
    assert received(other, 10) == b"." * 10
    assert len(consoles.terminal._clients) == 1


def test_a_half_that_is_shut_is_the_end(consoles: Consoles) -> None:
    client = consoles.attach()
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""


def test_there_may_be_so_many(consoles: Consoles) -> None:
    for _ in range(MOST_CLIENTS):
        assert not consoles.terminal.is_full
        consoles.attach()
    assert consoles.terminal.is_full


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (b"", ""),
        (b"all is well\n", ""),
        (b"[1.0] Kernel panic - not syncing: VFS: no root\r\n[1.0] CPU: 0", "kernel panic: VFS: no root"),
        (b"Kernel panic - not syncing: \x1b[31mred\x9b\xff\n", "kernel panic: [31mred"),
        (b"Kernel panic - not syncing: ", "kernel panic: "),
        (b"Kernel panic - not syncing: " + b"a" * 5000, "kernel panic: " + "a" * 200),
    ],
)
def test_a_panic_is_found_and_harmless(consoles: Consoles, printed: bytes, said: str) -> None:
    consoles.terminal.write(printed)
    consoles.settled()
    assert consoles.terminal.last_panic() == said
