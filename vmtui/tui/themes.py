"""Colour themes, one TOML file each, from the package and from $XDG_CONFIG_HOME/vmtui/themes."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import msgspec
from textual.color import Color, ColorParseError
from textual.theme import Theme

from vmtui.host.paths import data_dir

DEFAULT = "vmtui-dark"


class ThemeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a theme file may say; colours as #rrggbb or by a CSS name."""

    name: str
    dark: bool = True
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


def read(path: Path) -> Theme:
    """Raises ValueError that says what is wrong with the file."""
    try:
        told = msgspec.convert(tomllib.loads(path.read_text()), ThemeFile)
        for field in msgspec.structs.fields(ThemeFile):
            if field.name not in ("name", "dark"):
                Color.parse(getattr(told, field.name))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, ColorParseError) as error:
        raise ValueError(f"{path}: {error}") from None
    return Theme(**msgspec.structs.asdict(told))


def available() -> tuple[list[Theme], list[str]]:
    """The themes that could be read, and for each other file what is wrong with it."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    themes, wrong = [], []
    for folder in (data_dir("themes"), config / "vmtui" / "themes"):
        for path in sorted(folder.glob("*.toml")):
            try:
                themes.append(read(path))
            except ValueError as error:
                wrong.append(str(error))
    return themes, wrong
