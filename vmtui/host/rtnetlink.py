"""A few rtnetlink(7) requests by hand: those on the way of every container start and every check.

pyroute2 says far more, and its import alone takes longer than all of these together.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from vmtui.host import trace

# include/uapi/linux/netlink.h
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_CREATE = 0x400
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLA_TYPE_MASK = 0x3FFF
HEADER = struct.Struct("=IHHII")  # nlmsghdr
ATTRIBUTE = struct.Struct("=HH")  # nlattr
# include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_GETROUTE = 26
RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINKINFO = 18
IFLA_INFO_KIND = 1
IFF_UP = 0x1
IFA_LOCAL = 2
LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix, flags, scope, index
ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags

RECEIVE_BYTES = 1 << 16
TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Message:
    """One answer: its type, its fixed part, its attributes by number."""

    kind: int
    body: bytes
    attributes: dict[int, bytes]


def attribute(number: int, value: bytes | int | str) -> bytes:
    """An nlattr: an int as u32, text with its final zero byte."""
    if isinstance(value, int):
        value = struct.pack("=I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    padding = -len(value) % 4
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), number) + value + b"\0" * padding


def parse_attributes(data: bytes) -> dict[int, bytes]:
    """Stops at the first malformed one."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + ATTRIBUTE.size <= len(data):
        length, number = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size or offset + length > len(data):
            break
        found[number & NLA_TYPE_MASK] = data[offset + ATTRIBUTE.size : offset + length]
        offset += length + (-length % 4)
    return found


QUESTIONS = {
    RTM_GETLINK: ("-d", "link", "show"),
    RTM_GETADDR: ("address", "show"),
    RTM_GETROUTE: ("route", "show", "table", "all"),
}
SIZES = {RTM_NEWLINK: LINK.size, RTM_DELLINK: LINK.size, RTM_NEWADDR: ADDRESS.size, RTM_DELADDR: ADDRESS.size}
SIZES[RTM_NEWROUTE] = ROUTE.size


def parse_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each message of one datagram; stops at the first malformed one."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            return
        yield kind, data[offset + HEADER.size : offset + length]
        offset += length + (-length % 4)


def decode(kind: int, payload: bytes) -> Message:
    size = SIZES.get(kind, 0)
    return Message(kind, payload[:size], parse_attributes(payload[size:]))


class Rtnetlink:
    """A socket to the routing part of the kernel, of the network namespace in which it was made. Blocking.

    `through` is what a command line needs before `ip` to be in that namespace; it and `words` are for the trace.
    """

    def __init__(self, through: Sequence[object] = ()) -> None:
        self._through = through
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(TIMEOUT_S)
        self._sequence = 0

    def request(self, kind: int, body: bytes, *attributes: bytes, flags: int = 0, words: Sequence[object]) -> None:
        """Send one request, which is that of `ip` with `words`, and wait for its acknowledgement.

        Raises OSError with the kernel's errno.
        """
        with trace.begin(trace.Way.NETLINK, (*self._through, "ip", *words)):
            for _ in self._exchange(kind, body, attributes, NLM_F_REQUEST | NLM_F_ACK | flags):
                pass

    def ask(self, kind: int, body: bytes, *attributes: bytes) -> list[Message]:
        """What the kernel answers to a request for one object. Raises OSError."""
        with trace.begin(trace.Way.NETLINK, lambda: self._question(kind, attributes), reads=True):
            return list(self._exchange(kind, body, attributes, NLM_F_REQUEST | NLM_F_ACK))

    def dump(self, kind: int, family: int = socket.AF_UNSPEC) -> list[Message]:
        """All objects of a kind. Raises OSError."""
        sizes = {RTM_GETLINK: LINK.size, RTM_GETADDR: ADDRESS.size, RTM_GETROUTE: ROUTE.size}
        body = bytes([family]) + bytes(sizes[kind] - 1)
        with trace.begin(trace.Way.NETLINK, lambda: self._question(kind), reads=True):
            return list(self._exchange(kind, body, (), NLM_F_REQUEST | NLM_F_DUMP))

    def _question(self, kind: int, attributes: tuple[bytes, ...] = ()) -> tuple[object, ...]:
        """What `ip` would ask the same with."""
        name = parse_attributes(b"".join(attributes)).get(IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
        return (*self._through, "ip", *QUESTIONS.get(kind, (f"netlink-{kind}",)), *(("dev", name) if name else ()))

    def _exchange(self, kind: int, body: bytes, attributes: tuple[bytes, ...], flags: int) -> Iterator[Message]:
        payload = body + b"".join(attributes)
        self._sequence += 1
        self._socket.send(HEADER.pack(HEADER.size + len(payload), kind, flags, self._sequence, 0) + payload)
        while True:
            for answer, content in parse_messages(self._socket.recv(RECEIVE_BYTES)):
                if answer == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", content)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                if answer == NLMSG_DONE:
                    return
                yield decode(answer, content)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
