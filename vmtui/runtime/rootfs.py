"""An image as an initramfs: the merged tree of its layers in one newc archive that the kernel unpacks into memory.

Format: kernel, Documentation/driver-api/early-userspace/buffer-format.rst. Uncompressed: packing a small image takes
a fraction of a second and the kernel reads it faster than it inflates one. The kernel takes several archives one after
the other, so a caller may append its own with an /init of its own.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from vmtui.core.backend import Progress, Report
from vmtui.core.errors import InvalidInput
from vmtui.runtime.claim import claim, sweep
from vmtui.runtime.images import Image
from vmtui.runtime.layers import WAIT_S, host_error, is_opaque

MAGIC = b"070701"
TRAILER = b"TRAILER!!!"
MAX_FIELD = 0xFFFFFFFF  # every field is eight hexadecimal digits
CHUNK = 1 << 20
FORMAT = 1  # part of the name in the cache: raise it when the archive of the same image changes


class Node:
    """One path of the merged tree; `children` of a folder by name."""

    __slots__ = ("children", "found", "source")

    def __init__(self, source: bytes, found: os.stat_result) -> None:
        self.source = source
        self.found = found
        self.children: dict[bytes, Node] = {}


async def initramfs(image: Image, cache: Path, report: Report) -> Path:
    """The image's tree as an uncompressed cpio archive, made once per image.

    Kept: types, modes, owners, times, hard links and device numbers. Not kept: extended attributes, which the format
    lacks. Raises OperationFailed (no space), InvalidInput (a file of 4 GiB or more); nothing is left behind.
    """
    place = cache / "initramfs" / f"{image.digest.removeprefix('sha256:')}.{FORMAT}.cpio"
    if place.exists():
        return place
    work = place.with_suffix(".partial")
    try:
        sweep(place.parent, "*.partial")
        async with claim(work, timeout=WAIT_S):
            if not place.exists():
                message = "packing the image for memory"
                report(Progress(message=message))
                loop = asyncio.get_running_loop()

                def progress(fraction: float) -> None:
                    loop.call_soon_threadsafe(report, Progress(message=message, fraction=fraction))

                await asyncio.to_thread(_write, image, work / "cpio", progress)
                (work / "cpio").rename(place)
    except OSError as error:
        raise host_error(error, f"the initramfs of {image.reference}") from error
    return place


def _write(image: Image, path: Path, progress: Callable[[float], None]) -> None:
    with path.open("xb", buffering=CHUNK) as out:
        Archive(out, progress).write(merge([os.fsencode(layer) for layer in image.layers]))


def merge(layers: list[bytes]) -> Node:
    """The tree that overlayfs would show of these layers, lowest first. Follows no symbolic link. Raises OSError."""
    root = Node(layers[0], os.lstat(layers[0]))
    for layer in layers:
        root.source, root.found = layer, os.lstat(layer)
        if is_opaque(layer):
            root.children.clear()
        _merge(root, layer)
    return root


def _merge(node: Node, folder: bytes) -> None:
    """Lay a layer's folder over the node."""
    with os.scandir(folder) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:  # a whiteout
                node.children.pop(entry.name, None)
                continue
            below = node.children.get(entry.name)
            if not stat.S_ISDIR(found.st_mode):
                node.children[entry.name] = Node(entry.path, found)
                continue
            if below is None or not stat.S_ISDIR(below.found.st_mode) or is_opaque(entry.path):
                below = node.children[entry.name] = Node(entry.path, found)
            below.source, below.found = entry.path, found
            _merge(below, entry.path)


class Archive:
    """Writes a tree as newc, sorted by path, so that the same tree is the same archive."""

    def __init__(self, out: IO[bytes], progress: Callable[[float], None]) -> None:
        self._out = out
        self._progress = progress
        self._number = 0  # the last inode number given out

    def write(self, root: Node) -> None:
        """Raises OSError, InvalidInput."""
        paths = list(_walk(root, b""))
        links: dict[tuple[int, int], list[bytes]] = {}
        for path, node in paths:
            if stat.S_ISREG(node.found.st_mode) and node.found.st_nlink > 1:
                links.setdefault((node.found.st_dev, node.found.st_ino), []).append(path)
        numbers: dict[tuple[int, int], int] = {}
        for index, (path, node) in enumerate(paths):
            inode = (node.found.st_dev, node.found.st_ino)
            names = links.get(inode, [path])
            if len(names) == 1:
                self._number += 1
                self._entry(path, node, number=self._number, link_count=1)
            else:
                if inode not in numbers:
                    self._number += 1
                    numbers[inode] = self._number
                # As cpio itself does it: the bytes come with the last name, the others are empty.
                self._entry(path, node, number=numbers[inode], link_count=len(names), empty=path != names[-1])
            if index % 1000 == 0:
                self._progress(index / len(paths))
        self._header(TRAILER, mode=0, number=0, link_count=1)
        self._out.write(bytes(-self._out.tell() % 512))

    def _entry(self, path: bytes, node: Node, *, number: int, link_count: int, empty: bool = False) -> None:
        found = node.found
        mode = found.st_mode
        content = os.readlink(node.source) if stat.S_ISLNK(mode) else b""
        size = len(content) or (found.st_size if stat.S_ISREG(mode) and not empty else 0)
        if size > MAX_FIELD:
            raise InvalidInput(f"/{os.fsdecode(path)} is too large for an initramfs: 4 GiB is the limit of its format")
        self._header(
            path or b".",
            mode=mode,
            number=number,
            link_count=link_count,
            size=size,
            owner=(found.st_uid, found.st_gid),
            mtime=min(int(found.st_mtime), MAX_FIELD),
            device=found.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
        )
        if stat.S_ISREG(mode) and size:
            with open(node.source, "rb") as file:
                left = size
                while left and (data := file.read(min(left, CHUNK))):
                    self._out.write(data)
                    left -= len(data)
            if left:
                raise InvalidInput(f"{os.fsdecode(node.source)} changed while it was read")
        else:
            self._out.write(content)
        self._out.write(bytes(-size % 4))

    def _header(
        self,
        name: bytes,
        *,
        mode: int,
        number: int,
        link_count: int,
        size: int = 0,
        owner: tuple[int, int] = (0, 0),
        mtime: int = 0,
        device: int = 0,
    ) -> None:
        fields = (
            *(number, mode, *owner, link_count, mtime, size),
            *(0, 0, os.major(device), os.minor(device)),
            *(len(name) + 1, 0),
        )
        header = MAGIC + b"".join(b"%08X" % value for value in fields) + name + b"\0"
        self._out.write(header + bytes(-len(header) % 4))


def _walk(node: Node, path: bytes) -> Iterator[tuple[bytes, Node]]:
    """Depth first, names sorted; a folder before what is in it."""
    yield path, node
    for name in sorted(node.children):
        yield from _walk(node.children[name], path + b"/" + name if path else name)
