"""A search through logs: counted in the background, found again slice by slice. No list of what matched is kept."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from vmtui.core.query import Query
from vmtui.core.searchable import Searchable
from vmtui.tui.logs.log import Log, Part, Sought
from vmtui.tui.logs.merge import At, Merge
from vmtui.tui.logs.tally import Tally

CACHED_SLICES = 64

Found = tuple[int, int]  # the log, and where the row starts


class Search:
    """One query over some logs. A Choice of those rows that are known to match."""

    def __init__(self, logs: Sequence[Log], query: Query, of: Callable[[Log], Searchable | None]) -> None:
        self.query = query
        self._logs = logs
        self._sought = [Sought(query, of(log)) for log in logs]
        self.tallies = [Tally(log, self._counter(log, sought)) for log, sought in zip(logs, self._sought, strict=True)]
        self._slices: dict[tuple[int, int, int], list[int]] = {}

    @staticmethod
    def _counter(log: Log, sought: Sought) -> Callable[[int, int], int]:
        return lambda begin, end: len(log.scan(begin, end, sought))

    # Counts

    @property
    def total(self) -> int:
        return sum(tally.total() for tally in self.tallies)

    @property
    def complete(self) -> bool:
        return all(tally.complete for tally in self.tallies)

    def share(self) -> float:
        return sum(tally.share() for tally in self.tallies) / len(self.tallies)

    def rank(self, at: At) -> int:
        """How many matches there are before a place, of those that are counted."""
        return sum(tally.before(place) for tally, place in zip(self.tallies, at, strict=True))

    def matches(self, log: int, start: int) -> bool:
        return self._sought[log].matches(self._logs[log].line(start))

    # The choice of rows: what is not counted yet is not there yet

    def next(self, log: int, at: int) -> int | None:
        at = self._logs[log].clamp(at)
        for part, number in self._slices_from(log, at, forwards=True, unknown=False):
            if (found := self._after(log, part, number, at)) is not None:
                return found
        return None

    def previous(self, log: int, at: int) -> int | None:
        for part, number in self._slices_from(log, at, forwards=False, unknown=False):
            if (found := self._before(log, part, number, at)) is not None:
                return found
        return None

    def _slices_from(self, log: int, at: int, *, forwards: bool, unknown: bool) -> Iterator[tuple[Part, int]]:
        parts = self._logs[log].parts()
        for part in parts if forwards else reversed(parts):
            if (at < part.end) if forwards else (at > part.begin):
                begin = max(at, part.begin) if forwards else min(at, part.end) - 1
                for number in self.tallies[log].promising(part, begin, forwards=forwards, unknown=unknown):
                    yield part, number

    def _after(self, log: int, part: Part, number: int, at: int) -> int | None:
        rows = self._rows(log, part, number)
        index = bisect_left(rows, at)
        return rows[index] if index < len(rows) else None

    def _before(self, log: int, part: Part, number: int, at: int) -> int | None:
        rows = self._rows(log, part, number)
        index = bisect_left(rows, at)
        return rows[index - 1] if index else None

    def _rows(self, log: int, part: Part, number: int) -> list[int]:
        """The matches of one slice; the last ones asked for are kept."""
        size = self._logs[log].slice_size
        begin = part.origin + number * size
        settled = begin + size + self._logs[log].slack <= part.end
        key = (log, begin, 0 if settled else part.end)
        rows = self._slices.get(key)
        if rows is None:
            rows = self._logs[log].scan(begin, begin + size, self._sought[log])
            while len(self._slices) >= CACHED_SLICES:
                del self._slices[next(iter(self._slices))]
            self._slices[key] = rows
        return rows

    # Finding, which counts on its way

    async def find(self, merge: Merge, at: At, *, forwards: bool) -> Found | None:
        """The first match at or behind a place, or the last one before it, in the order of `merge`."""
        found = [await self._find(log, place, forwards) for log, place in enumerate(at)]
        there = [(merge.logs[log].key(start), log, start) for log, start in enumerate(found) if start is not None]
        if not there:
            return None
        _, log, start = min(there) if forwards else max(there)
        return log, start

    async def _find(self, log: int, at: int, forwards: bool) -> int | None:
        tally = self.tallies[log]
        size = self._logs[log].slice_size
        at = self._logs[log].clamp(at)
        for part, number in self._slices_from(log, at, forwards=forwards, unknown=True):
            count = tally.known(part, number)
            if count is None:
                begin = part.origin + number * size
                count = await asyncio.to_thread(tally.count, begin, begin + size)
                tally.put(part, number, count)
            if count:
                of = self._after if forwards else self._before
                if (found := of(log, part, number, at)) is not None:
                    return found
        return None
