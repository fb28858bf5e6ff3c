"""Questions and errors above a view. All text in them may come from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.geometry import Size
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from vmtui.core.errors import Fault
from vmtui.tui.screens.modal import Modal
from vmtui.tui.text import safe, safe_lines
from vmtui.tui.widgets.textline import TextLine

R = TypeVar("R")
MAX_LINES = 20_000
TINY = Size(44, 12)  # smaller than this: no frame


class Dialog(Modal[R]):
    """A framed box with a title; escape gives `nothing`."""

    DEFAULT_CSS = """
    Dialog { align: center middle; }
    Dialog > Vertical { width: 80%; max-width: 100; min-width: 36; height: auto; max-height: 90%;
        background: $panel; border: round $primary; padding: 0 1; }
    Dialog #heading { text-style: bold; color: $accent; height: auto; }
    Dialog VerticalScroll { height: auto; scrollbar-size: 1 1; }
    Dialog #lines { height: auto; }
    Dialog #wrong { color: $error; height: auto; }
    Dialog Horizontal { height: auto; align-horizontal: right; }
    Dialog Button { margin-left: 1; }
    Dialog Input { height: auto; }
    Dialog.tiny > Vertical { width: 100%; min-width: 0; max-height: 100%; border: none; padding: 0; }
    Dialog.tiny Button { min-width: 6; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="dialog-cancel"),
        Binding("left,up", "app.focus_previous", "Previous", show=False, id="dialog-previous"),
        Binding("right,down", "app.focus_next", "Next", show=False, id="dialog-next"),
        Binding("pagedown", "scroll(1)", "Page down", show=False, id="dialog-page-down"),
        Binding("pageup", "scroll(-1)", "Page up", show=False, id="dialog-page-up"),
        Binding("ctrl+home", "scroll(-1000)", "First", show=False, id="dialog-first"),
        Binding("ctrl+end", "scroll(1000)", "Last", show=False, id="dialog-last"),
    ]

    def __init__(self, title: str, lines: Sequence[str] = ()) -> None:
        super().__init__()
        self._title = title
        self._lines = list(lines)

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(safe(self._title, longest=400), id="heading", markup=False)
            if self._lines:
                shown = self._lines[:MAX_LINES]
                if len(self._lines) > MAX_LINES:
                    shown.append(f"and {len(self._lines) - MAX_LINES} more")
                with VerticalScroll(can_focus=False):
                    yield Static(safe_lines("\n".join(shown), longest=400), id="lines", markup=False)
            yield from self.answers()

    def answers(self) -> ComposeResult:
        yield from ()

    def on_screen_resume(self) -> None:
        self.app.clear_notifications()  # they would lie over the question; the list of messages has them

    def on_resize(self) -> None:
        self.set_class(self.size.width < TINY.width or self.size.height < TINY.height, "tiny")
        self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        """The lines have what the title and the answers leave, which are always in sight."""
        for lines in self.query(VerticalScroll):
            box = self.query_one(Vertical)
            most = self.size.height if self.has_class("tiny") else self.size.height * 9 // 10 - 2
            lines.styles.max_height = max(1, most - sum(w.outer_size.height for w in box.children if w is not lines))

    def action_scroll(self, pages: int) -> None:
        for lines in self.query(VerticalScroll):
            lines.scroll_to(y=lines.scroll_y + pages * max(1, lines.size.height), animate=False, immediate=True)

    def action_cancel(self) -> None:
        self.dismiss(None)


class Confirm(Dialog[bool]):
    """Whether to do `verb`. The focus is on Cancel."""

    FIRST = "#cancel"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "Yes", id="dialog-yes"),
        Binding("n", "cancel", "No", id="dialog-no"),
    ]

    def __init__(self, title: str, lines: Sequence[str], verb: str) -> None:
        super().__init__(title, lines)
        self._verb = verb

    def answers(self) -> ComposeResult:
        with Horizontal():
            yield Button("Cancel", id="cancel", compact=True)
            yield Button(safe(self._verb, longest=60), id="go", variant="warning", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "go")

    def action_confirm(self) -> None:
        self.dismiss(True)

    def action_cancel(self) -> None:
        self.dismiss(False)


class Ask(Dialog[str | None]):
    """One line of text; `check` gives what is wrong with it, or "". None when cancelled."""

    FIRST = "Input"

    def __init__(
        self,
        title: str,
        value: str = "",
        check: Callable[[str], str] | None = None,
        *,
        lines: Sequence[str] = (),
        placeholder: str = "",
    ) -> None:
        super().__init__(title, lines)
        self._value = value
        self._check = check
        self._placeholder = placeholder

    def answers(self) -> ComposeResult:
        yield TextLine(self._value, placeholder=self._placeholder, compact=True)
        yield Static("", id="wrong", markup=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._problem(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if not self._problem(event.value):
            self.dismiss(event.value)

    def _problem(self, value: str) -> str:
        wrong = self._check(value) if self._check else ""
        for said in self.query("#wrong").results(Static):
            said.update(safe(wrong))
        self.call_after_refresh(self._fit)
        return wrong


class TypeName(Ask):
    """For what cannot be taken back: the name has to be typed. The answer is the name, or None."""

    def __init__(self, title: str, lines: Sequence[str], name: str) -> None:
        def check(value: str) -> str:
            return "" if value == name else f"type {name} to go on, escape to leave it"

        super().__init__(title, check=check, lines=lines, placeholder=name)

    def on_mount(self) -> None:
        self._problem("")


class Choose(Dialog[int | None]):
    """One of several, by its number from 0; None when cancelled."""

    FIRST = "OptionList"
    DEFAULT_CSS = "Choose OptionList { height: auto; max-height: 20; background: $panel; border: none; }"

    def __init__(self, title: str, options: Sequence[str], selected: int = 0) -> None:
        super().__init__(title)
        self._options = options
        self._selected = selected

    def answers(self) -> ComposeResult:
        yield OptionList(*(Option(safe(text, longest=200)) for text in self._options), markup=False, compact=True)

    def on_mount(self) -> None:
        for options in self.query(OptionList):
            options.highlighted = self._selected

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_index)


class ErrorDialog(Dialog[None]):
    """An error: what was done, the cause, the tail of what the tool said, and the next step."""

    FIRST = "#close"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("c", "copy", "Copy hint", id="dialog-copy")]

    def __init__(self, error: BaseException, doing: str = "") -> None:
        hint = error.hint if isinstance(error, Fault) else ""
        details = error.details if isinstance(error, Fault) else ""
        cause = str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}"
        lines = [cause, *(["", *details.splitlines()[-30:]] if details else [])]
        super().__init__(f"{doing}: failed" if doing else "this failed", lines)
        self.hint = hint

    def answers(self) -> ComposeResult:
        if self.hint:
            yield Static(safe(f"next: {self.hint}", longest=400), id="hint", markup=False)
        with Horizontal():
            if self.hint:
                yield Button("Copy (c)", id="copy", compact=True)
            yield Button("Close", id="close", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "copy":
            self.action_copy()
        else:
            self.dismiss(None)

    def action_copy(self) -> None:
        copy(self, self.hint)


def copy(dialog: Modal[R], text: str) -> None:
    """To the clipboard, which is said."""
    from vmtui.tui.app import Panel

    if text and isinstance(dialog.app, Panel):
        dialog.app.copy(text)
