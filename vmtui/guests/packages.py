"""Debian packages that were unpacked into the cache: found again without asking apt."""

from __future__ import annotations

from pathlib import Path

import msgspec

from vmtui.core.backend import Progress, Report
from vmtui.core.errors import Fault, OperationFailed
from vmtui.host import apt
from vmtui.host.files import write_atomic


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What a package name stood for when it was first asked for. Remove the file, and it is asked again."""

    package: str
    version: str


async def unpacked(name: str, place: Path, report: Report, *, real: str = "") -> Path:
    """The tree of package `name` under `place`; of the dependency that matches `real`, if it has one.

    Raises Fault (unknown package, no network, no space).
    """
    note = place / f"{name}.json"
    resolved = _read(note)
    if resolved is None or not _tree(place, resolved).is_dir():
        report(Progress(message=f"looking up package {name}"))
        await apt.candidate(name)
        package = (await apt.depends_on(name, real) if real else None) or name
        resolved = Resolved(package=package, version=await apt.candidate(package))
        tree = _tree(place, resolved)
        if not tree.is_dir():
            report(Progress(message=f"downloading {package} {resolved.version}"))
            try:
                await apt.unpack(package, tree)
            except OSError as error:
                if not tree.is_dir():  # unless another process was faster
                    raise OperationFailed(f"cannot unpack {package} into {tree}: {error.strerror}") from None
        write_atomic(note, msgspec.json.encode(resolved))
    return _tree(place, resolved)


def remembered(name: str, place: Path) -> Path | None:
    """The tree, if it is there already."""
    resolved = _read(place / f"{name}.json")
    return _tree(place, resolved) if resolved is not None and _tree(place, resolved).is_dir() else None


def _tree(place: Path, resolved: Resolved) -> Path:
    return place / f"{resolved.package}_{resolved.version.replace(':', '%3a')}"  # as apt names its files


def _read(note: Path) -> Resolved | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=Resolved)
    except (OSError, msgspec.MsgspecError):
        return None


async def busybox(cache: Path, report: Report) -> Path:
    """Debian's static busybox, which the guest's init runs on. Raises Fault."""
    tree = await unpacked("busybox-static", cache / "busybox", report)
    for path in (tree / "usr/bin/busybox", tree / "bin/busybox"):
        if path.is_file():
            return path
    raise Fault(f"package busybox-static has no busybox in {tree}", hint=f"rm -r {tree}")
