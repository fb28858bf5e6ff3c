"""A row of a log as lines of the screen: cleaned, coloured by level, marked where it matches, wrapped."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, split_graphemes
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from vmtui.core.backend import LogLine
from vmtui.tui.logs.log import bare
from vmtui.tui.palette import Palette
from vmtui.tui.text import plain

TAB = 8
LEVEL_WITHIN = 300  # characters; a level stands at the beginning
# The first of these words says the level. klog's letter and syslog's number stand at the very beginning.
LEVEL = re.compile(
    r"^(?:<[0-4]>|(?-i:[EFW])\d{4} )"
    r"|\b(?:emerg|panic|fatal|crit(?:ical)?|err(?:or)?|warn(?:ing)?|notice|info|debug|trace)\b",
    re.IGNORECASE,
)
NO_TIMES, CLOCK, DATE = range(3)
NAME_CELLS = 24
LEAST_CELLS = 8  # left for the text, whatever stands before it

Spans = Callable[[str], Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class Look:
    """How rows are drawn. `names` is empty for one log; `spans` are the matches of a search."""

    palette: Palette
    width: int
    wrap: bool = False
    times: int = NO_TIMES
    streams: bool = False
    names: tuple[str, ...] = ()
    spans: Spans | None = field(default=None, compare=False)


def level(text: str, palette: Palette) -> Style:
    """The colour of a line by the first word in it that is a level; the word itself stays."""
    found = LEVEL.search(text, 0, LEVEL_WITHIN)
    if found is None:
        return palette.text
    word = found[0].lstrip("<").lower()
    if word[0] == "w" or word[0] == "4":
        return palette.warn
    if word.startswith(("debug", "trace")):
        return palette.dim
    return palette.text if word.startswith(("notice", "info")) else palette.bad


def strips(line: LogLine, log: int, look: Look, columns: int) -> list[Strip]:
    """One, or with `wrap` as many as it takes; without it, at least as far as `columns` cells of the text."""
    palette = look.palette
    head = _head(line, log, look)
    room = max(LEAST_CELLS, look.width - sum(cell_len(segment.text) for segment in head))
    text = bare(line.text)
    if not look.wrap:
        text = text[: 2 * (columns + room) + TAB]
    base = level(text, palette)
    body = list(_pieces(text, base, base + palette.match, look.spans))
    if line.partial:
        body.append(Segment(palette.glyphs.more, palette.dim))
    if not look.wrap:
        return [Strip([*head, *body])]
    lines = list(_wrapped(body, room))
    indent = [Segment(" " * sum(cell_len(segment.text) for segment in head))] if head else []
    return [Strip([*(indent if number else head), *segments]) for number, segments in enumerate(lines)]


def _head(line: LogLine, log: int, look: Look) -> list[Segment]:
    palette = look.palette
    head = []
    if look.times:
        head.append(Segment(f"{clock(line.at, dated=look.times == DATE)} ", palette.dim))
    if look.names:
        width = min(NAME_CELLS, max(map(len, look.names)))
        colours = (palette.accent, palette.good, palette.secondary, palette.warn, palette.text)
        name = look.names[log]
        cut = name if len(name) <= width else f"{name[: width - 1]}{palette.glyphs.more}"
        head.append(Segment(f"{cut:<{width}} ", colours[log % len(colours)]))
    if look.streams:
        head.append(Segment("2>" if line.stream == "stderr" else "  ", palette.warn))
    return head


def clock(at: float | None, *, dated: bool) -> str:
    """Local time, to the millisecond; of one width, whatever it is."""
    width = len("2026-01-31 12:00:00.000" if dated else "12:00:00.000")
    try:
        if at is None:
            return " " * width
        made = time.strftime("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "?".ljust(width)
    return f"{made}.{int(at % 1 * 1000):03d}"[:width]


def _pieces(text: str, base: Style, match: Style, spans: Spans | None) -> Iterator[Segment]:
    """The text as segments, clean, tabs in their columns."""
    at = column = 0
    for start, end in [*(spans(text) if spans else ()), (len(text), len(text))]:
        for piece, style in ((text[at:start], base), (text[start:end], match)):
            if piece:
                shown = clean(piece, column)
                column += cell_len(shown) if "\t" in text else 0
                yield Segment(shown, style)
        at = end


def clean(text: str, column: int = 0) -> str:
    """What may reach the screen, a tab as spaces to the next stop from `column` on."""
    if "\t" not in text:
        return plain(text, len(text) + 1)
    first, *others = text.split("\t")
    made = plain(first, len(first) + 1)
    for part in others:
        width = column + cell_len(made)
        made += " " * (TAB - width % TAB) + plain(part, len(part) + 1)
    return made


def _wrapped(body: Sequence[Segment], room: int) -> Iterator[list[Segment]]:
    """Lines of at most `room` cells; at least one."""
    line: list[Segment] = []
    left = room
    for text, style, _ in body:
        while text:
            fits = _fitting(text, left)
            if fits == 0 and left == room:
                fits = 1  # wider than the line: it is cut
            if fits:
                line.append(Segment(text[:fits], style))
                left -= cell_len(text[:fits])
                text = text[fits:]
            if text:
                yield line
                line, left = [], room
    yield line


def _fitting(text: str, room: int) -> int:
    """How many characters fit into so many cells; a character and what combines with it stay together."""
    if text.isascii():
        return min(len(text), room)
    used = 0
    text = text[: 8 * room + 8]
    for start, _, width in split_graphemes(text)[0]:
        used += width
        if used > room:
            return start
    return len(text)
