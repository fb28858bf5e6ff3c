"""The base of every list: one line of the screen for each entry, only visible ones are ever drawn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from vmtui.tui.palette import Palette


class LineView(ScrollView, can_focus=True, inherit_bindings=False):  # its arrows would scroll, not move
    """A subclass says how many lines there are and draws one; `cursor` is the selected line.

    After the number of lines changed call `reset`, after the content of some changed `changed`.
    """

    DEFAULT_CSS = """
    LineView { height: 1fr; scrollbar-size: 1 1; overflow-x: hidden; }
    """

    class CursorMoved(Message):
        """Another line is selected, or the selected one was replaced."""

        def __init__(self, view: LineView, line: int) -> None:
            super().__init__()
            self.view = view
            self.line = line

        @property
        def control(self) -> LineView:
            return self.view

    class Chosen(CursorMoved):
        """Enter on a line, or a click on the one that was selected."""

    cursor = 0
    _base = Style.null()  # under what is drawn
    follow = False  # keep the last line selected and in sight as lines come

    @abstractmethod
    def line_count(self) -> int:
        """How many lines there are."""

    @abstractmethod
    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:
        """Line `y`, 0 ≤ y < line_count(); cropped and padded to `width` here."""

    def line_width(self) -> int:
        """The widest line in cells, for horizontal scrolling; 0: lines end where the view ends."""
        return 0

    def selectable(self, y: int) -> bool:  # noqa: ARG002
        """Whether the cursor may stand on a line."""
        return True

    @property
    def text_width(self) -> int:
        """The cells of a line that no scrollbar covers, whether there is one now or not."""
        return max(1, self.size.width - self.styles.scrollbar_size_vertical)

    @property
    def palette(self) -> Palette:
        palette: Palette = self.app.palette  # type: ignore[attr-defined]
        return palette

    # Drawing

    def render_lines(self, crop: Region) -> list[Strip]:
        self._base = self.rich_style  # one for all lines: it costs as much as a line
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        scroll_x, scroll_y = self.scroll_offset
        line = scroll_y + y
        base = self._base
        if not 0 <= line < self.line_count():
            return Strip.blank(width, base)
        selected = line == self.cursor
        full = max(width, self.line_width())
        strip = Strip(self.draw(line, full, selected)).adjust_cell_length(full, Style.null())
        if selected and self.shows_cursor():
            strip = strip.apply_style(self.palette.cursor if self.has_focus else self.palette.cursor_idle)
        return strip.crop(scroll_x, scroll_x + width).apply_style(base)

    def shows_cursor(self) -> bool:
        return True

    def changed(self, lines: Iterable[int]) -> None:
        """Draw these lines again, if they are visible."""
        top = self.scroll_offset.y
        height = self.size.height
        regions = [Region(0, line - top, self.size.width, 1) for line in lines if top <= line < top + height]
        if len(regions) > height // 2:
            self.refresh()
        elif regions:
            self.refresh(*regions)

    def in_sight(self) -> range:
        """The lines that are on the screen."""
        top = self.scroll_offset.y
        return range(top, min(self.line_count(), top + self.size.height))

    def reset(self, cursor: int | None = None) -> None:
        """The lines are others now. `cursor` selects one, None keeps the line number."""
        count = self.line_count()
        size = Size(max(1, self.line_width()), count)
        if size != self.virtual_size:
            self.virtual_size = size
        self.refresh()
        last = max(0, count - 1)
        self.cursor = min(self.cursor if cursor is None else cursor, last)
        if self.follow:
            self.cursor = last
        if count:
            self._settle(1)
        self.keep_in_sight()
        self.post_message(self.CursorMoved(self, self.cursor))

    # Moving

    def move(self, by: int) -> None:
        """By so many lines, stopping at the ends."""
        self.move_to(self.cursor + by, 1 if by >= 0 else -1)

    def page(self, by: int) -> None:
        """By so many screens."""
        self.move(by * max(1, self.size.height - 1))

    def move_to(self, line: int, direction: int = 1) -> None:
        """To a line, counted from 0; a negative one or one beyond the end means that end."""
        count = self.line_count()
        if not count:
            return
        before = self.cursor
        self.cursor = max(0, min(line, count - 1))
        self._settle(direction)
        if self.cursor != before:
            self.changed((before, self.cursor))
            self.post_message(self.CursorMoved(self, self.cursor))
        self.keep_in_sight()

    def _settle(self, direction: int) -> None:
        """Off lines that cannot be selected, onwards first."""
        count = self.line_count()
        for step in (direction, -direction):
            line = self.cursor
            while 0 <= line < count and not self.selectable(line):
                line += step
            if 0 <= line < count:
                self.cursor = line
                return

    def keep_in_sight(self) -> None:
        """Scroll as little as shows the cursor."""
        height = self.size.height
        if height <= 0:
            return
        top = self.scroll_offset.y
        first = self.cursor if self.cursor and self.selectable(self.cursor - 1) else max(0, self.cursor - 1)
        wanted = first if first < top else self.cursor - height + 1 if self.cursor >= top + height else top
        if wanted != top:
            self.scroll_to(y=wanted, animate=False, immediate=True)

    def choose(self) -> None:
        if self.line_count():
            self.post_message(self.Chosen(self, self.cursor))

    def on_resize(self) -> None:
        self.keep_in_sight()

    def on_focus(self) -> None:
        self.changed((self.cursor,))

    def on_blur(self) -> None:
        self.changed((self.cursor,))

    def on_click(self, event: events.Click) -> None:
        line = self.scroll_offset.y + event.y
        if not 0 <= line < self.line_count() or not self.selectable(line):
            return
        if line == self.cursor:
            self.choose()
        else:
            self.move_to(line)
