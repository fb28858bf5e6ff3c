"""A strict, streaming reader of hostile tar archives: POSIX ustar and pax, and GNU long names.

Not `tarfile`: that one keeps every member, reads extension headers of any length into memory, and guesses where an
archive is malformed. Here each header is bounded, each number is checked, and what is not understood is refused.
Formats: POSIX.1-2017 pax "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BLOCK = 512
CHUNK = 1 << 18
ZEROS = bytes(BLOCK)
MAX_PAX_BYTES = 1 << 20
MAX_NAME_BYTES = 4096  # PATH_MAX
MAX_NUMBER = 1 << 62
NANOSECONDS = 10**9

FILE, OLD_FILE, HARD_LINK, SYMBOLIC_LINK = b"0", b"\0", b"1", b"2"
CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO, CONTIGUOUS = b"3", b"4", b"5", b"6", b"7"
GNU_LONG_NAME, GNU_LONG_LINK, PAX_NEXT, PAX_GLOBAL, GNU_SPARSE = b"L", b"K", b"x", b"g", b"S"
KNOWN = frozenset([FILE, HARD_LINK, SYMBOLIC_LINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO])
XATTR_PREFIX = b"SCHILY.xattr."
OCTAL = re.compile(rb"[0-7]+")
DECIMAL = re.compile(rb"(-?)(\d{1,19})(?:\.(\d*))?")


class TarError(Exception):
    """The archive is malformed, or holds what no image layer may hold. The message is for people."""


@dataclass(slots=True)
class Entry:
    """One member. `kind` is one of KNOWN; only a FILE has a body that counts."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


def show(name: bytes) -> str:
    """A name from outside, for an error message: short, and without control characters."""
    return repr(name[:256].decode("utf-8", "backslashreplace"))


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _number(raw: bytes, what: str) -> int:
    if raw[0] & 0x80:  # GNU base-256, big-endian, bit 6 is the sign
        value = int.from_bytes(raw, "big") & ((1 << (8 * len(raw) - 1)) - 1)
        if raw[0] & 0x40:
            value -= 1 << (8 * len(raw) - 1)
    else:
        digits = raw.strip(b" \0")
        if not digits:
            return 0
        if not OCTAL.fullmatch(digits):
            raise TarError(f"a header has a {what} that is not a number")
        value = int(digits, 8)
    if abs(value) > MAX_NUMBER or (value < 0 and what != "mtime"):
        raise TarError(f"a header has a {what} that is out of range")
    return value


def _decimal(raw: bytes, what: str) -> int:
    """A pax number in billionths."""
    match = DECIMAL.fullmatch(raw)
    if match is None:
        raise TarError(f"a pax header has a {what} that is not a number")
    value = int(match[2]) * NANOSECONDS + int((match[3] or b"")[:9].ljust(9, b"0"))
    return -value if match[1] else value


def _whole(raw: bytes, what: str) -> int:
    value, fraction = divmod(_decimal(raw, what), NANOSECONDS)
    if fraction or not 0 <= value <= MAX_NUMBER:
        raise TarError(f"a pax header has a {what} that is out of range")
    return value


def _pax(data: bytes) -> dict[bytes, bytes]:
    """The records "LENGTH KEY=VALUE\\n" of an extended header."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        digits, space, _ = data[position : position + 12].partition(b" ")
        if not space or not digits.isdigit():
            raise TarError("a pax header is malformed")
        end = position + int(digits)
        record = data[position + len(digits) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or record[-1:] != b"\n" or not equals or not key:
            raise TarError("a pax header is malformed")
        records[key] = value
        position = end
    return records


class Reader:
    """Iterate it for entries; after each, `body` yields its bytes. What is not read is skipped.

    `read(n)` returns up to n bytes, fewer only at the end of the stream. Reading ends behind the end mark: the caller
    drains the stream if it needs the rest.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = 0  # bytes of the current body not yet read
        self._padding = 0

    def _exactly(self, count: int) -> bytes:
        data = self._read(count)
        if len(data) != count:
            raise TarError("the archive is truncated")
        return data

    def body(self) -> Iterator[bytes]:
        """The bytes of the current entry that were not read yet, in chunks."""
        while self._left:
            data = self._exactly(min(self._left, CHUNK))
            self._left -= len(data)
            yield data
        if self._padding:
            self._exactly(self._padding)
            self._padding = 0

    def _skip(self) -> None:
        for _ in self.body():
            pass

    def _extension(self, limit: int, what: str) -> bytes:
        if self._left > limit:
            raise TarError(f"a {what} is longer than {limit} bytes")
        return b"".join(self.body())

    def _header(self) -> bytes | None:
        """The next header block; None at the end mark, or where the stream ends without one."""
        block = self._read(BLOCK)
        if not block:
            return None
        if len(block) != BLOCK:
            raise TarError("the archive is truncated")
        if block == ZEROS:
            if self._read(BLOCK) not in (b"", ZEROS):
                raise TarError("the archive has a lone zero block between entries")
            return None
        stored = _number(block[148:156], "checksum")
        blanked = block[:148] + b" " * 8 + block[156:]
        if stored != sum(blanked) and stored != sum(byte - 256 if byte > 127 else byte for byte in blanked):
            raise TarError("a header's checksum is wrong")
        return block

    def __iter__(self) -> Iterator[Entry]:
        pax: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while True:
            self._skip()
            block = self._header()
            if block is None:
                return
            kind = block[156:157]
            size = _number(block[124:136], "size")
            self._set_size(size)
            if kind == PAX_NEXT:
                pax = _pax(self._extension(MAX_PAX_BYTES, "pax header"))
            elif kind == PAX_GLOBAL:  # as Go's archive/tar, which writes and reads most images: has no effect
                self._extension(MAX_PAX_BYTES, "pax header")
            elif kind == GNU_LONG_NAME:
                long_name = _text(self._extension(MAX_NAME_BYTES + 1, "long name"))
            elif kind == GNU_LONG_LINK:
                long_link = _text(self._extension(MAX_NAME_BYTES + 1, "long name"))
            else:
                yield self._entry(block, kind, size, pax, long_name, long_link)
                pax, long_name, long_link = {}, b"", b""

    def _set_size(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _entry(
        self, block: bytes, kind: bytes, size: int, pax: dict[bytes, bytes], long_name: bytes, long_link: bytes
    ) -> Entry:
        name = _text(block[:100])
        if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
            name = prefix + b"/" + name
        name = pax.get(b"path") or long_name or name
        link = pax.get(b"linkpath") or long_link or _text(block[157:257])
        if kind == GNU_SPARSE or any(key.startswith(b"GNU.sparse.") for key in pax):
            raise TarError(f"{show(name)} is a sparse file, which image layers do not have")
        if kind == OLD_FILE:
            kind = DIRECTORY if name.endswith(b"/") else FILE
        elif kind == CONTIGUOUS:
            kind = FILE
        if kind not in KNOWN:
            raise TarError(f"{show(name)} is of unknown type {show(kind)}")
        for text in (name, link):
            if b"\0" in text or len(text) > MAX_NAME_BYTES:
                raise TarError(f"{show(text)} is not a path: it has a NUL byte or more than {MAX_NAME_BYTES} bytes")
        if b"size" in pax:
            size = _whole(pax[b"size"], "size")
        self._set_size(size)
        return Entry(
            name=name,
            kind=kind,
            mode=_number(block[100:108], "mode") & 0o7777,
            uid=_whole(pax[b"uid"], "uid") if b"uid" in pax else _number(block[108:116], "uid"),
            gid=_whole(pax[b"gid"], "gid") if b"gid" in pax else _number(block[116:124], "gid"),
            size=size,
            mtime_ns=_decimal(pax[b"mtime"], "mtime")
            if b"mtime" in pax
            else _number(block[136:148], "mtime") * NANOSECONDS,
            link=link,
            device=(_number(block[329:337], "device"), _number(block[337:345], "device")),
            xattrs={key[len(XATTR_PREFIX) :]: pax[key] for key in pax if key.startswith(XATTR_PREFIX)},
        )
