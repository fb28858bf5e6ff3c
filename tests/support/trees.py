"""Whole file trees as values, so that they can be compared."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class Facts(NamedTuple):
    """What makes a path what it is. `links` are the other names of the same file in the same tree."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    content: str
    device: int
    links: tuple[str, ...]
    xattrs: tuple[tuple[str, bytes], ...]


def snapshot(root: Path, *, times: bool = True) -> dict[str, Facts]:
    """Every path below `root`, and "." for itself. Follows no symbolic link."""
    found: dict[str, os.stat_result] = {".": os.lstat(root)}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = os.lstat(path)
    names: dict[int, list[str]] = {}
    for path, status in found.items():
        if not stat.S_ISDIR(status.st_mode):
            names.setdefault(status.st_ino, []).append(path)
    return {
        path: _facts(root / path, status, names.get(status.st_ino, []), times=times) for path, status in found.items()
    }


def _facts(path: Path, status: os.stat_result, names: Sequence[str], *, times: bool) -> Facts:
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        content = os.readlink(path)
    elif stat.S_ISREG(mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        content = ""
    return Facts(
        kind=stat.filemode(mode)[0],
        mode=stat.S_IMODE(mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=int(status.st_mtime) if times else 0,
        content=content,
        device=status.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
        links=tuple(sorted(names)) if len(names) > 1 else (),
        xattrs=tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
            if not name.startswith("trusted.overlay.")
        ),
    )


@contextlib.contextmanager
def overlay(layers: Sequence[str], at: Path) -> Iterator[Path]:
    """Layers, lowest first, mounted read-only at `at`."""
    empty = at.with_name(f"{at.name}.empty")
    empty.mkdir()
    at.mkdir()
    # Overlayfs wants two at least.
    lower = ":".join([*reversed(layers), str(empty)])
    subprocess.run(["mount", "-t", "overlay", "vmtui-test", "-o", f"ro,lowerdir={lower}", at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)
        at.rmdir()
        empty.rmdir()
