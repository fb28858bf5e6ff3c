"""SFTP, version 3, as bytes: draft-ietf-secsh-filexfer-02 and the extensions of OpenSSH's PROTOCOL."""

from __future__ import annotations

import os
import stat
import struct
import time
from dataclasses import dataclass

VERSION_NUMBER = 3
INIT, VERSION, OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = range(1, 11)
OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT, RENAME, READLINK, SYMLINK = range(11, 21)
STATUS, HANDLE, DATA, NAME, ATTRS = range(101, 106)
EXTENDED, EXTENDED_REPLY = 200, 201
OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = range(6)
OP_UNSUPPORTED = 8
FLAG_READ, FLAG_WRITE, FLAG_APPEND, FLAG_CREATE, FLAG_TRUNCATE, FLAG_EXCLUSIVE = 1, 2, 4, 8, 16, 32
HAS_SIZE, HAS_OWNER, HAS_MODE, HAS_TIMES, HAS_MORE = 1, 2, 4, 8, 0x80000000
POSIX_RENAME, FSYNC, LIMITS = b"posix-rename@openssh.com", b"fsync@openssh.com", b"limits@openssh.com"
MAX_PACKET_BYTES = 256 << 10  # what OpenSSH's sftp-server takes
MAX_READ_BYTES = MAX_PACKET_BYTES - 1024
MAX_HANDLES = 256
RECENT_S = 180 * 86400  # ls(1): a time older than this is shown with its year


class BadMessage(Exception):
    """A packet that is none."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Those that are not None are given. Times are seconds since the epoch."""

    size: int | None = None
    owner: tuple[int, int] | None = None
    mode: int | None = None
    times: tuple[int, int] | None = None

    @classmethod
    def of(cls, found: os.stat_result) -> Attributes:
        times = (int(found.st_atime) & 0xFFFFFFFF, int(found.st_mtime) & 0xFFFFFFFF)
        return cls(found.st_size, (found.st_uid, found.st_gid), found.st_mode, times)

    def encode(self) -> bytes:
        flags, parts = 0, []
        if self.size is not None:
            flags |= HAS_SIZE
            parts.append(struct.pack(">Q", self.size))
        if self.owner is not None:
            flags |= HAS_OWNER
            parts.append(struct.pack(">II", *self.owner))
        if self.mode is not None:
            flags |= HAS_MODE
            parts.append(struct.pack(">I", self.mode))
        if self.times is not None:
            flags |= HAS_TIMES
            parts.append(struct.pack(">II", *self.times))
        return struct.pack(">I", flags) + b"".join(parts)

    def line(self, name: bytes) -> bytes:
        """As `ls -l` would show it, which some clients do."""
        mode = stat.filemode(self.mode or 0)
        uid, gid = self.owner or (0, 0)
        when = (self.times or (0, 0))[1]
        form = "%b %e %H:%M" if abs(time.time() - when) < RECENT_S else "%b %e  %Y"
        shown = time.strftime(form, time.gmtime(when))
        return f"{mode}    1 {uid:<8} {gid:<8} {self.size or 0:>8} {shown} ".encode() + name


class Packet:
    """Reads what a packet holds, from its beginning. Each method raises BadMessage."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise BadMessage("it ends too soon")
        found = bytes(self._data[self._at : end])
        self._at = end
        return found

    def byte(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        return self.take(self.u32())

    def attributes(self) -> Attributes:
        flags = self.u32()
        size = self.u64() if flags & HAS_SIZE else None
        owner = (self.u32(), self.u32()) if flags & HAS_OWNER else None
        mode = self.u32() if flags & HAS_MODE else None
        times = (self.u32(), self.u32()) if flags & HAS_TIMES else None
        if flags & HAS_MORE:
            for _ in range(self.u32()):
                self.string()
                self.string()
        return Attributes(size, owner, mode, times)


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def packet(kind: int, *parts: bytes) -> bytes:
    body = bytes([kind]) + b"".join(parts)
    return struct.pack(">I", len(body)) + body


def names(identity: int, entries: list[tuple[bytes, Attributes]]) -> bytes:
    """An answer of names with what is known of each."""
    parts = [string(name) + string(known.line(name)) + known.encode() for name, known in entries]
    return packet(NAME, struct.pack(">II", identity, len(entries)), *parts)


def status(identity: int, code: int, message: str) -> bytes:
    return packet(STATUS, struct.pack(">II", identity, code), string(message.encode()), string(b"en"))
