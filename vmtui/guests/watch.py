"""Which VMs may have changed: the files of their folders by inotify, the end of the process by pidfd."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from vmtui.core.backend import Context
from vmtui.core.resource import Kind, Ref
from vmtui.guests.run import LOG, PROCESS, RUN, identity
from vmtui.host.inotify import Watch
from vmtui.host.process import ProcessId

DEPTH = 4  # PROFILE, KIND, NAME, run


class Watcher:
    """One watch; `refs` until closed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._root = context.paths.state / "resources"
        self._watch = Watch()
        self._changed: asyncio.Queue[Ref] = asyncio.Queue()
        self._ends: dict[Ref, tuple[ProcessId, asyncio.Task[None]]] = {}

    async def refs(self) -> AsyncIterator[Ref]:
        pump = None
        try:
            self._watch.add(self._context.paths.state)
            for ref in self._look(self._root, 0):
                self._follow(ref)
            pump = asyncio.create_task(self._pump())
            while True:
                yield await self._changed.get()
        finally:
            tasks = [*([pump] if pump else []), *(task for _, task in self._ends.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._watch.close()

    async def _pump(self) -> None:
        async with contextlib.aclosing(self._watch.changes()) as changes:  # type: ignore[type-var]
            async for path in changes:
                if not path.is_relative_to(self._root) or path.name.startswith((".", LOG)):
                    continue
                depth = len(path.relative_to(self._root).parts)
                if depth < DEPTH or (depth == DEPTH and path.name == RUN):
                    found = self._look(path, depth)
                else:
                    found = self._refs(path)
                for ref in found:
                    self._follow(ref)
                    self._changed.put_nowait(ref)

    def _look(self, path: Path, depth: int) -> list[Ref]:
        """Watch a folder that is there or has come, and what is in it; the VMs of it."""
        if depth == 2 and path.name != Kind.VM:
            return []
        self._watch.add(path, writes=depth == DEPTH)  # the guest's report grows
        if depth == DEPTH:
            return self._refs(path)
        if depth == DEPTH - 1:
            return self._look(path / RUN, depth + 1)
        try:
            inside = sorted(path.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [ref for entry in inside for ref in self._look(entry, depth + 1)]

    def _refs(self, path: Path) -> list[Ref]:
        try:
            ref = Ref.parse("/".join(path.relative_to(self._root).parts[:3]))
        except ValueError:
            return []
        return [ref] if ref.kind is Kind.VM else []

    def _follow(self, ref: Ref) -> None:
        """See the end of the process even if its parent was killed and notes nothing."""
        process = identity(self._context.resource_dir(ref) / RUN / PROCESS)
        known = self._ends.get(ref)
        if process is None or (known is not None and known[0] == process):
            return
        if known is not None:
            known[1].cancel()
        self._ends[ref] = (process, asyncio.create_task(self._wait(ref, process)))

    async def _wait(self, ref: Ref, process: ProcessId) -> None:
        if process.alive:
            await process.wait()
            self._changed.put_nowait(ref)
