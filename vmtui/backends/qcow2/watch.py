"""Which disks may have changed, from inotify on the directories that hold them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from vmtui.core.resource import Kind, Ref
from vmtui.host.inotify import Watch

DEPTH = 4  # state / resources / PROFILE / disk / NAME


async def changes(state: Path) -> AsyncIterator[Ref]:
    """Refs of disks below `state` whose files came, went or were written, until the iterator is closed."""
    watch = Watch()
    try:
        for _ in _add(watch, state, 0, state):
            pass  # what is there already is no change
        async for path in watch.changes():
            inside = path.relative_to(state)
            if ref := _ref(inside):
                yield ref
            elif not _on_the_way(inside):
                continue
            for ref in _add(watch, path, len(inside.parts), state):
                yield ref
    finally:
        watch.close()


def _add(watch: Watch, directory: Path, depth: int, state: Path) -> Iterator[Ref]:
    """Watch a directory and those below it that lead to disks; yields the disks that are in it by now."""
    if depth > DEPTH or not directory.is_dir() or directory.is_symlink():
        return
    watch.add(directory)
    if depth == DEPTH:
        if ref := _ref(directory.relative_to(state)):
            yield ref
        return
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return
    for entry in entries:
        if _on_the_way(entry.relative_to(state)):
            yield from _add(watch, entry, depth + 1, state)


def _on_the_way(inside: Path) -> bool:
    parts = inside.parts
    return bool(parts) and parts[0] == "resources" and (len(parts) < 3 or parts[2] == Kind.DISK)


def _ref(inside: Path) -> Ref | None:
    """The disk that a path, relative to the state directory, belongs to."""
    parts = inside.parts
    if len(parts) < DEPTH or parts[0] != "resources" or parts[2] != Kind.DISK:
        return None
    try:
        return Ref.parse("/".join(parts[1:DEPTH]))
    except ValueError:
        return None
