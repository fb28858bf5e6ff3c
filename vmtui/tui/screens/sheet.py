"""A page of text above a view: the details of one thing, or what a command says while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from vmtui.tui.screens.modal import Modal
from vmtui.tui.text import plain, safe
from vmtui.tui.widgets.lines import LineView

MOST_LINES = 5000
ROLES = frozenset({"text", "dim", "good", "warn", "bad", "accent"})
Line = tuple[str, str]  # the text, and the role of its style in the palette


class Pages(LineView):
    """Lines of text, wrapped; the oldest go when there are too many."""

    def __init__(self, lines: Sequence[Line]) -> None:
        super().__init__(id="pages")
        self._lines = list(lines)
        self._rows: list[Line] = []
        self._width = 0

    def line_count(self) -> int:
        return len(self._rows)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        text, role = self._rows[y]
        return [Segment(text, getattr(self.palette, role))]

    def shows_cursor(self) -> bool:
        return False

    def add(self, lines: Sequence[Line]) -> None:
        """More at the end; the end stays in sight if it was."""
        at_end = self.scroll_offset.y + self.size.height >= len(self._rows)
        self._lines += lines
        if len(self._lines) > MOST_LINES:
            del self._lines[: len(self._lines) - MOST_LINES]
            self._rows = []
            lines = self._lines
        self._rows += self._wrapped(lines)
        self.reset()
        if at_end:
            self.scroll_end(animate=False, immediate=True)

    def move(self, by: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + by, animate=False, immediate=True)

    def move_to(self, line: int, direction: int = 1) -> None:  # noqa: ARG002
        self.scroll_to(y=line, animate=False, immediate=True)

    def keep_in_sight(self) -> None:
        """There is no cursor."""

    def on_resize(self) -> None:
        if self.size.width != self._width:
            self._width = self.size.width
            self._rows = self._wrapped(self._lines)
            self.reset()

    def _wrapped(self, lines: Sequence[Line]) -> list[Line]:
        width = self.text_width
        rows: list[Line] = []
        for said, role in lines:
            text = plain(said, 100_000)
            parts = [text] if cell_len(text) <= width else chop_cells(text, width)
            rows += [(part, role if role in ROLES else "text") for part in parts]
        return rows


class Sheet(Modal[None]):
    """Escape, q or Enter closes it. `copied` is what y copies."""

    CSS = """
    Sheet { align: center middle; }
    Sheet > Vertical { width: 94%; height: 90%; background: $panel; border: round $primary; padding: 0 1; }
    Sheet #heading { text-style: bold; color: $accent; height: auto; max-height: 3; }
    Sheet #foot { color: $secondary; height: auto; max-height: 2; }
    Sheet Pages { background: $panel; }
    """
    FIRST = "Pages"
    FOOT = "esc closes   y copies   j k move"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "close", "Close", id="sheet-close"),
        Binding("y", "copy", "Copy", id="sheet-copy"),
        Binding("j,down", "move(1)", "Down", show=False, id="sheet-down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="sheet-up"),
        Binding("ctrl+f,pagedown,space", "page(1)", "Page down", show=False, id="sheet-page-down"),
        Binding("ctrl+b,pageup", "page(-1)", "Page up", show=False, id="sheet-page-up"),
        Binding("g,home", "to(0)", "First", show=False, id="sheet-first"),
        Binding("G,end", "to(1000000000)", "Last", show=False, id="sheet-last"),
    ]

    def __init__(self, title: str, lines: Sequence[Line], copied: str = "") -> None:
        super().__init__()
        self._title = title
        self._lines = lines
        self.copied = copied

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(safe(self._title, longest=400), id="heading", markup=False)
            yield Pages(self._lines)
            yield Static(safe(self.FOOT), id="foot", markup=False)

    @property
    def pages(self) -> Pages:
        return self.query_one(Pages)

    def say_foot(self, text: str) -> None:
        for foot in self.query("#foot").results(Static):
            foot.update(safe(text, longest=400))

    def action_close(self) -> None:
        self.dismiss(None)

    def action_copy(self) -> None:
        from vmtui.tui.app import Panel

        if self.copied and isinstance(self.app, Panel):
            self.app.copy(self.copied)

    def action_move(self, by: int) -> None:
        self.pages.move(by)

    def action_page(self, by: int) -> None:
        self.pages.move(by * max(1, self.pages.size.height - 1))

    def action_to(self, line: int) -> None:
        self.pages.move_to(line)
