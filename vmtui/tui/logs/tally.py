"""How many of something there are, slice by slice, counted in a thread while the view goes on.

A count per slice of 256 KiB is all the memory that the index of a log takes: four bytes a slice, and what is asked for
inside a slice is counted again.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from vmtui.tui.logs.log import Log, Part

SLICES_AT_ONCE = 64
BATCH_S = 0.02  # of work in the thread at once
PAUSE_S = 0.0002  # the interpreter's lock is given up this long …
PAUSE_EVERY_S = 0.001  # … after this much work, so that a key does not wait for it
UNKNOWN, NONE, SOME = 0, 1, 2

Count = Callable[[int, int], int]  # in [begin, end), from any thread
Slice = tuple[Part, int]  # the part, and the number of its slice


class _Counts:
    """Of the slices of one part that cannot change any more."""

    def __init__(self) -> None:
        self.counts = array("l")
        self.states = bytearray()  # UNKNOWN, NONE or SOME: searched by C code

    def reach(self, slices: int) -> None:
        missing = slices - len(self.states)
        if missing > 0:
            self.counts.extend([0] * missing)
            self.states.extend(bytes(missing))


class Tally:
    """The counts of one log. `count` is called for a slice at a time, from a thread."""

    def __init__(self, log: Log, count: Count) -> None:
        self.log = log
        self.count = count
        self._parts: dict[int, _Counts] = {}  # by origin
        self._loose: dict[int, tuple[int, int]] = {}  # of slices that can still change: (end when counted, count)

    def _numbers(self, part: Part) -> tuple[int, int, int]:
        """Of its slices: the first, the first that can still change, and how many there are."""
        size = self.log.slice_size
        length = part.end - part.origin
        first = (part.begin - part.origin) // size
        return first, max(first, (length - self.log.slack) // size), -(-length // size)

    def known(self, part: Part, number: int) -> int | None:
        """The count of a slice."""
        if number < self._numbers(part)[1]:
            counts = self._parts.get(part.origin)
            there = counts is not None and number < len(counts.states) and counts.states[number] != UNKNOWN
            return counts.counts[number] if counts is not None and there else None
        end, found = self._loose.get(part.origin + number * self.log.slice_size, (-1, 0))
        return found if end == part.end else None

    def put(self, part: Part, number: int, count: int) -> None:
        """`part` as it was when the slice was counted."""
        begin = part.origin + number * self.log.slice_size
        if number >= self._numbers(part)[1]:
            self._loose[begin] = (part.end, count)
            return
        self._loose.pop(begin, None)
        counts = self._parts.setdefault(part.origin, _Counts())
        counts.reach(number + 1)
        counts.counts[number] = count
        counts.states[number] = SOME if count else NONE

    def unknown(self) -> Iterator[Slice]:
        """What is to be counted, newest first: that is what is looked at first."""
        for part in reversed(self.log.parts()):
            first, loose, all_ = self._numbers(part)
            for number in range(all_ - 1, loose - 1, -1):
                if self.known(part, number) is None:
                    yield part, number
            counts = self._parts.setdefault(part.origin, _Counts())
            counts.reach(loose)
            number = loose
            while (number := counts.states.rfind(UNKNOWN, first, number)) >= 0:
                yield part, number

    def promising(self, part: Part, at: int, *, forwards: bool, unknown: bool) -> Iterator[int]:
        """The slices of a part that have some, from the one with the position `at` on; with `unknown`, those too."""
        first, loose, all_ = self._numbers(part)
        number = max(first, min((at - part.origin) // self.log.slice_size, all_ - 1))
        wanted = (SOME, UNKNOWN) if unknown else (SOME,)
        while first <= number < all_:
            if number >= loose:
                found = self.known(part, number)
                if found or (unknown and found is None):
                    yield number
                number += 1 if forwards else -1
                continue
            counts = self._parts.setdefault(part.origin, _Counts())
            counts.reach(loose)
            if forwards:
                places = [place for state in wanted if (place := counts.states.find(state, number, loose)) >= 0]
                number = min(places, default=loose)
            else:
                number = max(counts.states.rfind(state, first, number + 1) for state in wanted)
            if first <= number < loose:
                yield number
                number += 1 if forwards else -1

    @property
    def complete(self) -> bool:
        return next(self.unknown(), None) is None

    def total(self) -> int:
        """Of what is counted yet."""
        return sum(self._sum(part) for part in self.log.parts())

    def share(self) -> float:
        """How much of the log is counted, 0 to 1."""
        slices = known = 0
        for part in self.log.parts():
            first, loose, all_ = self._numbers(part)
            slices += all_ - first
            known += sum(self.known(part, number) is not None for number in range(loose, all_))
            if part.origin in self._parts:
                states = self._parts[part.origin].states[first:loose]
                known += len(states) - states.count(UNKNOWN)
        return known / slices if slices else 1.0

    def before(self, at: int) -> int:
        """How many there are before a position: in whole slices what is counted, in its own by counting now."""
        total = 0
        for part in self.log.parts():
            if part.end <= at:
                total += self._sum(part)
            elif part.begin < at:
                number = (at - part.origin) // self.log.slice_size
                begin = part.origin + number * self.log.slice_size
                total += self._sum(part, number) + (self.count(begin, at) if at > begin else 0)
        return total

    def behind(self, nth: int) -> int | None:
        """The position behind the `nth` one, counted from 1; None if there are not so many. All has to be counted."""
        for part in self.log.parts():
            for number in range(self._numbers(part)[0], self._numbers(part)[2]):
                count = self.known(part, number) or 0
                if nth > count:
                    nth -= count
                    continue
                begin = part.origin + number * self.log.slice_size
                low, high = begin, min(part.end, begin + self.log.slice_size)
                while low < high:
                    middle = (low + high) // 2
                    if self.count(begin, middle) >= nth:
                        high = middle
                    else:
                        low = middle + 1
                return low
        return None

    def _sum(self, part: Part, before: int | None = None) -> int:
        """Of the slices before one; of all of them."""
        first, loose, all_ = self._numbers(part)
        end = all_ if before is None else min(before, all_)
        settled = self._parts.get(part.origin)
        total = sum(settled.counts[first : min(end, loose)]) if settled else 0
        return total + sum(self.known(part, number) or 0 for number in range(loose, end))


async def count_all(tallies: Callable[[], Sequence[Tally]], told: Callable[[], None]) -> None:
    """Count what is unknown, of the first tally first; `told` is called on the loop as it goes on."""
    while work := list(islice(_unknown(tallies()), SLICES_AT_ONCE)):
        for tally, part, number, count in await asyncio.to_thread(_count, work):
            tally.put(part, number, count)
        told()


def _unknown(tallies: Iterable[Tally]) -> Iterator[tuple[Tally, Part, int]]:
    for tally in tallies:
        for part, number in tally.unknown():
            yield tally, part, number


def _count(work: Iterable[tuple[Tally, Part, int]]) -> list[tuple[Tally, Part, int, int]]:
    done: list[tuple[Tally, Part, int, int]] = []
    began = rested = time.perf_counter()
    for tally, part, number in work:
        size = tally.log.slice_size
        begin = part.origin + number * size
        done.append((tally, part, number, tally.count(begin, begin + size)))
        now = time.perf_counter()
        if now - began > BATCH_S:
            break
        if now - rested > PAUSE_EVERY_S:
            time.sleep(PAUSE_S)
            rested = time.perf_counter()
    return done
