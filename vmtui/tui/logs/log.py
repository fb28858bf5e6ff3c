"""What the view asks of a log. Both kinds of it, files and streams, are read by position, never by line number."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vmtui.core.backend import LogLine
from vmtui.core.query import Query
from vmtui.core.searchable import Searchable

# ECMA-48: CSI sequences, strings (OSC, DCS, SOS, PM, APC) with their terminator, two-character escapes. A string
# without its end hides nothing: only its introducer goes.
ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x9b[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]?"
)
ESCAPE = b"\x1b"
# Letters that lower() or IGNORECASE take for an ASCII one: I with a dot, i without one, the Kelvin sign, the long s.
ALIKE = tuple(letter.encode() for letter in "\u0130\u0131\u212a\u017f")


def bare(text: str) -> str:
    """Without escape sequences: what is searched and shown."""
    return ESCAPES.sub("", text) if "\x1b" in text or "\x9b" in text else text


@dataclass(frozen=True)
class Part:
    """Positions that follow one another: those of one file. Slices are counted from `origin`."""

    origin: int
    begin: int
    end: int


class Sought:
    """A query as it is asked of the lines of one resource."""

    def __init__(self, query: Query, of: Searchable | None) -> None:
        self._test: Callable[[str], bool] = query.lines(of)
        text, exact = query.needle()
        self._fold = not exact
        self._needle = text.encode("utf-8", "replace") if text.isascii() or exact else b""

    def matches(self, line: LogLine) -> bool:
        return self._test(bare(line.text))

    def hints(self, data: bytes) -> tuple[bytes, Sequence[bytes]] | None:
        """The bytes to look in, as long as `data`, and what every match has one of; None: look at every line."""
        if not self._needle:
            return None
        needles = [self._needle]
        if ESCAPE in data:
            needles.append(ESCAPE)  # it may stand in the middle of what is sought
        if not data.isascii():
            needles += [b"\xc2\x9b", *(ALIKE if self._fold else ())]
        return data.lower() if self._fold else data, needles


class Log(Protocol):
    """One resource's log. A row's position is where it starts; positions grow with time, with holes between parts."""

    name: str
    timed: bool
    slice_size: int  # what is counted at once
    slack: int  # how much behind a slice its last row can reach

    def parts(self) -> Sequence[Part]:
        """What there is, oldest first; none is empty."""
        ...

    def clamp(self, at: int) -> int:
        """`at` if something is there, else the start of the next part, else the end."""
        ...

    @property
    def end(self) -> int:
        """Behind the last row."""
        ...

    def after(self, start: int) -> int:
        """Behind the row at `start`."""
        ...

    def before(self, at: int) -> int | None:
        """The start of the row before `at`."""
        ...

    def row_from(self, at: int) -> int:
        """The start of the first row at or behind `at`; the end if there is none."""
        ...

    def line(self, start: int) -> LogLine:
        """The row at `start`."""
        ...

    def raw(self, start: int) -> bytes:
        """Its bytes, with the newline if it has one."""
        ...

    def key(self, start: int) -> float:
        """When the row was written, as far as that is known."""
        ...

    def scan(self, begin: int, end: int, sought: Sought) -> list[int]:
        """The rows that start in [begin, end), within one part, and match. From any thread."""
        ...

    def lines_in(self, begin: int, end: int) -> int:
        """How many lines end in [begin, end), within one part. From any thread."""
        ...

    def refresh(self) -> bool:
        """Look again; whether there is a change."""
        ...

    def close(self) -> None: ...
