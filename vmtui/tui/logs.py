"""The log of one resource, followed."""

from __future__ import annotations

from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Log, Static

from vmtui.core.errors import Fault
from vmtui.core.resource import Ref
from vmtui.engine.workspace import Workspace
from vmtui.tui.text import safe

HISTORY_LINES = 1000


class LogScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "app.pop_screen", "Back", id="logs-back")]

    def __init__(self, workspace: Workspace, ref: Ref) -> None:
        super().__init__()
        self._workspace = workspace
        self._ref = ref

    def compose(self) -> ComposeResult:
        yield Static(safe(f"log of {self._ref}"), id="title", markup=False)
        yield Log(max_lines=10_000)
        yield Footer()

    def on_mount(self) -> None:
        self._follow()

    @work(exclusive=True, exit_on_error=False)
    async def _follow(self) -> None:
        log = self.query_one(Log)
        try:
            async for line in self._workspace.logs(self._ref, tail=HISTORY_LINES, follow=True):
                log.write_line(str(safe(line.text)))
        except Fault as fault:
            log.write_line(str(safe(str(fault))))
