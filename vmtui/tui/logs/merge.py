"""Several logs as one, by time. A place in it is a position in each of them; no order is ever stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from vmtui.tui.logs.log import Log

At = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the `log`th log that starts at `start`; the places before and behind it."""

    log: int
    start: int
    before: At
    after: At

    @property
    def id(self) -> tuple[int, int]:
        return self.log, self.start


class Choice(Protocol):
    """Which rows there are."""

    def next(self, log: int, at: int) -> int | None:
        """The start of the first one at or behind `at`."""
        ...

    def previous(self, log: int, at: int) -> int | None:
        """The start of the last one before `at`."""
        ...


class All:
    """The Choice of every row."""

    def __init__(self, logs: Sequence[Log]) -> None:
        self._logs = logs

    def next(self, log: int, at: int) -> int | None:
        at = self._logs[log].clamp(at)
        return at if at < self._logs[log].end else None

    def previous(self, log: int, at: int) -> int | None:
        return self._logs[log].before(at)


class Merge:
    """Rows in the order of their times; of the same time, in the order of the logs.

    Where the times of a log run backwards its rows stay in the order of the file.
    """

    def __init__(self, logs: Sequence[Log]) -> None:
        self.logs = logs
        self.choice: Choice = All(logs)

    def start(self) -> At:
        return tuple(log.clamp(0) for log in self.logs)

    def end(self) -> At:
        return tuple(log.end for log in self.logs)

    def forwards(self, at: At) -> Iterator[Row]:
        """The rows from a place on."""
        nexts = [self.choice.next(log, place) for log, place in enumerate(at)]
        while (log := self._first(nexts)) is not None:
            start = nexts[log]
            assert start is not None
            after = self.logs[log].after(start)
            behind = (*at[:log], after, *at[log + 1 :])
            yield Row(log, start, (*at[:log], start, *at[log + 1 :]), behind)
            if after <= start:
                return  # the file was cut meanwhile
            at = behind
            nexts[log] = self.choice.next(log, after)

    def backwards(self, at: At) -> Iterator[Row]:
        """The rows before a place, the nearest first."""
        previous = [self.choice.previous(log, place) for log, place in enumerate(at)]
        while (log := self._last(previous)) is not None:
            start = previous[log]
            assert start is not None
            before = (*at[:log], start, *at[log + 1 :])
            yield Row(log, start, before, (*at[:log], self.logs[log].after(start), *at[log + 1 :]))
            at = before
            previous[log] = self.choice.previous(log, start)

    def _first(self, starts: Sequence[int | None]) -> int | None:
        there = [log for log, start in enumerate(starts) if start is not None]
        if len(there) < 2:
            return there[0] if there else None
        return min(there, key=lambda log: (self._key(log, starts[log]), log))

    def _last(self, starts: Sequence[int | None]) -> int | None:
        there = [log for log, start in enumerate(starts) if start is not None]
        if len(there) < 2:
            return there[0] if there else None
        return max(there, key=lambda log: (self._key(log, starts[log]), log))

    def _key(self, log: int, start: int | None) -> float:
        return self.logs[log].key(start) if start is not None else 0.0

    def at_row(self, log: int, start: int) -> At:
        """The place before a row."""
        key = self.logs[log].key(start) if len(self.logs) > 1 else 0.0
        return tuple(
            start if other == log else self._from_time(other, key, after_equal=other < log)
            for other in range(len(self.logs))
        )

    def at_share(self, share: float) -> At:
        """The place at which that much of the longest log is before it."""
        longest = max(range(len(self.logs)), key=lambda log: length(self.logs[log]))
        wanted = int(length(self.logs[longest]) * share)
        start = self.logs[longest].row_from(position(self.logs[longest], wanted))
        return self.at_row(longest, start) if start < self.logs[longest].end else self.end()

    def share(self, at: At) -> float:
        """How much of all is before a place, 0 to 1."""
        total = sum(length(log) for log in self.logs)
        return sum(measure(log, place) for log, place in zip(self.logs, at, strict=True)) / total if total else 0.0

    def _from_time(self, log: int, key: float, *, after_equal: bool) -> int:
        """The first row of a log that is not before a time."""
        of = self.logs[log]
        low, high = 0, length(of)
        while low < high:
            middle = (low + high) // 2
            start = of.row_from(position(of, middle))
            if start >= of.end or of.key(start) > key or (of.key(start) == key and not after_equal):
                high = middle
            else:
                low = max(middle + 1, measure(of, start) + 1)
        return of.row_from(position(of, low))


def length(log: Log) -> int:
    """How much there is in a log, in its own measure."""
    return sum(part.end - part.begin for part in log.parts())


def measure(log: Log, at: int) -> int:
    """How much there is before a position."""
    return sum(min(part.end, at) - part.begin for part in log.parts() if part.begin < at)


def position(log: Log, wanted: int) -> int:
    """The position that has so much before it."""
    for part in log.parts():
        if wanted < part.end - part.begin:
            return part.begin + wanted
        wanted -= part.end - part.begin
    return log.end
