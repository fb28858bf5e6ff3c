"""Asks where a log is to be saved, says what will be written, and writes it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmtui.core.resource import Ref
from vmtui.tui.columns import size
from vmtui.tui.logs import save
from vmtui.tui.logs.files import FileLog
from vmtui.tui.logs.merge import Merge
from vmtui.tui.logs.stream import StreamLog
from vmtui.tui.rights import FILES
from vmtui.tui.screens.dialogs import Ask, Confirm

if TYPE_CHECKING:
    from vmtui.tui.app import Panel

TOLD_EVERY_BYTES = 256 << 20


async def save_as(
    panel: Panel, merge: Merge, names: Sequence[str], refs: Sequence[Ref], *, files: FileLog | None, matching: str
) -> None:
    """Save `files` as a whole, or, without it, the rows of `merge`. Raises Denied. Only in a worker."""
    panel.rights.require(FILES)
    lines = [_what(merge, matching, whole=files is not None)]
    if names:
        lines.append("before each line the name of its resource, and a tab")
    value = str(Path.cwd() / f"{refs[0].name if len(refs) == 1 else 'vmtui'}.log")
    answer = await panel.ask(Ask("save the log as", value, _check, lines=lines))
    if answer is None:
        return
    path = Path(answer).expanduser()
    there = path.exists()
    if there:
        told = [f"{path} has {size(path.stat().st_size)}; it will be replaced"]
        if not await panel.ask(Confirm("there is such a file", told, "Replace it")):
            return
    progress = _Progress(panel, path)
    chunks = save.whole(files) if files is not None else save.raw(merge, names)
    try:
        written = await save.save(path, chunks, overwrite=there, told=progress.told)
    except OSError as error:
        panel.fail(error, f"saving the log as {path}")
        return
    panel.say(f"saved {size(written)} as {path}")


def _what(merge: Merge, matching: str, *, whole: bool) -> str:
    if any(isinstance(log, StreamLog) for log in merge.logs):
        return "the text of the lines that are held here, of a log that is no file the last ones only"
    if whole:
        return "all bytes as they were written, with times, streams and escape sequences"
    which = f"the lines that match /{matching} and are found by now" if matching else "all lines by time"
    return f"{which}; their bytes as they were written, with times, streams and escape sequences"


def _check(value: str) -> str:
    if not value.strip():
        return "a path is needed"
    try:
        path = Path(value).expanduser()
        if path.is_dir():
            return "this is a directory"
        if not path.parent.is_dir():
            return f"there is no directory {path.parent}"
        if path.exists() and not path.is_file():
            return "this is no file that can be replaced"
        return "" if os.access(path.parent, os.W_OK) else f"{path.parent} cannot be written to"
    except (OSError, ValueError, RuntimeError) as error:
        return str(error)


class _Progress:
    def __init__(self, panel: Panel, path: Path) -> None:
        self._panel = panel
        self._path = path
        self._next = TOLD_EVERY_BYTES

    def told(self, written: int) -> None:
        if written >= self._next:
            self._next = written + TOLD_EVERY_BYTES
            self._panel.say(f"saving {self._path}: {size(written)} so far")
