"""The keys that are in force where it was opened, searchable, with the ids by which the settings give them others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.actions import parse
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Input, Static

from vmtui.core.query import KEYS
from vmtui.profile import settings
from vmtui.tui.rights import FILES, Rights, need_of
from vmtui.tui.screens.modal import Modal
from vmtui.tui.text import plain, safe
from vmtui.tui.widgets.lines import LineView
from vmtui.tui.widgets.textline import TextLine

MOST_FOR_KEYS = 18  # cells
SHORT = 16  # lines of a terminal that has room for nothing but the list
SYNTAX = {
    **{f"{key}:": about for key, about in KEYS.items()},
    "!term  -term": "without it; ! before everything: all that does not match",
    "-f letters": "letters in this order, the best first",
    "a b  a|b  ^a$": "both; a regular expression, small letters take both cases",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the help. `id` is "" for what cannot be given another key; `possible` is whether it does something."""

    keys: str
    about: str
    id: str = ""
    possible: bool = True

    def fits(self, words: Iterable[str]) -> bool:
        said = f"{self.keys} {self.about} {self.id}".lower()
        return all(word in said for word in words)


def groups(screen: Screen[object]) -> list[tuple[str, list[Entry]]]:
    """What the keys do on a screen: its own, those of the whole panel, and the language of the filter."""
    active = screen.active_bindings
    rights: Rights = screen.app.rights  # type: ignore[attr-defined]
    here: dict[tuple[str, str], tuple[Binding, list[str], bool]] = {}
    everywhere: dict[tuple[str, str], tuple[Binding, list[str], bool]] = {}
    for node, bindings in screen._modal_binding_chain:
        for key, binding in bindings:
            if not binding.description or binding.system or not rights.has(need_of(node, *parse(binding.action)[1:])):
                continue
            known = active.get(key)
            mine = known is not None and known.node is node and known.binding.action == binding.action
            if known is not None and known.node is not node:
                continue  # a nearer binding has the key; one of the same node is only possible at another time
            group = everywhere if isinstance(node, App) or binding.id is None else here
            of = (binding.id or "", binding.action)
            before = group.get(of, (binding, [], False))
            shown = screen.app.get_key_display(binding)
            names = before[1] if shown in before[1] else [*before[1], shown]
            group[of] = (binding, names, before[2] or (mine and known is not None and known.enabled))
    made = [
        (
            title,
            [Entry(", ".join(keys), binding.description, binding.id or "", on) for binding, keys, on in of.values()],
        )
        for title, of in (("on this screen", here), ("everywhere", everywhere))
    ]
    return [*made, ("after /", [Entry(key, about) for key, about in SYNTAX.items()])]


class HelpList(LineView):
    """Headings and lines; what cannot be done now is dim and says so."""

    def __init__(self, found: Sequence[tuple[str, Sequence[Entry]]]) -> None:
        super().__init__(id="help")
        self._groups = found
        self._lines: list[Entry | str] = []
        self.search("")

    def search(self, text: str) -> int:
        """Keep the lines that have all words; how many there are."""
        words = text.lower().split()
        self._lines = []
        for title, entries in self._groups:
            fit = [entry for entry in entries if entry.fits(words)]
            self._lines += [title, *fit] if fit else []
        return sum(isinstance(line, Entry) for line in self._lines)

    def line_count(self) -> int:
        return len(self._lines)

    def selectable(self, y: int) -> bool:
        return isinstance(self._lines[y], Entry)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        line, palette = self._lines[y], self.palette
        if isinstance(line, str):
            return [Segment(f" {line}", palette.accent)]
        keys = min(MOST_FOR_KEYS, max(8, width // 4))
        shown = [
            Segment(" " + set_cell_size(plain(line.keys), keys) + " ", palette.key if line.possible else palette.dim),
            Segment(
                plain(line.about) + ("" if line.possible else "  (not now)"),
                palette.text if line.possible else palette.dim,
            ),
        ]
        used = sum(cell_len(segment.text) for segment in shown)
        room = width - used - cell_len(line.id) - 2
        if line.id and room > 0:
            shown.append(Segment(" " * room + line.id + "  ", palette.dim))
        return shown


class HelpScreen(Modal[None]):
    """Letters search, arrows move, escape closes."""

    FIRST = "Input"
    CSS = """
    HelpScreen { align: center middle; }
    HelpScreen > Vertical { width: 94%; max-width: 110; height: 90%; background: $panel; border: round $primary; }
    HelpScreen #heading { text-style: bold; color: $accent; height: 1; padding: 0 1; }
    HelpScreen Input { background: $surface; height: 1; }
    HelpScreen HelpList { background: $panel; }
    HelpScreen #foot { color: $secondary; height: auto; max-height: 2; padding: 0 1; }
    HelpScreen.short #heading, HelpScreen.short #foot { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1", "close", "Close", id="help-close"),
        Binding("down", "move(1)", "Down", show=False, id="help-down", priority=True),
        Binding("up", "move(-1)", "Up", show=False, id="help-up", priority=True),
        Binding("pagedown", "page(1)", "Page down", show=False, id="help-page-down", priority=True),
        Binding("pageup", "page(-1)", "Page up", show=False, id="help-page-up", priority=True),
    ]

    def compose(self) -> ComposeResult:
        below = self.app.screen_stack[-2] if len(self.app.screen_stack) > 1 else self.app.screen
        rights: Rights = self.app.rights  # type: ignore[attr-defined]
        with Vertical():
            yield Static("Keys", id="heading", markup=False)
            yield TextLine(placeholder="search", compact=True)
            yield HelpList(groups(below))
            if rights.has(FILES):
                said = f"other keys: [keys] in {settings.path()}, by the names at the right"
                yield Static(safe(said), id="foot", markup=False)

    def on_mount(self) -> None:
        for entries in self.query(HelpList):
            entries.reset()

    def on_resize(self) -> None:
        self.set_class(self.app.size.height < SHORT, "short")

    @property
    def entries(self) -> HelpList:
        return self.query_one(HelpList)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        found = self.entries.search(event.value)
        self.entries.reset(0)
        self.query_one("#heading", Static).update("Keys" if found else "Keys: nothing found")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(None)

    def action_close(self) -> None:
        self.dismiss(None)

    def action_move(self, by: int) -> None:
        self.entries.move(by)

    def action_page(self, by: int) -> None:
        self.entries.page(by)
