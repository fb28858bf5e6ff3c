"""Console: the screen of one guest under a line that says which one it is, in the words of the stream itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.app import ComposeResult

from vmtui.core.policy import Verb
from vmtui.tui import keys
from vmtui.tui.console import alt_keys
from vmtui.tui.console.session import ConsoleSession, State
from vmtui.tui.console.view import MENU_KEY, ConsoleView
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.text import plain
from vmtui.tui.widgets.bars import TitleBar

if TYPE_CHECKING:
    from vmtui.tui.app import Panel


class Banner(TitleBar):
    """Which resource, by its session's own name for it; what of it; how it is; and the way out, which is never cut."""

    def __init__(self, view: ConsoleView) -> None:
        super().__init__("Console")
        self._view = view

    def segments(self, width: int) -> list[Segment]:
        right = f" {self._right_side()} "
        room = max(0, width - len(right))
        left = next((text for text in self._left_sides() if len(text) <= room), self._left_sides()[-1])
        if len(left) > room:
            left = f"{left[: max(0, room - 1)]}{self.palette.glyphs.more}"
        return [Segment(left.ljust(room)), Segment(right[:width])]

    def _left_sides(self) -> list[str]:
        """From the longest to the shortest."""
        session = self._view.session
        ref, what = plain(str(session.ref), 150), plain(session.what, 60)
        name = f" {session.ref.kind} {plain(session.ref.name, 60)}"
        dot = self.palette.glyphs.dot
        alerts = ", ".join(alert.partition(":")[0] for alert in self._panel.alerts())
        first = f" {alerts} {dot}" if alerts else ""
        if self._view.menu:
            return [f"{first} {ref}  {self._menu()}", f"{first} {self._menu()}"]
        state = self._state()
        return [
            f"{first}{name}  {ref}  {what} {dot} {state}",
            f"{first} {ref}  {what} {dot} {state}",
            f"{first} {ref} {dot} {state}",
        ]

    @property
    def _panel(self) -> Panel:
        from vmtui.tui.app import Panel

        assert isinstance(self.app, Panel)
        return self.app

    def _state(self) -> str:
        session = self._view.session
        if session.state is not State.CONNECTED:
            return f"{session.state.value}, r connects again: {plain(session.ending, 200)}"
        if self._view.top is not None:
            return f"{session.engine.history.end - self._view.top} rows back"
        if self._view.read_only:
            return "read-only"
        return f"takes no input: {plain(session.refusal, 200)}" if session.refusal else session.state.value

    def _menu(self) -> str:
        view = self._view
        items = ["d detach"]
        if view.session.serial:
            items.append("s send stty rows/cols")
        if view.session.state is not State.CONNECTED:
            items.append("r connect again")
        if not view.read_only:
            items.append("x hang up")
        items += [f"k send {self._shown(view.detach_key)}", f"m send {self._shown(view.menu_key or '')}", "esc close"]
        return "  ".join(items)

    def _right_side(self) -> str:
        view = self._view
        menu = f"  {self._shown(view.menu_key)} menu" if view.menu_key and self.size.width >= 60 else ""
        return f"{self._shown(view.detach_key)} detaches{menu}"

    def _shown(self, key: str) -> str:
        *names, base = key.split("+")
        return "+".join([*names, {"right_square_bracket": "]"}.get(base, base)])


class ConsoleScreen(PanelScreen):
    """A view of a session. Leaving it leaves the stream open; all keys but those of the banner are the guest's."""

    NAME = "Console"

    def __init__(self, session: ConsoleSession) -> None:
        super().__init__()
        self.session = session
        alt_keys.teach()

    def compose(self) -> ComposeResult:
        view = ConsoleView(
            self.session,
            detach_key=keys.detach(self.panel.settings),
            menu_key=MENU_KEY,
            read_only=not self.panel.may(Verb.EXEC if self.session.runs_command else Verb.CONSOLE, self.session.ref),
        )
        yield Banner(view)
        yield view

    @property
    def view(self) -> ConsoleView:
        return self.query_one(ConsoleView)

    def say_standing(self) -> None:
        self.query_one(Banner).refresh()

    def on_mount(self) -> None:
        self.view.focus()

    def shown(self) -> None:
        self.view.watch_session()

    def hidden(self) -> None:
        self.view.leave_session()

    def on_console_view_changed(self) -> None:
        self.query_one(Banner).refresh()

    def on_console_view_detached(self) -> None:
        self.panel.action_last_view()

    async def on_console_view_hung_up(self) -> None:
        self.panel.action_last_view()
        await self.panel.sessions.close(self.session)
