"""Text for people: tables, quantities, and the removal of what a terminal would obey. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

# ECMA-48: CSI sequences, the string sequences OSC DCS SOS PM APC up to their terminator, and two-character escapes.
ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x1b\\|\x07|\x9c|$)"
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
TAB = "    "

RED, GREEN, YELLOW, BLUE, DIM, BOLD = "31", "32", "33", "34", "2", "1"
Paint = Callable[[str, str], str]


def plain(text: str, _style: str) -> str:
    """The Paint of what is no terminal."""
    return text


def coloured(text: str, style: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if text and style else text


def clean(text: str) -> str:
    """One line without control characters, escape sequences and bidirectional overrides."""
    if text.isprintable():
        return text
    text = ESCAPES.sub("", text.replace("\t", TAB))
    return "".join(char if char.isprintable() else " " if char.isspace() else "" for char in text)


def clean_lines(text: str) -> list[str]:
    """The same for many lines."""
    return [clean(line) for line in ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None) -> list[str]:
    """Columns as wide as their content; each line cut to `width`. Cells are cleaned."""
    lines = [list(head), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    made = ["  ".join(cell.ljust(size) for cell, size in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [cut(line, width) for line in made]


def cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: max(0, width - 1)] + "…"


def size(count: float | None) -> str:
    """ "1.5 GiB"; "" for unknown."""
    if count is None:
        return ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def span(seconds: float) -> str:
    """ "850 ms", "12 s", "3 min", "5 h", "9 d"."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < limit:
            return f"{seconds:.1f} {unit}" if unit == "s" and seconds < 10 else f"{seconds // length:.0f} {unit}"
    return f"{seconds // 86400:.0f} d"
