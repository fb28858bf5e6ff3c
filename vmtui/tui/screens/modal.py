"""What every question and every page above a view has in common."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual.await_complete import AwaitComplete
from textual.screen import ModalScreen
from textual.widget import Widget

R = TypeVar("R")


class Modal(ModalScreen[R]):
    """Answered once. `FIRST` selects what has the focus at first."""

    FIRST: ClassVar[str] = ""

    def on_mount(self) -> None:
        for widget in self.query(self.FIRST).results(Widget) if self.FIRST else ():  # none when the panel is just left
            self.set_focus(widget)  # at once, before the next key
            return

    def dismiss(self, result: R | None = None) -> AwaitComplete:
        """A second answer, given before the first took effect, would close what is beneath."""
        return super().dismiss(result) if self.is_active else AwaitComplete()
