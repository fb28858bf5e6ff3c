"""All resources as the panel knows them: one item each, changed in place, with a count of its changes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from vmtui.core.lifecycle import UP
from vmtui.core.resource import Ref, Sample, Status

if TYPE_CHECKING:
    from vmtui.core.searchable import Entry

HISTORY = 120  # measurements kept of what is looked at
CHUNK = 500  # items compared before others get their turn


class Load:
    """What a workload uses, over time. Rates are per second; None is unknown."""

    __slots__ = ("at", "block", "cpu", "last", "memory", "net")

    def __init__(self) -> None:
        self.last: Sample | None = None
        self.at: deque[float] = deque(maxlen=HISTORY)
        self.cpu: deque[float | None] = deque(maxlen=HISTORY)  # 1.0: one CPU
        self.memory: deque[int | None] = deque(maxlen=HISTORY)  # bytes
        self.net: deque[float | None] = deque(maxlen=HISTORY)  # bytes/s, both ways
        self.block: deque[float | None] = deque(maxlen=HISTORY)  # bytes/s, both ways

    def add(self, sample: Sample) -> None:
        """One more measurement. A counter that fell belongs to another run: it begins anew."""
        last, self.last = self.last, sample
        self.memory.append(sample.memory_bytes)
        self.at.append(sample.at)
        passed = 0.0 if last is None else sample.at - last.at
        self.cpu.append(_rate(last, sample, passed, "cpu_s"))
        self.net.append(_rate(last, sample, passed, "net_rx_bytes", "net_tx_bytes"))
        self.block.append(_rate(last, sample, passed, "block_read_bytes", "block_write_bytes"))


def _rate(last: Sample | None, now: Sample, passed: float, *names: str) -> float | None:
    if last is None or passed <= 0:
        return None
    total = None
    for name in names:
        before, after = getattr(last, name), getattr(now, name)
        if before is not None and after is not None and after >= before:
            total = (total or 0.0) + (after - before) / passed
    return total


class Item:
    """One resource. `version` grows with each change of what is shown of it."""

    __slots__ = ("_searchable", "_searchable_of", "load", "status", "version")

    def __init__(self, status: Status) -> None:
        self.status = status
        self.version = 0
        self.load: Load | None = None
        self._searchable: Entry | None = None
        self._searchable_of: Status | None = None

    def searchable(self, labels: Callable[[Ref], Mapping[str, str]]) -> Entry:
        """The form that queries look at, made when it is first asked for."""
        if self._searchable is None or self._searchable_of is not self.status:
            from vmtui.core.searchable import Entry

            self._searchable = Entry(self.status, labels(self.status.ref))
            self._searchable_of = self.status
        return self._searchable

    @property
    def ref(self) -> Ref:
        return self.status.ref


class Changes(msgspec.Struct, frozen=True):
    """What a step of the feed changed: `structural` if items came or went."""

    refs: frozenset[Ref]
    structural: bool
    measured: bool = False  # only loads changed


class Model:
    """`loaded` once the host has been looked at; `error` is why it could not be, the last time."""

    def __init__(self) -> None:
        self.items: dict[Ref, Item] = {}
        self.loaded = False
        self.error = ""

    async def replace(self, statuses: Iterable[Status]) -> Changes:
        """The whole host was scanned: what is not among `statuses` is gone."""
        seen: set[Ref] = set()
        changed: set[Ref] = set()
        structural = not self.loaded
        for number, status in enumerate(statuses):
            if number % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
            seen.add(status.ref)
            structural |= self._set(status, changed)
        if len(seen) != len(self.items):
            for ref in [ref for ref in self.items if ref not in seen]:
                del self.items[ref]
                changed.add(ref)
            structural = True
        self.loaded = True
        return Changes(frozenset(changed), structural)

    def update(self, statuses: Mapping[Ref, Status | None]) -> Changes:
        """These were looked at again; None is gone."""
        changed: set[Ref] = set()
        structural = False
        for ref, status in statuses.items():
            if status is not None:
                structural |= self._set(status, changed)
            elif self.items.pop(ref, None) is not None:
                changed.add(ref)
                structural = True
        return Changes(frozenset(changed), structural)

    def _set(self, status: Status, changed: set[Ref]) -> bool:
        item = self.items.get(status.ref)
        if item is None:
            self.items[status.ref] = Item(status)
            changed.add(status.ref)
            return True
        if item.status == status:
            return False
        item.status = status
        item.version += 1
        if status.phase not in UP:
            item.load = None
        changed.add(status.ref)
        return False

    def measure(self, samples: Mapping[Ref, Sample]) -> Changes:
        """Loads of what was looked at."""
        changed = set()
        for ref, sample in samples.items():
            item = self.items.get(ref)
            if item is not None:
                item.load = item.load or Load()
                item.load.add(sample)
                item.version += 1
                changed.add(ref)
        return Changes(frozenset(changed), structural=False, measured=True)
