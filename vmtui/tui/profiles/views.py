"""The two lists of the view: the profiles, and the lines about the one that is open."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.segment import Segment
from textual.binding import Binding, BindingType
from textual.strip import Strip

from vmtui.core.resource import Ref
from vmtui.engine.workspace import Workspace
from vmtui.tui.profiles import known
from vmtui.tui.profiles.known import Known, Origin
from vmtui.tui.profiles.lines import Line, ref_of, segments
from vmtui.tui.profiles.progress import Row
from vmtui.tui.text import plain
from vmtui.tui.widgets.lines import LineView


def moves(screen: str) -> list[BindingType]:
    """The keys that move in a list, with ids of `screen`."""
    return [
        Binding("j,down", "move(1)", "Down", show=False, id=f"{screen}-cursor-down"),
        Binding("k,up", "move(-1)", "Up", show=False, id=f"{screen}-cursor-up"),
        Binding("g,home", "to(0)", "First", show=False, id=f"{screen}-first"),
        Binding("G,end", "to(1000000000)", "Last", show=False, id=f"{screen}-last"),
        Binding("ctrl+f,pagedown", "page(1)", "Page down", show=False, id=f"{screen}-page-down"),
        Binding("ctrl+b,pageup", "page(-1)", "Page up", show=False, id=f"{screen}-page-up"),
    ]


class ProfileList(LineView):
    """The profiles that can be picked; `is_open` is the one whose plan is shown."""

    def __init__(self) -> None:
        super().__init__(id="profiles")
        self.entries: list[Known] = []
        self.is_open: Known | None = None

    def line_count(self) -> int:
        return len(self.entries)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        entry = self.entries[y]
        mark = self.palette.glyphs.right if entry == self.is_open else " "
        style = self.palette.good if entry.origin is Origin.APPLIED else self.palette.text
        room = max(1, width - len(entry.origin) - 4)
        name = plain(entry.name, 60)
        name = name if len(name) <= room else f"{name[: room - 1]}{self.palette.glyphs.more}"
        return [
            Segment(f"{mark} ", self.palette.accent),
            Segment(name.ljust(room), style),
            Segment(f" {entry.origin}", self.palette.dim),
        ]

    def read(self, workspace: Workspace) -> None:
        """Look again for which there are; the cursor and what is open stay."""
        opened = known.Opened(workspace.registry.context.paths.state)
        self.show(known.known(workspace.profiles(), workspace.profile_paths(), opened.paths()))

    def show(self, entries: list[Known]) -> None:
        """Others; the cursor stays on the same profile."""
        before = self.current()
        self.entries = entries
        self.is_open = next((entry for entry in entries if _same(entry, self.is_open)), self.is_open)
        self.reset(next((y for y, entry in enumerate(entries) if _same(entry, before)), 0))

    def find(self, path: Path) -> Known:
        """The one whose file this is, the cursor on it; added if there is none."""
        path = Path(os.path.abspath(path))
        found = next((entry for entry in self.entries if entry.path == path), None)
        if found is None:
            found = Known(path.stem, path, Origin.OPENED)
            self.show([found, *self.entries])
        self.move_to(self.entries.index(found))
        return found

    def current(self) -> Known | None:
        return self.entries[self.cursor] if self.cursor < len(self.entries) else None


def _same(one: Known, other: Known | None) -> bool:
    return other is not None and (one.name, one.path) == (other.name, other.path)


class Body(LineView):
    """Lines of any sort, wrapped; a row of progress is drawn as it is at the moment, on one line."""

    def __init__(self) -> None:
        super().__init__(id="body")
        self._lines: list[Line] = []
        self._places: list[tuple[int, int]] = []  # of what is drawn: the line, and which part of it
        self._width = 0

    def line_count(self) -> int:
        return len(self._places)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        line, part = self._places[y]
        drawn = Strip(segments(self._lines[line], self.palette, time.monotonic()))
        return list(drawn.crop(part * self._width, (part + 1) * self._width)) if part or self._width else list(drawn)

    def show(self, lines: Sequence[Line], line: int = 0) -> None:
        """Others, with the cursor on `line`."""
        self._lines = list(lines)
        self._wrap()
        self.reset(next((y for y, place in enumerate(self._places) if place[0] == line), 0))

    def redraw(self, line: int) -> None:
        """It is another one now: a row of progress."""
        if self._lines and len(self._places) == len(self._lines):
            self.changed((line,))
        else:
            self.changed(y for y in self.in_sight() if self._places[y][0] == line)

    def tick(self) -> None:
        """Draw what runs again."""
        lines = ((y, self._lines[self._places[y][0]]) for y in self.in_sight())
        self.changed(y for y, line in lines if isinstance(line, Row) and line.state == "running")

    def ref(self) -> Ref | None:
        """The resource that the selected line is about."""
        return ref_of(self._lines[self._places[self.cursor][0]]) if self.cursor < len(self._places) else None

    def on_resize(self) -> None:
        if self.size.width != self._width and self._lines:
            line = self._places[self.cursor][0] if self.cursor < len(self._places) else 0
            self.show(self._lines, line)

    def _wrap(self) -> None:
        self._width = self.size.width
        self._places = [(at, part) for at, line in enumerate(self._lines) for part in range(self._height(line))]

    def _height(self, line: Line) -> int:
        if isinstance(line, Row) or not self._width:
            return 1
        cells = sum(segment.cell_length for segment in segments(line, self.palette, 0.0))
        return max(1, -(-cells // self._width))


class Preview(Body):
    """The same to look at only."""

    can_focus = False

    def shows_cursor(self) -> bool:
        return False
