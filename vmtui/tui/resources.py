"""Home: one list of all kinds over all profiles, and the verbs that fit the selected row."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from vmtui.core.errors import Fault
from vmtui.core.lifecycle import Action, Phase, allowed
from vmtui.core.resource import Ref, Status
from vmtui.engine.workspace import Workspace
from vmtui.tui.logs import LogScreen
from vmtui.tui.text import safe

COLUMNS = {
    "state": 13,
    "kind": 9,
    "name": 18,
    "profile": 10,
    "backend": 7,
    "address": 15,
    "endpoint": 24,
    "problem": 60,
}
GLYPHS = {
    Phase.RUNNING: "●",
    Phase.AVAILABLE: "●",
    Phase.PAUSED: "‖",
    Phase.STOPPED: "○",
    Phase.EXITED: "✓",
    Phase.BROKEN: "✗",
    Phase.ABSENT: "·",
}
REFRESH_S = 2.0
EMPTY = "nothing is here yet: vmtui --profile profiles/dev.toml brings the demo up"


def row(status: Status) -> tuple[str, ...]:
    """The cells of one resource, still as plain text."""
    code = f" {status.exit.code}" if status.exit and status.phase is Phase.EXITED else ""
    glyph = "✗" if code not in ("", " 0") else GLYPHS[status.phase]
    return (
        f"{glyph} {status.phase}{code}",
        status.ref.kind,
        status.ref.name,
        status.ref.profile,
        status.backend,
        ", ".join(address.address for address in status.addresses),
        ", ".join(endpoint.url for endpoint in status.endpoints),
        status.problems[0].message if status.problems else "",
    )


class ResourceScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "act('start')", "Start", id="start"),
        Binding("x", "act('stop')", "Stop", id="stop"),
        Binding("r", "act('restart')", "Restart", id="restart"),
        Binding("p", "act('pause')", "Pause", id="pause"),
        Binding("u", "act('resume')", "Resume", id="resume"),
        Binding("l", "logs", "Logs", id="logs"),
        Binding("j", "move(1)", "Down", id="down", show=False),
        Binding("k", "move(-1)", "Up", id="up", show=False),
        Binding("q", "app.quit", "Quit", id="quit"),
    ]

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self._workspace = workspace
        self._shown: dict[Ref, Status] = {}
        self._changed = asyncio.Event()

    def compose(self) -> ComposeResult:
        yield Static("vmtui", id="title", markup=False)
        yield DataTable[str](cursor_type="row", zebra_stripes=True)
        yield Static("", id="message", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        for name, width in COLUMNS.items():
            table.add_column(name, width=width)
        self._watch()
        self._keep_current()

    @work(exit_on_error=False, group="watch")
    async def _watch(self) -> None:
        async for _ in self._workspace.watch():
            self._changed.set()

    @work(exit_on_error=False, group="scan")
    async def _keep_current(self) -> None:
        while True:
            try:
                self._show(await self._workspace.scan())
            except Fault as fault:
                self._say(str(fault))
            self._changed.clear()
            try:
                async with asyncio.timeout(REFRESH_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _show(self, statuses: tuple[Status, ...]) -> None:
        now = {status.ref: status for status in sorted(statuses, key=lambda status: status.ref)}
        if now == self._shown and now:
            return
        table = self.query_one(DataTable)
        selected = self._selected()
        table.clear()
        for ref, status in now.items():
            table.add_row(*(safe(cell, longest=120) for cell in row(status)), key=str(ref))
        self._shown = now
        if selected in now:
            table.move_cursor(row=list(now).index(selected))
        self._say(EMPTY if not now else "")
        self.refresh_bindings()

    def _selected(self) -> Ref | None:
        refs = list(self._shown)
        line = self.query_one(DataTable).cursor_row
        return refs[line] if 0 <= line < len(refs) else None

    def _say(self, text: str) -> None:
        self.query_one("#message", Static).update(safe(text))

    def on_data_table_row_highlighted(self) -> None:
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The footer shows only what the phase and the backend permit now."""
        if action not in ("act", "logs"):
            return True
        ref = self._selected()
        if ref is None:
            return False
        status = self._shown[ref]
        verb = Action.LOGS if action == "logs" else Action(str(parameters[0]))
        return verb in allowed(status.phase, self._workspace.roles(ref.kind, status.backend))

    def action_move(self, by: int) -> None:
        table = self.query_one(DataTable)
        table.move_cursor(row=table.cursor_row + by)

    def action_logs(self) -> None:
        if (ref := self._selected()) is not None:
            self.app.push_screen(LogScreen(self._workspace, ref))

    def action_act(self, verb: str) -> None:
        if (ref := self._selected()) is not None:
            self._act(ref, Action(verb))

    @work(exit_on_error=False, group="act")
    async def _act(self, ref: Ref, action: Action) -> None:
        self._say(f"{action} {ref} …")
        try:
            await self._workspace.act(ref, action, emit=lambda _: None)
            self._say(f"{action} {ref}: done")
        except Fault as fault:
            self._say(f"{fault} {f'({fault.hint})' if fault.hint else ''}")
        self._changed.set()
