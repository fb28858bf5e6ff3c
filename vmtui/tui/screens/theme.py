"""The themes to choose from: each is shown while it is selected, one is kept and written to the settings, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.timer import Timer
from textual.widgets import Static

from vmtui.core.errors import SettingsInvalid
from vmtui.core.lifecycle import Phase
from vmtui.profile import settings
from vmtui.tui.palette import Palette
from vmtui.tui.rights import FILES
from vmtui.tui.screens.modal import Modal
from vmtui.tui.text import plain, safe
from vmtui.tui.themes import PanelTheme
from vmtui.tui.widgets.lines import LineView

if TYPE_CHECKING:
    from vmtui.tui.app import Panel

PREVIEW_S = 0.08  # a theme takes a while to put on: not while a key is held down
SAMPLE = (Phase.RUNNING, Phase.PAUSED, Phase.STOPPED, Phase.EXITED, Phase.BROKEN)


class ThemeList(LineView):
    def __init__(self, themes: Sequence[PanelTheme]) -> None:
        super().__init__(id="themes")
        self.themes = themes

    def line_count(self) -> int:
        return len(self.themes)

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        theme = self.themes[y]
        widest = max(len(known.name) for known in self.themes)
        return [
            Segment(f" {plain(theme.name, 60):<{min(widest, 30)}}  ", self.palette.text),
            Segment(plain(theme.about, 200), self.palette.dim),
        ]


class Sample(LineView, can_focus=False):
    """How states look: a sign and a word each."""

    def __init__(self) -> None:
        super().__init__(id="sample")

    def line_count(self) -> int:
        return 1

    def shows_cursor(self) -> bool:
        return False

    def draw(self, y: int, width: int, selected: bool) -> Sequence[Segment]:  # noqa: ARG002
        palette: Palette = self.palette
        states = [Segment(f" {palette.sign(phase)} {phase} ", palette.of_phase(phase)) for phase in SAMPLE]
        return [*states, Segment(f" {palette.glyphs.spark} ", palette.accent), Segment(" found ", palette.match)]


class ThemeScreen(Modal[None]):
    """Enter keeps the selected theme, escape goes back to the one before."""

    FIRST = "ThemeList"
    CSS = """
    ThemeScreen { align: right middle; }
    ThemeScreen > Vertical { width: 80; max-width: 94%; height: auto; max-height: 90%; background: $panel;
        border: round $primary; }
    ThemeScreen #heading { text-style: bold; color: $accent; height: 1; padding: 0 1; }
    ThemeScreen ThemeList { background: $panel; height: auto; }
    ThemeScreen Sample { background: $background; height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "keep", "Keep", id="theme-keep"),
        Binding("escape,q", "leave", "Leave", id="theme-leave"),
        Binding("j,down", "move(1)", "Down", show=False, id="theme-down"),
        Binding("k,up", "move(-1)", "Up", show=False, id="theme-up"),
        Binding("g,home", "to(0)", "First", show=False, id="theme-first"),
        Binding("G,end", "to(10000)", "Last", show=False, id="theme-last"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._before = ""
        self._soon: Timer | None = None

    @property
    def panel(self) -> Panel:
        from vmtui.tui.app import Panel

        assert isinstance(self.app, Panel)
        return self.app

    def compose(self) -> ComposeResult:
        self._before = self.app.theme
        known = [theme for theme in self.app.available_themes.values() if isinstance(theme, PanelTheme)]
        with Vertical():
            yield Static(safe("Themes: enter keeps one, escape none"), id="heading", markup=False)
            yield ThemeList(sorted(known, key=lambda theme: theme.name))
            yield Sample()

    @property
    def themes(self) -> ThemeList:
        return self.query_one(ThemeList)

    def on_mount(self) -> None:
        for view in self.query(ThemeList):
            names = [theme.name for theme in view.themes]
            view.styles.max_height = max(1, self.app.size.height - 8)
            view.styles.height = len(names)
            view.reset(names.index(self._before) if self._before in names else 0)

    def on_line_view_cursor_moved(self) -> None:
        if self._soon is not None:
            self._soon.stop()
        self._soon = self.set_timer(PREVIEW_S, self._preview)

    def on_line_view_chosen(self) -> None:
        self.action_keep()

    def _preview(self) -> None:
        self._soon = None
        if self.themes.themes:
            self.app.theme = self.themes.themes[self.themes.cursor].name

    def action_move(self, by: int) -> None:
        self.themes.move(by)

    def action_to(self, line: int) -> None:
        self.themes.move_to(line)

    def action_leave(self) -> None:
        self._end()
        self.app.theme = self._before
        self.dismiss(None)

    def action_keep(self) -> None:
        self._end()
        self._preview()
        path, line = settings.path(), f'theme = "{self.app.theme}"'
        if not self.panel.rights.has(FILES):  # the settings are somebody else's
            self.panel.say(f"{self.app.theme} is worn until you leave")
            self.dismiss(None)
            return
        try:
            settings.write_setting(path, ("theme",), self.app.theme)
        except SettingsInvalid as fault:
            self.panel.say(f"{fault}; the line to put there: {line}", "warning")
        else:
            self.panel.say(f"{line} is in {path}")
        self.dismiss(None)

    def _end(self) -> None:
        if self._soon is not None:
            self._soon.stop()
            self._soon = None
