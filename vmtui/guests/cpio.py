"""Archives in the kernel's initramfs format ("newc", Documentation/driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import NamedTuple

ALIGNMENT = 4
BLOCK = 512  # archives are padded to it, so that they can be concatenated
TRAILER = "TRAILER!!!"


class Entry(NamedTuple):
    """A file, directory or symbolic link, owned by root. `path` is relative; a link's data is its target."""

    path: str
    mode: int
    data: bytes = b""


def directory(path: str) -> Entry:
    return Entry(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, *, mode: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | mode, data)


def link(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def archive(entries: Iterable[Entry]) -> bytes:
    """One archive of the entries, in their order; parents must come before what is in them."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry(TRAILER, 0)], start=1):
        name = entry.path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += bytes(-len(out) % ALIGNMENT) + entry.data
        out += bytes(-len(out) % ALIGNMENT)
    return bytes(out + bytes(-len(out) % BLOCK))
