"""Keeps the model current: events of the host for what changes, a measurement for what is looked at."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from vmtui.core.errors import Fault
from vmtui.core.lifecycle import Action, allowed
from vmtui.core.policy import Verb
from vmtui.core.resource import Ref, Sample
from vmtui.tui.model import Changes, Model

if TYPE_CHECKING:
    from vmtui.engine.workspace import Workspace  # heavy: the first frame is drawn without it

GATHER_S = 0.05  # events that come together are looked at together
RESCAN_S = 30.0  # against events that were missed
RETRY_S = 5.0
AT_ONCE = 400  # more changes than this, and than a tenth of all, are cheaper to find by looking at everything
MEASURED_AT_MOST = 100

Listener = Callable[[Changes], None]


class Feed:
    """`run` until cancelled. Listeners are called on the loop after the model changed."""

    def __init__(self, workspace: Workspace, interval_s: float = 2.0) -> None:
        self.model = Model()
        self._workspace = workspace
        self._interval_s = interval_s
        self._listeners: list[Listener] = []
        self._looked_at: list[Callable[[], Collection[Ref]]] = []
        self._stale: set[Ref] = set()
        self._changed = asyncio.Event()
        self._everything = True

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call it after each change; the result ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def look_at(self, refs: Callable[[], Collection[Ref]]) -> Callable[[], None]:
        """Measure what `refs` gives, each time anew; the result ends that."""
        self._looked_at.append(refs)
        return lambda: self._looked_at.remove(refs) if refs in self._looked_at else None

    def touch(self, refs: Collection[Ref]) -> None:
        """Look at these again soon: something was done to them."""
        self._stale.update(refs)
        self._changed.set()

    def rescan(self) -> None:
        self._everything = True
        self._changed.set()

    async def run(self) -> None:
        """Raises nothing but CancelledError: what goes wrong is in `model.error`, and tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._keep_current())
            group.create_task(self._measure())

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(Fault, OSError, sqlite3.Error):
                async for ref in self._workspace.watch():
                    self._stale.add(ref)
                    self._changed.set()
            await asyncio.sleep(RETRY_S)
            self.rescan()

    async def _keep_current(self) -> None:
        while True:
            try:
                await self._look()
                self._say_error("")
                wait_s = RESCAN_S
            except (Fault, OSError, sqlite3.Error) as error:
                from vmtui.tui.faults import told

                self._say_error(str(told(error, self._workspace.store.path)))
                self._everything = True  # what was to be looked at is not known any more
                wait_s = RETRY_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
                await asyncio.sleep(GATHER_S)
            except TimeoutError:
                self._everything = True

    def _say_error(self, text: str) -> None:
        if text != self.model.error:
            self.model.error = text
            self._tell(Changes(frozenset(), structural=True))

    async def _look(self) -> None:
        stale, everything = (
            set(self._stale),
            self._everything or len(self._stale) > max(AT_ONCE, len(self.model.items) // 10),
        )
        self._changed.clear()
        self._stale.clear()
        self._everything = False
        if everything:
            self._tell(await self.model.replace(await self._workspace.scan()))
        elif stale:
            self._tell(self.model.update(await self._workspace.refresh(stale)))

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self.measure()

    async def measure(self) -> None:
        """Once, what is looked at."""
        wanted = {ref for refs in self._looked_at for ref in refs()}
        running = [ref for ref in wanted if self._measurable(ref)][:MEASURED_AT_MOST]
        if not running:
            return
        found = await asyncio.gather(*(self._workspace.stats(ref) for ref in running), return_exceptions=True)
        samples = {ref: sample for ref, sample in zip(running, found, strict=True) if isinstance(sample, Sample)}
        if samples:
            self._tell(self.model.measure(samples))

    def _measurable(self, ref: Ref) -> bool:
        item = self.model.items.get(ref)
        if item is None or not ref.kind.runs:
            return False
        if not self._workspace.may(Verb.STATS, ref):
            return False
        return Action.STATS in allowed(item.status.phase, self._workspace.roles(ref.kind, item.status.backend))

    def _tell(self, changes: Changes) -> None:
        if changes.refs or changes.structural:
            for listener in list(self._listeners):
                listener(changes)
