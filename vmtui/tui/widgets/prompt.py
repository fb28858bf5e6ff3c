"""A line to type in, above the footer: what is typed after "/" or ":"."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.suggester import Suggester
from textual.widgets import Input, Static

from vmtui.core.errors import Fault
from vmtui.tui.screens.base import PanelScreen
from vmtui.tui.text import safe
from vmtui.tui.widgets.textline import TextLine


class Line(TextLine):
    """What is typed after Enter, faster than the prompt closes, goes to where the focus is then."""

    ended = False

    async def _on_key(self, event: events.Key) -> None:
        if not self.ended and event.key != "enter":
            return  # Textual calls the base's handler by itself
        event.stop()
        event.prevent_default()
        if not self.ended:  # here, and not by a binding: that would come after what is typed next
            self.ended = True
            prompt = self.parent
            assert isinstance(prompt, Prompt)
            prompt.accepted(self.value)
            return
        self.app.post_message(events.Key(event.key, event.character))

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return not self.ended and super().check_consume_key(key, character)


class Prompt(Horizontal):
    """Enter calls `accept`, escape `leave`; then it is gone. One at a time on a screen."""

    DEFAULT_CSS = """
    Prompt { height: 1; background: $surface; }
    Prompt Static { width: auto; color: $accent; }
    Prompt Input { width: 1fr; background: $surface; }
    Prompt #said { color: $error; max-width: 60%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel", id="prompt-cancel"),
        Binding("tab", "complete", "Complete", id="prompt-complete", show=False),
        Binding("shift+tab", "stay", id="prompt-stay", show=False),  # else it would leave the line open behind it
    ]

    def __init__(self, screen: PanelScreen, sign: str, value: str, suggester: Suggester | None = None) -> None:
        super().__init__(id="prompt")
        self._screen = screen
        self._sign = sign
        self._value = value
        self._suggester = suggester

    def compose(self) -> ComposeResult:
        yield Static(self._sign, markup=False)
        yield Line(self._value, compact=True, suggester=self._suggester, select_on_focus=False)
        yield Static("", id="said", markup=False)

    async def open(self) -> None:
        """Above the footer; it has the focus when this returns."""
        if self._screen.query(Prompt):
            return
        await self._screen.mount(self, before="#footer")
        self._screen.set_focus(self.query_one(Input))

    @property
    def text(self) -> str:
        return self.query_one(Input).value

    def complain(self, text: str) -> None:
        self.query_one("#said", Static).update(safe(text, longest=200))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.typed(event.value)

    def typed(self, text: str) -> None:
        """Each time the text changed."""

    def accepted(self, text: str) -> None:
        """Enter."""

    def left(self) -> None:
        """Escape."""

    def action_complete(self) -> None:
        """Take what is suggested."""
        line = self.query_one(Input)
        line.cursor_position = len(line.value)
        line.action_cursor_right()

    def action_stay(self) -> None:
        """The focus does not go round."""

    def action_leave(self) -> None:
        self.left()
        self.close()

    def close(self) -> None:
        self.remove()
        self._screen.filter_done()


class FilterPrompt(Prompt):
    """Filters while it is typed; escape goes back to how it was."""

    def __init__(self, screen: PanelScreen) -> None:
        self._before = screen.filter_text()
        super().__init__(screen, "/", self._before)

    def typed(self, text: str) -> None:
        self._read(text)

    def _read(self, text: str) -> bool:
        try:
            self._screen.filter_changed(text)
        except Fault as fault:
            self.complain(f"{fault}{f': {fault.hint}' if fault.hint else ''}")
            return False
        self.complain("")
        return True

    def accepted(self, text: str) -> None:
        if self._read(text):
            self.close()
        else:
            self.query_one(Line).ended = False  # it stays, with what is wrong

    def left(self) -> None:
        self._screen.filter_changed(self._before)
