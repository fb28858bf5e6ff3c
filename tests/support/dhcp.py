"""A DHCP client by hand on a TAP: what a guest's kernel does, down to the checksum (RFC 2131, 768, 791)."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time

from vmtui.backends.tap.links import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, IFREQ, TUN, TUNSETIFF

VNET_HEADER = 10  # struct virtio_net_hdr, virtio 5.1.6, without num_buffers
MAGIC = b"\x63\x82\x53\x63"
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5
MESSAGE, SERVER, WANTED, ROUTER, DNS, HOST_NAME, DOMAIN, MTU, SEARCH, ASKED = 53, 54, 50, 3, 6, 12, 15, 26, 119, 55


def open_tap(name: str) -> int:
    fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, IFREQ.pack(name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    return fd


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _frame(mac: bytes, options: bytes) -> bytes:
    # BROADCAST is set: a client without an address cannot answer ARP
    head = struct.pack(">BBBBIHH16x", 1, 1, 6, 0, 0x766D7475, 0, 0x8000) + mac.ljust(16, b"\0") + bytes(192)
    payload = head + MAGIC + options + b"\xff"
    udp = struct.pack(">HHHH", 68, 67, 8 + len(payload), 0) + payload
    parts = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    parts = parts[:10] + struct.pack(">H", checksum(parts)) + parts[12:]
    return bytes(VNET_HEADER) + b"\xff" * 6 + mac + b"\x08\x00" + parts + udp


def _options(message: bytes) -> dict[int, bytes]:
    found, offset = {}, 240
    while offset < len(message) and message[offset] != 255:
        length = message[offset + 1]
        found[message[offset]] = message[offset + 2 : offset + 2 + length]
        offset += 2 + length
    return found


def _answer(fd: int, kind: int, timeout: float) -> tuple[str, dict[int, bytes]] | None:
    """The next DHCP message of a kind with a right checksum: the offered address, the options."""
    deadline = time.monotonic() + timeout
    while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        frame = os.read(fd, 65536)[VNET_HEADER:]
        packet = frame[14:]
        if frame[12:14] != b"\x08\x00" or packet[9] != 17:
            continue
        udp = packet[20 : struct.unpack_from(">H", packet, 2)[0]]
        if udp[:4] != struct.pack(">HH", 67, 68):
            continue
        pseudo = packet[12:20] + struct.pack(">BBH", 0, 17, len(udp))
        assert udp[6:8] == b"\0\0" or checksum(pseudo + udp) == 0, "the UDP checksum of an answer is wrong"
        options = _options(udp[8:])
        if options.get(MESSAGE) == bytes([kind]):
            return ".".join(map(str, udp[8 + 16 : 8 + 20])), options
    return None


def lease(fd: int, mac: str, *, name: str = "", tries: int = 120) -> tuple[str, dict[int, bytes]] | None:
    """The address and the options that a server gives, None if nobody answers. Each try takes half a second."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    said = bytes([HOST_NAME, len(name)]) + name.encode() if name else b""
    said += bytes([ASKED, 6, ROUTER, DNS, HOST_NAME, DOMAIN, MTU, SEARCH])
    offered = None
    for _ in range(tries):  # the bridge lets nothing pass until it has seen the carrier
        os.write(fd, _frame(hardware, bytes([MESSAGE, 1, DISCOVER]) + said))
        if (offered := _answer(fd, OFFER, 0.5)) is not None:
            break
    if offered is None:
        return None
    wanted = bytes(map(int, offered[0].split(".")))
    chosen = bytes([MESSAGE, 1, REQUEST, WANTED, 4]) + wanted + bytes([SERVER, 4]) + offered[1][SERVER]
    for _ in range(tries):
        os.write(fd, _frame(hardware, chosen + said))
        if (given := _answer(fd, ACK, 0.5)) is not None:
            return given
    return None
