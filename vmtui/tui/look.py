"""How the panel looks: the theme that the settings or the terminal ask for, its palette, and signs of ASCII alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.app import App
from textual.binding import Binding
from textual.filter import LineFilter, NoColor

from vmtui.tui import themes
from vmtui.tui.palette import Palette, palette_of
from vmtui.tui.terminal import TerminalChoice

if TYPE_CHECKING:
    from vmtui.profile.settings import Settings


class Look(App[None]):
    """An application that looks as its user wants. `look_problems` are what is wrong with the settings."""

    def wear(self, choice: TerminalChoice, settings: Settings | None) -> None:
        """What fits the terminal, and the settings; None: they are read from their file when they are needed."""
        self._choice = choice
        if not choice.colours and not self.no_color:  # Textual asks NO_COLOR alone
            self.no_color = True
            self._filters.append(NoColor())
        self._settings = settings
        self.look_problems: list[str] = []
        self._palettes: dict[tuple[str, bool], Palette] = {}
        self._ascii = False
        self._ascii_filter: LineFilter | None = None

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            from vmtui.profile import settings

            self._settings, problems = settings.read(settings.path())
            self.look_problems += [f"{fault}{f' ({fault.hint})' if fault.hint else ''}" for fault in problems]
        return self._settings

    @property
    def ascii(self) -> bool:
        """Whether signs and frames are to be of ASCII alone."""
        return self._ascii or getattr(self.current_theme, "ascii", False)

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = super().get_line_filters()
        if not self.ascii:
            return filters
        from vmtui.tui.ascii import AsciiFilter

        if self._ascii_filter is None:
            self._ascii_filter = AsciiFilter()
        return [*filters, self._ascii_filter]

    def get_key_display(self, binding: Binding) -> str:
        shown = super().get_key_display(binding)
        if shown.isascii() or not self.ascii:
            return shown
        from vmtui.tui.ascii import KEYS

        return shown.translate(KEYS)

    @property
    def palette(self) -> Palette:
        key = (self.theme, self.ascii)
        if key not in self._palettes:
            self._palettes[key] = palette_of(self.current_theme, ascii_only=key[1], colours=not self.no_color)
        return self._palettes[key]

    def dress(self) -> None:
        """The theme that the settings or the terminal ask for."""
        choice = self._choice
        self._ascii = choice.ascii if self.settings.ascii is None else self.settings.ascii
        for theme in themes.quickly(self.settings.theme, choice.theme):
            self.register_theme(theme)
        for name in (self.settings.theme, choice.theme, themes.DEFAULT):
            if name and name in self.available_themes:
                self.theme = name
                break

    def action_theme(self) -> None:
        from vmtui.tui.screens.theme import ThemeScreen

        self.push_screen(ThemeScreen())
