"""Streams between guest and host: opened from both sides, closed in every order, and never ahead of their credit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.vsock_guest import CID, VsockGuest, vsock_guest
from vmtui.vmm.devices.vsock import device, packet
from vmtui.vmm.devices.vsock.connection import BUFFER_BYTES, TELL_BYTES
from vmtui.vmm.devices.vsock.device import EVENT, MOST_CONNECTIONS
from vmtui.vmm.devices.vsock.packet import (
    BOTH,
    CREDIT_REQUEST,
    CREDIT_UPDATE,
    NO_RECEIVE,
    NO_SEND,
    REQUEST,
    RESPONSE,
    RST,
    RW,
    SHUTDOWN,
)

PORT = 5000


@pytest.fixture
def guest() -> Iterator[VsockGuest]:
    with vsock_guest() as made:
        yield made


def opened_from_host(guest: VsockGuest) -> tuple[socket.socket, int]:
    host = guest.knock(PORT)
    asked = guest.hear()
    assert (asked.op, asked.header.dst_port) == (REQUEST, PORT)
    guest.send(RESPONSE, PORT, asked.header.src_port)
    assert host.recv(64) == b"OK %d\n" % asked.header.src_port
    return host, asked.header.src_port


def test_the_guest_learns_its_cid(guest: VsockGuest) -> None:
    assert guest.device.read_config(0, 8) == CID
    assert guest.device.read_config(8, 4) == 0


def test_a_program_of_the_host_reaches_a_port_of_the_guest(guest: VsockGuest) -> None:
    host, port = opened_from_host(guest)
    guest.send(RW, PORT, port, b"from the guest")
    assert host.recv(64) == b"from the guest"
    host.sendall(b"from the host")
    heard = guest.hear()
    assert (heard.op, heard.data, heard.header.forwarded) == (RW, b"from the host", 14)


def test_two_programs_have_two_streams(guest: VsockGuest) -> None:
    first, first_port = opened_from_host(guest)
    second, second_port = opened_from_host(guest)
    assert first_port != second_port
    guest.send(RW, PORT, second_port, b"2")
    guest.send(RW, PORT, first_port, b"1")
    assert (first.recv(8), second.recv(8)) == (b"1", b"2")


def test_what_nobody_listens_to_hangs_up(guest: VsockGuest) -> None:
    host = guest.knock(PORT)
    asked = guest.hear()
    guest.send(RST, PORT, asked.header.src_port)
    assert host.recv(64) == b""


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r\n", b"CONNECT x\n", b"CONNECT 4294967296\n", b"\n", b"C" * 64])
def test_what_is_no_request_is_turned_away(guest: VsockGuest, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as host:
        host.settimeout(5)
        host.connect(str(guest.path))
        host.sendall(line)
        with suppress(ConnectionResetError):  # what it sent was not read to its end
            assert host.recv(64) == b""
    assert guest.silent()


def test_a_request_may_come_in_pieces_with_data_behind_it(guest: VsockGuest) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as host:
        host.settimeout(5)
        host.connect(str(guest.path))
        for piece in (b"CONN", b"ECT 50", b"00\nahead"):
            host.sendall(piece)
            time.sleep(0.01)
        asked = guest.hear()
        assert (asked.op, asked.header.dst_port) == (REQUEST, PORT)
        guest.send(RESPONSE, PORT, asked.header.src_port)
        assert host.recv(64).startswith(b"OK ")
        assert guest.hear().data == b"ahead"


def test_a_host_that_does_not_wait_for_the_answer_is_taken_back(guest: VsockGuest) -> None:
    host = guest.knock(PORT)
    asked = guest.hear()
    host.close()
    assert guest.hear().op == RST
    guest.send(RESPONSE, PORT, asked.header.src_port)
    assert guest.hear().op == RST


def test_the_guest_reaches_a_port_of_the_host(guest: VsockGuest) -> None:
    host = guest.open_to_host(2000, 77_000)
    guest.send(RW, 2000, 77_000, b"hello")
    assert host.recv(8) == b"hello"
    host.sendall(b"yes")
    assert guest.hear().data == b"yes"


def test_the_guest_is_refused_where_nobody_listens(guest: VsockGuest) -> None:
    guest.send(REQUEST, 2000, 77_000)
    heard = guest.hear()
    assert (heard.op, heard.header.src_port, heard.header.dst_port) == (RST, 77_000, 2000)


def test_who_connects_the_guest_hears_from_which_port_it_comes(guest: VsockGuest) -> None:
    guest.open_to_host(1023, 2000)
    assert guest.from_ports == [1023]


def test_an_answer_that_comes_too_late_opens_nothing(guest: VsockGuest) -> None:
    guest.hosts.add(2000)
    guest.answers = False
    guest.send(REQUEST, 1, 2000)
    guest.send(RST, 1, 2000)
    guest.answer()
    assert guest.got.pop().recv(1) == b""
    assert guest.silent()


def test_nothing_is_sent_before_the_stream_is_open(guest: VsockGuest) -> None:
    guest.hosts.add(2000)
    guest.answers = False
    guest.send(REQUEST, 1, 2000)
    guest.send(RW, 1, 2000, b"early")
    assert guest.hear().op == RST


# Ends


def test_the_host_closes(guest: VsockGuest) -> None:
    host, port = opened_from_host(guest)
    host.sendall(b"last words")
    host.close()
    assert guest.hear().data == b"last words"
    heard = guest.hear()
    assert (heard.op, heard.header.flags) == (SHUTDOWN, BOTH)
    guest.send(RST, PORT, port)
    assert guest.silent()
    assert guest.device.counters()["connections"] == 0


def test_the_host_ends_its_half_and_hears_the_rest(guest: VsockGuest) -> None:
    host, port = opened_from_host(guest)
    host.sendall(b"input")
    host.shutdown(socket.SHUT_WR)
    assert guest.hear().data == b"input"
    heard = guest.hear()
    assert (heard.op, heard.header.flags) == (SHUTDOWN, NO_SEND)
    guest.send(RW, PORT, port, b"output")
    assert host.recv(64) == b"output"
    host.close()
    heard = guest.hear()
    assert (heard.op, heard.header.flags) == (SHUTDOWN, BOTH)


def test_the_guest_closes(guest: VsockGuest) -> None:
    host, port = opened_from_host(guest)
    guest.send(RW, PORT, port, b"last words")
    guest.send(SHUTDOWN, PORT, port, flags=BOTH)
    assert guest.hear().op == RST
    assert host.recv(64) == b"last words"
    assert host.recv(64) == b""


def test_the_guest_ends_its_half_and_hears_the_rest(guest: VsockGuest) -> None:
    host, port = opened_from_host(guest)
    guest.send(RW, PORT, port, b"output")
    guest.send(SHUTDOWN, PORT, port, flags=NO_SEND)
    assert host.recv(64) == b"output"
    assert host.recv(64) == b""
    host.sendall(b"input")
    assert guest.hear().data == b"input"
    guest.send(RW, PORT, port, b"after all")
    assert guest.hear().op == RST


def test_a_guest_that_hears_no_more_lets_the_host_know(guest: VsockGuest) -> None:
    host, port = opened_from_host(guest)
    guest.send(SHUTDOWN, PORT, port, flags=NO_RECEIVE)
    with suppress(BrokenPipeError):
        for _ in range(500):
            host.sendall(b"?")
            time.sleep(0.01)
        pytest.fail("it goes on")
    guest.send(RW, PORT, port, b"still")
    assert host.recv(64) == b"still"


def test_what_the_guest_sent_before_it_closed_arrives_slowly(guest: VsockGuest) -> None:
    host, port = opened_from_host(guest)
    sent = fill(guest, port)
    guest.send(SHUTDOWN, PORT, port, flags=BOTH)
    while guest.hear().op != RST:
        pass
    received = 0
    while data := host.recv(1 << 16):
        received += len(data)
        time.sleep(0.001)
    assert received == sent
    host.close()
    assert guest.device.counters()["connections"] == 0


# Credit


def fill(guest: VsockGuest, port: int, piece: bytes = bytes(16 << 10)) -> int:
    """All that the device says it has room for, to a host that takes nothing."""
    sent = forwarded = 0
    while sent + len(piece) - forwarded <= BUFFER_BYTES:
        guest.send(RW, PORT, port, piece)
        sent += len(piece)
        guest.send(CREDIT_REQUEST, PORT, port)
        heard = guest.hear()
        assert (heard.op, heard.header.credit) == (CREDIT_UPDATE, BUFFER_BYTES)
        forwarded = heard.header.forwarded
    return sent


def test_a_host_that_takes_nothing_holds_up_its_own_stream_alone(guest: VsockGuest) -> None:
    _, port = opened_from_host(guest)
    other, other_port = opened_from_host(guest)
    fill(guest, port)
    guest.send(RW, PORT, other_port, b"through")
    assert other.recv(64) == b"through"


def test_more_than_there_is_room_for_is_answered_by_a_reset(guest: VsockGuest) -> None:
    host, port = opened_from_host(guest)
    fill(guest, port)
    guest.send(RW, PORT, port, bytes(64 << 10))
    assert guest.hear().op == RST
    host.close()


def test_the_guest_hears_of_room_before_it_has_to_wait(guest: VsockGuest) -> None:
    host, port = opened_from_host(guest)
    sent = 0
    while sent < TELL_BYTES:
        guest.send(RW, PORT, port, bytes(16 << 10))
        sent += len(host.recv(16 << 10, socket.MSG_WAITALL))
    heard = guest.hear()
    assert (heard.op, heard.header.forwarded) == (CREDIT_UPDATE, sent)


def test_the_host_waits_for_the_guests_room(guest: VsockGuest) -> None:
    host = guest.knock(PORT)
    port = guest.hear().header.src_port
    guest.send(RESPONSE, PORT, port, room=1000)
    assert host.recv(64).startswith(b"OK ")
    host.sendall(bytes(range(250)) * 10)
    heard = guest.hear()
    assert (heard.op, len(heard.data)) == (RW, 1000)
    assert guest.hear().op == CREDIT_REQUEST
    assert guest.silent()
    guest.send(CREDIT_UPDATE, PORT, port, room=1000, taken=600)
    assert len(guest.hear().data) == 600
    assert guest.hear().op == CREDIT_REQUEST
    guest.send(CREDIT_UPDATE, PORT, port, room=2000, taken=1600)
    assert len(guest.hear().data) == 900


def test_a_guest_without_buffers_holds_up_nothing_of_the_hosts() -> None:
    with vsock_guest(buffers=3) as guest:
        host, port = opened_from_host(guest)
        while guest.driver.drivers[0].take() is None and guest.driver.drivers[0].used < 3:
            guest.send(CREDIT_REQUEST, PORT, port)
        host.setblocking(False)
        with suppress(BlockingIOError):
            for _ in range(1000):
                host.send(bytes(1 << 16))
            pytest.fail("somebody takes it")


def test_a_lot_in_both_directions_at_once() -> None:
    total = 4 << 20
    with vsock_guest(buffers=64) as guest:
        host, port = opened_from_host(guest)
        wanted = bytes(range(256)) * (total // 256)
        received = bytearray()

        def program() -> None:
            sender = threading.Thread(target=host.sendall, args=(wanted,))
            sender.start()
            while len(received) < total:
                received.extend(host.recv(1 << 16))
            sender.join()

        thread = threading.Thread(target=program)
        thread.start()
        heard, sent, forwarded = bytearray(), 0, 0
        while len(heard) < total or sent < total:
            if sent < total and sent + 4096 - forwarded <= BUFFER_BYTES:
                guest.send(RW, PORT, port, wanted[sent : sent + 4096], taken=len(heard))
                sent += 4096
                said = guest.heard()
            else:
                guest.send(CREDIT_UPDATE, PORT, port, taken=len(heard))
                said = guest.hear()
            if said is not None:
                assert said.op in (RW, CREDIT_UPDATE, CREDIT_REQUEST), said.header
                heard += said.data
                forwarded = said.header.forwarded
        thread.join()
        assert (bytes(heard), bytes(received)) == (wanted, wanted)


# What is wrong


@pytest.mark.parametrize("op", [0, RESPONSE, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST, 8, 0xFFFF])
def test_a_stream_that_there_is_not_is_reset(guest: VsockGuest, op: int) -> None:
    guest.send(op, 1, 2)
    heard = guest.hear()
    assert (heard.op, heard.header.src_port, heard.header.dst_port) == (RST, 2, 1)


def test_a_reset_is_not_answered(guest: VsockGuest) -> None:
    guest.send(RST, 1, 2)
    assert guest.silent()


def test_other_cids_and_types_are_refused(guest: VsockGuest) -> None:
    guest.send(REQUEST, 1, 2, dst_cid=5)
    heard = guest.hear()
    assert (heard.op, heard.header.src_cid) == (RST, 5)
    guest.send(REQUEST, 1, 2, kind=2)
    assert guest.hear().op == RST
    guest.send(REQUEST, 1, 2, src_cid=9)
    guest.driver.request([b"short"], queue=1)
    assert guest.silent()
    assert guest.device.counters()["bad_packets"] == 2


@pytest.mark.parametrize("length", [0, 4, 6, 0xFFFFFFFF])
def test_a_length_that_is_not_the_datas_resets_the_stream(guest: VsockGuest, length: int) -> None:
    host, port = opened_from_host(guest)
    guest.send(RW, PORT, port, b"12345", length=length)
    if length <= 5:
        assert host.recv(8, socket.MSG_DONTWAIT if not length else 0) == b"12345"[:length] if length else True
    else:
        assert guest.hear().op == RST


def test_the_number_of_streams_is_bounded(guest: VsockGuest) -> None:
    guest.hosts.add(2000)
    for number in range(MOST_CONNECTIONS):
        guest.send(REQUEST, number, 2000)
        assert guest.hear().op == RESPONSE
    guest.send(REQUEST, MOST_CONNECTIONS, 2000)
    assert guest.hear().op == RST
    assert guest.knock(1).recv(1) == b""
    guest.send(RST, 0, 2000)
    guest.send(REQUEST, MOST_CONNECTIONS, 2000)
    assert guest.hear().op == RESPONSE


def test_who_asks_for_resets_and_takes_none_loses_them() -> None:
    with vsock_guest(buffers=0) as guest:
        for number in range(3 * device.MOST_REPLIES):
            guest.send(RW, number, 2)
        guest.offer(64)
        assert guest.hear().op == RST


def test_a_buffer_too_small_for_a_header_asks_for_a_reset(guest: VsockGuest) -> None:
    with vsock_guest(buffers=0) as other:
        other.driver.drivers[0].add([], [20])
        other.driver.kick(0)
        other.send(RW, 1, 2)
        deadline = time.monotonic() + 60
        while not other.driver.failures:
            assert time.monotonic() < deadline
            time.sleep(0.001)


def test_a_reset_of_the_device_ends_all_streams(guest: VsockGuest) -> None:
    host, _ = opened_from_host(guest)
    guest.driver.reset()
    assert host.recv(1) == b""
    assert guest.knock(PORT).recv(1) == b""
    guest.start()
    opened_from_host(guest)


def test_the_guest_is_told_when_it_goes_on_elsewhere(guest: VsockGuest) -> None:
    host, _ = opened_from_host(guest)
    guest.driver.drivers[EVENT].add([], [4])
    guest.driver.kick(EVENT)
    guest.device.reset_transport()
    assert guest.driver.wait(EVENT)[1] == bytes(4)
    assert host.recv(1) == b""
    guest.start()
    assert packet.unpack(b"") is None
