"""The wire format of vhost-user, as its front-end speaks it (docs/interop/vhost-user.rst, "Message Specification")."""

from __future__ import annotations

import struct
from typing import NamedTuple

# "Front-end message types"
GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL = 12, 13
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE = 15, 16, 17, 18
SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG = 21, 24, 25
BACKEND_CONFIG_CHANGE = 2  # "Back-end message types"

PROTOCOL_FEATURES = 1 << 30  # VHOST_USER_F_PROTOCOL_FEATURES, among the virtio features
# "Protocol features"
F_MQ, F_REPLY_ACK, F_BACKEND_REQ, F_CONFIG = 1 << 0, 1 << 3, 1 << 5, 1 << 9

# "Header": flags
VERSION, VERSION_MASK, REPLY, NEED_REPLY = 0x1, 0x3, 0x4, 0x8
MAX_PAYLOAD_BYTES = 512  # of a back-end's: a configuration space, of at most 256 bytes, is the largest

HEADER = struct.Struct("<III")  # request, flags, size
U64 = struct.Struct("<Q")
VRING_STATE = struct.Struct("<II")  # index, num
VRING_ADDR = struct.Struct("<IIQQQQ")  # index, flags, descriptors, used, available, log
CONFIG = struct.Struct("<III")  # offset, size, flags; the content follows
MEMORY = struct.Struct("<II")  # number of regions, padding
MEMORY_REGION = struct.Struct("<QQQQ")  # guest address, size, front-end's address, offset in the file


class Header(NamedTuple):
    request: int
    flags: int
    size: int


def message(request: int, payload: bytes = b"", *, flags: int = 0) -> bytes:
    return HEADER.pack(request, VERSION | flags, len(payload)) + payload


def header(data: bytes) -> Header:
    """Raises ValueError: another version, or larger than anything that a back-end has to say."""
    parsed = Header(*HEADER.unpack(data))
    if parsed.flags & VERSION_MASK != VERSION or parsed.size > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a message {parsed.request} with flags {parsed.flags:#x} and {parsed.size} bytes")
    return parsed
