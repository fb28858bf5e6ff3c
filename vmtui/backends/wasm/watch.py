"""Which sandboxes may have changed: the files of their folders by inotify, the end of their monitors by pidfd."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from vmtui.backends.wasm.state import PROCESS, Running, load
from vmtui.core.backend import Context
from vmtui.core.resource import Kind, Ref
from vmtui.host.inotify import Watch


class Watcher:
    """One watch; `refs` until closed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._root = context.paths.state / "resources"
        self._watch = Watch()
        self._changed: asyncio.Queue[Ref] = asyncio.Queue()
        self._waiting: dict[Ref, tuple[Running, asyncio.Task[None]]] = {}

    async def refs(self) -> AsyncIterator[Ref]:
        self._watch.add(self._context.paths.state)
        for ref in self._look(self._root, 0):
            self._follow(ref)
        pump = asyncio.create_task(self._pump())
        try:
            while True:
                yield await self._changed.get()
        finally:
            tasks = [pump, *(task for _, task in self._waiting.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._watch.close()

    async def _pump(self) -> None:
        async with contextlib.aclosing(self._watch.changes()) as changes:  # type: ignore[type-var]
            async for path in changes:
                if not path.is_relative_to(self._root) or path.name.startswith("."):
                    continue
                parts = path.relative_to(self._root).parts
                for ref in self._look(path, len(parts)) if len(parts) < 4 else self._refs(parts):
                    self._follow(ref)
                    self._changed.put_nowait(ref)

    def _look(self, path: Path, depth: int) -> list[Ref]:
        """Watch a folder that is there or has come, PROFILE, KIND or NAME by its depth; the sandboxes in it."""
        if depth == 2 and path.name != Kind.SANDBOX:
            return []
        self._watch.add(path)
        if depth == 3:
            return self._refs(path.relative_to(self._root).parts)
        try:
            inside = sorted(path.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [ref for entry in inside for ref in self._look(entry, depth + 1)]

    def _refs(self, parts: tuple[str, ...]) -> list[Ref]:
        try:
            ref = Ref.parse("/".join(parts[:3]))
        except ValueError:
            return []
        return [ref] if ref.kind is Kind.SANDBOX else []

    def _follow(self, ref: Ref) -> None:
        """See the end of its monitor, which a SIGKILL leaves no file of."""
        running = load(self._context.resource_dir(ref) / PROCESS, Running)
        known = self._waiting.get(ref)
        if running is None or (known is not None and known[0].monitor == running.monitor):
            return
        if known is not None:
            known[1].cancel()
        self._waiting[ref] = (running, asyncio.create_task(self._wait(ref, running)))

    async def _wait(self, ref: Ref, running: Running) -> None:
        if running.monitor.process.alive:
            await running.monitor.process.wait()
            self._changed.put_nowait(ref)
