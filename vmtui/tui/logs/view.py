"""The widget that shows a merge of logs. It stands on a place, not on a line number, so that it needs no index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.segment import Segment
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from vmtui.tui.logs.draw import Look, Spans, strips
from vmtui.tui.logs.merge import At, Merge, Row
from vmtui.tui.palette import Palette
from vmtui.tui.text import plain

DRAWN_ROWS = 512  # kept, as long as nothing about them changes
WHEEL_LINES = 3
SIDEWAYS = 0.5  # of the width


@dataclass(frozen=True, slots=True)
class Shown:
    """One line of the screen: the `number`th of those that a row takes."""

    row: Row
    number: int
    strip: Strip


class LogView(Widget, can_focus=True):
    """`follow` keeps the end in sight. Moving up ends it, coming to the end takes it up again."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "LogView { height: 1fr; }"

    class Moved(Message):
        """Another part is in sight, or whether the end is followed has changed."""

    def __init__(self) -> None:
        super().__init__(id="log")
        self.merge = Merge([])
        self.follow = True
        self.wrap = False
        self.times = 0
        self.streams = False
        self.names: tuple[str, ...] = ()
        self.spans: Spans | None = None
        self.current: tuple[int, int] | None = None  # the match that stands out
        self.empty: Sequence[str] = ()  # said in place of lines
        self._top: At = ()
        self._skip = 0  # lines of the topmost row that are above the screen
        self._left = 0  # cells that are left of the screen
        self._drawn: dict[tuple[int, int, int], list[Strip]] = {}
        self._look: tuple[object, ...] = ()
        self._frame: list[Shown] | None = None
        self._bar_drawn = range(0)

    @property
    def palette(self) -> Palette:
        palette: Palette = self.app.palette  # type: ignore[attr-defined]
        return palette

    # What it shows

    def show_merge(self, merge: Merge, names: tuple[str, ...]) -> None:
        """Other logs, from their end."""
        self.merge, self.names = merge, names
        self.current = None
        self.follow = True
        self.redraw()

    def redraw(self) -> None:
        """Something about how rows look, or which there are, has changed."""
        self._drawn.clear()
        self.changed()

    def changed(self) -> None:
        """The logs may have changed."""
        self._frame = None
        self.refresh()
        self.post_message(self.Moved())

    def grown(self) -> None:
        """The logs may have changed at their ends: draw only what is in sight and different."""
        before, self._frame = self._frame, None
        now = self.lines()
        same = bool(now) and before is not None and len(before) == len(now)
        if not same or any(old.strip is not new.strip for old, new in zip(before or (), now, strict=True)):
            self.refresh()
        elif self._bar_rows() != self._bar_drawn:
            self.refresh(Region(self.size.width - 1, 0, 1, self.size.height))
        self.post_message(self.Moved())

    def lines(self) -> list[Shown]:
        """What is in sight, from the top."""
        height = self.size.height
        look = (self.palette, self.size)
        if look != self._look:
            self._look = look
            self._drawn.clear()
            self._frame = None
        if self._frame is None:
            if self.follow or len(self._top) != len(self.merge.logs):
                self._top, self._skip = self._last_place(height)
            frame = self._fill(height)
            if len(frame) < height:
                self._top, self._skip = self._last_place(height)
                frame = self._fill(height)
            self._frame = frame
        return self._frame

    def _fill(self, height: int) -> list[Shown]:
        found: list[Shown] = []
        skip = self._skip
        for row in self.merge.forwards(self._top):
            made = self._strips(row)
            first = min(skip, len(made) - 1)
            found += [Shown(row, number, strip) for number, strip in enumerate(made) if number >= first]
            skip = 0
            if len(found) >= height:
                break
        return found[:height]

    def _last_place(self, height: int) -> tuple[At, int]:
        """From where the screen shows the end."""
        return self._back(self.merge.end(), 0, height)

    def _back(self, at: At, skip: int, lines: int) -> tuple[At, int]:
        """So many lines above a place, or as many as there are."""
        if lines <= skip:
            return at, skip - lines
        lines -= skip
        for row in self.merge.backwards(at):
            at = row.before
            count = len(self._strips(row))
            if count >= lines:
                return at, count - lines
            lines -= count
        return at, 0

    def _strips(self, row: Row) -> list[Strip]:
        key = (*row.id, row.after[row.log])
        made = self._drawn.get(key)
        if made is None:
            look = Look(self.palette, self.text_width, self.wrap, self.times, self.streams, self.names, self.spans)
            made = strips(self.merge.logs[row.log].line(row.start), row.log, look, self._left)
            while len(self._drawn) >= DRAWN_ROWS:
                del self._drawn[next(iter(self._drawn))]
            self._drawn[key] = made
        return made

    @property
    def text_width(self) -> int:
        """Without the mark of the current match at the left and the bar at the right."""
        return max(1, self.size.width - (2 if self.spans else 1))

    def at_end(self) -> bool:
        """Whether the last line is in sight."""
        lines = self.lines()
        if not lines:
            return True
        last = lines[-1]
        return (
            last.number == len(self._strips(last.row)) - 1 and next(self.merge.forwards(last.row.after), None) is None
        )

    @property
    def top(self) -> At:
        """The place of the topmost row."""
        self.lines()
        return self._top

    # Moving

    def move(self, by: int) -> None:
        """By so many lines of the screen."""
        self.lines()
        if by < 0:
            before = (self._top, self._skip)
            self._top, self._skip = self._back(self._top, self._skip, -by)
            self.follow = self.follow and before == (self._top, self._skip)
        elif by > 0 and not self.follow:
            self._forward(by)
        self.changed()
        if by > 0 and not self.follow and self.at_end():
            self.follow = True
            self.changed()

    def _forward(self, by: int) -> None:
        skip = self._skip + by
        for row in self.merge.forwards(self._top):
            count = len(self._strips(row))
            self._top = row.before
            if skip < count:
                self._skip = skip
                return
            skip -= count
        self._top, self._skip = self._last_place(self.size.height)

    def page(self, screens: float) -> None:
        self.move(int(screens * max(1, self.size.height - 1)))

    def to_start(self) -> None:
        self.go(self.merge.start())

    def to_end(self) -> None:
        self.follow = True
        self.changed()

    def go(self, at: At, *, above: int = 0) -> None:
        """Put a place at the top, so many lines below it."""
        self.follow = False
        self._top, self._skip = self._back(at, 0, above)
        self.changed()

    def show_row(self, log: int, start: int) -> None:
        """Bring a row into sight, as the current match."""
        self.current = (log, start)
        if any(shown.row.id == self.current for shown in self.lines()):
            self.changed()
            return
        self.go(self.merge.at_row(log, start), above=self.size.height // 3)

    def sideways(self, by: float) -> None:
        """By so many halves of the width; only where lines are not wrapped."""
        if self.wrap:
            return
        widest = max((shown.strip.cell_length for shown in self.lines()), default=0)
        step = max(1, int(self.text_width * SIDEWAYS))
        limit = max(self._left, widest - self.text_width)
        self._left = max(0, min(limit, self._left + int(by * step)))
        self.redraw()

    def set_wrap(self, wrap: bool) -> None:
        self.wrap = wrap
        self._left = self._skip = 0
        self.redraw()

    def on_resize(self) -> None:
        self._frame = None

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.move(WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.move(-WHEEL_LINES)

    def on_click(self, event: events.Click) -> None:
        """In the bar: to that part."""
        if event.x == self.size.width - 1 and self.merge.logs:
            share = event.y / max(1, self.size.height - 1)
            if share >= 1:
                self.to_end()
            else:
                self.go(self.merge.at_share(share))

    # Drawing

    def render_line(self, y: int) -> Strip:
        width, lines, base = self.size.width, self.lines(), self.rich_style
        if not lines:
            said = plain(self.empty[y - 1], 400) if 0 < y <= len(self.empty) else ""
            return Strip([Segment(f" {said}", self.palette.dim)]).adjust_cell_length(width).apply_style(base)
        if y >= len(lines):
            return Strip.blank(width, base)
        shown = lines[y]
        strip = shown.strip.crop(self._left, self._left + self.text_width).adjust_cell_length(self.text_width)
        if self.spans:
            is_current = shown.row.id == self.current
            mark = self.palette.glyphs.right if is_current and shown.number == 0 else " "
            strip = Strip.join([Strip([Segment(mark, self.palette.accent)]), strip])
            if is_current:
                strip = strip.apply_style(self.palette.cursor)
        return Strip.join([strip, Strip([self._bar(y)])]).apply_style(base)

    def _bar(self, y: int) -> Segment:
        """Where in all of it the screen is."""
        self._bar_drawn = rows = self._bar_rows()
        glyphs = self.palette.glyphs
        return Segment((glyphs.bar[0] if y in rows else glyphs.vertical) if rows else " ", self.palette.dim)

    def _bar_rows(self) -> range:
        """The rows of the bar that stand for what is in sight; none if that is everything."""
        lines, height = self.lines(), self.size.height
        begin, end = self.merge.share(lines[0].row.before), self.merge.share(lines[-1].row.after)
        if begin <= 0 and end >= 1:
            return range(0)
        first = min(height - 1, int(begin * height))
        return range(first, max(first, min(height - 1, int(end * height))) + 1)
