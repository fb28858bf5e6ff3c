"""What every view has: a title line, a footer made from the bindings in force, and an end to its costs when hidden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.screen import Screen
from textual.worker import Worker

from vmtui.tui.rights import Need
from vmtui.tui.widgets.bars import FooterBar, TitleBar

if TYPE_CHECKING:
    from vmtui.engine.workspace import Workspace
    from vmtui.tui.app import Panel


class PanelScreen(Screen[None]):
    """A view of the panel. A subclass sets NAME, says in NEEDS what its actions need, and has its widgets in `body`."""

    NAME: ClassVar[str] = ""
    NEEDS: ClassVar[Mapping[str, Need]] = {}
    ALLOW_SELECT = False  # the terminal's own does; Textual's is begun in widgets that have just been closed, too
    FILTERS: ClassVar[bool] = False  # whether "/" means something here

    def compose(self) -> ComposeResult:
        yield TitleBar(self.NAME)
        yield from self.body()
        yield FooterBar()

    def body(self) -> ComposeResult:
        """What is between the title and the footer."""
        yield from ()

    @property
    def panel(self) -> Panel:
        from vmtui.tui.app import Panel

        assert isinstance(self.app, Panel)
        return self.app

    @property
    def workspace(self) -> Workspace:
        return self.panel.workspace

    def say_title(self, text: str) -> None:
        """What the title line says beside the screen's name; outside text is cleaned."""
        self.query_one(TitleBar).say(text)

    def say_standing(self) -> None:
        """What holds for the whole panel."""
        self.query_one(TitleBar).say(right=self.panel.standing())

    # For subclasses

    def shown(self) -> None:
        """The screen can be seen from now on: start what keeps it current. May be called again after a dialog."""

    def hidden(self) -> None:
        """It cannot be seen: stop all that costs anything."""

    def back(self) -> bool:
        """Escape. Whether the screen used it (closed something of its own)."""
        return False

    def unfinished(self) -> str:
        """What would be lost or broken off by leaving the panel now; "" for nothing."""
        return ""

    async def break_off(self) -> None:
        """Leave the panel although there is something unfinished: bring it to an end first."""

    def filter_text(self) -> str:
        """What is being filtered by, to begin with after "/"."""
        return ""

    def filter_changed(self, text: str) -> None:
        """What is typed after "/", as it is typed. Raises Fault for what cannot be read: it is shown beside it."""

    def filter_done(self) -> None:
        """Enter after "/": the focus is the screen's again."""

    # Textual's events

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        self.panel.worker_changed(event)

    def on_screen_resume(self) -> None:
        self.say_standing()
        self.shown()

    def on_screen_suspend(self) -> None:
        self.hidden()
