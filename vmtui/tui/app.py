"""The application: opens the workspace, sets the theme, shows the home screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App

from vmtui.engine.workspace import Workspace
from vmtui.host.paths import Paths
from vmtui.tui.resources import ResourceScreen
from vmtui.tui.themes import DEFAULT, available


class Panel(App[None]):
    TITLE = "vmtui"
    ENABLE_COMMAND_PALETTE = False
    CSS: ClassVar[str] = """
    #title { background: $primary; color: $background; padding: 0 1; text-style: bold; }
    #message { height: auto; max-height: 3; padding: 0 1; color: $accent; }
    DataTable, Log { height: 1fr; }
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self._workspace = workspace

    def on_mount(self) -> None:
        themes, wrong = available()
        for theme in themes:
            self.register_theme(theme)
        if DEFAULT in self.available_themes:
            self.theme = DEFAULT
        for problem in wrong:
            self.notify(problem, severity="warning", markup=False)
        self.push_screen(ResourceScreen(self._workspace))


async def panel(paths: Paths) -> None:
    async with await Workspace.open(paths) as workspace:
        await Panel(workspace).run_async()


def run() -> None:
    """Open the panel on this terminal until it is left. Raises Fault."""
    import asyncio

    asyncio.run(panel(Paths.from_environment()))
