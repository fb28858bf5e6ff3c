"""Rows of an engine as strips."""

from __future__ import annotations

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from vmtui.tui.console.engine import Colour, Look, Row

# xterm's sixteen colours; the levels of its cube, and its greys, follow from their number.
BASIC = (
    (0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (60, 90, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229),
    (127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (110, 130, 255), (255, 0, 255), (0, 255, 255),
    (255, 255, 255),
)  # fmt: skip
CUBE = (0, 95, 135, 175, 215, 255)
MOST_STYLES = 4096


def rgb(colour: int | tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour of an index of the palette of 256."""
    if isinstance(colour, tuple):
        return colour
    if colour < 16:
        return BASIC[colour]
    if colour < 232:
        return CUBE[(colour - 16) // 36], CUBE[(colour - 16) // 6 % 6], CUBE[(colour - 16) % 6]
    return (8 + (colour - 232) * 10,) * 3


class Paints:
    """Looks as rich styles, over the colours of the widget. `native`: leave the palette to the terminal."""

    def __init__(self, base: Style, *, native: bool) -> None:
        self.base = base
        self.native = native
        self._styles: dict[Look, Style] = {}

    def __getitem__(self, look: Look) -> Style:
        style = self._styles.get(look)
        if style is None:
            if len(self._styles) >= MOST_STYLES:  # a guest can use any number of colours
                self._styles.clear()
            style = self._styles[look] = self.base + Style(
                color=self._colour(look.fg),
                bgcolor=self._colour(look.bg),
                bold=look.bold or None,
                dim=look.dim or None,
                italic=look.italic or None,
                underline=look.underline or None,
                reverse=look.reverse or None,
                strike=look.strike or None,
            )
        return style

    def _colour(self, colour: Colour) -> Color | None:
        if colour is None:
            return None
        if self.native and isinstance(colour, int):
            return Color.from_ansi(colour)
        return Color.from_rgb(*rgb(colour))

    def strip(self, row: Row, width: int) -> Strip:
        """A row cut or filled up to `width` cells."""
        segments = [Segment(run.text, self[run.look]) for run in row]
        cells = sum(run.cells for run in row)
        if cells < width:
            segments.append(Segment(" " * (width - cells), self.base))
        strip = Strip(segments, max(cells, width))
        return strip.crop(0, width) if cells > width else strip
