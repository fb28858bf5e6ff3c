"""Ethernet frames by hand: ARP, IPv4 with ICMP, UDP and TCP; and the header that virtio puts before them."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

BROADCAST = b"\xff" * 6
ARP, IPV4 = 0x0806, 0x0800
ICMP, TCP, UDP = socket.IPPROTO_ICMP, socket.IPPROTO_TCP, socket.IPPROTO_UDP
NEEDS_CSUM, GSO_TCPV4 = 1, 1  # include/uapi/linux/virtio_net.h
SYN, ACK, PSH = 0x02, 0x10, 0x08
_HEADER = struct.Struct("<BBHHHHH")


class Header(NamedTuple):
    """struct virtio_net_hdr_v1."""

    flags: int = 0
    gso_type: int = 0
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0
    num_buffers: int = 0

    def pack(self) -> bytes:
        return _HEADER.pack(*self)

    @classmethod
    def of(cls, packet: bytes) -> Header:
        return cls(*_HEADER.unpack_from(packet))


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) & 1)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(destination: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    return destination + source + struct.pack(">H", kind) + payload


def arp(operation: int, mac: bytes, ip: str, target_ip: str, target_mac: bytes = bytes(6)) -> bytes:
    """1 asks, 2 answers."""
    fixed = struct.pack(">HHBBH", 1, IPV4, 6, 4, operation)
    return fixed + mac + socket.inet_aton(ip) + target_mac + socket.inet_aton(target_ip)


def ipv4(protocol: int, source: str, destination: str, payload: bytes) -> bytes:
    def header(check: int) -> bytes:
        fixed = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0x4000, 64, protocol, check)
        return fixed + socket.inet_aton(source) + socket.inet_aton(destination)

    return header(checksum(header(0))) + payload


def icmp_echo(kind: int, ident: int, number: int, data: bytes) -> bytes:
    """8 asks, 0 answers."""
    body = struct.pack(">HH", ident, number) + data
    return struct.pack(">BBH", kind, 0, checksum(struct.pack(">BBH", kind, 0, 0) + body)) + body


def pseudo(protocol: int, source: str, destination: str, length: int) -> bytes:
    return socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack(">HH", protocol, length)


def udp(source: tuple[str, int], destination: tuple[str, int], data: bytes, *, partial: bool = False) -> bytes:
    """`partial`: the checksum is of the pseudo header alone; who has the rest of the work starts from that."""
    length = 8 + len(data)
    over = pseudo(UDP, source[0], destination[0], length)
    ports = struct.pack(">HHH", source[1], destination[1], length)
    check = ~checksum(over) & 0xFFFF if partial else checksum(over + ports + bytes(2) + data) or 0xFFFF
    return ports + struct.pack(">H", check) + data


def tcp(
    source: tuple[str, int],
    destination: tuple[str, int],
    seq: int,
    ack: int,
    flags: int,
    data: bytes = b"",
    options: bytes = b"",
    *,
    partial: bool = False,
) -> bytes:
    offset = (20 + len(options)) // 4 << 4
    fixed = struct.pack(">HHIIBBH", source[1], destination[1], seq, ack, offset, flags, 0xFFFF)
    over = pseudo(TCP, source[0], destination[0], 20 + len(options) + len(data))
    whole = over + fixed + bytes(4) + options + data
    check = ~checksum(over) & 0xFFFF if partial else checksum(whole)
    return fixed + struct.pack(">HH", check, 0) + options + data
