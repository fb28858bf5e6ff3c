"""A writer of AML, the byte code of ACPI's tables: each function returns one term, whole.

Section numbers: ACPI 6.5. Chapter 20 has the encoding, 6.4 the resource descriptors, 5.3 the names.
"""

from __future__ import annotations

import struct

ZERO, ONE = b"\x00", b"\x01"
EDGE_HIGH = 0b0011  # 6.4.3.6: consumer, edge, active high, exclusive


def arg(number: int) -> bytes:
    """A method's argument, 20.2.6.1."""
    return bytes((0x68 + number,))


def path(name: str) -> bytes:
    """`\\_SB_.PCI0` and the like, 20.2.2; names that are shorter than four letters are filled with `_`."""
    root = b"\\" if name.startswith("\\") else b""
    parts = [part.ljust(4, "_").encode("ascii") for part in name.lstrip("\\").split(".")]
    if any(len(part) != 4 for part in parts):
        raise ValueError(f"not an ACPI name: {name}")
    prefix = {1: b"", 2: b"\x2e"}.get(len(parts), bytes((0x2F, len(parts))))
    return root + prefix + b"".join(parts)


def integer(value: int) -> bytes:
    """In the shortest form, 20.2.3."""
    if value < 2:
        return bytes((value,))
    for prefix, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4)):
        if value < 1 << 8 * size:
            return bytes((prefix,)) + value.to_bytes(size, "little")
    return b"\x0e" + value.to_bytes(8, "little")


def string(text: str) -> bytes:
    return b"\x0d" + text.encode("ascii") + b"\0"


def eisa_id(name: str) -> bytes:
    """`PNP0501` as the number that it is short for, 19.6.37 (EISAID)."""
    letters = [ord(letter) - 0x40 for letter in name[:3]]
    value = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(name[3:], 16)
    return b"\x0c" + value.to_bytes(4, "big")


def _sized(opcode: bytes, body: bytes) -> bytes:
    """With a package length, which counts itself, 20.2.4."""
    if len(body) + 1 < 1 << 6:
        return opcode + bytes((len(body) + 1,)) + body
    for extra in (1, 2, 3):
        total = len(body) + 1 + extra
        if total < 1 << 4 + 8 * extra:
            return opcode + bytes((extra << 6 | total & 0xF,)) + (total >> 4).to_bytes(extra, "little") + body
    raise ValueError("more AML than a package length can say")


def name(what: str, value: bytes) -> bytes:
    return b"\x08" + path(what) + value


def scope(where: str, *terms: bytes) -> bytes:
    return _sized(b"\x10", path(where) + b"".join(terms))


def device(what: str, *terms: bytes) -> bytes:
    return _sized(b"\x5b\x82", path(what) + b"".join(terms))


def method(what: str, arguments: int, *terms: bytes) -> bytes:
    """Serialized, 20.2.5.2: nothing here runs twice at a time."""
    return _sized(b"\x14", path(what) + bytes((arguments | 1 << 3,)) + b"".join(terms))


def package(*elements: bytes) -> bytes:
    return _sized(b"\x12", bytes((len(elements),)) + b"".join(elements))


def buffer(data: bytes) -> bytes:
    return _sized(b"\x11", integer(len(data)) + data)


def to_uuid(text: str) -> bytes:
    """ToUUID: the first three fields little-endian."""
    fields = [bytes.fromhex(field) for field in text.split("-")]
    return buffer(b"".join(field[::-1] for field in fields[:3]) + b"".join(fields[3:]))


def equal(left: bytes, right: bytes) -> bytes:
    return b"\x93" + left + right


def when(condition: bytes, *terms: bytes) -> bytes:
    """If."""
    return _sized(b"\xa0", condition + b"".join(terms))


def give(value: bytes) -> bytes:
    """Return."""
    return b"\xa4" + value


def notify(what: str, event: int) -> bytes:
    return b"\x86" + path(what) + integer(event)


# Resources


def resources(*descriptors: bytes) -> bytes:
    """A resource template; the end tag's checksum of 0 means that it is right, 6.4.2.9."""
    return buffer(b"".join(descriptors) + b"\x79\x00")


def io(port: int, length: int) -> bytes:
    """Ports at a fixed place, 16-bit decode, 6.4.2.5."""
    return struct.pack("<BBHHBB", 0x47, 1, port, port, 1, length)


def memory32_fixed(start: int, length: int) -> bytes:
    """Read-write, 6.4.3.4."""
    return struct.pack("<BHBII", 0x86, 9, 1, start, length)


def interrupt(gsi: int) -> bytes:
    """Edge-triggered, active high, of one device alone, 6.4.3.6."""
    return struct.pack("<BHBBI", 0x89, 6, EDGE_HIGH, 1, gsi)


# What a bridge hands on, 6.4.3.5. Producer, positive decode, both ends fixed; the type, and its flags
_FIXED = 0x0C
_MEMORY, _IO, _BUS = (0, 0x01), (1, 0x03), (2, 0x00)  # read-write and not cacheable; all of the range; none


def _window(tag: int, form: str, kind: tuple[int, int], first: int, last: int) -> bytes:
    body = struct.pack(f"<BBB5{form}", kind[0], _FIXED, kind[1], 0, first, last, 0, last - first + 1)
    return struct.pack("<BH", tag, len(body)) + body


def bus_numbers(first: int, last: int) -> bytes:
    return _window(0x88, "H", _BUS, first, last)


def io_window(first: int, last: int) -> bytes:
    return _window(0x88, "H", _IO, first, last)


def memory_window_32(first: int, last: int) -> bytes:
    return _window(0x87, "I", _MEMORY, first, last)


def memory_window_64(first: int, last: int) -> bytes:
    return _window(0x8A, "Q", _MEMORY, first, last)
