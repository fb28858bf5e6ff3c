"""The kernel's messages, whole and damaged."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmtui.backends.tap import kernel
from vmtui.host import netns, sockets
from vmtui.host.faults import Fault
from vmtui.host.rtnetlink import (
    LINK,
    RTM_GETLINK,
    Message,
    Rtnetlink,
    attribute,
    decode,
    parse_attributes,
    parse_messages,
)

ATTRIBUTES = st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=8)


@settings(deadline=None)
@given(ATTRIBUTES)
def test_attributes_are_read_as_they_were_written(attributes: dict[int, bytes]) -> None:
    data = b"".join(attribute(number, value) for number, value in attributes.items())
    assert len(data) % 4 == 0
    assert parse_attributes(data) == attributes


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_damaged_messages_do_no_harm(data: bytes) -> None:
    parse_attributes(data)
    for kind, payload in parse_messages(data):
        decode(kind, payload)


@settings(deadline=None)
@given(ATTRIBUTES)
def test_any_attributes_make_a_link(attributes: dict[int, bytes]) -> None:
    kernel.parse_link(Message(RTM_GETLINK, LINK.pack(0, 0, 7, 1, 0), attributes))


def test_numbers_and_texts() -> None:
    assert attribute(3, "eth0") == struct.pack("=HH", 9, 3) + b"eth0\0" + bytes(3)
    assert attribute(4, 1500) == struct.pack("=HHI", 8, 4, 1500)


def test_the_loopback_interface_is_there() -> None:
    found = kernel.links()
    assert found["lo"].name == "lo"
    assert kernel.find("lo", "", "nosuchlink") == {"lo": found["lo"]}


def test_what_the_kernel_refuses_is_an_error() -> None:
    with Rtnetlink() as socket_:
        with pytest.raises(OSError, match="No such device"):
            socket_.ask(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0), attribute(3, "nosuchlink"))


async def test_a_process_that_is_gone_cannot_be_plugged() -> None:
    with pytest.raises(Fault, match="process 4194305"):
        await netns.plug_veth(4194305, "vmpx", address="10.0.0.2", prefix=24, gateway="")  # above PID_MAX_LIMIT


def test_a_port_in_use_is_an_obstacle_with_a_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reason = sockets.obstacle("0.0.0.0", port, "tcp")
        assert reason is not None
        assert f"port {port}/tcp is in use on this host by " in reason
        assert sockets.obstacle("0.0.0.0", port, "udp") is None
    assert sockets.obstacle("127.0.0.1", port, "tcp") is None
    assert sockets.obstacle("203.0.113.7", port, "tcp") == "203.0.113.7 is not an address of this host"


def test_a_port_that_closed_a_moment_ago_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            client.recv(1)
    assert sockets.obstacle("127.0.0.1", port, "tcp") is None
