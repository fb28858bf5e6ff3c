"""bittty's cells and styles as ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from bittty.style import Color, Style
from bittty.video import Cell

from vmtui.tui.console.engine import PLAIN, Colour, Look, Row, Run
from vmtui.tui.console.glyphs import UNDRAWN, drawable

STYLE, CHAR = itemgetter(0), itemgetter(1)


def runs(cells: Iterable[Cell], *, reverse: bool = False) -> Row:
    """Cells joined where they look the same."""
    row: list[Run] = []
    for style, group in groupby(cells, STYLE):
        chars = list(map(CHAR, group))
        look = look_of(style)
        if style.conceal:
            chars = [" "] * len(chars)
        text = "".join(chars)
        if not text.isascii() and UNDRAWN.search(text):
            text = "".join(map(drawable, chars))
        if reverse:
            look = look._replace(reverse=not look.reverse)
        row.append(Run(text, len(chars), look))
    return tuple(row)


def kept(cells: Sequence[Cell]) -> Row:
    """A row as the history has it: without the blanks at its end."""
    text = "".join(map(CHAR, cells))
    begin = len(cells) - (len(text) - len(text.rstrip(" ")))
    blanks = cells[begin:]
    if blanks and blanks.count(blanks[-1]) == len(blanks) and look_of(blanks[-1][0]) == PLAIN:
        return runs(cells[:begin])
    return runs(cells)


@lru_cache(4096)
def look_of(style: Style) -> Look:
    """Blinking is not drawn."""
    return Look(
        fg=colour_of(style.fg),
        bg=colour_of(style.bg),
        bold=bool(style.bold),
        dim=bool(style.dim),
        italic=bool(style.italic),
        underline=bool(style.underline),
        reverse=bool(style.reverse),
        strike=bool(style.strike),
    )


def colour_of(colour: Color | None) -> Colour:
    return None if colour is None or colour.mode == "default" else colour.value
