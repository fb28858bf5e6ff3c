"""The questions of the view: something long to look through before an answer, and the path of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.suggester import Suggester
from textual.widgets import Button, Input, Static

from vmtui.tui.profiles.known import completions
from vmtui.tui.profiles.lines import Said
from vmtui.tui.screens.dialogs import Ask, Dialog
from vmtui.tui.screens.sheet import Pages
from vmtui.tui.text import safe
from vmtui.tui.widgets.textline import TextLine


class Review(Dialog[str | None]):
    """Something to look through, then one of `verbs` (name and label, y is the first); None when cancelled."""

    DEFAULT_CSS = """
    Review > Vertical { width: 94%; max-width: 130; max-height: 90%; }
    Review Pages { height: auto; max-height: 24; min-height: 1; background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "first", "Yes", show=False, id="review-yes"),
        Binding("n", "cancel", "No", show=False, id="review-no"),
        Binding("j,down", "scroll(1)", "Down", show=False, id="review-down"),
        Binding("k,up", "scroll(-1)", "Up", show=False, id="review-up"),
        Binding("ctrl+f,pagedown,space", "scroll(20)", "Page down", show=False, id="review-page-down"),
        Binding("ctrl+b,pageup", "scroll(-20)", "Page up", show=False, id="review-page-up"),
    ]

    def __init__(self, title: str, lines: Sequence[Said], verbs: Sequence[tuple[str, str]]) -> None:
        super().__init__(title)
        self._said = lines
        self._verbs = verbs

    def answers(self) -> ComposeResult:
        pages = Pages(self._said)
        pages.can_focus = False
        yield pages
        with Horizontal():
            yield Button("Cancel", id="cancel", compact=True)
            for key, label in self._verbs:
                yield Button(safe(label, longest=60), id=f"go-{key}", variant="warning", compact=True)

    def on_mount(self) -> None:
        self.query_one("#cancel").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss((event.button.id or "").removeprefix("go-") if event.button.id != "cancel" else None)

    def action_first(self) -> None:
        self.dismiss(self._verbs[0][0])

    def action_scroll(self, by: int) -> None:
        self.query_one(Pages).move(by)


class Files(Suggester):
    """The first file that goes on from what is typed."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        return next((path for path in completions(value) if path != value), None) if value else None


class AskPath(Ask):
    """The path of a file; tab completes it. What else could come is listed below."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "complete", "Complete", id="path-complete", priority=True)]
    DEFAULT_CSS = "AskPath #choices { height: auto; max-height: 6; color: $text-muted; }"

    def __init__(self, title: str, value: str = "", check: Callable[[str], str] | None = None) -> None:
        super().__init__(title, value, check)

    def answers(self) -> ComposeResult:
        yield TextLine(self._value, suggester=Files(), compact=True, select_on_focus=False)
        yield Static("", id="wrong", markup=False)
        yield Static("", id="choices", markup=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._problem(event.value)
        found = [
            path.rpartition("/")[2] or f"{path.rstrip('/').rpartition('/')[2]}/" for path in completions(event.value)
        ]
        self.query_one("#choices", Static).update(safe("  ".join(found[:40]), longest=600))

    def action_complete(self) -> None:
        """As far as all that fits is the same."""
        field = self.query_one(Input)
        found = completions(field.value)
        if found:
            first, last = min(found), max(found)
            same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
            field.value = found[0] if len(found) == 1 else first[:same]
            field.cursor_position = len(field.value)


def existing(text: str) -> str:
    """What is wrong with the path of a profile to open."""
    path = Path(text).expanduser()
    return "" if path.is_file() else "this is no file"
