"""Everything that was said in passing: a toast goes, this list stays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmtui.tui.saying import Notice
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.screens.sheet import Sheet
from vmtui.tui.widgets.lines import LineView

NOTHING = "nothing has been said yet: 1 goes back to the list"


class NoticeList(LineView):
    """The newest last; it follows while that one is selected."""

    follow = True

    def __init__(self, notices: Sequence[Notice]) -> None:
        super().__init__(id="notices")
        self._notices = notices

    def line_count(self) -> int:
        return len(self._notices) or 1

    def selectable(self, y: int) -> bool:
        return y < len(self._notices)

    def shows_cursor(self) -> bool:
        return bool(self._notices)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        if not self._notices:
            return [Segment(f" {NOTHING}", self.palette.dim)]
        notice = self._notices[y]
        style = {"error": self.palette.bad, "warning": self.palette.warn}.get(notice.severity, self.palette.text)
        return [Segment(f" {clock(notice)}  ", self.palette.dim), Segment(f"{notice.severity:<12}{notice.text}", style)]

    def move_to(self, line: int, direction: int = 1) -> None:
        super().move_to(line, direction)
        self.follow = self.cursor >= len(self._notices) - 1

    def current(self) -> Notice | None:
        return self._notices[self.cursor] if self.cursor < len(self._notices) else None


class NoticesScreen(PanelScreen):
    NAME = "Messages"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "read", "Read", id="notices-read"),
        Binding("y", "copy", "Copy", id="notices-copy"),
        Binding("j,down", "move(1)", "Down", show=False, id="notices-down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="notices-up"),
        Binding("g,home", "to(0)", "First", show=False, id="notices-first"),
        Binding("G,end", "to(1000000000)", "Last", show=False, id="notices-last"),
        Binding("ctrl+f,pagedown", "page(1)", "Page down", show=False, id="notices-page-down"),
        Binding("ctrl+b,pageup", "page(-1)", "Page up", show=False, id="notices-page-up"),
    ]

    def body(self) -> ComposeResult:
        yield NoticeList(self.panel.notices)

    @property
    def listing(self) -> NoticeList:
        return self.query_one(NoticeList)

    def shown(self) -> None:
        self.panel.clear_notifications()
        self.panel.noted = self._noted
        self.listing.focus()
        self._noted()

    def hidden(self) -> None:
        self.panel.noted = None

    def _noted(self) -> None:
        self.listing.reset()
        self.say_title(str(len(self.panel.notices)))
        self.refresh_bindings()

    def offers(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Whether the footer shows a binding."""
        return action not in ("read", "copy") or self.listing.current() is not None

    def on_line_view_chosen(self) -> None:
        self.action_read()

    def action_read(self) -> None:
        """The whole of it, which may be longer than a line."""
        notice = self.listing.current()
        if notice is not None:
            self.app.push_screen(Sheet(f"{notice.severity}, {clock(notice)}", [(notice.text, "text")], notice.text))

    def action_move(self, by: int) -> None:
        self.listing.move(by)

    def action_to(self, line: int) -> None:
        self.listing.move_to(line)

    def action_page(self, by: int) -> None:
        self.listing.page(by)

    def action_copy(self) -> None:
        notice = self.listing.current()
        if notice is not None:
            self.panel.copy(notice.text)


def clock(notice: Notice) -> str:
    """When it was said."""
    return time.strftime("%H:%M:%S", time.localtime(notice.at))
