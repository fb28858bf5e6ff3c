"""What is drawn from ASCII alone: a filter over all that any widget draws, and keys by their names."""

from __future__ import annotations

import unicodedata

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

KEYS = str.maketrans({"⏎": "enter", "↑": "up", "↓": "down", "←": "left", "→": "right", "⌫": "backspace"})
SIGNS = dict(zip("←→↑↓…•·—✓✔✗✘⏎⌫▶▸▼▾▲▴●○◆‖", "<>^v~*.-vvXX<<>>vv^^*o+=", strict=True))


def _of_box(char: str) -> str:
    name = unicodedata.name(char)
    words = set(name.replace("-", " ").split())
    if "SHADE" in words:
        return "."
    if name.startswith("BOX"):
        ends = words & {"HORIZONTAL", "VERTICAL", "LEFT", "RIGHT", "UP", "DOWN"}
        return "-" if ends <= {"HORIZONTAL", "LEFT", "RIGHT"} else "|" if ends <= {"VERTICAL", "UP", "DOWN"} else "+"
    if "LOWER" in words or "UPPER" in words:
        return "_" if "EIGHTH" in words or "QUARTER" in words else "#"
    return "|" if ("LEFT" in words or "RIGHT" in words) and "QUADRANT" not in words else "#"


TABLE = str.maketrans({**{chr(code): _of_box(chr(code)) for code in range(0x2500, 0x25A0)}, **SIGNS})


class AsciiFilter(LineFilter):
    """Frames, bars and signs become letters of the same width; other text stays as it is."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002
        return [
            segment
            if segment.text.isascii()
            else Segment(segment.text.translate(TABLE), segment.style, segment.control)
            for segment in segments
        ]
