"""What a value is typed into: one line, several lines, or a choice. All of them post `Typed`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from textual import events, work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.suggester import Suggester
from textual.widget import Widget
from textual.widgets import Input, TextArea

from vmtui.profile import toml_text
from vmtui.tui.forms.fields import Field, Path, Shape
from vmtui.tui.palette import Palette
from vmtui.tui.screens.dialogs import Choose
from vmtui.tui.text import plain
from vmtui.tui.widgets.textline import TextLine

LINES_SHOWN = 6


class Typed(Message):
    """A field has another text."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__()
        self.path = path
        self.text = text


def clean(text: str) -> str:
    """What was typed or pasted without what a terminal would obey."""
    return "\n".join(plain(line, 1 << 20) for line in text.split("\n"))


def hint_of(field: Field) -> str:
    """What stands in an empty field: the value that it then has, or what it takes."""
    if field.default in (None, "", [], {}):
        return "" if not field.required else f"needed: {field.says}"
    return field.default if isinstance(field.default, str) else toml_text.value(field.default, multiline=False)


class Words(Suggester):
    """Goes on with the last word between commas, with one that is offered and not there yet."""

    def __init__(self, offers: Sequence[str], *, several: bool) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._offers = offers
        self._several = several

    async def get_suggestion(self, value: str) -> str | None:
        before, comma, word = value.rpartition(",") if self._several else ("", "", value)
        start = word.lstrip()
        there = {each.strip() for each in before.split(",")}
        found = next((o for o in self._offers if o.startswith(start) and o != start and o not in there), None)
        return None if found is None or not start else f"{before}{comma}{word[: len(word) - len(start)]}{found}"


class LineEditor(TextLine):
    """One line; what is offered is suggested while it is typed."""

    def __init__(self, field: Field, text: str, offers: Sequence[str]) -> None:
        several = field.shape is Shape.WORDS
        suggester = Words(offers, several=several) if offers else None
        super().__init__(text, hint_of(field), suggester=suggester, select_on_focus=False, compact=True)
        self._path = field.path

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(Typed(self._path, clean(event.value)))

    def _on_paste(self, event: events.Paste) -> None:
        event.text = clean(" ".join(event.text.splitlines()))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.screen.focus_next()


class LinesEditor(TextArea):
    """Several lines, as high as they are many; up and down leave it at its ends."""

    DEFAULT_CSS = """
    LinesEditor { height: 1; padding: 0; scrollbar-size: 1 1; }
    LinesEditor:focus { background-tint: $foreground 5%; }
    """

    def __init__(self, field: Field, text: str) -> None:
        super().__init__(
            text, compact=True, tab_behavior="focus", highlight_cursor_line=False, placeholder=plain(hint_of(field))
        )
        self._path = field.path

    def on_mount(self) -> None:
        self._fit()

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        self._fit()
        self.post_message(Typed(self._path, clean(self.text)))

    def _on_paste(self, event: events.Paste) -> None:  # type: ignore[override]
        event.text = clean("\n".join(event.text.splitlines()))

    def _fit(self) -> None:
        self.styles.height = min(LINES_SHOWN, max(1, self.document.line_count))

    def action_cursor_up(self, select: bool = False) -> None:
        if self.cursor_at_first_line and not select:
            self.screen.focus_previous()
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        if self.cursor_at_last_line and not select:
            self.screen.focus_next()
        else:
            super().action_cursor_down(select)


class ChoiceEditor(Widget, can_focus=True):
    """One of several, or none: then the default holds. A letter goes to the next choice that begins with it."""

    DEFAULT_CSS = """
    ChoiceEditor { height: 1; width: 1fr; background: $surface; }
    ChoiceEditor:focus { background-tint: $foreground 15%; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space", "next(1)", "Next", id="choice-next"),
        Binding("left", "next(-1)", "Previous", id="choice-previous", show=False),
        Binding("enter", "choose", "Choose", id="choice-choose"),
        Binding("backspace,delete", "unset", "Default", id="choice-unset"),
    ]

    def __init__(self, field: Field, text: str) -> None:
        super().__init__()
        self._field = field
        self.value = text

    def render_line(self, y: int) -> Strip:  # noqa: ARG002
        palette: Palette = self.app.palette  # type: ignore[attr-defined]
        hint = hint_of(self._field)
        text = plain(self.value, 200) or (f"{plain(hint, 200)} (default)" if hint else "not set")
        style = palette.text if self.value else palette.dim
        return Strip([Segment(text, style)]).adjust_cell_length(self.size.width).apply_style(self.rich_style)

    def _set(self, text: str) -> None:
        if text != self.value:
            self.value = text
            self.refresh()
            self.post_message(Typed(self._field.path, text))

    def action_next(self, by: int) -> None:
        every = ("", *self._field.choices)
        self._set(every[(every.index(self.value) + by) % len(every)] if self.value in every else "")

    def action_unset(self) -> None:
        self._set("")

    @work(group="ask", exclusive=True, exit_on_error=False)
    async def action_choose(self) -> None:
        choices = self._field.choices
        at = choices.index(self.value) if self.value in choices else 0
        chosen = await self.app.push_screen_wait(Choose(self._field.label, choices, at))
        if chosen is not None:
            self._set(choices[chosen])

    async def _on_key(self, event: events.Key) -> None:
        """Letters are not the panel's while a field has the focus."""
        if not event.is_printable or event.key == "space" or event.character is None:
            return
        event.stop()
        event.prevent_default()
        choices = self._field.choices
        after = choices.index(self.value) + 1 if self.value in choices else 0
        turned = [*choices[after:], *choices[:after]]
        self._set(next((choice for choice in turned if choice.startswith(event.character)), self.value))


Editor = LineEditor | LinesEditor | ChoiceEditor
Offers = Callable[[Field], Sequence[str]]


def editor_of(field: Field, text: str, offers: Sequence[str]) -> Editor:
    """The one that fits its shape."""
    if field.shape is Shape.CHOICE:
        return ChoiceEditor(field, text)
    if field.shape in (Shape.LINES, Shape.PAIRS):
        return LinesEditor(field, text)
    return LineEditor(field, text, offers)
