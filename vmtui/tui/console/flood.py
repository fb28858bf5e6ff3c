"""Many lines of text at once, as rows, without an emulator: what `cat` of a log is, mostly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from bittty.style import Style, parse_sgr_with_reset

from vmtui.tui.console.engine import Row, Run
from vmtui.tui.console.looks import look_of

TAB_CELLS = 8
SGR = re.compile(r"(\x1b\[[0-9;:]*m)")
NOT_TEXT = re.compile(r"[^\t\r\n -~]")


@dataclass(frozen=True, slots=True)
class Flood:
    """Lines of printable ASCII and colours; `bare` are the same without the colours. `rest` is after the last one."""

    lines: list[str]
    bare: list[str]
    rest: str
    tabs: bool

    @classmethod
    def of(cls, text: str, fewest: int) -> Flood | None:
        """None if there are fewer lines than that, or anything else in it."""
        body, newline, rest = text.rpartition("\r\n")
        count = body.count("\n")
        if not newline or count + 1 < fewest or not body.count("\r") == body.count("\r\n") == count:
            return None
        bare = SGR.sub("", body) if "\x1b" in body else body
        if NOT_TEXT.search(bare):
            return None
        tabs = "\t" in bare
        if tabs:
            if bare is not body:
                return None
            bare = body = body.expandtabs(TAB_CELLS)
        lines = body.split("\r\n")
        return cls(lines, lines if bare is body else bare.split("\r\n"), rest, tabs)

    @property
    def longest(self) -> int:
        return max(map(len, self.bare))

    @property
    def coloured(self) -> bool:
        return self.bare is not self.lines

    def rows(self, first: int, end: int, columns: int, style: Style) -> tuple[list[Row], Style] | None:
        """The lines from `first` to before `end` as rows, and the style of line `end`; `style` is that of line 0.

        None if a line ends with a background: it would fill what is below.
        """
        rows: list[Row] = []
        if not self.coloured:
            look = look_of(style)
            rows = [(Run(line, len(line), look),) if line else () for line in self.lines[first:end]]
        else:
            for number, line in enumerate(self.lines):
                if number == end:
                    last = style
                runs: list[Run] = []
                for part in SGR.split(line):
                    if part.startswith("\x1b"):
                        style = styled(style, part)
                    elif part:
                        runs.append(Run(part, len(part), look_of(style)))
                if style.bg is not None:
                    return None
                if first <= number < end:
                    rows.append(tuple(runs))
            style = last
        if self.longest > columns:
            rows = [piece for row in rows for piece in wrapped(row, columns)]
        return rows, style


@lru_cache(4096)
def styled(style: Style, sgr: str) -> Style:
    """A style after an SGR sequence."""
    change, reset = parse_sgr_with_reset(sgr)
    base = Style() if reset else style
    return base if change is None else base.merge(change)


def wrapped(row: Row, columns: int) -> list[Row]:
    """A row of ASCII as rows of at most so many cells."""
    if sum(run.cells for run in row) <= columns:
        return [row]
    rows: list[Row] = []
    line: list[Run] = []
    room = columns
    for text, _, look in row:
        while text:
            piece, text = text[:room], text[room:]
            line.append(Run(piece, len(piece), look))
            room -= len(piece)
            if not room:
                rows.append(tuple(line))
                line, room = [], columns
    return [*rows, tuple(line)] if line else rows
