"""Everything that was said in passing: a toast goes, this list stays."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from vmtui.tui.app import Notice
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.widgets.lines import LineView


class NoticeList(LineView):
    follow = True

    def __init__(self, notices: Sequence[Notice]) -> None:
        super().__init__(id="notices")
        self._notices = notices

    def line_count(self) -> int:
        return len(self._notices)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        notice = self._notices[y]
        style = {"error": self.palette.bad, "warning": self.palette.warn}.get(notice.severity, self.palette.text)
        clock = time.strftime("%H:%M:%S", time.localtime(notice.at))
        return [Segment(f" {clock}  ", self.palette.dim), Segment(f"{notice.severity:<12}{notice.text}", style)]

    def text_of(self, y: int) -> str:
        return self._notices[y].text


class NoticesScreen(PanelScreen):
    NAME = "Messages"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "Down", show=False, id="notices-down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="notices-up"),
        Binding("y", "copy", "Copy", id="notices-copy"),
    ]

    def body(self) -> ComposeResult:
        yield NoticeList(self.panel.notices)

    def shown(self) -> None:
        view = self.query_one(NoticeList)
        view.reset()
        view.focus()
        self.say_title("nothing has been said yet" if not view.line_count() else f"{view.line_count()}")

    def action_move(self, by: int) -> None:
        self.query_one(NoticeList).move(by)

    def action_copy(self) -> None:
        view = self.query_one(NoticeList)
        if view.line_count():
            self.panel.copy(view.text_of(view.cursor))
