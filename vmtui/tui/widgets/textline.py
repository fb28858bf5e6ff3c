"""A line to type in that shows nothing but text, whatever it holds: paths, pastes and suggestions can hold anything."""

from __future__ import annotations

from rich.segment import Segment
from textual.strip import Strip
from textual.widgets import Input

from vmtui.tui.text import plain


class TextLine(Input):
    """An Input whose value stays as it is, and whose line is cleaned as it is drawn."""

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        if all(segment.text.isprintable() for segment in strip):
            return strip
        # What is replaced by a space had no width.
        cleaned = [Segment(plain(segment.text, len(segment.text)), segment.style) for segment in strip]
        return Strip(cleaned).adjust_cell_length(strip.cell_length)
