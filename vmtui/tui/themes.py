"""Colour themes, a TOML file NAME.toml each, from the package and from $XDG_CONFIG_HOME/vmtui/themes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from textual.color import Color, ColorParseError
from textual.theme import BUILTIN_THEMES, Theme

from vmtui.core.errors import FileInvalid
from vmtui.host.paths import config_dir, data_dir
from vmtui.profile import document

DEFAULT = "vmtui-dark"
FORM = "a theme has lines of the form KEY = COLOUR"
COLOURS = (
    "primary", "secondary", "accent", "foreground", "background", "surface", "panel", "success", "warning", "error",
)  # fmt: skip


class ThemeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a theme file may say; colours as #rrggbb, by a CSS name, or all of them as ansi_NAME: the terminal's own."""

    about: str = ""  # whom it is for, in a few words
    dark: bool = True
    ascii: bool = False  # signs and frames from ASCII alone
    primary: str
    secondary: str
    accent: str
    foreground: str
    background: str
    surface: str
    panel: str
    success: str
    warning: str
    error: str


@dataclass
class PanelTheme(Theme):
    """A theme that was read from a file."""

    ascii: bool = False
    about: str = ""


def read(path: Path) -> PanelTheme:
    """Raises FileInvalid with the file, the line and the key."""
    text = document.read(path, FileInvalid)
    table = document.parse(text, path, FileInvalid, form=FORM)

    def refuse(key: str, message: str, hint: str = "") -> FileInvalid:
        return document.located(FileInvalid, path, text, (key,) if key else (), message, hint)

    for key in table:
        if key not in ThemeFile.__struct_fields__:
            known = ", ".join(ThemeFile.__struct_fields__)
            raise refuse(key, "unknown key", document.meant(key, ThemeFile.__struct_fields__) or f"known: {known}")
    try:
        told = msgspec.convert(table, ThemeFile)
    except msgspec.ValidationError as error:
        from vmtui.profile import rules

        message, steps = rules.explain(str(error), table)
        raise refuse(str(steps[0]) if steps else "", message) from None
    ansi = _parse(told.background, "background", refuse).ansi is not None
    for key in COLOURS:
        if (_parse(getattr(told, key), key, refuse).ansi is not None) != ansi:
            raise refuse(key, "either all colours are the terminal's own, ansi_NAME, or none is")
    # What Textual's style sheets take for granted beside the colours.
    more = BUILTIN_THEMES["ansi-dark" if told.dark else "ansi-light"].variables if ansi else {}
    return PanelTheme(name=path.stem, ansi=ansi, variables=dict(more), **msgspec.structs.asdict(told))


def _parse(colour: str, key: str, refuse: Any) -> Color:
    try:
        parsed = Color.parse(colour)
    except ColorParseError:
        raise refuse(key, f"{colour!r} is not a colour", 'write it as in "#5fafd7"') from None
    if parsed.a != 1:
        raise refuse(key, f"{colour!r} is transparent", 'write it as in "#5fafd7"')
    return parsed


def folders() -> tuple[Path, ...]:
    """Where themes are; a later one takes the place of an earlier one of the same name."""
    return data_dir("themes"), config_dir() / "themes"


def available() -> tuple[list[PanelTheme], list[str]]:
    """The themes that could be read, and for each other file what is wrong with it."""
    themes: dict[str, PanelTheme] = {}
    wrong = []
    for folder in folders():
        for path in sorted(folder.glob("*.toml")):
            try:
                themes[path.stem] = read(path)
            except FileInvalid as error:
                wrong.append(f"theme {error}{f' ({error.hint})' if error.hint else ''}")
    return list(themes.values()), wrong


def quickly(*names: str) -> list[PanelTheme]:
    """The first of these themes that can be read, else the default one; for the first frame."""
    for name in (*names, DEFAULT):
        for path in _files(name):
            try:
                return [read(path)]
            except FileInvalid:
                continue
    return []


def _files(name: str) -> Iterator[Path]:
    if name and "/" not in name and "\0" not in name:
        for folder in reversed(folders()):
            path = folder / f"{name}.toml"
            if path.exists():
                yield path


def unknown(name: str, known: Iterable[str]) -> list[str]:
    """What to say of the setting `theme` if there is none of that name."""
    if not name or name in (names := sorted(known)):
        return []
    hint = document.meant(name, names) or f"known: {', '.join(names)}"
    return [f"there is no theme {name!r} ({hint})"]
