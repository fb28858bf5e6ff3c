"""A log that can only be read as a stream: its last lines are kept, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vmtui.core.backend import LogLine
from vmtui.tui.logs.log import Part, Sought

KEPT_LINES = 10_000
SLICE_LINES = 500


class StreamLog:
    """A Log of what is fed to it. Positions are line numbers; the oldest lines go a slice at a time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.timed = True
        self.slice_size = SLICE_LINES
        self.slack = 0
        self._held: tuple[int, list[LogLine]] = (0, [])  # in one piece: a thread may look at it at any time
        self._fed = False

    def feed(self, lines: Iterable[LogLine]) -> None:
        first, held = self._held
        held.extend(lines)
        self._fed = True
        extra = (len(held) - KEPT_LINES) // SLICE_LINES * SLICE_LINES
        if extra > 0:
            self._held = (first + extra, held[extra:])

    def resume(self) -> Callable[[LogLine], bool]:
        """The stream is read again: whether a line of its beginning is held already. Without times all is held anew."""
        first, held = self._held
        last = next((line.at for line in reversed(held) if line.at is not None), None)
        if last is None:
            self._held = (first + len(held), [])
            return lambda _: False
        same = {line.text for line in held[-SLICE_LINES:] if line.at == last}
        return lambda line: line.at is not None and (line.at < last or (line.at == last and line.text in same))

    @property
    def first(self) -> int:
        return self._held[0]

    @property
    def end(self) -> int:
        first, held = self._held
        return first + len(held)

    def parts(self) -> Sequence[Part]:
        first, held = self._held
        return [Part(0, first, first + len(held))] if held else []

    def clamp(self, at: int) -> int:
        return max(self.first, min(at, self.end))

    def after(self, start: int) -> int:
        return self.clamp(start + 1)

    def before(self, at: int) -> int | None:
        at = self.clamp(at)
        return at - 1 if at > self.first else None

    def row_from(self, at: int) -> int:
        return self.clamp(at)

    def line(self, start: int) -> LogLine:
        first, held = self._held
        return held[start - first] if 0 <= start - first < len(held) else LogLine(text="")

    def raw(self, start: int) -> bytes:
        return self.line(start).text.encode("utf-8", "replace") + b"\n"

    def key(self, start: int) -> float:
        return self.line(start).at or 0.0

    def scan(self, begin: int, end: int, sought: Sought) -> list[int]:
        first, held = self._held
        begin = max(begin, first)
        lines = held[begin - first : max(begin, end) - first]
        return [number for number, line in enumerate(lines, begin) if sought.matches(line)]

    def lines_in(self, begin: int, end: int) -> int:
        return max(0, min(end, self.end) - max(begin, self.first))

    def refresh(self) -> bool:
        fed, self._fed = self._fed, False
        return fed

    def close(self) -> None:
        """Nothing is held open."""
