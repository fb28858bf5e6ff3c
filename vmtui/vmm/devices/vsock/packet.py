"""The header of a vsock packet (VIRTIO 5.10.6) and the numbers in it."""

from __future__ import annotations

import struct
from typing import NamedTuple

HOST_CID = 2  # 5.10.4
STREAM = 1  # type, 5.10.6
# op
REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST = range(1, 8)
# flags of SHUTDOWN, 5.10.6.6: the sender of the packet will not receive, will not send any more
NO_RECEIVE, NO_SEND = 1, 2
BOTH = NO_RECEIVE | NO_SEND
COUNTER = 1 << 32  # ports and counts have 32 bits

_HEADER = struct.Struct("<QQIIIHHIII")  # struct virtio_vsock_hdr
HEADER_BYTES = _HEADER.size  # 44


class Header(NamedTuple):
    """`credit` is buf_alloc, `forwarded` fwd_cnt: what the sender has room for, and how much it has passed on."""

    src_cid: int
    dst_cid: int
    src_port: int
    dst_port: int
    length: int
    kind: int
    op: int
    flags: int
    credit: int
    forwarded: int

    def pack(self) -> bytes:
        return _HEADER.pack(*self)


def unpack(data: bytes) -> Header | None:
    """None if it is too short to be one."""
    return Header._make(_HEADER.unpack(data)) if len(data) == HEADER_BYTES else None


def pieces(views: list[memoryview], skip: int, length: int) -> list[memoryview]:
    """`length` bytes of a chain's buffers from byte `skip` on, as far as there are any."""
    found = []
    for view in views:
        if skip >= len(view):
            skip -= len(view)
            continue
        if length <= 0:
            break
        piece = view[skip : skip + length]
        found.append(piece)
        length -= len(piece)
        skip = 0
    return found
