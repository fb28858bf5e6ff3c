"""A log in files: the current one and those it was rotated into, as one row of positions."""

from __future__ import annotations

import contextlib
import os
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from vmtui.core.backend import LogLine, LogSource
from vmtui.host.linefile import BLOCK_BYTES, Change, LineFile, RowReader
from vmtui.tui.logs.log import Part, Sought

APART = 1 << 44  # between the positions of two files, so that each can grow
SLICE_BYTES = 256 << 10
SLACK_BYTES = 2 * BLOCK_BYTES + 1
CACHED_LINES = 4096
TIMED_WITHIN = 20  # rows looked back at for a time
MARKS = 1024


class _Piece:
    """One file and where its positions begin."""

    def __init__(self, number: int, file: LineFile) -> None:
        self.begin = number * APART
        self.file = file
        self.rows = RowReader(file)

    @property
    def end(self) -> int:
        return self.begin + self.file.size


class FileLog:
    """A Log. Keeps the files open while they have a name, and while none has taken their place."""

    def __init__(self, name: str, source: LogSource) -> None:
        self.name = name
        self.timed = source.timed
        self.slice_size = SLICE_BYTES
        self.slack = SLACK_BYTES
        self.paths = source.paths
        self._parse = source.parse
        self._pieces: list[_Piece] = []
        self._numbers = 0
        self._lines: dict[int, LogLine] = {}
        self._keys: dict[int, float] = {}
        self._marks: list[tuple[int, float]] = []  # of a log without times: (end, when it was seen there)
        self.refresh()

    @property
    def bytes_read(self) -> int:
        return sum(piece.file.bytes_read for piece in self._pieces)

    # Files

    def refresh(self) -> bool:
        before = {piece.begin: piece.end for piece in self._pieces}
        for at, piece in enumerate(self._pieces):
            if piece.file.refresh() is Change.CUT:
                self._pieces[at] = self._next(piece.file)
        self._find()
        now = {piece.begin: piece.end for piece in self._pieces}
        if before == now:
            return False
        # Rows near what was the end of a file may be longer now; those of a file that is gone are nobody's.
        certain = {begin: end - SLACK_BYTES for begin, end in before.items() if begin in now}
        for known in (self._lines, self._keys):
            for start in [start for start in known if start >= certain.get(start // APART * APART, 0)]:
                del known[start]
        if not self.timed and self._pieces:
            newest = self._pieces[-1]
            self._marks.append((newest.end, time.time() if before else newest.file.modified_at))
            del self._marks[:-MARKS]
        return True

    def _next(self, file: LineFile) -> _Piece:
        self._numbers += 1
        return _Piece(self._numbers, file)

    def _find(self) -> None:
        """Open what has come, close what a newer file has taken the place of."""
        wanted: dict[tuple[int, int], Path] = {}
        for path in self.paths:
            with contextlib.suppress(OSError):
                there = os.stat(path)
                wanted.setdefault((there.st_dev, there.st_ino), path)
        if not wanted:
            return  # it was deleted: what is open is all there will be
        known = {piece.file.identity: piece for piece in self._pieces}
        kept = [known[identity] for identity in wanted if identity in known]
        begins = [piece.begin for piece in kept]
        if begins != sorted(begins) or [piece.file.identity for piece in kept] != list(wanted)[: len(kept)]:
            kept = []  # no rotation leads there
        for piece in self._pieces:
            if piece not in kept:
                piece.file.close()
        for path in list(wanted.values())[len(kept) :]:
            with contextlib.suppress(OSError):
                kept.append(self._next(LineFile(path)))
        self._pieces = kept

    def close(self) -> None:
        for piece in self._pieces:
            piece.file.close()

    # Positions

    def parts(self) -> Sequence[Part]:
        return [Part(piece.begin, piece.begin, piece.end) for piece in self._pieces if piece.file.size]

    def _piece(self, at: int) -> _Piece | None:
        return next((piece for piece in self._pieces if piece.begin <= at <= piece.end), None)

    @property
    def end(self) -> int:
        return self._pieces[-1].end if self._pieces else 0

    def clamp(self, at: int) -> int:
        for piece in self._pieces:
            if at < piece.end:
                return max(at, piece.begin)
        return self.end

    def after(self, start: int) -> int:
        piece = self._piece(start)
        return piece.begin + piece.rows.end_of(start - piece.begin) if piece else self.clamp(start)

    def before(self, at: int) -> int | None:
        for piece in reversed(self._pieces):
            offset = min(at, piece.end) - piece.begin
            if offset > 0:
                return piece.begin + piece.rows.start_of(offset - 1)
        return None

    def row_from(self, at: int) -> int:
        at = self.clamp(at)
        piece = self._piece(at)
        return self.clamp(piece.begin + piece.rows.first_from(at - piece.begin)) if piece else at

    # Rows

    def line(self, start: int) -> LogLine:
        line = self._lines.get(start)
        if line is None:
            line = self._read(start)
            if len(self._lines) >= CACHED_LINES:
                self._lines.clear()
            self._lines[start] = line
        return line

    def _read(self, start: int) -> LogLine:
        data = self.raw(start)
        line = self._parse(data.removesuffix(b"\n"))
        cut = not data.endswith(b"\n") and self.clamp(start + len(data)) == start + len(data) != self.end
        return msgspec.structs.replace(line, partial=True) if cut else line

    def raw(self, start: int) -> bytes:
        piece = self._piece(start)
        return piece.rows.bytes_of(start - piece.begin) if piece else b""

    def key(self, start: int) -> float:
        if not self.timed:
            at = bisect_right(self._marks, (start, float("inf")))
            return self._marks[at][1] if at < len(self._marks) else time.time()
        key = self._keys.get(start)
        if key is None:
            key = self._time_of(start)
            if len(self._keys) >= CACHED_LINES:
                self._keys.clear()
            self._keys[start] = key
        return key

    def _time_of(self, start: int) -> float:
        """Its own time, else that of one of the rows before it."""
        at: int | None = start
        for _ in range(TIMED_WITHIN):
            if at is None:
                break
            found = self.line(at).at
            if found is not None:
                return found
            at = self.before(at)
        return 0.0

    # In the background

    def scan(self, begin: int, end: int, sought: Sought) -> list[int]:
        piece = self._piece(begin)
        if piece is None:
            return []
        return [
            piece.begin + start for start in self._matching(piece.file, begin - piece.begin, end - piece.begin, sought)
        ]

    def _matching(self, file: LineFile, begin: int, end: int, sought: Sought) -> Iterator[int]:
        rows = RowReader(file)
        end = min(end, file.size)
        # All that telling rows from each other can need, read at once.
        data, base = rows.window(max(0, begin - 3 * BLOCK_BYTES), min(file.size, end + SLACK_BYTES))
        hints = sought.hints(data)
        places = _Places(*hints) if hints else None
        start = rows.first_from(begin)
        while start < end:
            if places is not None:
                place = places.first_from(start - base)
                if place < 0:
                    return
                start = max(start, rows.start_of(base + place))
                if start >= end:
                    return
            after = rows.end_of(start)
            if sought.matches(self._parse(data[start - base : after - base].removesuffix(b"\n"))):
                yield start
            start = max(start + 1, after)  # more only if the file was cut meanwhile

    def bytes_of(self, begin: int, end: int) -> bytes:
        """What lies in [begin, end), within one part. From any thread."""
        piece = self._piece(begin)
        return piece.file.read(begin - piece.begin, end - piece.begin) if piece else b""

    def lines_in(self, begin: int, end: int) -> int:
        return self.bytes_of(begin, end).count(b"\n")


class _Places:
    """Where any of some needles is, from left to right."""

    def __init__(self, data: bytes, needles: Sequence[bytes]) -> None:
        self._data = data
        self._next = {needle: data.find(needle) for needle in needles}

    def first_from(self, at: int) -> int:
        """The first place at or behind `at`, which only grows; -1 if there is none."""
        first = -1
        for needle, place in self._next.items():
            if 0 <= place < at:
                place = self._next[needle] = self._data.find(needle, at)
            if place >= 0 and (first < 0 or place < first):
                first = place
        return first
