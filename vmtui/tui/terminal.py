"""What the terminal and the locale can show, from the environment alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from vmtui.tui.themes import DEFAULT

TERMINALS_OWN = "ansi"  # the theme of the terminal's own colours
# As rich tells them, who writes the colours: anything else gets the sixteen.
MANY_COLOURS = re.compile(r"(.*-)?(256color|kitty)")
NO_COLOURS = re.compile(r"vt\d+.*|.*-m(ono)?")  # terminfo(5): Digital's terminals, and those that say so
FEW_GLYPHS = re.compile(r"linux.*|vt\d+.*")
UTF8 = re.compile(r"utf-?8", re.IGNORECASE)


class TerminalChoice(msgspec.Struct, frozen=True):
    """`theme` and `ascii` hold where the settings name none; without `colours` nothing but attributes is written."""

    theme: str
    ascii: bool
    colours: bool


def choose(environment: Mapping[str, str]) -> TerminalChoice:
    """What suits the terminal: TERM, COLORTERM, NO_COLOR, TEXTUAL_THEME, and the locale."""
    many = _many(environment)
    colours = not environment.get("NO_COLOR")  # no-color.org: set and not empty
    colours = colours and (many or NO_COLOURS.fullmatch(_term(environment)) is None)
    wanted = environment.get("TEXTUAL_THEME", "").partition(",")[0].strip()
    fits = DEFAULT if colours and many else TERMINALS_OWN
    return TerminalChoice(theme=wanted or fits, ascii=not _unicode(environment), colours=colours)


def _many(environment: Mapping[str, str]) -> bool:
    forced = environment.get("TEXTUAL_COLOR_SYSTEM", "auto")
    if forced != "auto":
        return forced in ("256", "truecolor")
    if environment.get("COLORTERM", "").strip().lower() in ("truecolor", "24bit"):
        return True
    return MANY_COLOURS.fullmatch(_term(environment)) is not None


def _term(environment: Mapping[str, str]) -> str:
    return environment.get("TERM", "").strip().lower()


def _unicode(environment: Mapping[str, str]) -> bool:
    """POSIX: the first of the three that is set and not empty says it. The console of Linux has few glyphs."""
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    locale = next((value for name in names if (value := environment.get(name))), "")
    return UTF8.search(locale) is not None and FEW_GLYPHS.fullmatch(_term(environment)) is None
